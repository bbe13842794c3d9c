"""Scales: where a value lies on an axis, and which values its ticks name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol


class Scale(Protocol):
    """An axis: values to places from 0 to 1, and ticks."""

    def place(self, value: Any) -> float | None:
        """From 0 to 1; ``None`` for what has no place (missing, not finite)."""

    def ticks(self) -> list[tuple[float, str]]:
        """Places with their labels."""


def label(value: float) -> str:
    """A number as a tick names it."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Linear:
    """From ``low`` to ``high``."""

    low: float
    high: float

    def place(self, value: Any) -> float | None:
        if not _finite(value):
            return None
        return min(1.0, max(0.0, (float(value) - self.low) / ((self.high - self.low) or 1.0)))

    def ticks(self) -> list[tuple[float, str]]:
        span = (self.high - self.low) or 1.0
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next((m for m in (1, 2, 5, 10) if span / (m * step) <= 6), 10)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        values = [number * step for number in range(first, last + 1)]
        return [((v - self.low) / span, label(v)) for v in values]


@dataclasses.dataclass(frozen=True)
class Log:
    """From ``low`` to ``high``, both positive, by powers of ten."""

    low: float
    high: float

    def place(self, value: Any) -> float | None:
        if not _finite(value) or float(value) <= 0:
            return None
        span = math.log(self.high / self.low) or 1.0
        return min(1.0, max(0.0, math.log(float(value) / self.low) / span))

    def ticks(self) -> list[tuple[float, str]]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1,) if last - first > 2 else (1, 2, 5)
        values = [m * 10.0**power for power in range(first, last + 1) for m in factors]
        inside = [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
        return [(self.place(v) or 0.0, label(v)) for v in inside]


@dataclasses.dataclass(frozen=True)
class Choices:
    """One place for each of ``choices``, evenly."""

    choices: tuple[Any, ...]

    def place(self, value: Any) -> float | None:
        if value not in self.choices:
            return None
        return (self.choices.index(value) + 0.5) / len(self.choices)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.place(c) or 0.0, str(c)) for c in self.choices]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def fitting(values: Sequence[float], *, log: bool | None = None) -> Linear | Log:
    """A scale that holds the finite ``values`` with a margin.

    Logarithmic if ``log``; if that is not said, where all are positive and span two decades.
    """
    finite = [float(v) for v in values if _finite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if low == high == 0:
        return Linear(0.0, 1.0)
    if log is None:
        log = low > 0 and high / low > 100
    if log and any(v > 0 for v in finite):
        low = min(v for v in finite if v > 0)
        margin = (high / low) ** 0.04 if high > low else 2.0
        return Log(low / margin, high * margin)
    margin = 0.04 * (high - low) or max(abs(high) * 0.1, 0.5)
    return Linear(low - margin, high + margin)
