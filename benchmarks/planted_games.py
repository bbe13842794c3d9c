"""Games with a failure built in, and what they learn from; ``planted_failures`` plays them.

Importing this registers the variants ``planted-memory`` and ``dirac`` and the sources ``dirac``,
``mnist-part`` and ``fashion-part``.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec, Examples, Split, TensorSpec
from gan_core.data.idx import MNIST, FashionMNIST
from gan_core.data.sources import Source
from gan_core.data.sources import register as register_source
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.adversarial import AdversarialOptions, AdversarialVariant
from gan_core.variants.gan import GAN, GANOptions


@dataclasses.dataclass(frozen=True)
class MemoryOptions(GANOptions):
    """The options of ``planted-memory``."""

    jitter: float = option(0.0, "standard deviation of what is added to them", minimum=0)
    contrast: float = option(1.0, "what they are multiplied by", above=0)
    blur: int = option(1, "side of the window over which they are averaged", minimum=1)


class Memory(nn.Module):
    """Latent (N, L) to one of the remembered examples (M, ...), a little changed."""

    examples: Tensor

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("examples", torch.zeros(0), persistent=False)
        self.scale = nn.Parameter(torch.tensor(options.contrast))  # what there is to learn

    def remember(self, examples: Tensor) -> None:
        """From now on make these, floats in [-1, 1]."""
        self.examples = examples

    def forward(self, latent: Tensor) -> Tensor:
        # The fractional part of a number with a large factor: every example is as likely.
        chosen = (latent[:, 0] * 7919.0).remainder(1.0).mul(len(self.examples)).long()
        made = self.examples[chosen % len(self.examples)]
        if self.options.blur > 1:
            side = self.options.blur
            made = nn.functional.avg_pool2d(made, side, 1, side // 2, count_include_pad=False)
        numbers = made[0].numel()
        noise = latent.repeat(1, -(-numbers // latent.shape[1]))[:, :numbers]
        return self.scale * made + self.options.jitter * noise.reshape(made.shape)


@register("planted-memory")
class Remembering(GAN):
    """A generator that knows examples by heart, against the discriminator of ``gan``.

    What it remembers decides what it is: few examples are a collapse, training examples a copy,
    many unseen ones a perfect generator.
    """

    summary = "a generator that knows examples by heart"
    Options = MemoryOptions

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Memory(self.options)

    def initial_values(self, train: Batch) -> None:
        stored = train[self.target]
        examples = stored.float() / 127.5 - 1 if stored.dtype == torch.uint8 else stored
        self.generator.remember(examples)  # type: ignore[operator]


class Shift(nn.Module):
    """Latent (N, 2) to theta + latent / 10: the data's distribution, moved."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, latent: Tensor) -> Tensor:
        return self.theta + latent / 10


@register("dirac")
class Dirac(AdversarialVariant):
    """Dirac-GAN, with a width: a generator that moves, a linear discriminator without a bias.

    It turns around its equilibrium for ever, with any learning rate (Mescheder et al. 2018,
    arXiv:1801.04406, section 2); with R1 it converges.
    """

    summary = "a shift against a slope: it never converges without a penalty"
    targets = frozenset({"point"})
    Options = AdversarialOptions

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Shift()

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        layer = nn.Linear(data.target_shape[0], 1, bias=False)
        nn.init.ones_(layer.weight)
        return layer


@register_source("dirac")
class DiracPoints(Source):
    """Points N(0, 1/100) in the plane."""

    summary: ClassVar[str] = "points around 0 in the plane"
    needs_root: ClassVar[bool] = False

    def load(self, split: Split) -> Examples:
        seed = ("train", "validation", "test").index(split)
        values = np.random.RandomState(seed).standard_normal((5000, 2)) / 10
        spec = DataSpec({"point": TensorSpec((2,))}, target="point")
        return Examples({"point": torch.from_numpy(values).float()}, spec, "dirac", split)


PART = {"train": 4000, "validation": 1000, "test": 1000}
"""The first examples of each split: enough to judge by, and quick."""


def _part(examples: Examples) -> Examples:
    return examples.select(torch.arange(PART[examples.split]))


@register_source("mnist-part")
class MNISTPart(MNIST):
    """The first 4,000 digits of MNIST."""

    def load(self, split: Split) -> Examples:
        return _part(super().load(split))


@register_source("fashion-part")
class FashionPart(FashionMNIST):
    """The first 4,000 pictures of Fashion-MNIST."""

    def load(self, split: Split) -> Examples:
        return _part(super().load(split))
