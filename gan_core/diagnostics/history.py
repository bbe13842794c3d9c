"""Metrics as they came, by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

BEGUN, LENGTH = "stage/begun", "stage/steps"
"""What a game of several stages logs of the one that is played: the iteration after which it began,
and how many it is to have."""


class History:
    """Series of (step, value) by name; the newest is last.

    A stage is a game of its own, often of fresh networks: :meth:`recent`, :meth:`latest` and
    :meth:`median` are of the stage that is played.
    """

    def __init__(self) -> None:
        self._series: dict[str, list[tuple[int, float]]] = {}
        self.step = 0
        self.began = 0
        """The iteration after which the stage that is played began."""
        self._length: float | None = None
        self.points = 0
        """How many logging points there were so far (rows with a player's loss or norm)."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one logging point or evaluation."""
        self.step = step
        self.began = int(values.get(BEGUN, self.began))
        self._length = values.get(LENGTH, self._length)
        self.points += any(name.startswith(("loss/", "weight_norm/")) for name in values)
        for name, value in values.items():
            self._series.setdefault(name, []).append((step, float(value)))

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with ``prefix``."""
        return [name for name in self._series if name.startswith(prefix)]

    def steps(self, name: str) -> list[int]:
        """The steps at which ``name`` was measured."""
        return [step for step, _ in self._series.get(name, ())]

    def younger_than(self, share: float, steps: int) -> bool:
        """Whether less than ``share`` of the stage's iterations was played.

        ``steps``: how many these are where nothing was logged of that, as in a game of one stage.
        """
        return self.step < self.grown_at(share, steps)

    def grown_at(self, share: float, steps: int) -> int:
        """The iteration at which ``share`` of the stage's iterations is played."""
        length = steps if self._length is None else self._length
        return self.began + math.ceil(share * length)

    def values(self, name: str) -> list[float]:
        """All values of ``name``, of whatever stage."""
        return [value for _, value in self._series.get(name, ())]

    def recent(self, name: str, last: int) -> list[float]:
        """The ``last`` values of ``name``, but for those of earlier stages."""
        series = self._series.get(name, [])[-last:]
        return [value for step, value in series if step > self.began or not self.began]

    def latest(self, name: str) -> float:
        """The newest value; NaN if there is none."""
        values = self.recent(name, 1)
        return values[0] if values else math.nan

    def median(self, name: str, last: int) -> float:
        """The median of the ``last`` values of ``name``; NaN until there are as many."""
        values = [v for v in self.recent(name, last) if not math.isnan(v)]
        return statistics.median(values) if len(values) >= last else math.nan
