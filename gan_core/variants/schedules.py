"""Learning rates and momenta as functions of the updates, or of the iterations, so far."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class ExponentialDecay:
    """``divisor ** -updates``, never below ``floor``; both as shares of the initial rate."""

    divisor: float
    floor: float = 0.0

    def __call__(self, updates: int) -> float:
        return max(self.divisor**-updates, min(self.floor, 1.0))


@dataclasses.dataclass(frozen=True)
class LinearRamp:
    """From ``start`` to ``end`` over the first ``length`` of them, then ``end``."""

    start: float
    end: float
    length: int

    def __call__(self, played: float) -> float:
        return self.start + (self.end - self.start) * min(1.0, played / self.length)


@dataclasses.dataclass(frozen=True)
class CosineDecay:
    """Half a cosine from 1 to 0 over the first ``length`` iterations, then 0."""

    length: int

    def __call__(self, iterations: float) -> float:
        return (1 + math.cos(math.pi * min(1.0, iterations / self.length))) / 2


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """1 for the first ``at`` iterations, ``factor`` from then on."""

    at: int
    factor: float

    def __call__(self, iterations: float) -> float:
        return 1.0 if iterations < self.at else self.factor


@dataclasses.dataclass(frozen=True)
class HoldThenFall:
    """1 for the first ``hold`` iterations, then linearly towards 0, which it has at ``length``."""

    hold: int
    length: int

    def __call__(self, iterations: float) -> float:
        if iterations < self.hold:
            return 1.0
        return max(0.0, (self.length - iterations) / max(1, self.length - self.hold))


@dataclasses.dataclass(frozen=True)
class Halving:
    """Half as much after every ``every`` iterations."""

    every: int

    def __call__(self, iterations: float) -> float:
        return float(0.5 ** (iterations // self.every))
