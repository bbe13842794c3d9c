"""Ray Tune's schedulers and searchers, set up for a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.sample import Categorical, Domain, Float

from gan_core.options import value_type
from gan_core.variant import VARIANTS, GameOptions
from pipelines.tuning.objective import WORST
from pipelines.tuning.promotion import LearnsAtRungs, ListedPoints, PromotesTheBest
from pipelines.tuning.study import Study
from pipelines.tuning.trial import DIAGNOSED, ENDED
from tune_spaces import Dimension, SearchSpace, space_of

METRIC, TIME = "objective", "step"
_SEEDS = 2**32
"""How many numbers numpy's generators begin with, which Tune's and optuna's are."""


def study_space(study: Study) -> SearchSpace:
    """What the study varies: the variant's space less what is fixed, or around its own points."""
    if study.points:
        return _around(study.points)
    space = space_of(study.run.variant, study.target)
    free = space.without({name: study.run.options[name] for name in study.not_searched})
    return free.with_batches_for(study.options.workers_per_trial)


def outside_space(study: Study) -> list[str]:
    """The options to which the study's run gives values that its space does not have.

    A variant's own default may be one (``None``, for a rate that is the paper's).
    """
    options = study.run.options
    defaults = {f.name: f.default for f in dataclasses.fields(VARIANTS[study.run.variant].Options)}
    return [
        name
        for name, dimension in study_space(study).dimensions.items()
        if options[name] != defaults[name] and not dimension.holds(options[name])
    ]


def refused_names(study: Study) -> list[str]:
    """The options of the study's space that its variant, as its run has it, must not be given."""
    refused = VARIANTS[study.run.variant](study.run.game).refused_options()
    return [] if study.points else [n for n in study_space(study).dimensions if n in refused]


def _around(points: tuple[dict[str, Any], ...]) -> SearchSpace:
    """A space that holds the given points: ranges of fractions, choices of all else."""
    dimensions = {}
    for name in points[0]:
        values = list(dict.fromkeys(point[name] for point in points))
        fractions = len(values) > 8 and all(isinstance(v, float) for v in values)
        domain = tune.uniform(min(values), max(values)) if fractions else tune.choice(values)
        if fractions and min(values) > 0:
            domain = tune.loguniform(min(values), max(values))
        dimensions[name] = Dimension(domain, "given as a list of points")
    return SearchSpace(dimensions)


def first_points(study: Study) -> list[dict[str, Any]]:
    """The papers' settings, as many as there are trials, or the study's own list."""
    if study.points:
        return [dict(point) for point in study.points]
    return study_space(study).first_points(study.run.options)[: study.options.trials]


def param_space(study: Study) -> dict[str, Any]:
    """The space as Tune takes it."""
    return dict(study_space(study).domains())


def make_searcher(study: Study, concurrent: int) -> Any:
    """What proposes the next point; at most ``concurrent`` trials are open at once.

    With asha the scheduler says how many more may be begun. Population-based training has all its
    trials open: where there is no room for all, they take turns from one exploit to the next.
    """
    points = first_points(study)
    seed = study.run.seed % _SEEDS
    scheduler = study.options.scheduler
    if study.points or study.options.search == "random" or scheduler == "pbt":
        if scheduler == "asha":
            return ListedPoints(points_to_evaluate=points, random_state=seed)
        most = 0 if scheduler == "pbt" else concurrent
        return BasicVariantGenerator(
            points_to_evaluate=points, max_concurrent=most, random_state=seed
        )
    from optuna.samplers import TPESampler
    from ray.tune.search.optuna import OptunaSearch

    hush_optuna()
    # Several trials are open at once: "constant liar" keeps them apart.
    sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=8)
    asked: dict[str, Any] = {
        "metric": METRIC,
        "mode": "min",
        "sampler": sampler,
        "points_to_evaluate": points,
    }
    if scheduler == "asha":
        return LearnsAtRungs(**asked)
    return ConcurrencyLimiter(OptunaSearch(**asked), max_concurrent=concurrent)


def hush_optuna() -> None:
    """Let Optuna say no more than warnings: in the middle of the table it tells of itself."""
    from optuna import logging

    logging.set_verbosity(logging.WARNING)


def make_scheduler(study: Study, concurrent: int) -> Any:
    """What decides which trials go on, of which ``concurrent`` play at once."""
    kind = study.options.scheduler
    if kind == "asha":
        return PromotesTheBest(study, concurrent)
    if kind == "pbt":
        return ExploitsWhatPlays(
            study.max_steps,
            time_attr=TIME,
            metric=METRIC,
            mode="min",
            perturbation_interval=study.perturb_every,
            hyperparam_mutations=mutations(study),
            custom_explore_fn=clipped(study_space(study)),
            quantile_fraction=0.25,
        )
    return FIFOScheduler()


class ExploitsWhatPlays(PopulationBasedTraining):
    """Population-based training that leaves trials alone that are about to end, but for those whose
    training has failed.

    Ray's gives a trial another's state and new settings at its last report too: then nothing is
    left to be played with them, and what is noted of the trial are settings that it never had. One
    that the diagnosis has stopped goes on from a better one at once, as the population would shrink
    without it; before any have been compared there is none, and it ends.

    Where there is no room for all, of those that have got equally far the one goes on that has
    waited longest. With Ray's the first listed does: a trial with another's state could play the
    same piece from there again and again, as it was compared with how the other did before, which
    waited for it.
    """

    def __init__(self, max_steps: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_steps = max_steps
        self._reports = 0
        self._last_report: dict[str, int] = {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The trial that is to play where there is room for one."""
        waiting = [t for t in tune_controller.get_trials() if t.status in (t.PENDING, t.PAUSED)]
        return min(waiting, key=self._got_to, default=None)

    def _got_to(self, trial: Any) -> tuple[int, int]:
        """How far a trial is, and when it has last played."""
        return self._trial_state[trial].last_train_time, self._last_report.get(trial.trial_id, 0)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tune's decision about ``trial``."""
        self._reports += 1
        self._last_report[trial.trial_id] = self._reports
        if result.get(ENDED) or result.get(TIME, 0) >= self._max_steps:
            return TrialScheduler.CONTINUE
        if not result.get(DIAGNOSED):
            return str(super().on_trial_result(tune_controller, trial, result))
        state = self._trial_state[trial]
        state.last_perturbation_time = result[TIME] - self._perturbation_interval  # it is due now
        state.last_score = -WORST  # nor is it among the best any more, where it was
        for best in self._quantiles()[1]:  # Ray's saves those that are when they are compared
            its = self._trial_state[best]
            its.last_checkpoint = its.last_checkpoint or best.checkpoint
        decision = super().on_trial_result(tune_controller, trial, result)
        went_on = decision == TrialScheduler.NOOP
        return str(decision) if went_on else TrialScheduler.CONTINUE

    def _quantiles(self) -> tuple[list[Any], list[Any]]:
        """The worst and the best, as Ray's: those that have failed are all among the worst."""
        worst, best = super()._quantiles()
        states = self._trial_state.items()
        failed = [t for t, s in states if s.last_score == -WORST and not t.is_finished()]
        best = [trial for trial in best if trial not in failed]
        return ([*worst, *(t for t in failed if t not in worst)] if best else []), best


def mutations(study: Study) -> dict[str, Any]:
    """What population-based training may change while a trial plays: numbers of the schedule.

    Choices become lists, among which it moves to a neighbour; multiplying k would not do.
    """
    options = VARIANTS[study.run.variant].Options
    found: dict[str, Any] = {}
    for name, domain in study_space(study).domains().items():
        if _changes_live(options, name):
            found[name] = domain.categories if isinstance(domain, Categorical) else domain
    return found


def _changes_live(options: type[GameOptions], name: str) -> bool:
    field = next(f for f in dataclasses.fields(options) if f.name == name)
    number = value_type(options, name)[0] in (int, float)
    return field.metadata.get("kind") == "schedule" and number


def clipped(space: SearchSpace) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that brings a point that was multiplied back into its ranges."""
    bounds = {n: (d.lower, d.upper) for n, d in space.domains().items() if isinstance(d, Float)}

    def clip(point: dict[str, Any]) -> dict[str, Any]:
        inside = {n: min(max(point[n], low), high) for n, (low, high) in bounds.items()}
        return {**point, **inside}

    return clip


def describe(domain: Domain) -> Mapping[str, Any]:
    """A domain for reports: ``choices``, or ``lower``, ``upper`` and ``log``."""
    if isinstance(domain, Categorical):
        return {"choices": list(domain.categories)}
    assert isinstance(domain, Float), "spaces are of choices and ranges"
    sampler = type(domain.get_sampler()).__name__
    return {"lower": domain.lower, "upper": domain.upper, "log": "LogUniform" in sampler}
