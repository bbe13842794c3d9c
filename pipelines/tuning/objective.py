"""What a search minimises: a figure, under the requirements that the user made."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence

from gan_core.errors import UserError, unknown_word
from gan_core.metrics.names import OF_DATA, direction, stem_of

INFEASIBLE = 1e6
"""Where the objectives of trials begin that miss a requirement; figures stay below it."""
WORST = 1e9
"""The objective of a trial that has no finite figure."""
_EXACT, _MOST = 0.999, 499.0
"""Up to this share of INFEASIBLE figures are their own objectives, and up to so much missed
requirements are counted as they are; what is greater keeps its order and stays below the limit."""
MIXTURE_SCORE = "mixture_score"

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A bound on a figure, such as ``modes_covered>=10``."""

    figure: str
    comparison: str
    bound: float

    def shortfall(self, figures: Mapping[str, float]) -> float:
        """By how much ``figures`` miss the bound, as a share of it: 0 if they meet it.

        A figure that is missing or not finite misses it by 1 at least.
        """
        value = figures.get(self.figure, math.nan)
        if not math.isfinite(value):
            return 1.0 + abs(self.bound)
        if _COMPARISONS[self.comparison](value, self.bound):
            return 0.0
        return max(abs(value - self.bound) / max(abs(self.bound), 1e-9), 1e-9)

    def possible(self, least: float, most: float) -> bool:
        """Whether a figure between ``least`` and ``most`` can meet it."""
        compare = _COMPARISONS[self.comparison]
        return compare(least, self.bound) or compare(most, self.bound)

    def __str__(self) -> str:
        return f"{self.figure}{self.comparison}{self.bound:g}"


def parse_requirement(text: str) -> Requirement:
    """``modes_covered>=10`` as a requirement; ``UserError`` if it is none."""
    found = re.fullmatch(r"\s*([\w./-]+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
    try:
        if found is None:
            raise ValueError
        bound = float(found[3])
        if not math.isfinite(bound):  # every trial would meet it, or none
            raise ValueError
        return Requirement(found[1], found[2], bound)
    except ValueError:
        raise UserError(
            f"--require must be a figure, a comparison and a finite number such as "
            f"\"modes_covered>=10\", not '{text}'"
        ) from None


def mode_of(metric: str) -> str:
    """ "min" or "max": which direction is better for the figure ``metric``.

    One that nobody knows is maximised, as a figure of the user's own.
    """
    return "min" if direction(metric) == "low" else "max"


def check_direction(metric: str, mode: str | None) -> None:
    """Raises ``UserError`` where it is not to be told, without ``mode``, what good trials have."""
    stem = stem_of(metric)
    if stem in OF_DATA:
        raise UserError(
            f"--metric {metric} is the same for every generator: name a figure of what trials make"
        )
    if stem is not None and mode is None and direction(metric) is None:
        raise UserError(
            f"--metric {metric} is good neither when low nor when high: name another figure, or "
            "give --mode min or --mode max"
        )


def mixture_score(figures: Mapping[str, float], modes: int) -> float:
    """One number for a mixture of ``modes`` Gaussians: 0 at worst, 3 at best.

    The share of modes found, the share of samples of high quality, and the share of the rarest
    mode as part of 1 / modes: the first tells bad from worse, the last good from better.
    """
    return (
        figures["modes_covered"] / modes
        + figures["high_quality_share"]
        + min(1.0, figures["smallest_mode_share"] * modes)
    )


def _below(value: float, exact: float, limit: float) -> float:
    """``value`` up to ``exact``; what is greater grows on towards ``limit``, in its order.

    A search that was begun when all that was too great was cut off to the limit goes on: nothing
    below changes its place.
    """
    return value if value <= exact else limit - (limit - exact) * exact / value


@dataclasses.dataclass(frozen=True)
class Objective:
    """The figure ``metric``, minimised or maximised, under ``requirements``.

    ``modes``: how many modes a source of points has, for :func:`mixture_score`.
    """

    metric: str
    mode: str
    requirements: tuple[Requirement, ...] = ()
    modes: int = 0

    def value(self, figures: Mapping[str, float]) -> float:
        """The figure itself, NaN if it is missing."""
        if self.metric == MIXTURE_SCORE and "modes_covered" in figures:
            return mixture_score(figures, self.modes)
        return float(figures.get(self.metric, math.nan))

    def shortfall(self, figures: Mapping[str, float]) -> float:
        """By how much the requirements are missed together; 0 if all are met."""
        return sum(r.shortfall(figures) for r in self.requirements)

    def __call__(self, figures: Mapping[str, float]) -> float:
        """What is minimised; finite.

        Among what misses a requirement, that which misses it by less is better, and worse than
        anything that meets it.
        """
        value = self.value(figures)
        if not math.isfinite(value):
            return WORST
        missed = self.shortfall(figures)
        if missed > 0:
            return INFEASIBLE * (1.0 + _below(missed, _MOST - 1.0, _MOST))
        size = _below(abs(value), _EXACT * INFEASIBLE, INFEASIBLE)
        return math.copysign(size, value if self.mode == "min" else -value)

    def better(self, one: float, other: float) -> bool:
        """Whether the figure ``one`` beats ``other``."""
        return one < other if self.mode == "min" else one > other

    def check(self, figures: Mapping[str, float]) -> None:
        """Raises ``UserError`` if ``figures`` lack what is asked for, naming what there is."""
        wanted = [] if self.metric == MIXTURE_SCORE else [self.metric]
        for name in [*wanted, *(r.figure for r in self.requirements)]:
            if name not in figures:
                raise unknown_word("figure", name, figures)


def make_objective(
    metric: str, mode: str | None, require: Sequence[str], modes: int = 0
) -> Objective:
    """The objective that the user's words mean."""
    requirements = tuple(parse_requirement(text) for text in require)
    return Objective(metric, mode or mode_of(metric), requirements, modes)
