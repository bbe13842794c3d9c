from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shlex
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from gan_core.config import make_config
from gan_core.errors import UserError
from gan_core.journal import Journal
from pipelines import cluster, train
from pipelines.cluster import Cluster
from pipelines.evaluate import Scores, track
from pipelines.launch import plan as plan_training
from pipelines.run_folder import append
from pipelines.tune import STOP_ON, plan, split, tune, tune_command
from pipelines.tuning.callback import _why
from pipelines.tuning.family import Family
from pipelines.tuning.halving import rungs
from pipelines.tuning.objective import (
    INFEASIBLE,
    MIXTURE_SCORE,
    WORST,
    Objective,
    make_objective,
    mixture_score,
    mode_of,
    parse_requirement,
)
from pipelines.tuning.pace import described, hasty, uneven
from pipelines.tuning.records import (
    WENT_ON,
    best_trial,
    ranked,
    read_trial,
    read_trials,
    searched_names,
)
from pipelines.tuning.results import conclude, last_words, saved_share, summarise, write_best
from pipelines.tuning.study import Study, TuneOptions, is_study, load_study
from pipelines.tuning.table import Row, Table, show_value

PERFECT = {"modes_covered": 8.0, "high_quality_share": 1.0, "smallest_mode_share": 0.125}


def make_study(storage: Path, **options: Any) -> Study:
    """A study of gan on digits, 90 iterations, judged every 10."""
    config = make_config(
        {
            "variant": "gan",
            "data": "digits",
            "storage": str(storage),
            "name": "search",
            "steps": 90,
            "evaluate_every": 10,
        }
    )
    words = {"metric": "fid_classifier", "trials": 4, "equal": "iterations", **options}
    return Study(run=config, options=TuneOptions(**words), target="image")


def write_trial(
    study: Study,
    number: int,
    curve: dict[int, float],
    *,
    status: str | None = "finished",
    modes: float = 10.0,
    summary: dict[str, Any] | None = None,
    point: dict[str, Any] | None = None,
) -> Path:
    """A trial's folder whose journal says ``curve`` (step to fid) and how it ended."""
    folder = study.folder / f"trial_{number:04d}"
    folder.mkdir(parents=True)
    config = study.trial_config(point or {"k": number}, folder.name)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    book = Journal(folder)
    book.write("start", 0, steps=90)
    for step, fid in curve.items():
        book.write("metrics", step, values={"seconds": step / 10, "loss/generator": 1.0})
        book.write("metrics", step, values={"fid_classifier": fid, "modes_covered": modes})
    if status:
        book.write("end", max(curve, default=0), status=status, summary=summary or {})
    book.close()
    return folder


# -- what is minimised -----------------------------------------------------------------------


def test_a_mixture_is_scored_three_if_perfect_and_zero_if_missed() -> None:
    assert mixture_score(PERFECT, 8) == pytest.approx(3.0)
    nothing = dict.fromkeys(PERFECT, 0.0)
    assert mixture_score(nothing, 8) == 0.0
    half = {"modes_covered": 4.0, "high_quality_share": 0.5, "smallest_mode_share": 0.0}
    assert mixture_score(half, 8) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("fid", "min"), ("fid_classifier", "min"), ("kid_mobilenet_v2", "min"), ("mode_kl", "min"),
        ("coverage_classifier", "max"), ("modes_covered", "max"), (MIXTURE_SCORE, "max"),
        ("l1", "min"), ("l1_inverse", "min"), ("cycle_l1", "min"), ("melody_distance", "min"),
        ("copied_share_classifier", "min"), ("psnr", "max"), ("ssim", "max"), ("own", "max"),
    ],
)  # fmt: skip
def test_the_direction_follows_from_the_name(metric: str, mode: str) -> None:
    assert mode_of(metric) == mode


def test_requirements_are_read_and_measured() -> None:
    needed = parse_requirement(" modes_covered >= 10 ")
    assert str(needed) == "modes_covered>=10"
    assert needed.shortfall({"modes_covered": 10.0}) == 0
    assert needed.shortfall({"modes_covered": 5.0}) == pytest.approx(0.5)
    assert needed.shortfall({}) == needed.shortfall({"modes_covered": math.nan}) > 1
    assert parse_requirement("fid<2").shortfall({"fid": 2.0}) > 0
    assert parse_requirement("fid<=2").shortfall({"fid": 2.0}) == 0


@pytest.mark.parametrize(
    "text",
    ["modes_covered", "modes_covered=10", ">=10", "fid<ten", "fid>=nan", "fid<inf", "fid>-inf"],
)
def test_a_requirement_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="modes_covered>=10"):
        parse_requirement(text)


def test_what_meets_the_requirements_beats_what_does_not_and_nearer_beats_farther() -> None:
    objective = make_objective("fid", None, ["modes_covered>=10"])
    meets = objective({"fid": 900.0, "modes_covered": 10.0})
    near = objective({"fid": 1.0, "modes_covered": 9.0})
    far = objective({"fid": 0.1, "modes_covered": 2.0})
    broken = objective({"fid": math.nan, "modes_covered": 10.0})
    assert meets == 900.0
    assert meets < INFEASIBLE < near < far < broken == WORST
    assert objective({}) == WORST


@pytest.mark.parametrize("mode", ["min", "max"])
def test_no_two_figures_are_worth_the_same_however_great(mode: str) -> None:
    objective, sign = Objective("birthday_support", mode), 1 if mode == "min" else -1
    sizes = [0.0, 1.0, 998_999.0, 999_001.0, 1e6, 1.1e6, 5e6, 1e8, 1e10]
    figures = [-size for size in sizes[:0:-1]] + sizes
    values = [sign * objective({"birthday_support": figure}) for figure in figures]
    assert values == sorted(set(values))
    assert all(abs(value) < INFEASIBLE for value in values)
    for figure in (-12.5, 0.0, 3e5):
        assert sign * objective({"birthday_support": figure}) == figure, "as it always was"


def test_what_misses_a_small_bound_by_much_is_told_from_what_misses_it_by_more() -> None:
    objective = make_objective("fid", None, ["mode_kl<=0.001"])
    misses = [0.0011, 0.01, 0.3, 0.5, 0.7, 2.0, 1e3, 1e6]
    values = [objective({"fid": 1.0, "mode_kl": kl}) for kl in misses]
    assert values == sorted(set(values))
    assert values[0] > INFEASIBLE
    assert values[-1] < WORST
    assert values[2] == pytest.approx(INFEASIBLE * 300), "as it always was"


def test_more_is_better_is_minimised_with_its_sign_turned() -> None:
    objective = Objective("coverage", "max")
    assert objective({"coverage": 0.9}) < objective({"coverage": 0.1}) < WORST
    assert objective.better(0.9, 0.1)
    assert not objective.better(0.1, 0.9)


def test_a_figure_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="fid_classifier"):
        Objective("fid_clasifier", "min").check({"fid_classifier": 1.0})
    with pytest.raises(UserError, match="modes_covered"):
        make_objective("fid", None, ["modes_cover>=1"]).check({"fid": 1.0, "modes_covered": 1.0})


# -- what the user says ----------------------------------------------------------------------


def test_the_words_of_the_search_are_taken_apart_from_those_of_the_run() -> None:
    words = ["gan", "--trials", "8", "--k", "2", "--max-steps=90", "--data", "ring"]
    assert split(words) == (
        {"trials": "8", "max_steps": "90"},
        ["gan", "--k", "2", "--data", "ring"],
    )
    for word, instead in (("--steps", "--max-steps"), ("--workers", "--workers-per-trial")):
        with pytest.raises(UserError, match=instead):
            split([word, "3"])
    with pytest.raises(UserError, match="--trials needs a value"):
        split(["gan", "--trials"])


def test_every_requirement_that_is_given_counts(tmp_path: Path) -> None:
    words = ["gan", "--data", "ring", "--require", "modes_covered>=8", "--require=mode_kl<=1"]
    own, rest = split([*words, "--storage", str(tmp_path)])
    assert rest[:3] == ["gan", "--data", "ring"]
    study = plan(own, rest)
    assert study.options.require == ("modes_covered>=8", "mode_kl<=1")
    once = plan(*split([*words[:5], "--storage", str(tmp_path)]))
    assert once.options.require == ("modes_covered>=8",)


def test_a_plan_fixes_what_was_named_and_fills_in_when_trials_are_judged(tmp_path: Path) -> None:
    own, rest = split(
        ["gan", "--data", "ring", "--k", "2", "--max-steps", "270", "--storage", str(tmp_path)]
    )
    study = plan(own, rest)
    assert study.fixed == ("k",)
    assert study.max_steps == 270
    assert (study.run.evaluate_every, study.run.checkpoint_every, study.grace) == (10, 10, 10)
    assert study.run.stop_on == STOP_ON
    assert study.run.name is not None
    assert study.run.name.startswith("tune-gan-ring")
    assert study.perturb_every == 30
    assert not list(tmp_path.glob("*")), "nothing is written before the data are checked"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gan", "--trials", "0"], "--trials must be at least 1"),
        (["gan", "--scheduler", "ashe"], "did you mean 'asha'"),
        (["gan", "--require", "modes"], "--require must be"),
        (["gam"], "did you mean 'gan'"),
        (["--data", "ring"], "tune needs a variant"),
        (["gan", "--lr", "1"], "unknown option '--lr'"),
        (["gan", "--games-per-worker", "17"], "--games-per-worker must be at most 16"),
        (
            ["gan", "--games-per-worker", "2", "--workers-per-trial", "2"],
            "--games-per-worker cannot be had with --workers-per-trial",
        ),
    ],
)
def test_wrong_words_are_answered_in_one_line(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan(*split(words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--register teams/gan", "--register 'teams/gan' is no name"),
        ("--register gan:1", "neither '/' nor ':'"),
        ("--scheduler pbt --grace 9", "--grace is asha's and has no use with --scheduler pbt"),
        ("--scheduler none --reduction 2", "--reduction is asha's"),
        ("--scheduler pbt --finalists 3", "--finalists is asha's"),
        ("--perturb-every 9", "--perturb-every is pbt's and has no use with --scheduler asha"),
        ("--scheduler pbt --search optuna", "--search optuna cannot be had with --scheduler pbt"),
        ("--max-steps 270 --grace 270", "--grace 270 leaves asha nothing to compare"),
        ("--max-steps 270 --grace 9 --evaluate-every 0", "270 iterations that is judged every 270"),
        ("--max-steps 270 --scheduler pbt --perturb-every 270", "leaves pbt no exploit"),
    ],
)
def test_options_of_the_search_that_would_do_nothing_are_refused(words: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        plan(*split(["gan", "--data", "ring", *words.split()]))


def planned(storage: Path, words: str) -> Study:
    """The study of ``tune`` with ``words``, on digits."""
    return plan(*split([*words.split(), "--data", "digits", "--storage", str(storage)]))


@pytest.mark.parametrize(
    ("words", "stages", "lengths"),
    [
        ("gan --max-steps 270", (270,), {"steps": 270}),
        ("srgan --max-steps 270", (270, 270), {"steps": 270, "pretrain_steps": 270}),
        ("srgan --max-steps 270 --pretrain-steps 30", (30, 270), {"pretrain_steps": 30}),
        ("stackgan --max-steps 270", (270, 270), {"steps": 270, "steps_2": None}),
        ("stackgan --max-steps 270 --steps-2 0", (270,), {"steps": 270, "steps_2": 0}),
        ("lapgan --max-steps 90", (90, 90, 90), {"steps": 90}),
        ("lapgan --max-steps 90 --level 1", (90,), {"steps": 90}),
        ("srgan", (1_000_000, 200_000), {"steps": 200_000, "pretrain_steps": 1_000_000}),
    ],
)
def test_every_stage_of_a_trial_is_as_long_as_asked_for_and_judged_by_all_of_them(
    tmp_path: Path, words: str, stages: tuple[int, ...], lengths: dict[str, int | None]
) -> None:
    study = planned(tmp_path, f"{words} --scale 2" if "srgan" in words else words)
    assert study.run.game.stage_steps == stages
    assert study.max_steps == sum(stages)
    assert lengths.items() <= study.run.options.items()
    assert study.run.evaluate_every == study.grace == sum(stages) // 27
    assert study.last_stage == sum(stages[:-1])


def test_trials_of_several_stages_are_compared_in_the_last_too(tmp_path: Path) -> None:
    levels = planned(tmp_path, "lapgan --max-steps 90")
    assert levels.levels == (10, 30, 90, 210), "the last level begins at 180"
    assert described(levels, (90, 90, 90)) == (
        "a trial plays 270 iterations (90 + 90 + 90 of its stages); asha compares them after "
        "10, 30, 90, 210"
    )
    assert planned(tmp_path, "gan --max-steps 270").levels == (10, 30, 90)
    assert rungs(10, 3, 270, last_stage=80) == (10, 30, 90), "it has one already"
    assert rungs(10, 3, 270, last_stage=260) == (10, 30, 90), "none so near the end"
    levels.save()
    assert load_study(levels.folder).levels == levels.levels
    kept = yaml.safe_load((levels.folder / "config.yaml").read_text())
    del kept["last_stage"]  # as an earlier version has left it
    (levels.folder / "config.yaml").write_text(yaml.safe_dump(kept))
    assert load_study(levels.folder).levels == (10, 30, 90)


def test_how_trials_are_compared_is_said(tmp_path: Path) -> None:
    def told(words: str) -> str:
        return described(planned(tmp_path, f"gan --max-steps 270 {words}"), (270,))

    assert told("").endswith("270 iterations; asha compares them after 10, 30, 90")
    assert told("--evaluate-every 20").endswith("after 20, 60, 180"), "where they are judged"
    assert told("--evaluate-every 40 --grace 10").endswith("after 40, 120")
    assert told("--evaluate-every 0").endswith("too few for asha, which plays all to their end")
    assert told("--scheduler pbt").endswith("pbt compares them every 30")
    assert told("--scheduler none") == "a trial plays 270 iterations"


def test_trials_too_short_for_equal_numbers_of_examples_are_warned_of(tmp_path: Path) -> None:
    def told(words: str) -> str | None:
        study = planned(tmp_path, f"gan {words}")
        return uneven(dataclasses.replace(study, target="image"))

    short = told("--max-steps 27")
    assert short is not None
    assert re.search(r"one of (batch_size|k) \d+.* gets \d+(\.\d)? times its share", short)
    factor = re.search(r"with (\d+) times the --max-steps", short)
    assert factor is not None
    assert told(f"--max-steps {27 * int(factor[1])}") is None
    assert told("--max-steps 27 --equal iterations") is None
    assert told("--max-steps 27 --scheduler pbt") is None
    assert told("--max-steps 27 --k 1 --batch-size 100") is None, "nothing searched makes it dear"


def test_comparisons_after_hardly_any_iterations_are_warned_of(tmp_path: Path) -> None:
    def told(words: str) -> str | None:
        return hasty(planned(tmp_path, f"gan {words}"))

    short = told("--max-steps 27")
    assert short is not None
    assert "after 1 iteration already" in short
    assert "give a larger --grace, or more --max-steps" in short
    assert "3 iterations already" in str(told("--max-steps 81"))
    assert told("--max-steps 270") is None
    assert told("--max-steps 81 --grace 12 --evaluate-every 12") is None
    assert "give a larger --perturb-every" in str(told("--max-steps 45 --scheduler pbt"))
    assert told("--max-steps 108 --scheduler pbt") is None
    assert told("--max-steps 27 --scheduler none") is None


def test_a_study_is_found_again_as_it_was(tmp_path: Path) -> None:
    study = dataclasses.replace(
        make_study(tmp_path, require=("modes_covered>=9",)),
        fixed=("latent",),
        total_steps=180,
        points=({"k": 1}, {"k": 2}),
    )
    study.save()
    assert load_study(study.folder) == study
    assert is_study(study.folder)
    folder = write_trial(study, 1, {10: 1.0})
    assert not is_study(folder)
    with pytest.raises(UserError, match="holds no search"):
        load_study(folder)
    with pytest.raises(UserError, match="search is a search: go on with"):
        plan_training(["--resume", "search", "--storage", str(tmp_path)])
    again = ["--resume", "search", "--storage", str(tmp_path)]
    for words, told in (
        (["gan", "--data", "ring"], "--data cannot change a search that goes on"),
        (["--seed=3"], "--seed cannot"),
        (["dcgan"], "dcgan cannot"),
        (["--trials", "9"], "--trials cannot"),
    ):
        with pytest.raises(UserError, match=told):
            tune_command([*words, *again])


def test_what_all_trials_stand_on_is_found_before_they_begin(tmp_path: Path) -> None:
    from pipelines.tuning.prepare import default_metric, prepare, with_metric

    ring = plan(*split(["gan", "--data", "ring", "--max-steps", "9", "--storage", str(tmp_path)]))
    ground = prepare(ring.run.to_dict())
    assert (ground.metric, ground.mode) == (MIXTURE_SCORE, "max")
    assert (ground.target, ground.modes, ground.stages) == ("point", 8, (9,))
    run = make_study(tmp_path).run
    assert default_metric(run, ["classifier"], (), 0) == ("fid_classifier", "min")
    assert default_metric(run, ["inception"], (), 0) == ("fid", "min")
    pairs = dataclasses.replace(run, variant="pix2pix")
    own = ("l1", "ssim")
    assert default_metric(pairs, [], own, 0) == ("l1", "min"), "no kid without an extractor"
    assert default_metric(pairs, ["mobilenet_v2"], own, 0) == ("kid_mobilenet_v2", "min")
    assert default_metric(pairs, ["inception"], own, 0) == ("kid", "min")
    large = dataclasses.replace(run, variant="srgan")
    assert default_metric(large, [], ("psnr", "ssim"), 0) == ("psnr", "max")
    blind = dataclasses.replace(ground, metric=None)
    assert with_metric("coverage", blind, run) == ("coverage", None)
    with pytest.raises(UserError, match="nothing can judge trials"):
        with_metric(None, blind, run)


@pytest.mark.parametrize("truth", [True, False])
def test_without_an_extractor_a_translation_is_searched_by_its_truth_or_not_at_all(
    tmp_path: Path, truth: bool
) -> None:
    from PIL import Image

    from pipelines.tuning.prepare import prepare, with_metric

    for place, folder in enumerate(("color", "black")):
        (tmp_path / folder).mkdir()
        for number in range(40):
            shade = Image.new("RGB", (16, 16), (number, 100 * place, 0))
            shade.save(tmp_path / folder / f"{number}.png")
    words = f"cyclegan --data unpaired --data-root {tmp_path} --input-folder color "
    words += "--target-folder black --image-size 16 --width 4 --blocks 1 --patch-layers 1 "
    words += f"--extractor none --max-steps 9 --storage {tmp_path / 'runs'}"
    study = plan(*split([*words.split(), *(["--truth"] if truth else [])]))
    ground = prepare(study.run.to_dict())
    if truth:
        assert with_metric(None, ground, study.run) == ("l1", "min")
        return
    with pytest.raises(UserError, match="name a --metric: cyclegan has cycle_l1, cycle_l1_inverse"):
        with_metric(None, ground, study.run)


def test_trials_of_several_stages_are_as_long_as_all_of_them(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert study.max_steps == 90
    assert dataclasses.replace(study, total_steps=180).max_steps == 180


def test_a_trial_is_the_run_with_its_point(tmp_path: Path) -> None:
    config = make_study(tmp_path).trial_config({"k": 3, "lr_d": 0.01}, "trial_0007")
    assert (config.options["k"], config.options["lr_d"]) == (3, 0.01)
    assert config.folder == tmp_path / "search" / "trial_0007"


# -- trials of as many examples ----------------------------------------------------------------

AS_MANY = {"equal": "examples"}
DEAR, CHEAP = {"k": 3, "batch_size": 150}, {"k": 1, "batch_size": 50}  # the default: 1 and 100


def test_a_trial_of_dear_iterations_has_fewer_of_them(tmp_path: Path) -> None:
    study = make_study(tmp_path, **AS_MANY)
    dear, cheap = (study.trial_config(point, "one") for point in (DEAR, CHEAP))
    assert (dear.options["steps"], dear.evaluate_every, dear.checkpoint_every) == (27, 3, 300)
    assert (cheap.options["steps"], cheap.evaluate_every, cheap.log_every) == (180, 20, 100)
    for config in (dear, cheap):  # 90 iterations of 100 + 100
        assert config.options["steps"] * config.game.examples_per_iteration == pytest.approx(
            18_000, rel=0.11
        )
    same = study.trial_config({"lr_d": 0.01}, "one")
    assert (same.options["steps"], same.evaluate_every) == (90, 10)


def test_a_trial_has_as_many_evaluations_at_any_pace_and_each_counts_as_much(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, **AS_MANY)
    for point in (DEAR, CHEAP, {"k": 5, "batch_size": 400}, {"k": 2}):
        config = study.trial_config(point, "one")
        every = config.evaluate_every
        assert config.options["steps"] == 9 * every
        told = [study.progress(number * every, every) for number in range(11)]
        assert told == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 90]


def test_iterations_are_equal_where_asked_for_and_where_k_changes_live(tmp_path: Path) -> None:
    for words in ({"equal": "iterations"}, {"equal": None, "scheduler": "pbt"}):
        config = make_study(tmp_path, **words).trial_config(DEAR, "one")
        assert (config.options["steps"], config.evaluate_every) == (90, 10)


def test_all_stages_keep_pace_and_what_is_left_out_stays_so(tmp_path: Path) -> None:
    def lengths(variant: str, names: tuple[str, ...], **options: Any) -> list[Any]:
        run = make_config(
            {"variant": variant, "data": "digits", "storage": str(tmp_path), "name": "search"}
            | {"evaluate_every": 10, **options}
        )
        study = Study(run=run, options=TuneOptions(metric="fid"), target="image")
        half = {"batch_size": 2 * int(run.options["batch_size"])}
        config = study.trial_config(half, "one")
        return [config.options[name] for name in names]

    assert lengths("srgan", ("steps", "pretrain_steps"), steps=0, pretrain_steps=40) == [0, 20]
    assert lengths("stackgan", ("steps", "steps_2"), steps=60, steps_2=30) == [30, 15]
    assert lengths("stackgan", ("steps", "steps_2"), steps=60) == [30, None]


def test_trials_of_another_pace_are_compared_by_how_far_they_are(tmp_path: Path) -> None:
    study = make_study(tmp_path, **AS_MANY)
    write_trial(study, 1, {3: 30.0, 27: 3.0}, point=DEAR)
    write_trial(study, 2, {20: 20.0}, point=CHEAP, status="stopped", summary={"reason": "behind"})
    write_trial(study, 3, {6: 10.0}, point=DEAR, status=None)
    one, two, three = read_trials(study)
    assert [(t.step, t.interval, t.progress) for t in (one, two, three)] == [
        (27, 3, 90),
        (20, 20, 10),
        (6, 3, 20),
    ]
    assert saved_share([one, two], 90) == pytest.approx(1 - 100 / 180)
    assert ranked([two, three, one]) == [one, three, two]
    path = write_best(study, one)
    config, _ = plan_training(["--config", str(path)])
    assert config is not None
    assert config.options["steps"] == 27


def test_the_help_says_what_a_requirement_is(capsys: pytest.CaptureFixture[str]) -> None:
    tune_command(["--help"])
    assert re.search(r"--require BOUND +a bound on a figure", capsys.readouterr().out)


def test_pbt_with_as_many_examples_is_refused() -> None:
    with pytest.raises(UserError, match="--equal examples"):
        plan(*split(["gan", "--scheduler", "pbt", "--equal", "examples"]))


# -- what became of trials -------------------------------------------------------------------


def test_trials_are_read_from_their_journals(tmp_path: Path) -> None:
    study = make_study(tmp_path, require=("modes_covered>=9",))
    write_trial(study, 1, {10: 30.0, 90: 3.0})
    write_trial(study, 2, {10: 20.0}, status="stopped", summary={"reason": "behind"})
    write_trial(study, 3, {10: 1.0}, status="stopped", summary={"stopped_by": "mode_collapse"})
    write_trial(study, 4, {}, status="failed", summary={"reason": "ValueError: no"})
    write_trial(study, 5, {90: 1.0}, modes=3.0)
    write_trial(study, 6, {10: 9.0, 20: 5.0}, status=None)
    one, two, three, four, five, six = read_trials(study)
    assert (one.status, one.value, one.objective, one.step) == ("finished", 3.0, 3.0, 90)
    assert [step for step, _ in one.curve] == [10, 90]
    assert one.seconds == 9.0
    assert one.point["k"] == 1
    assert (two.status, two.reason) == ("stopped", "behind")
    assert (three.verdict, three.objective) == ("mode_collapse", WORST)
    assert (four.status, four.reason, four.objective) == ("failed", "ValueError: no", WORST)
    assert five.value == 1.0
    assert not five.feasible
    assert not six.ended
    assert best_trial([two, three, four, five, six]) is None
    assert best_trial([one, two, three, four, five, six]) is one
    assert [t.name[-1] for t in ranked([four, three, two, six, five, one])][:4] == list("1562")


def test_trials_that_broke_equally_early_stand_by_what_they_had_reached(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    collapsed = {"status": "stopped", "summary": {"stopped_by": "mode_collapse"}}
    for number, reached in enumerate((30.0, 10.0, 20.0, 10.0), start=1):
        write_trial(study, number, {10: reached}, **collapsed)
    assert [trial.name[-1] for trial in ranked(read_trials(study)[::-1])] == list("2431")


def test_a_trial_that_goes_on_is_open_again(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = write_trial(study, 1, {10: 3.0}, status="stopped")
    assert read_trial(folder, study).ended
    book = Journal(folder)
    book.write("start", 10, steps=90)
    book.close()
    assert not read_trial(folder, study).ended


def test_findings_that_are_taken_back_are_gone(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = write_trial(study, 1, {10: 3.0}, status=None)
    book = Journal(folder)
    name = "diagnosis.mode_collapse"
    book.write("tag", 20, name=name, value="confirmed")
    book.write("tag", 20, name=f"{name}.evidence", value="2 of 10 classes")
    assert read_trial(folder, study).findings == {"mode_collapse": "2 of 10 classes"}
    book.write("tag", 30, name=name, value="none")
    book.close()
    assert read_trial(folder, study).findings == {}


def test_of_equally_good_trials_one_that_is_all_its_own_is_the_best(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    book = Journal(write_trial(study, 1, {90: 2.0}))
    book.write("tag", 0, name=WENT_ON, value="trial_0003 at step 30")
    book.close()
    for number, fid in ((2, 2.0), (3, 2.0), (4, 3.0)):
        write_trial(study, number, {90: fid})
    best = best_trial(read_trials(study))
    assert best is not None
    assert best.name == "trial_0002"


def test_what_a_population_plays_again_is_no_saving(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = write_trial(study, 1, {30: 5.0, 60: 4.0}, status=None)
    book = Journal(folder)
    for _ in range(2):  # set back by another's state, it plays on from there
        book.write("rewind", 20, source="trial_0002", point={})
        book.write("start", 20, steps=90)
        for step in (50, 80):
            book.write("metrics", step, values={"fid_classifier": 3.0})
    book.write("metrics", 90, values={"fid_classifier": 2.0})
    book.write("end", 90, status="finished", summary={})
    book.close()
    taken = write_trial(study, 2, {30: 5.0}, status=None)
    book = Journal(taken)
    book.write("rewind", 80, source="trial_0001", point={})
    book.write("metrics", 90, values={"fid_classifier": 2.0})
    book.write("end", 90, status="finished", summary={})
    book.close()
    trials = read_trials(study)
    assert [trial.iterations_played for trial in trials] == [60 + 60 + 60 + 10, 30 + 10]
    assert saved_share(trials, 90) == pytest.approx(1 - 230 / 180)
    assert last_words(study, trials, None, True)[0].endswith("0 failed; 28% more steps played")
    assert summarise(study, trials, None)["steps_played"] == 230


def test_what_was_saved_counts_the_steps_of_trials_that_ended(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {90: 3.0})
    write_trial(study, 2, {10: 9.0}, status="stopped", summary={"reason": "behind"})
    write_trial(study, 3, {10: 9.0}, status=None)
    trials = read_trials(study)
    assert saved_share(trials, 90) == pytest.approx(1 - 100 / 180)
    numbers = summarise(study, trials, best_trial(trials))
    assert (numbers["finished"], numbers["behind"], numbers["steps_played"]) == (1, 1, 110)
    assert numbers["best"]["value"] == 3.0
    json.dumps(numbers)


def test_the_best_configuration_is_one_that_train_takes(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {90: 3.0}, point={"k": 3, "lr_d": 0.01})
    (best,) = read_trials(study)
    path = write_best(study, best)
    config, _ = plan_training(["--config", str(path), "--seed", "5"])
    assert config is not None
    assert (config.options["k"], config.options["lr_d"], config.seed) == (3, 0.01, 5)
    assert config.options["steps"] == 90
    assert Path(config.storage) == tmp_path
    assert "fid_classifier 3" in path.read_text().splitlines()[0]


def test_what_is_searched_is_the_space_less_what_is_fixed(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert {"k", "lr_d", "latent"} <= set(searched_names(study))
    assert "k" not in searched_names(dataclasses.replace(study, fixed=("k",)))
    assert searched_names(dataclasses.replace(study, points=({"r1": 1.0},))) == ("r1",)


# -- the table -------------------------------------------------------------------------------


def test_without_a_terminal_every_trial_that_ends_is_one_line() -> None:
    out = io.StringIO()
    table = Table("fid", 3, 90, stream=out)
    table.show(Row("trial_0001", {"k": 2, "lr_d": 0.000212}))
    table.draw()
    assert out.getvalue() == ""
    table.show(Row("trial_0001", {"k": 2, "lr_d": 0.000212}, "finished", 90, 3.14159, 3.14159))
    table.show(Row("trial_0002", {"k": 1}, "failed", 10, note="ValueError: no"))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "3.142" in lines[0]
    assert "k=2 lr_d=0.000212" in lines[0]
    assert "[1/3]" in lines[0]
    assert "ValueError: no" in lines[1]


def test_without_a_terminal_a_long_silence_is_broken_by_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    table = Table("fid", 3, 90, stream=out)
    table.show(Row("trial_0001", {"k": 2}, progress=45))
    for seconds in (59.0, 60.0, 61.0, 119.0, 120.0):
        now[0] = seconds
        table.draw()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("0 of 3 trials done, 1 playing, 45 steps played")
    assert lines[0].endswith(": trial_0001 50%")


def test_values_are_short_and_decays_are_not_rounded_to_one() -> None:
    values = (0.000212345, 1.000004, 0.999, 1.0, 2, "hinge")
    assert [show_value(v) for v in values] == ["0.000212", "1.000004", "0.999", "1", "2", "hinge"]


def test_the_live_table_has_those_that_play_then_the_best_and_counts_the_rest() -> None:
    table = Table("fid", 30, 90, stream=io.StringIO())
    for number in range(20):
        table.show(Row(f"trial_{number:04d}", {"k": 1}, "finished", 90, number, -float(number)))
    table.show(Row("trial_0020", {"k": 1}, "playing", 45))
    lines = table.lines()
    assert lines[1].startswith("trial_0020")
    assert lines[2].startswith("trial_0019"), "the lowest objective"
    assert "7 more" in lines[-2]
    assert lines[-1].startswith("20 of 30 trials done, 1 playing, 1,845 steps played, 0%")


def test_where_every_trial_was_stopped_the_last_words_say_what_to_try(tmp_path: Path) -> None:
    study = make_study(tmp_path, require=("modes_covered>=10",))
    write_trial(study, 1, {10: 9.0}, status="stopped", summary={"stopped_by": "mode_collapse"})
    said = "\n".join(last_words(study, read_trials(study), None, complete=True))
    assert "no trial was played to its end and met modes_covered>=10" in said
    assert "--max-steps" in said
    assert "--stop-on divergence" in said
    write_trial(study, 2, {90: 1.0})
    trials = read_trials(study)
    assert "--stop-on" not in "\n".join(last_words(study, trials, best_trial(trials), True))


def test_a_search_does_not_write_over_one_that_took_its_name_meanwhile(tmp_path: Path) -> None:
    make_study(tmp_path).save(new=True)
    kept = load_study(make_study(tmp_path).folder)
    with pytest.raises(UserError, match="'search' was begun by another process meanwhile"):
        make_study(tmp_path, trials=99).save(new=True)
    assert load_study(kept.folder) == kept


def test_the_last_words_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    study = make_study(tmp_path / "anna's runs")
    write_trial(study, 1, {90: 1.0})
    trials = read_trials(study)
    best = best_trial(trials)
    (train,) = (line for line in last_words(study, trials, best, True) if "--seed" in line)
    assert shlex.split(train)[4:6] == ["--config", str(study.folder / "best.yaml")]
    resume = last_words(study, trials, best, False)[-1]
    assert shlex.split(resume.partition(": ")[2])[-2:] == ["--storage", study.run.storage]


def test_what_is_required_of_trials_is_told_with_the_best_or_the_nearest(tmp_path: Path) -> None:
    study = make_study(tmp_path, require=("modes_covered>=10", "fid_classifier<=100"))
    write_trial(study, 1, {90: 1.0}, modes=7.0)
    write_trial(study, 2, {90: 9.0}, modes=8.0)
    write_trial(study, 3, {30: 1.0}, modes=9.0, status="stopped", summary={"reason": "behind"})
    said = last_words(study, read_trials(study), None, complete=True)
    assert said[1] == (
        "no trial was played to its end and met modes_covered>=10, fid_classifier<=100; nearest "
        "is trial_0002: fid_classifier 9, modes_covered 8"
    )
    write_trial(study, 4, {90: 20.0}, modes=10.0)
    trials = read_trials(study)
    said = last_words(study, trials, best_trial(trials), complete=True)
    assert said[1] == "best   trial_0004: fid_classifier 20, modes_covered 10"


def test_the_best_of_a_population_says_from_whom_it_went_on(tmp_path: Path) -> None:
    study = make_study(tmp_path, scheduler="pbt")
    book = Journal(write_trial(study, 1, {90: 3.0}, status=None))
    book.write("tag", 20, name="went_on_from", value="trial_0002 at step 20")
    book.write("end", 90, status="finished", summary={})
    book.close()
    write_trial(study, 2, {90: 4.0})
    one, two = trials = read_trials(study)
    assert (one.went_on, two.went_on) == ("trial_0002 at step 20", "")
    assert "it went on from trial_0002 at step 20" in "\n".join(
        last_words(study, trials, one, True)
    )
    assert "went on" not in "\n".join(last_words(study, trials, two, True))


def test_what_came_of_a_search_is_told_before_a_slow_server_has_had_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {90: 3.0})
    study.save()
    family = Family(study, tmp_path, print)
    told: list[str] = []

    def wait(status: str) -> bool:
        told.append(capsys.readouterr().out)
        return False

    monkeypatch.setattr(family, "end", wait)
    conclude(study, family, complete=True)
    assert "finished: search, 1 trials" in told[0]
    assert "did not take everything" in capsys.readouterr().out


def test_a_search_does_not_go_on_without_its_data_or_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {10: 9.0}, status=None)
    append(study.folder / "trial_0001", "start", data="0123456789abcdef")
    study.save()
    for module, name, value in (
        (cluster, "on_this_machine", lambda: False),
        (cluster, "connected", lambda **_: nullcontext(Cluster(False, {"CPU": 2.0}, False))),
        (train, "check_data_on_cluster", lambda *_: {"fingerprint": "fedcba9876543210"}),
    ):
        monkeypatch.setattr(module, name, value)
    with pytest.raises(UserError, match=r"learned from other data.*now fedcba9876543210"):
        tune(load_study(study.folder), resume=True)

    def gone(*_: object) -> None:
        raise UserError("no folder /mnt/data")

    monkeypatch.setattr(train, "check_data_on_cluster", gone)
    with pytest.raises(UserError, match="no folder /mnt/data"):
        tune(load_study(study.folder), resume=True)
    assert not read_trials(study)[0].ended, "it can still be played"


def test_after_an_interruption_the_open_trials_are_counted_and_nothing_is_advised(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {10: 9.0}, status="stopped", summary={"stopped_by": "mode_collapse"})
    for number in (2, 3):
        write_trial(study, number, {10: 9.0}, status=None)
    said = last_words(study, read_trials(study), None, complete=False)
    assert "3 trials: 0 played to the end, 0 stopped as behind, 1 as diagnosed, 2 to be" in said[0]
    assert said[1] == "no trial was played to its end yet"
    assert "--max-steps" not in "\n".join(said), "nobody knows that yet"
    assert "--resume search" in said[-1]


def test_a_trial_that_waits_is_not_done_and_says_so() -> None:
    out = io.StringIO()
    table = Table("fid", 3, 90, stream=out)
    table.show(Row("trial_0001", {"k": 1}, "finished", 90, 1.0, 1.0))
    table.show(Row("trial_0002", {"k": 2}, "playing", 10, 2.0, 2.0))
    table.mark_waiting(["trial_0001", "trial_0002", "trial_0003"])
    said = table.lines()
    assert "finished" in said[1]
    assert "waiting" in said[2]
    assert said[-1].startswith("1 of 3 trials done, 0 playing, 1 waiting, 100 steps played, 0% of")
    table.show(Row("trial_0002", {"k": 2}, "playing", 10, 2.0, 2.0))
    assert "1 playing, 100 steps" in table.lines()[-1]
    assert len(out.getvalue().splitlines()) == 1, "a line for the trial that has ended only"


def test_a_search_from_before_an_option_goes_on_without_it(tmp_path: Path) -> None:
    from pipelines.tuning.schedulers import param_space

    words = ["pix2pix", "--data", "pairs", "--data-root", ".", "--storage", str(tmp_path)]
    study = dataclasses.replace(plan(*split(words)), target="image")
    study.save()
    config = study.folder / "config.yaml"
    values = yaml.safe_load(config.read_text())
    for name in ("r1", "diffaug"):
        del values["run"]["options"][name]
    config.write_text(yaml.safe_dump(values))
    begun_with = set(param_space(study)) - {"r1", "diffaug"}
    for _ in range(2):  # goes on, and once more
        kept = load_study(study.folder)
        assert set(param_space(kept)) == set(searched_names(kept)) == begun_with
        assert kept.fixed == study.fixed
        kept.save()


def test_what_a_system_does_not_take_as_it_is_played_is_not_searched(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipelines.tune import _with_foreign_values_fixed
    from pipelines.tuning.schedulers import first_points, study_space

    words = ["pix2pix", "--data", "pairs", "--data-root", ".", "--storage", str(tmp_path)]
    for weight, refused in (("0", {"r1", "diffaug"}), ("1", set())):
        study = plan(*split([*words, "--adversarial", weight]))
        study = _with_foreign_values_fixed(dataclasses.replace(study, target="image"))
        searched = set(study_space(study).dimensions)
        assert {"r1", "diffaug"} - searched == refused
        assert "lr_g" in searched
        assert searched == set(searched_names(study))
        assert first_points(study)
        told = "not searched, as pix2pix does not take them so: --r1, --diffaug"
        assert (told in capfd.readouterr().err) == bool(refused)


def test_values_of_a_file_that_no_search_would_draw_are_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipelines.tune import _with_foreign_values_fixed
    from pipelines.tuning.schedulers import first_points, outside_space, study_space

    file = tmp_path / "own.yaml"
    file.write_text("variant: dcgan\ndata: digits\nbatch_size: 48\nr1: 2.0\nlr_d: 1.0e-3\n")
    words = ["--config", str(file), "--storage", str(tmp_path)]
    study = dataclasses.replace(plan(*split(words)), target="image")
    assert outside_space(study) == ["batch_size", "r1"]
    fixed = _with_foreign_values_fixed(study)
    assert "no such value: --batch-size 48, --r1 2.0" in capfd.readouterr().err
    assert not {"batch_size", "r1"} & set(study_space(fixed).dimensions)
    assert "lr_d" in study_space(fixed).dimensions
    assert first_points(fixed)
    config = fixed.trial_config(first_points(fixed)[0], "trial_0001")
    assert (config.options["batch_size"], config.options["r1"]) == (48, 2.0)
    plain = plan(*split(["dcgan", "--data", "digits", "--storage", str(tmp_path)]))
    assert outside_space(dataclasses.replace(plain, target="image")) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch-size", "50", "--workers-per-trial", "4"], "50 cannot be divided by"),
        (["--device", "cpu", "--gpus-per-trial", "1"], "has no use with --device cpu"),
        (["--device", "cuda", "--gpus-per-trial", "0"], "needs --gpus-per-trial above 0"),
    ],
)
def test_what_a_trial_could_not_do_is_refused_at_once(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "a cluster")  # which may have devices that are not here
    with pytest.raises(UserError, match=told):
        plan(*split(["dcgan", "--data", "digits", *words]))


def test_a_search_without_evaluations_in_between_logs_now_and_then(tmp_path: Path) -> None:
    words = "gan --data ring --max-steps 400 --evaluate-every 0 --storage"
    run = plan(*split([*words.split(), str(tmp_path)])).run
    assert (run.evaluate_every, run.log_every) == (400, 50)


def test_trials_use_what_was_prepared_for_all(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert study.trial_config({}, "trial_0001").cache_folder == study.run.cache_folder
    own = dataclasses.replace(study, run=dataclasses.replace(study.run, cache=str(tmp_path / "c")))
    assert own.trial_config({}, "trial_0001").cache_folder == tmp_path / "c"
    write_trial(study, 1, {90: 1.0})
    best = best_trial(read_trials(study))
    assert best is not None
    assert yaml.safe_load(write_best(study, best).read_text())["cache"] is None


@pytest.mark.parametrize("split_name", ["test/", "validation/", "evaluate/"])
def test_who_evaluates_a_trial_does_not_change_what_the_search_has_found(
    tmp_path: Path, split_name: str
) -> None:
    study = make_study(tmp_path)
    folder = write_trial(study, 1, {10: 9.0, 90: 2.0})
    before = read_trial(folder, study)
    scores = Scores({f"{split_name}fid_classifier": 1.0}, {"classifier": "of others"})
    track(folder, scores, 40, "test")
    assert "of others" in (folder / "journal.jsonl").read_text()
    assert read_trial(folder, study) == before
    assert before.figures["fid_classifier"] == before.objective == 2.0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            "Failure # 1 (occurred at 2026-11-29_23-19-26)\nray::trial() (pid=1)\n"
            "Traceback (most recent call last):\n  File 'x'\nUserError: unknown variant\n",
            "UserError: unknown variant",
        ),
        (
            "Failure # 1 (occurred at 2026-11-29_23-19-26)\nThe actor died unexpectedly.\n\tpid: 3",
            "The actor died unexpectedly.",
        ),
        ("lost", "lost"),
        ("Failure # 1", "Failure # 1"),
    ],
)
def test_why_a_trial_has_failed_is_told_and_not_when(error: str, told: str) -> None:
    assert _why(error) == told
