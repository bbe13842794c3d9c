"""Metrics as they came, by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping


class History:
    """Series of (step, value) by name; the newest is last."""

    def __init__(self) -> None:
        self._series: dict[str, list[tuple[int, float]]] = {}
        self.step = 0
        self.points = 0
        """How many logging points there were so far (rows with a player's loss or norm)."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one logging point or evaluation."""
        self.step = step
        self.points += any(name.startswith(("loss/", "weight_norm/")) for name in values)
        for name, value in values.items():
            self._series.setdefault(name, []).append((step, float(value)))

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with ``prefix``."""
        return [name for name in self._series if name.startswith(prefix)]

    def steps(self, name: str) -> list[int]:
        """The steps at which ``name`` was measured."""
        return [step for step, _ in self._series.get(name, ())]

    def values(self, name: str, last: int | None = None) -> list[float]:
        """All values of ``name``, or the ``last`` of them."""
        series = self._series.get(name, [])
        return [value for _, value in (series if last is None else series[-last:])]

    def latest(self, name: str) -> float:
        """The newest value; NaN if there is none."""
        values = self.values(name, 1)
        return values[0] if values else math.nan

    def median(self, name: str, last: int) -> float:
        """The median of the ``last`` values of ``name``; NaN until there are as many."""
        values = [v for v in self.values(name, last) if not math.isnan(v)]
        return statistics.median(values) if len(values) >= last else math.nan
