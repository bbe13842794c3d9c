"""The words of a diagnosis: signs, thresholds, findings, advice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

State = Literal["none", "suspected", "confirmed", "unknown"]
STATES: tuple[State, ...] = ("none", "suspected", "confirmed")
"""By level. Unknown is what could not be told: not found, and not looked for well enough."""
FEWEST_REAL = 100
"""Real examples of which a hundredth is one at least: of fewer the distance called near (see
:meth:`gan_core.metrics.diversity.RealDiversity.figures`) is the smallest that there is by chance,
and a generator as good as the data repeats itself, and them, by that."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a run beside its metrics.

    ``modes``: classes or Gaussians in the data, 0 where they cannot be counted. ``steps``: the
    iterations that the run is to have, ``samples``: those of an evaluation. ``least_share``: the
    share of the rarest mode in the data, ``expected_modes``: how many as many real examples show,
    and the standard deviation of that, both where they are known. ``options``: the
    variant's, by name, as they are played. ``real``: the real examples that samples are compared
    with, ``None`` where they are not counted. ``target``: the kind of data ("image", "point").
    ``loss_scales``: see :meth:`gan_core.variant.Variant.loss_scales`. ``unopposed``: the iterations
    after which stages begin that one player plays alone.
    """

    modes: int = 0
    steps: int = 0
    samples: int = 2000
    least_share: float | None = None
    expected_modes: tuple[float, float] | None = None
    real: int | None = None
    target: str = "image"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loss_scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unopposed: frozenset[int] = frozenset()

    @property
    def tells_near(self) -> bool:
        """Whether there are enough real examples to say what is near: nearer than 99 % of them."""
        return self.real is None or self.real >= FEWEST_REAL


@dataclasses.dataclass(frozen=True)
class Advice:
    """``words`` (an option as the user types it, and why) for runs where it is not in use.

    It is in use where ``option`` is not one of ``unused`` (``None``: there is always more of it to
    be had); a variant without it gets no advice. ``optimizer``: the only one under which it does
    anything; empty: any.
    """

    option: str
    unused: tuple[Any, ...] | None
    words: str
    optimizer: str = ""

    def applies(self, options: Mapping[str, Any]) -> bool:
        """Whether a run with ``options`` could follow it."""
        if self.optimizer and options.get("optimizer", "adam") != self.optimizer:
            return False
        if self.option not in options:
            return False
        return self.unused is None or options[self.option] in self.unused


@dataclasses.dataclass(frozen=True)
class Sign:
    """One thing that was looked at: its ``level`` (0 harmless, 1 suspicious, 2 proof), in words.

    ``metric``: what it is told by. ``known``: whether there are enough numbers to tell.
    ``evaluated``: by an evaluation, of thousands of samples, and so not each time anew. ``form``
    names a stronger form of the failure that this sign shows ("divergence"). ``advice``: what to
    try where this is seen, before what is tried against the failure in general.
    """

    level: int
    text: str
    metric: str = ""
    known: bool = True
    evaluated: bool = False
    form: str = ""
    advice: tuple[Advice, ...] = ()


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Where a value becomes suspicious and where it is proof.

    Low values are bad if ``confirmed`` lies below ``suspected``, else high ones.
    """

    suspected: float
    confirmed: float

    def level(self, value: float) -> int:
        """0, 1 or 2; what is not a number says nothing."""
        if math.isnan(value):
            return 0
        sign = 1 if self.confirmed > self.suspected else -1
        return sum(sign * value > sign * bound for bound in (self.suspected, self.confirmed))

    def sign(self, value: float, text: str, metric: str, *, evaluated: bool = False) -> Sign:
        """A sign at the level of ``value``, of that ``metric``."""
        return Sign(self.level(value), text, metric, not math.isnan(value), evaluated)


def called(failure: str) -> str:
    """A failure as the survey calls it: "mode collapse", "non-convergence"."""
    return failure.replace("non_", "non-").replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is known of one failure.

    ``state``: "none", "suspected", "confirmed", or "unknown"; ``since``: the iteration at which it
    began (``None`` in state none), ``confirmed_since``: at which it was proved, as it still is;
    ``evidence``: what was seen, in words with numbers (of what is unknown, why); ``form``: its
    strongest form, where it has one ("divergence"); ``advice``: options to try, with reasons.
    ``until``: of a failure that is past, the iteration at which it was seen last.
    """

    failure: str
    state: State = "none"
    since: int | None = None
    evidence: str = ""
    form: str = ""
    advice: tuple[str, ...] = ()
    confirmed_since: int | None = None
    until: int | None = None

    def line(self) -> str:
        """One line for the user."""
        name = called(self.form or self.failure)
        if self.state == "unknown":
            return f"{name} cannot be told: {self.evidence}"
        if self.until is not None:
            return f"{name}, iterations {self.confirmed_since:,} to {self.until:,}: {self.evidence}"
        if self.state == "none":
            return f"no {name}" + (f": {self.evidence}" if self.evidence else "")
        return f"{name} {self.state}, since iteration {self.since:,}: {self.evidence}"

    def row(self) -> str:
        """The same without its state, for a table that has that in a column."""
        name = called(self.form or self.failure)
        if self.since is None:
            return f"{name}: {self.evidence}" if self.evidence else name
        told = f"{name}, since iteration {self.since:,}"
        if self.confirmed_since not in (None, self.since):
            told += f", confirmed from {self.confirmed_since:,} on"
        return f"{told}: {self.evidence}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a summary."""
        return {**dataclasses.asdict(self), "advice": list(self.advice)}


def worst(signs: Sequence[Sign]) -> int:
    """The level of the strongest sign, 0 without any."""
    return max((sign.level for sign in signs), default=0)


def in_words(signs: Sequence[Sign]) -> str:
    """The evidence: the strongest signs first; without any suspicion nothing."""
    bad = sorted((sign for sign in signs if sign.level > 0), key=lambda sign: -sign.level)
    return "; ".join(sign.text for sign in bad)
