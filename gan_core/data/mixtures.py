"""Two-dimensional Gaussian mixtures whose modes can be counted: the ring and the grid.

The protocol of VEEGAN (Srivastava et al. 2017, section 4.1) and PacGAN (Lin et al. 2018,
section 4.1): a ring of 8 modes and a grid of 25, 100,000 training points.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.sources import Source, register

_SIZES = {"train": 100_000, "validation": 10_000, "test": 10_000}


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Equally likely Gaussians: means ``modes`` (M, 2) float32, standard deviation ``sigma``."""

    modes: Tensor
    sigma: float


def ring_modes(count: int = 8, radius: float = 1.0) -> Tensor:
    """``count`` points (count, 2) evenly on a circle; the first is (radius, 0).

    The angle 2 pi is the first point again: including it would leave one mode fewer.
    """
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return (radius * torch.stack([angles.cos(), angles.sin()], dim=1)).float()


def grid_modes() -> Tensor:
    """The 25 points (25, 2) of {-4, -2, 0, 2, 4} x {-4, -2, 0, 2, 4}."""
    ticks = torch.arange(-4.0, 5.0, 2.0)
    return torch.cartesian_prod(ticks, ticks)


MIXTURES = {"ring": Mixture(ring_modes(), 0.01), "grid": Mixture(grid_modes(), 0.05)}
"""The mixture of each source, for the metrics that count modes."""


class MixtureSource(Source):
    """Points (2,) drawn from ``MIXTURES[name]``: 100,000 train, 10,000 validation, 10,000 test.

    They carry no labels: that a generator covers the modes is what is to be found out.
    """

    needs_root: ClassVar[bool] = False
    name: ClassVar[str]
    seed: ClassVar[int]

    def load(self, split: Split) -> Examples:
        mixture = MIXTURES[self.name]
        # RandomState: its stream is frozen, so the points are the same in every version.
        random = np.random.RandomState(self.seed + list(_SIZES).index(split))
        modes = mixture.modes.double().numpy()[
            random.randint(len(mixture.modes), size=_SIZES[split])
        ]
        points = modes + mixture.sigma * random.standard_normal(modes.shape)
        spec = DataSpec({"point": TensorSpec((2,))}, target="point")
        return Examples({"point": torch.from_numpy(points).float()}, spec, self.name, split)


@register("ring")
class Ring(MixtureSource):
    """8 Gaussians on the unit circle, standard deviation 0.01."""

    summary: ClassVar[str] = "2-D mixture of 8 Gaussians on a circle (VEEGAN, PacGAN), no files"
    name: ClassVar[str] = "ring"
    seed: ClassVar[int] = 8000


@register("grid")
class Grid(MixtureSource):
    """25 Gaussians on a 5 x 5 grid of spacing 2, standard deviation 0.05."""

    summary: ClassVar[str] = "2-D mixture of 25 Gaussians on a grid (VEEGAN, PacGAN), no files"
    name: ClassVar[str] = "grid"
    seed: ClassVar[int] = 25000
