"""Stacked MNIST: 1,000 modes that a classifier can count (Metz et al. 2017, PacGAN)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import torch

from gan_core.data.examples import Examples, Split
from gan_core.data.idx import MNIST
from gan_core.data.source_options import Download, OnBadFile
from gan_core.data.sources import picture_spec, register
from gan_core.errors import UserError

SIZES = {"train": 128_000, "validation": 26_000, "test": 26_000}
"""Of PacGAN's protocol (Lin et al. 2018, arXiv:1712.04086, section 4.2)."""
CHANNELS = 3
STACKED = "stacked-mnist"


@register(STACKED)
class StackedMNIST(MNIST):
    """Three random digits of MNIST as the channels of a picture: 128,000 / 26,000 / 26,000.

    Each split stacks digits of MNIST's own. The class is the number that the digits make, 0..999,
    the first channel's digit first.
    """

    summary: ClassVar[str] = "three random MNIST digits as channels 28x28, 1,000 classes; IDX files"
    name: ClassVar[str] = STACKED

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
        download: Download = False,
        stack_seed: Annotated[int, "decides which digits meet"] = 0,
        examples: Annotated[int | None, "training pictures; not given: 128,000"] = None,
    ) -> None:
        super().__init__(root, on_bad_file=on_bad_file, download=download)
        if stack_seed < 0:
            raise UserError(f"--stack-seed must be at least 0, not {stack_seed}")
        if examples is not None and examples < 1:
            raise UserError(f"--examples must be at least 1, not {examples}")
        self.stack_seed, self.examples = stack_seed, examples

    def load(self, split: Split) -> Examples:
        digits = super().load(split)
        count = SIZES[split]
        if split == "train" and self.examples is not None:
            count = self.examples
        seed = len(SIZES) * self.stack_seed + list(SIZES).index(split)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(digits), (count, CHANNELS), generator=generator)
        labels = digits.tensors["label"][chosen]
        places = 10 ** torch.arange(CHANNELS - 1, -1, -1)
        tensors = {
            "image": digits.tensors["image"][chosen, 0],
            "label": (labels * places).sum(1),
        }
        names = tuple(f"{number:03d}" for number in range(10**CHANNELS))
        _, rows, columns = digits.spec.target_shape
        spec = picture_spec((CHANNELS, rows, columns), names)
        return Examples(tensors, spec, self.name, split)


def unstack(examples: Examples, limit: int = 20_000) -> Examples:
    """The single digits, ten classes, of the first ``limit`` of stacked ``examples``."""
    images = examples.tensors["image"][:limit]
    labels = examples.tensors["label"][:limit]
    places = 10 ** torch.arange(CHANNELS - 1, -1, -1)
    tensors = {
        "image": images.flatten(0, 1).unsqueeze(1),
        "label": (labels[:, None] // places % 10).flatten(),
    }
    _, _, rows, columns = images.shape
    spec = picture_spec((1, rows, columns), tuple(str(digit) for digit in range(10)))
    return dataclasses.replace(examples, tensors=tensors, spec=spec)
