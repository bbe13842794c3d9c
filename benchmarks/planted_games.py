"""Games with a failure built in, and what they learn from; ``planted_failures`` plays them.

Importing this registers the variants ``planted-copies`` and ``dirac`` and the sources ``dirac``,
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
class CopiesOptions(GANOptions):
    """The options of ``planted-copies``."""

    copies: int = option(10, "how many training examples the generator knows", minimum=1)
    jitter: float = option(0.02, "standard deviation of what it adds to them", minimum=0)


class Copier(nn.Module):
    """Latent (N, L) to one of the remembered examples, a little disturbed."""

    examples: Tensor

    def __init__(self, count: int, jitter: float, data: DataSpec) -> None:
        super().__init__()
        self.jitter = jitter
        self.register_buffer("examples", torch.zeros(count, *data.target_shape))
        self.scale = nn.Parameter(torch.ones(()))  # what there is to learn

    def forward(self, latent: Tensor) -> Tensor:
        # The fractional part of a sum with large weights: every example is as likely.
        chosen = (latent[:, 0] * 7919.0).remainder(1.0).mul(len(self.examples)).long()
        flat = latent[:, 1:] * self.jitter
        shape = self.examples.shape[1:]
        noise = flat.repeat(1, -(-shape.numel() // flat.shape[1]))[:, : shape.numel()]
        return self.scale * self.examples[chosen % len(self.examples)] + noise.reshape(-1, *shape)


@register("planted-copies")
class Copies(GAN):
    """A generator that copies few training examples, against the discriminator of ``gan``."""

    summary = "a generator that copies few training examples"
    Options = CopiesOptions

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Copier(self.options.copies, self.options.jitter, data)

    def initial_values(self, train: Batch) -> None:
        stored = train[self.target]
        places = torch.arange(self.options.copies) * len(stored) // self.options.copies
        examples = stored[places]
        if examples.dtype == torch.uint8:
            examples = examples.float() / 127.5 - 1
        self.generator.examples.copy_(examples)  # type: ignore[operator]


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
