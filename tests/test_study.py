from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_tuning import make_study

from gan_core.config import write_config
from gan_core.errors import UserError
from pipelines.cluster import absolute
from pipelines.evaluate import EvaluateOptions, scores_file
from pipelines.launch import configuration
from pipelines.study import GanStudy, Step, StepFailed, StudyOptions, study_command
from pipelines.tune import plan, split
from pipelines.tuning.objective import parse_requirement
from pipelines.tuning.study import load_study


def make(storage: Path, **options: object) -> GanStudy:
    words = {"variants": ("gan",), "storage": str(storage), "name": "s", "seeds": 2, **options}
    return GanStudy(StudyOptions(**words), {})  # type: ignore[arg-type]


def commands(study: GanStudy) -> list[tuple[str, bool]]:
    """The first two words of every step of gan, and whether it was done."""
    steps = [study.search("gan"), *study.trainings("gan")]
    return [(" ".join(step.words[:2]), step.done) for step in steps]


def finish_search(study: GanStudy, winner: dict[str, object] | None = None) -> None:
    """Leave behind what a finished search leaves."""
    folder = study.search_folder("gan")
    folder.mkdir(parents=True)
    searched = make_study(study.storage, equal="examples")
    (folder / "config.yaml").write_text(yaml.safe_dump(searched.to_dict()))
    (folder / "summary.json").write_text(json.dumps({"status": "finished"}))
    best = searched.trial_config(winner or {"k": 1}, "x").to_dict()
    (folder / "best.yaml").write_text(yaml.safe_dump(best))


def begin_training(study: GanStudy, seed: int) -> None:
    """Leave behind what the training of the winner with ``seed`` has when it begins."""
    name = study.run_names("gan")[seed - 1]
    words = study.train_words(study.search_folder("gan") / "best.yaml", name, seed)
    config, _ = configuration(words[1:], "train")
    config.folder.mkdir()
    write_config(absolute(config), config.folder / "config.yaml")


def begin_search(study: GanStudy) -> Path:
    """Leave behind what the search of gan has when it begins; its folder."""
    searched = plan(*split(study.search_words("gan")[1:]))
    options = dataclasses.replace(searched.options, metric="fid_classifier", gpus_per_trial=0.0)
    searched = dataclasses.replace(
        searched, run=absolute(searched.run), options=options, target="image"
    )
    searched.save()
    return searched.folder


def write_evaluation(
    study: GanStudy, run: str, split: str, fid: float, *, step: int = 9, **changes: object
) -> None:
    """Leave behind what the study's `evaluate --split SPLIT` leaves, for a generator of step 9."""
    folder = study.storage / run
    (folder / "generator" / "last").mkdir(parents=True, exist_ok=True)
    (folder / "generator" / "last" / "generator.json").write_text(json.dumps({"step": 9}))
    asked = EvaluateOptions(samples=study.options.samples, split=split, storage=str(study.storage))
    kept = {
        "step": step,
        "options": {**dataclasses.asdict(asked), **changes},
        "figures": {f"{split}/fid_classifier": fid},
        "protocol": {"classifier": f"on {split}"},
    }
    scores_file(folder, split).write_text(json.dumps(kept))


def test_steps_that_were_finished_are_passed_over(tmp_path: Path) -> None:
    study = make(tmp_path)
    assert not study.search("gan").done
    assert study.search("gan").words[:2] == ["tune", "gan"]
    finish_search(study)
    assert commands(study) == [
        ("tune --resume", True),
        ("train --config", False), ("evaluate s-gan-1", False), ("evaluate s-gan-1", False),
        ("train --config", False), ("evaluate s-gan-2", False), ("evaluate s-gan-2", False),
    ]  # fmt: skip
    run = tmp_path / "s-gan-1"
    begin_training(study, 1)
    assert commands(study)[1:3] == [("train --resume", False), ("evaluate s-gan-1", False)]
    (run / "summary.json").write_text(json.dumps({"status": "finished"}))
    write_evaluation(study, "s-gan-1", "validation", 1.0)
    assert commands(study)[1:4] == [
        ("train --resume", True), ("evaluate s-gan-1", True), ("evaluate s-gan-1", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"samples": 64}, {"extractor": "none"}, {"parzen": True}, {"step": 5}]
)
def test_an_evaluation_of_another_protocol_or_generator_is_made_again(
    tmp_path: Path, change: dict[str, object]
) -> None:
    study = make(tmp_path)
    write_evaluation(study, "s-gan-1", "test", 1.0)
    assert study.evaluation("s-gan-1", "test")["figures"] == {"test/fid_classifier": 1.0}
    write_evaluation(study, "s-gan-1", "test", 1.0, **change)
    assert study.evaluation("s-gan-1", "test") == {}


def test_a_search_that_found_nothing_ends_the_study_in_one_line(tmp_path: Path) -> None:
    study = make(tmp_path)
    with pytest.raises(UserError, match="the search of gan found no configuration"):
        list(study.trainings("gan"))


def test_the_budget_is_shared_by_the_search_and_the_training(tmp_path: Path) -> None:
    study = make(tmp_path, budget=40_000, trials=16)
    assert study.steps == 20_000
    # 16 trials to 1/27 of a trial, 5 to 3/27, 2 to 9/27 and these to the end.
    assert study.trial_steps == round(20_000 * 27 / (16 * 1 + 5 * 2 + 2 * 6 + 2 * 18))
    assert make(tmp_path, budget=40_000, trials=4).trial_steps == round(20_000 * 27 / 56)
    assert make(tmp_path, budget=1000, trials=1).trial_steps == 500, "no longer than the training"


@pytest.mark.parametrize(
    ("variant", "words", "stages"),
    [("gan", "", 1), ("lapgan", "", 3), ("lapgan", "--level 0", 1), ("srgan", "--scale 2", 2),
     ("stackgan", "", 2)],
)  # fmt: skip
def test_the_budget_is_that_of_all_stages_together(
    tmp_path: Path, variant: str, words: str, stages: int
) -> None:
    options = StudyOptions(variants=(variant,), storage=str(tmp_path), name="s", budget=6000)
    study = GanStudy(options, {variant: words.split()})
    length = study.trial_steps
    asked = study.search_words(variant)
    assert asked[asked.index("--max-steps") + 1] == str(length // stages)
    searched = plan(*split(asked[1:]))
    assert length - stages < searched.max_steps <= length
    dataclasses.replace(searched, target="image").save()
    best = searched.folder / "best.yaml"
    best.write_text(yaml.safe_dump(searched.trial_config({}, "x").to_dict()))
    trained, _ = configuration(study.train_words(best, "run", 1)[1:], "train")
    assert sum(trained.game.stage_steps) == pytest.approx(3000, abs=stages)
    assert trained.evaluate_every == pytest.approx(300, abs=1)


def test_a_length_that_is_given_is_part_of_the_budget(tmp_path: Path) -> None:
    options = StudyOptions(variants=("srgan",), storage=str(tmp_path), name="s", budget=6000)
    study = GanStudy(options, {"srgan": ["--scale", "2", "--pretrain-steps", "500"]})
    searched = plan(*split(study.search_words("srgan")[1:]))
    assert searched.max_steps == study.trial_steps
    assert searched.run.options["pretrain_steps"] == 500
    dataclasses.replace(searched, target="image").save()
    best = searched.folder / "best.yaml"
    best.write_text(yaml.safe_dump(searched.trial_config({}, "x").to_dict()))
    trained, _ = configuration(study.train_words(best, "run", 1)[1:], "train")
    assert trained.game.stage_steps == (500, 2500)
    study = GanStudy(options, {"srgan": ["--scale", "2", "--pretrain-steps", "5000"]})
    with pytest.raises(UserError, match="--budget 6000 is too little for srgan"):
        study.check()


@pytest.mark.parametrize(
    ("changes", "words", "told"),
    [
        ({"budget": 8000}, [], "a trial had .* iterations and would now have .*, by --budget"),
        ({"trials": 4}, [], "--trials was 16 and is now 4"),
        ({"data": "ring"}, ["--k", "2"], "--data was digits and is now ring"),
        ({"experiment": "other"}, ["--k", "2"], "--experiment was gan and is now other"),
        ({}, ["--k", "3"], "--k was 2 and is now 3"),
        ({}, [], "--k was 2 and is now 1"),
        ({}, ["--k", "2", "--metric", "mode_kl"], "--metric was fid_classifier and is now"),
        ({}, ["--k", "2", "--scheduler", "none"], "--scheduler was asha and is now none"),
        ({}, ["--k", "2", "--lr-d", "0.1"], "--lr-d was .* and is now 0.1"),
        ({}, ["--k", "2", "--batch-size", "100"], "--batch-size was searched and is now given"),
    ],
)
def test_a_search_of_another_command_is_not_taken_up(
    tmp_path: Path, changes: dict[str, Any], words: list[str], told: str
) -> None:
    def study(words: list[str], **changes: Any) -> GanStudy:
        options = StudyOptions(variants=("gan",), storage=str(tmp_path), name="s")
        return GanStudy(dataclasses.replace(options, **changes), {"gan": words})

    begun = study(["--k", "2"])
    folder = begin_search(begun)
    study(["--k", "2"]).check()
    study(["--k", "2"], seeds=3, samples=64).check()
    with pytest.raises(UserError, match=f"search-gan is of another study .{told}.*--name"):
        study(words, **changes).check()
    shutil.rmtree(folder)
    study(words, **changes).check()


def test_a_search_with_values_of_a_file_is_taken_up_again(tmp_path: Path) -> None:
    from pipelines.tuning.schedulers import outside_space

    file = tmp_path / "own.yaml"
    file.write_text("variant: gan\ndata: digits\nbatch_size: 48\n")
    options = StudyOptions(variants=("gan",), storage=str(tmp_path), name="s")
    study = GanStudy(options, {"gan": ["--config", str(file)]})
    kept = load_study(begin_search(study))
    assert outside_space(kept) == ["batch_size"]
    dataclasses.replace(kept, fixed=("batch_size",)).save()
    study.check()
    dataclasses.replace(kept, fixed=("batch_size", "k")).save()
    with pytest.raises(UserError, match="--k was given and is now searched"):
        study.check()


def test_a_training_of_another_command_is_not_taken_up(tmp_path: Path) -> None:
    study = make(tmp_path)
    finish_search(study)
    begin_training(study, 1)
    assert commands(study)[1] == ("train --resume", False)
    with pytest.raises(UserError, match=r"s-gan-1 is of another study \(--steps was 20000 and is"):
        commands(make(tmp_path, budget=1000))
    with pytest.raises(UserError, match=r"--workers was 1 and is now 2"):
        commands(make(tmp_path, workers=2))


def test_the_winner_is_trained_by_as_many_workers_as_divide_its_batch(tmp_path: Path) -> None:
    study = make(tmp_path, workers=3)
    finish_search(study)  # batches of 100
    words = study.train_words(study.search_folder("gan") / "best.yaml", "run", 1)
    assert words[words.index("--workers") + 1] == "2"
    assert words[words.index("--steps") + 1] == str(study.steps)


def test_a_winner_of_dear_iterations_is_trained_for_as_many_examples(tmp_path: Path) -> None:
    study = make(tmp_path, budget=3600)
    finish_search(study, {"k": 3, "batch_size": 150})  # 600 examples an iteration, not 200
    words = study.train_words(study.search_folder("gan") / "best.yaml", "run", 1)
    assert words[words.index("--steps") + 1] == "540", "1,800 by 27 / 90, as in the search"
    assert words[words.index("--evaluate-every") + 1] == "54"


def test_a_step_that_fails_stops_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path)
    with pytest.raises(StepFailed, match="evaluate nobody"):
        study.do(
            [Step(["list"], True), Step(["evaluate", "nobody", "--storage", str(tmp_path)], False)]
        )
    assert "done before: python -m pipelines list" in capsys.readouterr().out


class Interrupted:
    """A command that Ctrl-C reaches with its parent, and that then takes its time."""

    killed = False

    def __init__(self, words: list[str], **_: object) -> None:
        self.waits, self.returncode = 0, None

    def wait(self, timeout: float | None = None) -> int:
        self.waits += 1
        if self.waits < 3:  # an impatient user
            raise KeyboardInterrupt
        return 130

    communicate = wait

    def kill(self) -> None:
        Interrupted.killed = True

    def __enter__(self) -> Interrupted:
        return self

    def __exit__(self, *_: object) -> None:
        return


def test_ctrl_c_leaves_a_step_the_time_to_write_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", Interrupted)
    with pytest.raises((StepFailed, KeyboardInterrupt)) as failed:
        make(tmp_path).do([Step(["train"], False)])
    assert not Interrupted.killed
    assert getattr(failed.value, "code", None) == 130


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--variants is missing"),
        (["--variants", "gan", "--gan", "--widht 3"], "unknown option '--widht'"),
        (["--variants", "gan", "--dcgan", "--width 3"], "dcgan is not among --variants"),
        (["--variants", "gan,gan"], "--variants names a system twice"),
        (["--variants", "gan", "--gan", "--storage x"], "--storage is the same for all systems"),
        (["--variants", "gan", "--gan", "--data ring"], "--data is the same for all systems"),
        (
            ["--variants", "gan", "--gan", "--train-split train+validation"],
            "leaves nothing to choose by",
        ),
        (["--variants", "gam"], "did you mean 'gan'"),
        (["--variants", "gan", "--name", "a/b"], "--name must be a plain name"),
        (["--variants", "gan,dcgan", "--data", "ring"], "dcgan learns from image data, this"),
        (["--variants", "gan", "--gan", "--width 8"], "--gan '--width 8': --width is an option of"),
        (["--variants", "gan,srgan"], "--crop 96 is larger than the pictures"),
        (["--variants", "gan,dcgan", "--dcgan", "--mode max"], "--mode must be the same for all"),
        (
            ["--variants", "gan,dcgan", "--gan", "--require coverage_classifier>=0.5"],
            "--require must be the same for all systems, .*: gan has .*0.5.*, dcgan ",
        ),
        (["--variants", "gan", "--gan", "--trials 2"], "--trials is the same for all systems"),
        (["--variants", "gan", "--gan", "--register x"], "--register is the same for all"),
    ],
)
def test_wrong_words_are_answered_before_anything_begins(
    tmp_path: Path, words: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        study_command([*words, "--storage", str(tmp_path / "runs")])


def test_the_best_by_the_validation_split_is_crowned_and_its_test_figures_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path)
    whole = make_study(tmp_path)
    whole.save()
    (tmp_path / "search").rename(study.search_folder("gan"))
    for name, validation, test in (("s-gan-1", 3.0, 1.0), ("s-gan-2", 2.0, 4.0)):
        write_evaluation(study, name, "validation", validation)
        write_evaluation(study, name, "test", test)
    crowned = []
    monkeypatch.setattr(
        "pipelines.tuning.champion.crown",
        lambda *words, **named: crowned.append((*words, named["generator"])) or "told",
    )
    wanted = (parse_requirement("fid_classifier<=1.5"),)
    required = dataclasses.replace(whole.objective, requirements=wanted)
    with monkeypatch.context() as patch:
        patch.setattr(type(whole), "objective", required)
        refused = study.crown(study.run_names("gan"))
    assert refused.startswith("no champion: none of the winners has fid_classifier<=1.5 on the val")
    told = study.crown(study.run_names("gan"))
    assert told == "told\ns-gan-2 on the test split: fid_classifier 4"
    name, folder, objective, figures, protocol, generator = crowned[0]
    assert (name, folder.name, objective.metric) == ("digits", "s-gan-2", "fid_classifier")
    assert objective.value(figures) == 2.0, "what is held against the present champion"
    assert figures == {"fid_classifier": 2.0, "test/fid_classifier": 4.0}
    assert protocol == {"classifier": "on validation"}
    assert generator == "last"
    (tmp_path / "s-gan-2" / "generator" / "last").rename(tmp_path / "s-gan-2/generator/best")
    study.crown(study.run_names("gan"))
    assert crowned[1][-1] == "best", "the generator that `evaluate` has judged"
