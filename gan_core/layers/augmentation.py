"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, arXiv:2006.10738).

Real and generated pictures alike are changed by random operations through which gradients flow,
so that a discriminator of little data cannot learn it by heart, and the generator does not learn
the changes. The random numbers are given, (0, 1) each, so that they can be data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from gan_core.errors import UserError, unknown_word

SHIFT = 1 / 8
"""The largest translation, as a share of the side (the paper's code)."""
CUT = 1 / 2
"""The side of the square that is cut out, as a share of the picture's (the paper's code)."""


def color(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness + U(-1/2, 1/2), saturation x U(0, 2), contrast x U(1/2, 3/2), in this order."""
    brightness, saturation, contrast = numbers[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (2 * saturation)
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return level + (images - level) * (contrast + 0.5)


def translation(images: Tensor, numbers: Tensor) -> Tensor:
    """Shifted by whole pixels, each way up to an eighth of the side; what comes in is 0."""
    for axis, place in ((2, 0), (3, 1)):
        size = images.shape[axis]
        furthest = int(size * SHIFT + 0.5)
        steps = _whole(numbers[:, place], 2 * furthest + 1) - furthest
        images = _shifted(images, steps, axis)
    return images


def _shifted(images: Tensor, steps: Tensor, axis: int) -> Tensor:
    """By products with matrices of zeros and ones: no scattering in the backward pass."""
    places = torch.arange(images.shape[axis], device=images.device)
    shift = (places[:, None] - places[None, :] == steps[:, None, None]).to(images.dtype)[:, None]
    return shift @ images if axis == 2 else images @ shift.transpose(2, 3)


def cutout(images: Tensor, numbers: Tensor) -> Tensor:
    """A square of half the side is 0; its middle may lie anywhere, so it may be cut off."""
    kept = []
    for axis, place in ((2, 0), (3, 1)):
        size = images.shape[axis]
        side = int(size * CUT + 0.5)
        first = _whole(numbers[:, place], size + 1 - side % 2) - side // 2
        places = torch.arange(size, device=images.device)
        inside = (places >= first[:, None]) & (places < first[:, None] + side)
        kept.append(inside)
    rows, columns = kept
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def flip(images: Tensor, numbers: Tensor) -> Tensor:
    """Left and right exchanged, for half of the pictures."""
    return torch.where(numbers[:, 0, None, None, None] < 0.5, images, images.flip(3))


def _whole(numbers: Tensor, count: int) -> Tensor:
    """Whole numbers 0 .. ``count`` - 1 from numbers in [0, 1]."""
    return (numbers * count).long().clamp(0, count - 1)


OPERATIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "color": (color, 3),
    "translation": (translation, 2),
    "cutout": (cutout, 2),
    "flip": (flip, 1),
}
"""Operations in the order in which they are made, with how many numbers each one reads."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Some of the operations, one after another: images (N, C, H, W) to the same shape."""

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """From "none" or names with commas; raises ``UserError`` for anything else."""
        words = {word.strip() for word in text.split(",")} - {"none"}
        for word in sorted(words - set(OPERATIONS)):
            raise unknown_word("--diffaug", word, ["none", *OPERATIONS])
        return cls(tuple(name for name in OPERATIONS if name in words))

    @property
    def numbers(self) -> int:
        """How many random numbers a picture needs; 0 where nothing is to be done."""
        return sum(OPERATIONS[name][1] for name in self.names)

    def check(self, target: str) -> None:
        """Raises ``UserError`` where there are no pictures to change."""
        if self.names and target != "image":
            raise UserError(f"--diffaug is for pictures, this source has {target} data")

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """``images`` changed as ``numbers`` (N, :attr:`numbers`), in (0, 1), say."""
        start = 0
        for name in self.names:
            operation, count = OPERATIONS[name]
            # In their own precision: as bfloat16 they would choose other places than for float32.
            images = operation(images, numbers[:, start : start + count])
            start += count
        return images
