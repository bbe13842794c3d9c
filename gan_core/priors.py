"""Noise priors: what a generator is fed, from uniform numbers that the engine draws."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

from gan_core.errors import UserError
from gan_core.randomness import random_words, uniforms


class Prior(Protocol):
    """A distribution, as a map of random words."""

    def from_words(self, words: Tensor) -> Tensor:
        """int64 (N, 4 m) random 32-bit words to values (N, 4 m)."""


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(0, 1) in every dimension, by Box and Muller's method on pairs of words."""

    def from_words(self, words: Tensor) -> Tensor:
        # In float64, so that a rank's slice rounds to the same float32 as the whole batch does.
        first, second = uniforms(words).unflatten(1, (-1, 2)).unbind(-1)
        radius, angle = torch.sqrt(-2.0 * torch.log(first)), 2.0 * math.pi * second
        both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
        return both.flatten(1).to(torch.get_default_dtype())


@dataclasses.dataclass(frozen=True)
class TruncatedGaussian:
    """N(0, 1) given that |z| <= ``bound``, in every dimension, by its inverse distribution."""

    bound: float

    def holds(self, values: Tensor) -> Tensor:
        """Where ``values`` are within the bound."""
        return values.abs() <= self.bound

    def from_words(self, words: Tensor) -> Tensor:
        low = 0.5 * math.erfc(self.bound / math.sqrt(2))
        values = torch.special.ndtri(low + (1 - 2 * low) * uniforms(words))
        return values.clamp(-self.bound, self.bound).to(torch.get_default_dtype())


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform on (low, high) in every dimension."""

    low: float = -1.0
    high: float = 1.0

    def holds(self, values: Tensor) -> Tensor:
        """Where ``values`` are within the bounds."""
        return (values >= self.low) & (values <= self.high)

    def from_words(self, words: Tensor) -> Tensor:
        values = self.low + (self.high - self.low) * uniforms(words)
        return values.to(torch.get_default_dtype())


@dataclasses.dataclass(frozen=True)
class Integers:
    """Whole numbers 0 .. count - 1, equally likely, as int64."""

    count: int

    def from_words(self, words: Tensor) -> Tensor:
        return (words * self.count) >> 32


def truncated(prior: Prior, bound: float) -> TruncatedGaussian | Uniform | None:
    """``prior`` without its tails; ``None`` for one that has none.

    A Gaussian is cut at |z| <= ``bound``; of a uniform prior ``bound`` is the share that is left,
    1 at most, around its middle.
    """
    if not bound > 0:
        raise UserError(f"noise is truncated at a number above 0, not {bound}")
    if isinstance(prior, Gaussian):
        return TruncatedGaussian(bound)
    if isinstance(prior, Uniform):
        middle, half = (prior.low + prior.high) / 2, (prior.high - prior.low) / 2
        return Uniform(middle - min(bound, 1) * half, middle + min(bound, 1) * half)
    return None


PRIORS = ("gaussian", "uniform")


def create_prior(name: str, low: float = -1.0, high: float = 1.0) -> Prior:
    """The prior called ``name``; ``low`` and ``high`` are the bounds of the uniform one."""
    priors: dict[str, Prior] = {"gaussian": Gaussian(), "uniform": Uniform(low, high)}
    return priors[name]


def draw(prior: Prior, key: int, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values (N, *shape) for the samples ``index`` (int64, (N,)) of the stream ``key``."""
    count = math.prod(shape)
    values = prior.from_words(random_words(key, index, count))
    return values[:, :count].reshape(len(index), *shape)
