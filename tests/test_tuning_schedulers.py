from __future__ import annotations

import dataclasses
import inspect
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from test_tuning import make_study, write_trial

from gan_core import journal
from gan_core.errors import UserError
from gan_core.pictures import save_png
from pipelines.cluster import Cluster
from pipelines.tuning import driver, schedulers
from pipelines.tuning.driver import SearchBoard, _in_other_words, resources, room
from pipelines.tuning.importance import MINIMUM, importances, mean_ranks
from pipelines.tuning.objective import WORST
from pipelines.tuning.records import read_trials
from pipelines.tuning.report import render
from pipelines.tuning.table import Table
from tune_spaces import Dimension, SearchSpace, Setting

SMALL = Cluster(own=True, resources={"CPU": 2.0}, autoscaling=False)


def decide(scheduler: Any, results: list[tuple[int, int, float]]) -> list[str]:
    """What ``scheduler`` decides about (trial, step, objective), one after the other."""
    trials: dict[int, Any] = {}
    decisions = []
    for number, step, objective in results:
        if number not in trials:
            trials[number] = SimpleNamespace(trial_id=str(number), stopper=None)
            scheduler.on_trial_add(None, trials[number])
        result = {"step": step, "objective": objective, "training_iteration": 1}
        decisions.append(scheduler.on_trial_result(None, trials[number], result))
    return decisions


def test_without_a_scheduler_nothing_is_stopped(tmp_path: Path) -> None:
    scheduler = schedulers.make_scheduler(make_study(tmp_path, scheduler="none"), 2)
    decisions = decide(scheduler, [(n, 10, float(n)) for n in range(5)])
    assert set(decisions) == {TrialScheduler.CONTINUE}


def test_pbt_changes_numbers_of_the_schedule_and_nothing_of_the_networks(tmp_path: Path) -> None:
    found = schedulers.mutations(make_study(tmp_path, scheduler="pbt"))
    assert {"k", "lr_d", "lr_g", "beta1", "r1", "dropout"} <= set(found)
    assert {"latent", "optimizer", "prior", "loss"}.isdisjoint(found)
    assert found["k"] == [1, 2, 3, 5], "a list: neighbours, not multiples"


@pytest.mark.parametrize(
    ("step", "ended", "exploits"), [(60, False, True), (60, True, False), (90, False, False)]
)
def test_pbt_gives_no_new_settings_to_a_trial_that_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, ended: bool, exploits: bool
) -> None:
    study = make_study(tmp_path, scheduler="pbt", perturb_every=30)  # 90 iterations
    scheduler = schedulers.make_scheduler(study, 2)
    exploited: list[tuple[str, str]] = []
    monkeypatch.setattr(
        scheduler, "_exploit", lambda _, bad, good: exploited.append((bad.name, good.name))
    )
    trials = [FakeTrial(name, schedulers.first_points(study)[0]) for name in ("good", "bad")]
    controller = SimpleNamespace(
        search_alg=None,
        get_trials=lambda: trials,
        _schedule_trial_save=lambda trial, result: "a checkpoint",
    )
    decisions = []
    for trial, objective in zip(trials, (1.0, 2.0), strict=True):
        scheduler.on_trial_add(controller, trial)
        scheduler.on_trial_result(controller, trial, {"step": 30, "objective": objective})
    exploited.clear()
    for trial, objective in zip(trials, (1.0, 2.0), strict=True):
        last = {"ended": True} if ended else {}
        result = {"step": step, "objective": objective, **last}
        decisions.append(scheduler.on_trial_result(controller, trial, result))
    assert exploited == ([("bad", "good")] if exploits else [])
    assert decisions == [TrialScheduler.CONTINUE] * 2


@pytest.mark.parametrize(
    ("objectives", "failed", "exploited"),
    [
        ((1.0, 2.0, 3.0, 4.0), 3, True),
        ((1.0, 2.0, WORST, 4.0), 3, True),  # not the only one
        ((WORST, WORST, WORST, 4.0), 3, False),  # nobody is better
        ((None, None, None, 4.0), 3, False),  # none has been compared yet
        ((2.0, 4.0, 3.0, 1.0), 3, True),  # the one that has failed was the best itself
    ],
)
def test_a_member_of_a_population_that_has_failed_goes_on_from_the_best_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objectives: tuple[float | None, ...],
    failed: int,
    exploited: bool,
) -> None:
    study = make_study(tmp_path, scheduler="pbt", perturb_every=30)
    scheduler = schedulers.make_scheduler(study, 4)
    pairs: list[tuple[str, str]] = []

    def exploit(_: Any, bad: FakeTrial, good: FakeTrial) -> None:
        pairs.append((bad.name, good.name))
        bad.status = "PAUSED"

    monkeypatch.setattr(scheduler, "_exploit", exploit)
    point = schedulers.first_points(study)[0]
    trials = [FakeTrial(str(number), point) for number in range(len(objectives))]
    controller = SimpleNamespace(
        search_alg=None,
        get_trials=lambda: trials,
        _schedule_trial_save=lambda trial, result: "a checkpoint",
    )
    for trial, objective in zip(trials, objectives, strict=True):
        scheduler.on_trial_add(controller, trial)
        if objective is not None:
            scheduler.on_trial_result(controller, trial, {"step": 30, "objective": objective})
            trial.status = "RUNNING"
    pairs.clear()
    last = {"step": 40, "objective": WORST, "diagnosed": True}
    decision = scheduler.on_trial_result(controller, trials[failed], last)
    assert pairs == ([("3", "0")] if exploited else [])
    assert decision == (TrialScheduler.NOOP if exploited else TrialScheduler.CONTINUE)


def test_a_trial_with_anothers_state_waits_until_that_has_played_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, scheduler="pbt", perturb_every=30)
    scheduler = schedulers.make_scheduler(study, 1)
    monkeypatch.setattr(scheduler, "_log_config", False)
    point = schedulers.first_points(study)[0]
    trials = [FakeTrial(name, point) for name in ("worst", "middle", "best")]
    monkeypatch.setattr(
        scheduler, "_get_new_config", lambda trial, source: (dict(source.config), {})
    )

    def pause(trial: FakeTrial, should_checkpoint: bool) -> None:
        trial.status = trial.PAUSED

    controller = SimpleNamespace(
        search_alg=None,
        get_trials=lambda: trials,
        pause_trial=pause,
        _schedule_trial_save=lambda trial, result: "a checkpoint",
    )
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
        trial.status = trial.PENDING
    objectives, places, played = {"worst": 3.0, "middle": 2.0, "best": 1.0}, {}, []
    for _ in range(7):
        trial = scheduler.choose_trial_to_run(controller)
        places[trial.name] = scheduler._trial_state[trial].last_train_time + 30
        played.append((trial.name, places[trial.name]))
        trial.status = "RUNNING"
        result = {"step": places[trial.name], "objective": objectives[trial.name]}
        decision = scheduler.on_trial_result(controller, trial, result)
        if decision == TrialScheduler.PAUSE:
            trial.status = trial.PAUSED
    assert played[:3] == [("worst", 30), ("middle", 30), ("best", 30)]
    # The worst gets the state that the best had after 30, and plays from there after the best.
    assert played[3:] == [("worst", 60), ("middle", 60), ("best", 60), ("worst", 60)]


class FakeTrial:
    """What population-based training knows of a trial."""

    PENDING, PAUSED = Trial.PENDING, Trial.PAUSED

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        checkpoints = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        self.name = self.experiment_tag = self.trial_id = name
        self.config, self.evaluated_params = dict(config), {}
        self.status, self.checkpoint = "RUNNING", "its last"
        self.run_metadata = SimpleNamespace(checkpoint_manager=checkpoints)

    def is_finished(self) -> bool:
        return False

    def set_experiment_tag(self, tag: str) -> None:
        self.experiment_tag = tag

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config


def test_what_pbt_multiplies_is_brought_back_into_its_range(tmp_path: Path) -> None:
    space = schedulers.study_space(make_study(tmp_path))
    low, high = (getattr(space.domains()["lr_d"], name) for name in ("lower", "upper"))
    clip = schedulers.clipped(space)
    assert clip({"lr_d": 9.0, "lr_g": 0.0, "k": 2}) == {"lr_d": high, "lr_g": low, "k": 2}
    assert clip({"lr_d": 0.001, "lr_g": 0.01, "k": 2})["lr_d"] == 0.001


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_the_papers_settings_are_tried_first_then_others_by_the_seed(
    tmp_path: Path, search: str
) -> None:
    def points(seed: int) -> list[dict[str, Any]]:
        study = make_study(tmp_path, search=search)
        study = dataclasses.replace(study, run=dataclasses.replace(study.run, seed=seed))
        searcher = schedulers.make_searcher(study, concurrent=4)
        if search == "random":
            searcher.add_configurations(_experiment(schedulers.param_space(study), tmp_path))
            searcher.room = 4
            return [searcher.next_trial().config for _ in range(4)]
        searcher.set_search_properties("objective", "min", schedulers.param_space(study))
        searcher.room = 4
        return [searcher.suggest(str(number)) for number in range(4)]

    first, again, other = points(0), points(0), points(1)
    wanted = schedulers.first_points(make_study(tmp_path))
    assert first[: len(wanted)] == wanted
    assert first == again
    assert first[len(wanted) :] != other[len(wanted) :]


def test_more_papers_settings_than_trials_make_no_more_trials(tmp_path: Path) -> None:
    study = make_study(tmp_path, search="random", trials=1)
    assert len(schedulers.study_space(study).first_points(study.run.options)) > 1
    searcher = schedulers.make_searcher(study, concurrent=4)
    searcher.add_configurations(_experiment(schedulers.param_space(study), tmp_path, trials=1))
    assert searcher.next_trial().config == schedulers.first_points(study)[0]
    assert searcher.next_trial() is None


def _experiment(space: dict[str, Any], storage: Path, trials: int = 4) -> list[Any]:
    from ray.tune.experiment import Experiment

    def nothing(config: dict[str, Any]) -> None:
        return None

    return [
        Experiment("test", nothing, config=space, num_samples=trials, storage_path=str(storage))
    ]


def test_a_list_of_points_makes_a_space_around_them(tmp_path: Path) -> None:
    points = tuple({"k": n % 2, "lr_d": 10.0 ** -(1 + n / 4)} for n in range(12))
    study = dataclasses.replace(make_study(tmp_path), points=points)
    assert schedulers.first_points(study) == list(points)
    for name, domain in schedulers.param_space(study).items():
        assert all(domain.is_valid(point[name]) for point in points)


# -- room ------------------------------------------------------------------------------------


def test_as_many_trials_play_as_there_is_room_for(tmp_path: Path) -> None:
    assert room(make_study(tmp_path), SMALL) == 2
    assert room(make_study(tmp_path, cpus_per_trial=0.25, trials=16), SMALL) == 8
    assert room(make_study(tmp_path, workers_per_trial=2), SMALL) == 1
    assert room(make_study(tmp_path, concurrent=1), SMALL) == 1
    gpus = Cluster(own=False, resources={"CPU": 64.0, "GPU": 2.0}, autoscaling=False)
    assert room(make_study(tmp_path, gpus_per_trial=0.25, trials=99), gpus) == 8
    shared = {"gpus_per_trial": 1.0, "games_per_worker": 8}
    assert room(make_study(tmp_path, trials=99, **shared), gpus) == 16
    assert room(make_study(tmp_path, trials=99, concurrent=3, **shared), gpus) == 3


def test_trials_for_which_there_is_never_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this machine has 2: choose less by --workers-per-trial"):
        room(make_study(tmp_path, workers_per_trial=3), SMALL)
    with pytest.raises(UserError, match="1 GPUs and this machine has 0"):
        room(make_study(tmp_path, gpus_per_trial=1.0), SMALL)
    with pytest.raises(UserError, match="a worker of trials needs 4 CPUs"):
        room(make_study(tmp_path, cpus_per_trial=4.0, games_per_worker=2), SMALL)


def test_a_trial_of_several_workers_takes_no_cpu_for_its_driver(tmp_path: Path) -> None:
    study = make_study(tmp_path, workers_per_trial=2)
    for concurrent in (1, 3, 7, 15):
        (share,) = resources(study, concurrent).values()
        assert int(1 / share) == concurrent, "as many as there are workers for, no more"
        left = 1 - share * concurrent
        assert left > 0.002 * concurrent, "Ray Train has to find room there for its own"
    assert resources(study, 40) == {"node:__internal_head__": 0.001}
    assert resources(make_study(tmp_path, cpus_per_trial=0.5), 2) == {"CPU": 0.5, "GPU": 0.0}


def test_no_more_trials_share_workers_than_these_have_places(tmp_path: Path) -> None:
    study = make_study(tmp_path, games_per_worker=8)
    for concurrent in range(1, 101):
        (share,) = resources(study, concurrent).values()
        ten_thousandths = round(1e4 * share)
        assert ten_thousandths == pytest.approx(1e4 * share), "so Ray counts"
        assert 10_000 // ten_thousandths == concurrent


# -- what is noted of trials -----------------------------------------------------------------


def test_a_trial_that_the_scheduler_stops_is_ended_in_its_journal_and_others_are_left(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {10: 9.0}, status=None)
    write_trial(study, 2, {90: 3.0})
    board = SearchBoard(study, Table("fid", 2, 90))
    board.ended("trial_0001")
    board.ended("trial_0002")
    one, two = read_trials(study)
    said = [e for e, _ in journal.read(one.folder / journal.FILE) if e["kind"] == "tag"]
    assert [(e["name"], e["value"]) for e in said] == [("stopped_by", "behind")]
    assert (one.status, one.reason) == ("stopped", "behind")
    assert (two.status, two.reason) == ("finished", "")
    assert [row.state for row in board.table.rows.values()] == ["behind", "finished"]


def test_a_trial_that_is_stopped_by_its_diagnosis_is_not_called_behind(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = write_trial(study, 1, {10: 9.0}, status=None)
    book = journal.Journal(folder)
    book.write("tag", 10, name="stopped_by", value="mode_collapse")
    book.close()
    SearchBoard(study, Table("fid", 1, 90)).ended("trial_0001")
    (trial,) = read_trials(study)
    assert (trial.status, trial.verdict, trial.objective) == ("stopped", "mode_collapse", WORST)
    said = [e["value"] for e, _ in journal.read(folder / journal.FILE) if e["kind"] == "tag"]
    assert said == ["mode_collapse"]


def test_of_an_interrupted_search_ray_does_not_tell_its_own_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, said = logging.getLogger("ray.tune.tune"), list[str]()
    log.addHandler(caplog.handler)
    try:
        with _in_other_words(said.append):
            log.warning("Stop signal received (e.g. via SIGINT/Ctrl+C), ending Ray Tune run. ")
            log.error("Trials did not complete: %s", ["trial_484b556f"])
            log.error("something else")
    finally:
        log.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"something else"}
    (line,) = said
    assert line.startswith("stopping: what was saved is kept (Ctrl-C again")
    import ray.tune.tune

    assert ray.tune.tune.logger is log
    for words in ("Trials did not complete", '"Stop signal received'):
        assert words in inspect.getsource(ray.tune.tune)


def test_a_trial_that_memory_has_ended_is_lost_and_not_the_search() -> None:
    manager: Any = RayActorManager(resource_manager=SimpleNamespace())  # type: ignore[arg-type]
    told: list[Exception] = []
    actor = SimpleNamespace(actor_id="a", _on_error=lambda actor, error: told.append(error))
    task: Any = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager._cleanup_actor = lambda tracked_actor: None
    with driver._memory_takes_trials_alone():
        manager._actor_task_failed(task, OutOfMemoryError("low on memory\nand much more"))
        with pytest.raises(RuntimeError, match="Caught unexpected"):
            manager._actor_task_failed(task, ValueError("anything else"))
    (error,) = told
    assert isinstance(error, RayActorError)
    assert "low on memory" in str(error)
    assert "much more" not in str(error)
    with pytest.raises(RuntimeError, match="Caught unexpected"):
        manager._actor_task_failed(task, OutOfMemoryError("as before"))


def test_a_search_that_goes_on_says_nothing_of_optuna(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna import logging as its

    study = make_study(tmp_path)
    its.set_verbosity(its.INFO)
    monkeypatch.setattr(driver, "_restorable", lambda folder: True)
    monkeypatch.setattr(driver.Tuner, "restore", lambda *_, **__: its.get_verbosity())
    assert driver._restored(study, 1, ()) == its.WARNING


# -- what mattered, and the report -----------------------------------------------------------


def many_trials(study: Any, count: int = 30) -> None:
    """Trials whose result depends on lr_d alone."""
    random, space = np.random.RandomState(0), schedulers.study_space(study)
    for number in range(1, count + 1):
        point = {n: d.sample(random_state=random) for n, d in space.domains().items()}
        curve = {10: 50.0, 90: 5.0 + 100 * abs(np.log10(point["lr_d"] / 0.001))}
        write_trial(study, number, curve, point=point)


@pytest.mark.parametrize(
    ("count", "modes", "names"),
    [
        (0, 10.0, []),
        (1, 10.0, ["best"]),
        (2, 10.0, ["best", "worst"]),
        (4, 10.0, ["best", "median", "worst"]),
        (2, 8.0, ["first in rank", "worst"]),  # none meets what is required
    ],
)
def test_pictures_in_the_report_are_called_what_they_are(
    tmp_path: Path, count: int, modes: float, names: list[str]
) -> None:
    study = make_study(tmp_path, require=("modes_covered>=9",))
    picture = tmp_path / "s.png"
    save_png(torch.zeros(1, 4, 4, dtype=torch.uint8), picture)
    for number in range(1, count + 1):
        write_trial(study, number, {90: float(number)}, modes=modes)
    trials = read_trials(study)
    for trial in trials:
        trial.grid = picture
    text = render(study, trials, schedulers.study_space(study))
    captions = re.findall(r">([a-z ]+): trial_\d+: fid_classifier", text)
    assert captions == names
    assert ("Best: trial_0001" in text) == ("best" in names)


def test_the_option_that_decides_is_found_important(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    many_trials(study)
    space = schedulers.study_space(study)
    domains = {name: schedulers.describe(d) for name, d in space.domains().items()}
    assert domains["lr_d"]["log"]
    trials = read_trials(study)
    found = importances(trials, domains)
    assert next(iter(found)) == "lr_d"
    assert found["lr_d"] > 0.6
    assert sum(found.values()) == pytest.approx(1.0)
    assert importances(trials[: MINIMUM - 1], domains) == {}


def test_a_choice_that_the_space_has_no_more_is_shown_with_the_trials_that_have_it(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path)
    many_trials(study)
    trials, space = read_trials(study), schedulers.study_space(study)
    name = next(n for n, d in space.domains().items() if "choices" in schedulers.describe(d))
    trials[0].point = {**trials[0].point, name: "of-before"}
    assert "of-before" in render(study, trials, space)


def test_settings_that_were_not_tried_are_not_said_to_have_been(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=2)
    write_trial(study, 1, {90: 3.0})
    inside = [Setting(f"inside {n}", {"latent": n}) for n in (32, 64, 100)]
    latent = Dimension(tune.choice([32, 64, 100]), "the noise")
    space = SearchSpace({"latent": latent}, (Setting("outside", {"latent": 7}), *inside))
    text = render(study, read_trials(study), space)
    tried, not_tried = text.split("tried first")[1].split("not tried: outside of the ranges")
    assert [f"inside {n}" in tried for n in (32, 64, 100)] == [True, True, False]
    assert all(name in not_tried for name in ("outside", "inside 100"))
    assert "inside 64" not in not_tried


def test_of_an_interrupted_search_it_is_said_what_numbers_are_of(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    write_trial(study, 1, {30: 3.0}, status="stopped")
    write_trial(study, 2, {60: 3.0}, status=None)
    text = render(study, read_trials(study), schedulers.study_space(study))
    assert (
        "Stopping early saved 67% of the iterations of those that ended (90 of 180 of all" in text
    )
    assert "No trial was played to its end." in text, "nothing was required"


def test_trials_that_are_equally_good_say_nothing_about_importance(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    random, space = np.random.RandomState(0), schedulers.study_space(study)
    domains = {name: schedulers.describe(d) for name, d in space.domains().items()}
    for number in range(1, 17):
        point = {n: d.sample(random_state=random) for n, d in space.domains().items()}
        write_trial(study, number, {90: 1.0}, point=point)
    trials = read_trials(study)
    assert set(mean_ranks(trials)) == {0.5}
    assert importances(trials, domains) == {}
    assert "nothing tells them apart" in render(study, trials, space)
    trials[3].objective, trials[5].objective = 2.0, 0.5
    ranks = mean_ranks(trials)
    assert (ranks[5], ranks[3], ranks[0]) == (0.0, 1.0, 0.5)
    for trial in trials:
        trial.objective, trial.point = float(trial.name[-2:]), trials[0].point
    assert importances(trials, domains) == {}, "all of one point"


def test_the_report_has_every_trial_and_every_option_and_needs_nothing_else(tmp_path: Path) -> None:
    from test_comparison import read_page

    study = make_study(tmp_path, require=("modes_covered>=10",))
    many_trials(study, 9)
    write_trial(study, 10, {10: 1.0}, status="stopped", summary={"stopped_by": "mode_collapse"})
    write_trial(study, 11, {}, status="failed", summary={"reason": "ValueError: <no>"})
    text = render(study, read_trials(study), schedulers.study_space(study))
    page = read_page(text)
    assert {"svg", "circle", "polyline", "table"} <= page.tags
    for words in ("trial_0011", "mode collapse", "ValueError: &lt;no&gt;", "lr_g", "fANOVA"):
        assert words in text
    saved = 1 - (9 * 90 + 10) / (11 * 90)
    assert f"saved {saved:.0%} of the iterations" in text
    assert "<th>fid_classifier</th><th>modes_covered</th><th>k</th>" in text
    assert "went on from" not in text


def test_trials_that_were_stopped_early_are_rings_in_the_report(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    space = schedulers.study_space(study)
    many_trials(study, 3)
    assert "A ring is" not in (text := render(study, read_trials(study), space))
    assert 'fill="white"' not in text
    assert "dasharray" not in text
    point = read_trials(study)[0].point
    write_trial(study, 4, {10: 50.0}, status="stopped", summary={"reason": "behind"}, point=point)
    text = render(study, read_trials(study), space)
    assert text.count('fill="white"') == len(space.dimensions)
    assert text.count("dasharray") == 1
    assert "A dashed line is a trial" in text
    assert "A ring is a trial that was stopped early" in text


def test_a_report_of_nothing_is_a_page_too(tmp_path: Path) -> None:
    from test_comparison import read_page

    study = make_study(tmp_path)
    write_trial(study, 1, {}, status="failed", summary={"reason": "ValueError"})
    read_page(render(study, read_trials(study), schedulers.study_space(study)))


@pytest.mark.parametrize("words", [{}, {"search": "random"}, {"scheduler": "none"}])
def test_searchers_take_any_seed_of_a_run(tmp_path: Path, words: dict[str, str]) -> None:
    study = make_study(tmp_path, **words)
    large = dataclasses.replace(study, run=dataclasses.replace(study.run, seed=2**64 - 1))
    schedulers.make_searcher(large, 2)


def test_instance_noise_may_change_while_a_population_plays(tmp_path: Path) -> None:
    study = dataclasses.replace(make_study(tmp_path, scheduler="pbt"), target="point")
    assert "instance_noise" in schedulers.mutations(study)
