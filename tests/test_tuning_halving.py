"""Successive halving by promotion: the books, the scheduler, and what Optuna learns of it."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from test_tuning import make_study, write_trial

from pipelines.tuning import schedulers
from pipelines.tuning.halving import Halving, least_share, rungs
from pipelines.tuning.objective import WORST
from pipelines.tuning.promotion import LearnsAtRungs, ListedPoints, PromotesTheBest

GO, PAUSE = TrialScheduler.CONTINUE, TrialScheduler.PAUSE


def test_rungs_are_powers_of_the_reduction_below_the_end() -> None:
    assert rungs(10, 3, 270) == (10, 30, 90)
    assert rungs(10, 3, 271) == (10, 30, 90)  # 270 would be at 99.6 % of a trial
    assert rungs(10, 3, 300) == (10, 30, 90, 270)
    assert rungs(300, 3, 300) == ()


class Simulation:
    """A search of trials that need a second an iteration, ``slots`` at once, judged at rungs.

    ``curves[n][r]`` is what trial n is worth at rung r, at the last index at its end; ``breaks``:
    trials that fail on their way to the end.
    """

    def __init__(
        self,
        curves: list[list[float]],
        levels: tuple[int, ...],
        *,
        reduction: int = 3,
        finalists: int = 1,
        slots: int = 2,
        breaks: tuple[int, ...] = (),
    ) -> None:
        self.marks = [*levels, 3 * levels[-1]]
        self.halving = Halving(levels, reduction, finalists, len(curves))
        self.at = [-1] * len(curves)  # the last mark that a trial has come to
        self.finished: list[int] = []
        self._curves, self._breaks = curves, breaks
        self._play(slots)

    @property
    def steps(self) -> int:
        """All iterations that were played."""
        return sum(self.marks[mark] for mark in self.at)

    def _play(self, slots: int) -> None:
        new = iter(range(len(self._curves)))
        playing: list[tuple[int, int]] = []  # (time at which it comes to its next mark, trial)
        clock = 0
        while True:
            while len(playing) < slots:
                name = self.halving.promote()
                trial = next(new, None) if name is None else int(name)
                if trial is None:
                    break
                if name is None:
                    self.halving.begin(str(trial))
                before = 0 if self.at[trial] < 0 else self.marks[self.at[trial]]
                ready = clock + self.marks[self.at[trial] + 1] - before
                playing.append((ready, trial))
            assert self.halving.playing == len(playing)
            if not playing:
                return
            playing.sort()
            clock, trial = playing.pop(0)
            self._arrive(trial)

    def _arrive(self, trial: int) -> None:
        self.at[trial] += 1
        mark = self.at[trial]
        if mark == len(self.marks) - 1:
            self.halving.end(str(trial), well=trial not in self._breaks)
            self.finished.append(trial)
        else:
            waits = self.halving.report(str(trial), self.marks[mark], self._curves[trial][mark])
            assert waits


def drawn(seed: int, trials: int, marks: int) -> list[list[float]]:
    """Curves whose order changes from rung to rung."""
    source = random.Random(seed)
    return [[source.random() for _ in range(marks)] for _ in range(trials)]


@pytest.mark.parametrize("slots", [1, 2, 5, 16])
@pytest.mark.parametrize("finalists", [1, 2, 3])
def test_of_every_rung_the_best_go_on_and_the_worst_does_not(slots: int, finalists: int) -> None:
    for seed in range(20):
        curves = drawn(seed, 16, 4)
        game = Simulation(curves, (10, 30, 90), finalists=finalists, slots=slots)
        assert game.halving.over
        reached = [{n for n in range(16) if game.at[n] >= mark} for mark in range(4)]
        assert len(reached[0]) == 16, "every trial is given its first rung"
        for mark in range(3):
            ranked = sorted(reached[mark], key=lambda n: curves[n][mark])
            share = max(finalists, len(ranked) // 3)
            assert set(ranked[:share]) <= reached[mark + 1]
        assert len(game.finished) >= finalists
        assert game.at[max(range(16), key=lambda n: curves[n][0])] == 0, "the worst of all"


def test_one_after_the_other_it_plays_what_the_published_algorithm_plays() -> None:
    # Worked out by hand, nine trials whose order never changes. The best first: of every three
    # one goes on, so 0, 1 and 2 to the second rung, 0 to the third and, as the only finalist, on.
    best_first = Simulation([[float(n)] * 4 for n in range(9)], (10, 30, 90), slots=1)
    assert best_first.finished == [0]
    assert best_first.steps == 9 * 10 + 3 * 20 + 60 + 180
    # The worst first: from the third on each is the best so far and goes on at once, and so at
    # the second rung from the third of these (4), and at the last from the third of those (6).
    worst_first = Simulation([[float(-n)] * 4 for n in range(9)], (10, 30, 90), slots=1)
    assert worst_first.finished == [6, 7, 8]
    assert worst_first.steps == 9 * 10 + 7 * 20 + 5 * 60 + 3 * 180


@pytest.mark.parametrize(("trials", "finalists"), [(1, 1), (4, 2), (9, 1), (16, 2), (30, 3)])
def test_the_least_share_is_what_is_played_when_the_best_come_first(
    trials: int, finalists: int
) -> None:
    curves = [[float(n)] * 4 for n in range(trials)]
    game = Simulation(curves, (10, 30, 90), finalists=finalists, slots=1)
    least = least_share((10, 30, 90), 3, finalists, trials, 270)
    assert game.steps == pytest.approx(least * trials * 270)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_trial_that_is_best_everywhere_is_always_found(slots: int) -> None:
    for order in itertools.islice(itertools.permutations(range(9)), 0, None, 4001):
        curves = [[float(rank)] * 4 for rank in order]
        game = Simulation(curves, (10, 30, 90), slots=slots)
        assert order.index(0) in game.finished


def test_promoted_trials_that_fail_make_room_for_the_next_best() -> None:
    curves = [[float(n)] * 3 for n in range(6)]
    game = Simulation(curves, (10, 30), slots=1, breaks=(0, 1))
    assert game.finished == [0, 1, 2]


def test_a_search_of_one_trial_plays_it_to_its_end() -> None:
    assert Simulation([[5.0] * 3], (10, 30), finalists=2).finished == [0]


def test_a_trial_that_waits_is_promoted_once_and_goes_on_past_what_it_has_reached() -> None:
    halving = Halving((10, 30), 2, 1, 4)
    for name in "ab":
        halving.begin(name)
    assert halving.report("a", 10, 1.0)
    assert halving.promote() is None, "one of one is no half"
    assert not halving.report("b", 9, 0.0)
    assert halving.report("b", 12, 2.0)
    assert halving.promote() == "a"
    assert halving.promote() is None
    assert not halving.report("a", 10, 1.0), "again, from an older checkpoint"
    assert halving.report("a", 30, 1.0)
    assert halving.waiting == ["a", "b"]
    assert not halving.report("b", 20, 2.0), "an earlier driver had promoted it"
    assert halving.waiting == ["a"]


# -- the scheduler ---------------------------------------------------------------------------


class Controller:
    """Tune as far as the scheduler knows it."""

    def __init__(self, searcher: Any) -> None:
        self.finished = False  # whether the searcher has no more trials
        self.search_alg = SimpleNamespace(searcher=searcher, is_finished=lambda: self.finished)
        self.trials: list[Any] = []
        self.stopped: list[str] = []

    def get_trials(self) -> list[Any]:
        return self.trials

    def add(self, scheduler: Any, name: str, **state: Any) -> Any:
        trial = SimpleNamespace(
            trial_id=name, custom_dirname=name, status="PENDING", is_saving=False
        )
        trial.set_status = lambda status: setattr(trial, "status", status)
        vars(trial).update(state)
        self.trials.append(trial)
        scheduler.on_trial_add(self, trial)
        if trial.status == "PENDING":
            trial.status = "RUNNING"
        return trial

    def stop_trial(self, trial: Any) -> None:
        self.stopped.append(trial.trial_id)


class Told:
    """A searcher that only notes what it is told."""

    def __init__(self) -> None:
        self.room = 1
        self.seen: list[tuple[str, float]] = []

    def observe(self, trial: str, objective: float) -> None:
        self.seen.append((trial, objective))

    catch_up = observe


def report(
    scheduler: Any, controller: Controller, trial: Any, step: int, value: float, **more: Any
) -> str:
    result = {"step": step, "objective": value, **more}
    decision = str(scheduler.on_trial_result(controller, trial, result))
    trial.status = "PAUSED" if decision == PAUSE else trial.status
    return decision


def test_trials_pause_at_rungs_and_room_for_new_ones_is_given(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=4, finalists=1)  # 90 iterations: rungs at 10 and 30
    scheduler = schedulers.make_scheduler(study, 2)
    assert isinstance(scheduler, PromotesTheBest)
    told = Told()
    controller = Controller(told)
    one = controller.add(scheduler, "one")
    assert told.room == 1
    two = controller.add(scheduler, "two")
    assert told.room == 0
    assert report(scheduler, controller, one, 9, 3.0) == GO
    assert report(scheduler, controller, one, 10, 3.0) == PAUSE
    assert told.room == 1
    assert scheduler.choose_trial_to_run(controller) is None
    three = controller.add(scheduler, "three")
    assert report(scheduler, controller, two, 10, 2.0) == PAUSE
    four = controller.add(scheduler, "four")
    assert report(scheduler, controller, three, 10, 4.0) == PAUSE, "of three the second is best"
    assert scheduler.choose_trial_to_run(controller) is two
    two.status = "RUNNING"
    assert scheduler.choose_trial_to_run(controller) is None
    assert told.room == 0
    assert report(scheduler, controller, four, 10, 1.0) == GO, "it is the best of four"
    assert told.seen == [("one", 3.0), ("two", 2.0), ("three", 4.0), ("four", 1.0)]
    assert report(scheduler, controller, two, 30, 2.0) == PAUSE
    assert report(scheduler, controller, four, 30, 1.0) == GO, "a rung to which none can come"
    assert report(scheduler, controller, four, 90, 1.0) == GO, "it ends by itself"
    assert controller.stopped == []
    scheduler.on_trial_complete(controller, four, {"objective": 1.0})
    assert scheduler.choose_trial_to_run(controller) is None
    assert controller.stopped == ["one", "two", "three"]


def test_a_promoted_trial_that_is_paused_afterwards_is_started_again(tmp_path: Path) -> None:
    scheduler = schedulers.make_scheduler(make_study(tmp_path, trials=3, finalists=1), 2)
    controller = Controller(Told())
    one, two = controller.add(scheduler, "one"), controller.add(scheduler, "two")
    assert report(scheduler, controller, one, 10, 3.0) == PAUSE
    three = controller.add(scheduler, "three")
    assert report(scheduler, controller, two, 10, 2.0) == PAUSE
    assert report(scheduler, controller, three, 10, 4.0) == PAUSE
    assert scheduler.choose_trial_to_run(controller) is two
    two.status = "RUNNING"
    assert scheduler.choose_trial_to_run(controller) is None
    two.status = "PAUSED"  # by Tune, when what it had decided before was carried out
    assert scheduler.choose_trial_to_run(controller) is two
    two.status = "RUNNING"
    assert scheduler.choose_trial_to_run(controller) is None
    assert report(scheduler, controller, two, 30, 2.0) in (GO, PAUSE)


def test_when_the_promoted_trial_collapses_the_next_is_played_on(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=2, finalists=1)
    scheduler = schedulers.make_scheduler(study, 2)
    controller = Controller(Told())
    one, two = (controller.add(scheduler, name) for name in ("one", "two"))
    assert report(scheduler, controller, two, 10, 2.0) == PAUSE
    assert report(scheduler, controller, one, 10, 1.0) == GO
    assert report(scheduler, controller, one, 20, WORST, ended=True) == GO
    scheduler.on_trial_complete(controller, one, {"objective": WORST})
    assert scheduler.choose_trial_to_run(controller) is two
    assert controller.stopped == []


def test_a_restored_search_knows_its_trials_by_their_journals(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=5, finalists=1)
    write_trial(study, 1, {10: 1.0, 20: 2.0, 30: 1.0}, status="finished")
    write_trial(study, 2, {10: 5.0}, status=None)
    write_trial(study, 3, {10: 2.0, 20: 2.0}, status=None)
    write_trial(study, 4, {10: 3.0}, status=None)
    scheduler = schedulers.make_scheduler(study, 2)
    controller = Controller(Told())
    done = controller.add(scheduler, "trial_0001", status="TERMINATED")
    waits, plays, next_best = (
        controller.add(scheduler, f"trial_000{number}") for number in (2, 3, 4)
    )
    assert controller.search_alg.searcher.seen == [("trial_0002", 5.0), ("trial_0004", 3.0)]
    assert (done.status, waits.status, plays.status) == ("TERMINATED", "PAUSED", "RUNNING")
    last = controller.add(scheduler, "trial_0005")
    assert report(scheduler, controller, last, 10, 9.0) == PAUSE
    assert report(scheduler, controller, plays, 30, 2.0) == PAUSE
    assert scheduler.choose_trial_to_run(controller) is None
    assert set(controller.stopped) == {w.trial_id for w in (waits, plays, next_best, last)}


def test_a_restored_search_in_which_all_wait_goes_on_by_itself(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=2, finalists=1)
    scheduler = schedulers.make_scheduler(study, 1)
    controller = Controller(Told())
    for number, worth in ((1, 2.0), (2, 1.0)):  # the driver died before it saw the last report
        write_trial(study, number, {10: worth}, status=None)
        controller.add(scheduler, f"trial_000{number}")
    assert [trial.status for trial in controller.trials] == ["PAUSED", "PAUSED"]
    assert scheduler.choose_trial_to_run(controller) is controller.trials[1]
    assert controller.stopped == []


def test_a_trial_whose_process_was_lost_plays_on_and_none_takes_its_place(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=3, finalists=1, reduction=2)
    write_trial(study, 1, {10: 1.0, 20: 1.0}, status=None)
    scheduler = schedulers.make_scheduler(study, 2)
    controller = Controller(Told())
    one, two, three = (controller.add(scheduler, f"trial_000{number}") for number in (1, 2, 3))
    assert report(scheduler, controller, two, 10, 2.0) == PAUSE
    one.status = "ERROR"  # so Tune says that it begins it again
    scheduler.on_trial_error(controller, one)
    one.status = "PENDING"
    scheduler.on_trial_add(controller, one)
    assert one.status == "PENDING"
    assert scheduler.choose_trial_to_run(controller) is None, "nothing was promoted"
    assert report(scheduler, controller, three, 10, 3.0) == PAUSE
    assert controller.stopped == [], "the first still plays"
    one.status = "RUNNING"
    scheduler.on_trial_error(controller, one)  # too often
    assert scheduler.choose_trial_to_run(controller) is two


def test_a_trial_that_was_lost_for_good_is_restored_as_ended(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=1)
    scheduler = schedulers.make_scheduler(study, 1)
    controller = Controller(told := Told())
    controller.add(scheduler, "trial_0001", status="ERROR")
    assert told.room == 1


def test_a_promoted_trial_waits_at_the_next_rung_like_any_other(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=6, finalists=1)
    scheduler = schedulers.make_scheduler(study, 6)
    controller = Controller(Told())
    trials = [controller.add(scheduler, f"t{number}") for number in range(6)]
    for number, trial in enumerate(trials):
        assert report(scheduler, controller, trial, 10, float(number)) == PAUSE
    assert scheduler.choose_trial_to_run(controller) is trials[0]
    trials[1].status = "RUNNING"  # it has found a process before the first
    assert report(scheduler, controller, trials[1], 30, 99.0) == PAUSE


def test_a_search_with_fewer_trials_than_asked_for_comes_to_its_end(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=4, finalists=1)
    scheduler = schedulers.make_scheduler(study, 2)
    controller = Controller(Told())
    one, two = (controller.add(scheduler, name) for name in ("one", "two"))
    for trial, worth in ((one, 1.0), (two, 2.0)):
        assert report(scheduler, controller, trial, 10, worth) == PAUSE
    assert scheduler.choose_trial_to_run(controller) is None, "two are to come"
    controller.finished = True
    assert scheduler.choose_trial_to_run(controller) is one


# -- searchers -------------------------------------------------------------------------------


def test_optuna_learns_at_rungs_and_more_of_the_same_point_later(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    searcher = schedulers.make_searcher(study, concurrent=2)
    assert isinstance(searcher, LearnsAtRungs)
    searcher.set_search_properties("objective", "min", schedulers.param_space(study))
    searcher.room = 0
    assert searcher.suggest("a") is None
    searcher.room = 2
    point = searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_result("a", {"objective": 9.0, "training_iteration": 1})
    known: Any = vars(searcher)["_ot_study"]
    assert known.get_trials(states=[_complete()]) == []
    searcher.observe("a", 3.0)
    searcher.observe("a", 2.0)
    searcher.on_trial_complete("a", {"objective": 1.0})
    searcher.on_trial_complete("b")
    seen = known.get_trials(states=[_complete()])
    assert [trial.value for trial in seen] == [3.0, 2.0, 1.0]
    assert all(trial.params == point for trial in seen)
    again = schedulers.make_searcher(study, concurrent=2)
    searcher.save(str(tmp_path / "state"))
    again.restore(str(tmp_path / "state"))
    again.observe("a", 0.5)
    values = [t.value for t in vars(again)["_ot_study"].get_trials(states=[_complete()])]
    assert min(values) == 0.5
    assert math.isclose(sum(values), 6.5)


def _complete() -> Any:
    from optuna.trial import TrialState

    return TrialState.COMPLETE


def test_a_list_of_points_waits_for_room(tmp_path: Path) -> None:
    from test_tuning_schedulers import _experiment

    study = make_study(tmp_path, search="random")
    searcher = schedulers.make_searcher(study, concurrent=2)
    assert isinstance(searcher, ListedPoints)
    searcher.add_configurations(_experiment(schedulers.param_space(study), tmp_path))
    searcher.room = 0
    assert searcher.next_trial() is None
    assert not searcher.is_finished()
    searcher.room = 1
    assert searcher.next_trial() is not None
