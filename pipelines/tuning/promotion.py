"""Successive halving by promotion as a scheduler of Ray Tune, and searchers that it opens.

A paused trial is open for Tune and for Optuna, so that limits of open trials would end the search
with the first rung. The scheduler therefore says how many more trials may be begun, and hands the
searcher what a paused trial has reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from pipelines.tuning.halving import Halving
from pipelines.tuning.objective import WORST
from pipelines.tuning.records import Trial as Record
from pipelines.tuning.records import read_trial
from pipelines.tuning.study import Study
from pipelines.tuning.trial import ENDED


class ListedPoints(BasicVariantGenerator):
    """Points of a list, or random ones, as long as there is ``room``."""

    room = 1

    def next_trial(self) -> Trial | None:
        """The next trial; ``None`` while there is no room for it, and at the end."""
        return super().next_trial() if self.room > 0 else None

    def observe(self, trial_id: str, objective: float) -> None:
        """A trial has reached a rung: nothing is learnt from that."""

    def catch_up(self, trial_id: str, objective: float) -> None:
        """As :meth:`observe`."""


class LearnsAtRungs(OptunaSearch):
    """Optuna, which takes what a trial has reached at a rung for what it is worth.

    Optuna knows trials that play and trials that are done; all that wait would count as playing,
    and nothing be learnt. So a trial is done for it at its first rung, and what it reaches at
    later ones, or at its end, is one more observation at the same point.
    """

    room = 1

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self._points: dict[str, dict[str, Any]] = {}
        self._observed: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point; ``None`` while there is no room for a trial."""
        if self.room < 1:
            return None
        point = super().suggest(trial_id)
        if point is not None:
            self._points[trial_id] = dict(point)
        return point

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Between rungs nothing is learnt."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The trial has ended; one that waited, and will not be promoted, has been told."""
        if result:
            self.observe(trial_id, float(result[self.metric]))
        elif trial_id not in self._observed:
            super().on_trial_complete(trial_id, result, error)
            self._observed.add(trial_id)

    def catch_up(self, trial_id: str, objective: float) -> None:
        """A trial of an earlier driver waits at a rung: that may not have been told yet."""
        if trial_id in self._points and trial_id not in self._observed:
            self.observe(trial_id, objective)

    def observe(self, trial_id: str, objective: float) -> None:
        """A trial has reached a rung or its end with ``objective``."""
        if trial_id in self._observed:
            self.add_evaluated_point(self._points[trial_id], objective)
        else:
            super().on_trial_complete(trial_id, {str(self.metric): objective})
            self._observed.add(trial_id)


class PromotesTheBest(TrialScheduler):
    """Pauses every trial at each rung and plays on the best: :class:`Halving` decides.

    At most ``concurrent`` trials play at once. On a restore the books are made up again from the
    trials' journals.
    """

    _supports_buffered_results = False

    def __init__(self, study: Study, concurrent: int) -> None:
        super().__init__()
        self._study, self._concurrent = study, concurrent
        options = study.options
        trials = len(study.points) or options.trials
        self._halving = Halving(study.levels, options.reduction, options.finalists, trials)
        self._known: set[str] = set()
        self._promoted: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The objective is known; there is nothing to set."""
        return metric is None and mode is None

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A new trial, one of a search that is restored, or one whose process was lost.

        One that was lost while it was paused at a rung passes that rung: Tune begins it at once.
        """
        again = trial.trial_id in self._known
        self._known.add(trial.trial_id)
        self._halving.begin(trial.trial_id)
        past = read_trial(self._study.folder / str(trial.custom_dirname), self._study)
        self._take_up(trial, past)
        if trial.trial_id in self._halving.waiting:
            if again:
                self._halving.resume(trial.trial_id)
            else:
                trial.set_status(Trial.PAUSED)
                _searcher(tune_controller).catch_up(trial.trial_id, past.objective)
        self._give_room(tune_controller)

    def _take_up(self, trial: Trial, past: Record) -> None:
        """Note what a trial has reached, by its journal."""
        objective = self._study.objective
        for step, figures in past.curve:
            progress = self._study.progress(step, past.interval)
            self._halving.report(trial.trial_id, progress, objective(figures))
        if past.ended or trial.status in (Trial.TERMINATED, Trial.ERROR):
            self._halving.end(trial.trial_id, well=past.objective < WORST)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Tune's decision: a trial goes on up to the next rung, where it waits or is promoted."""
        self._promoted.discard(trial.trial_id)  # it plays
        step, objective = int(result.get("step", 0)), float(result.get("objective", WORST))
        if result.get(ENDED) or step >= self._study.max_steps:
            return str(TrialScheduler.CONTINUE)  # it ends by itself
        if not self._halving.report(trial.trial_id, step, objective):
            return str(TrialScheduler.CONTINUE)
        _searcher(tune_controller).observe(trial.trial_id, objective)
        self._fill(tune_controller)
        if trial.trial_id in self._promoted:
            self._promoted.remove(trial.trial_id)
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.PAUSE)

    def on_trial_complete(
        self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]
    ) -> None:
        """It has ended; another may take its place."""
        self._ended(tune_controller, trial, float(result.get("objective", WORST)) < WORST)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Its process was lost: too often, or Tune begins it again at once."""
        if trial.status == Trial.ERROR:  # so Tune says that it does
            return
        self._ended(tune_controller, trial, well=False)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """It waited, and will not be promoted."""
        self._ended(tune_controller, trial, well=True)

    def _ended(self, tune_controller: Any, trial: Trial, well: bool) -> None:
        self._promoted.discard(trial.trial_id)
        self._halving.end(trial.trial_id, well=well)
        self._fill(tune_controller)

    def _fill(self, tune_controller: Any) -> None:
        """Promote as many as there is room for; the room that is left is for new trials."""
        while self._halving.playing < self._concurrent:
            promoted = self._halving.promote()
            if promoted is None:
                break
            self._promoted.add(promoted)
        self._give_room(tune_controller)

    def _give_room(self, tune_controller: Any) -> None:
        _searcher(tune_controller).room = self._concurrent - self._halving.playing

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The promoted trial to start first; new ones Tune starts by itself, in their order."""
        if tune_controller.search_alg.is_finished():
            # A driver that was killed may have lost a trial that the searcher has counted.
            self._halving.close()
        if self._halving.over:
            for trial in self._trials(tune_controller, self._halving.waiting):
                tune_controller.stop_trial(trial)
            return None
        self._fill(tune_controller)  # of a restored search all may wait: nothing else would begin
        self._promote_again(tune_controller)
        for trial in self._trials(tune_controller, self._promoted):
            if trial.status == Trial.RUNNING and not trial.is_saving:
                self._promoted.discard(trial.trial_id)
            elif trial.status in (Trial.PAUSED, Trial.PENDING):
                return trial
        return None

    def _promote_again(self, tune_controller: Any) -> None:
        """What plays by the books and is paused was promoted before Tune had paused it: if nobody
        starts it, all that wait for it to come to their rung wait for ever.
        """
        for trial in tune_controller.get_trials():
            if trial.status == Trial.PAUSED and self._halving.plays(trial.trial_id):
                self._promoted.add(trial.trial_id)

    @staticmethod
    def _trials(tune_controller: Any, names: Any) -> list[Trial]:
        wanted = set(names)
        return [t for t in tune_controller.get_trials() if t.trial_id in wanted]

    def debug_string(self) -> str:
        """One line."""
        halving = self._halving
        return f"{halving.playing} trials play, {len(halving.waiting)} wait at a rung"


def _searcher(tune_controller: Any) -> Any:
    """What proposes the trials: :class:`ListedPoints` or :class:`LearnsAtRungs`."""
    found = tune_controller.search_alg
    return getattr(found, "searcher", found)
