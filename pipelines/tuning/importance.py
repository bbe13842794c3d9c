"""How much each searched option decides how good a trial is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.tuning.records import Trial, rank_key

MINIMUM = 8
"""Fewer trials than this say nothing about importance."""
TREES = 32


def importances(
    trials: Sequence[Trial], domains: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """The importance of each option, from 0 to 1 with sum 1, the greatest first.

    Functional ANOVA (Hutter et al. 2014, ICML) by Optuna, on the
    trials' ranks from 0 (best) to 1: how far a trial got, then how good it was. Ranks are fair
    to trials that were stopped early, and not ruled by the worst; what is equally good has the mean
    of its ranks. ``domains``: as :func:`pipelines.tuning.schedulers.describe` gives them. Empty if
    there are too few trials, and if nothing tells them apart or all are of one point.
    """
    ended = [t for t in trials if t.ended and all(t.point.get(n) is not None for n in domains)]
    ranks = mean_ranks(ended)
    points = [{n: _inside(trial.point[n], domains[n]) for n in domains} for trial in ended]
    if len(ended) < MINIMUM or len(set(ranks)) < 2 or all(point == points[0] for point in points):
        return {}
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(domain) for name, domain in domains.items()}
    study = optuna.create_study()
    for point, rank in zip(points, ranks, strict=True):
        study.add_trial(
            optuna.trial.create_trial(params=point, distributions=distributions, value=rank)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(
            study, evaluator=FanovaImportanceEvaluator(n_trees=TREES, seed=0)
        )
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in found.items()}


def mean_ranks(trials: Sequence[Trial]) -> list[float]:
    """The rank of each trial, from 0 (best) to 1; of those that are equally good the mean."""
    keys = [rank_key(trial) for trial in trials]
    ordered, last = sorted(keys), max(1, len(keys) - 1)
    # Where n begin at a place, the mean of theirs is (n - 1) / 2 behind it.
    return [(ordered.index(key) + (ordered.count(key) - 1) / 2) / last for key in keys]


def _inside(value: Any, domain: Mapping[str, Any]) -> Any:
    if "choices" in domain:
        return value
    return min(max(float(value), domain["lower"]), domain["upper"])


def _distribution(domain: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if "choices" in domain:
        return CategoricalDistribution(domain["choices"])
    return FloatDistribution(domain["lower"], domain["upper"], log=domain["log"])
