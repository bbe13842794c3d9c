"""How long the trials of a search are and when they are compared: what cannot be had, what to say.

What the user gives and nothing is made of is refused before anything begins: a search that was
asked for something else than it does would be taken for what was asked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gan_core.errors import UserError
from gan_core.options import flag
from pipelines.tuning.study import Study

_OF_SCHEDULERS = {
    "grace": "asha",
    "reduction": "asha",
    "finalists": "asha",
    "perturb_every": "pbt",
}
"""The options that one scheduler alone looks at."""
EVEN = 0.2
"""The share of a trial's examples that rounding may add or take, and trials still be equal."""
FEW = 10
"""Fewer iterations than these hardly tell a generator from an untrained one."""
_DRAWN = 200  # points by which it is found how much trials differ
_WHOLE = 2.5  # iterations between evaluations, of which rounding takes or adds a fifth at most


def check_given(study: Study, given: Collection[str]) -> None:
    """Raises ``UserError`` for options of the search that the user has ``given`` in vain."""
    scheduler = study.options.scheduler
    for name, whose in _OF_SCHEDULERS.items():
        if name in given and scheduler != whose:
            raise UserError(
                f"{flag(name)} is {whose}'s and has no use with --scheduler {scheduler}: "
                "leave it out"
            )
    if "search" in given and study.options.search == "optuna" and scheduler == "pbt":
        raise UserError(
            "--search optuna cannot be had with --scheduler pbt, which begins all its trials at "
            "once: leave it out"
        )
    length = f"a trial of {study.max_steps:,} iterations that is judged every {study.every:,}"
    if "grace" in given and not study.comparisons:
        raise UserError(
            f"--grace {study.grace} leaves asha nothing to compare before the end of {length}: "
            "give less, or more --max-steps"
        )
    if "perturb_every" in given and study.perturb_every >= study.max_steps:
        raise UserError(
            f"--perturb-every {study.options.perturb_every} leaves pbt no exploit before the end "
            f"of {length}: give less, or more --max-steps"
        )


def described(study: Study, stages: Sequence[int]) -> str:
    """The line about the length of trials, of ``stages`` (iterations of each)."""
    several = f" ({' + '.join(f'{steps:,}' for steps in stages)} of its stages)"
    length = f"a trial plays {study.max_steps:,} iterations{several * (len(stages) > 1)}"
    scheduler = study.options.scheduler
    if scheduler == "none":
        return length
    if scheduler == "pbt":
        return f"{length}; pbt compares them every {study.perturb_every:,}"
    if not study.comparisons:
        return f"{length}; too few for asha, which plays all to their end"
    return f"{length}; asha compares them after {', '.join(f'{s:,}' for s in study.comparisons)}"


def hasty(study: Study) -> str | None:
    """A warning where trials are compared after so few iterations that it tells next to nothing."""
    scheduler = study.options.scheduler
    if scheduler == "pbt":
        first, remedy = study.perturb_every, "--perturb-every"
    elif scheduler == "asha" and study.comparisons:
        first, remedy = study.comparisons[0], "--grace"
    else:
        return None
    if first >= FEW:
        return None
    return (
        f"trials are judged and compared after {first} iteration{'s' * (first > 1)} already, "
        "which tells little of them and takes longer than to play: give a larger "
        f"{remedy}, or more --max-steps"
    )


def uneven(study: Study) -> str | None:
    """A warning where trials are so short that they cannot have equal numbers of examples.

    The iterations between evaluations are whole: of a trial of dear ones there may be six times
    too many. Found by points drawn from the space. ``None`` where all are about equal.
    """
    if not study.equal_examples:
        return None
    points = _points(study)
    game = study.run.game
    own = game.examples_per_iteration
    costs = [dataclasses.replace(game, **point).examples_per_iteration / own for point in points]
    meant = [study.every / cost for cost in costs]
    off = [max(1, round(steps)) / steps for steps in meant]
    worst = max(range(len(points)), key=lambda place: abs(off[place] - 1))
    if abs(off[worst] - 1) <= EVEN + 1e-9:
        return None
    longer = math.ceil(_WHOLE * max(costs) / study.every)
    point = ", ".join(
        f"{name} {value}"
        for name, value in points[worst].items()
        if dataclasses.replace(game, **{name: value}).examples_per_iteration != own
    )
    return (
        f"trials are too short for equal numbers of examples: one of {point} gets "
        f"{off[worst]:.2g} times its share, as iterations between evaluations are whole (equal to "
        f"a fifth with {max(2, longer)} times the --max-steps, or with evaluations as much rarer)"
    )


def _points(study: Study) -> list[Mapping[str, Any]]:
    """Points of the study's space: its own list, else drawn, always the same."""
    import numpy as np

    from pipelines.tuning.schedulers import first_points, study_space

    if study.points:
        return list(study.points)
    source, domains = np.random.RandomState(0), study_space(study).domains()
    drawn = [
        {name: domain.sample(random_state=source) for name, domain in domains.items()}
        for _ in range(_DRAWN)
    ]
    return [*first_points(study), *drawn]
