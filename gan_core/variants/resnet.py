"""What the ResNet systems, SN-GAN, SAGAN and BigGAN, share: widths by size, and networks.

The tables give the papers' networks at every size. At 32 pixels: Miyato et al. 2018
(arXiv:1802.05957), table 4; at 128 the ImageNet networks of Miyato and Koyama 2018
(arXiv:1802.05637), which SAGAN and BigGAN begin with too; at 64 those of BigGAN's code, whose
discriminator ends in maps of 4 pixels (SN-GAN's halves once more: ``sngan.py``). 16 pixels have a
block less. The discriminator's last layer has no bias, as SN-GAN's; in the code of SAGAN and of
BigGAN it has one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import DataSpec
from gan_core.data.views import SquareView, View
from gan_core.errors import UserError
from gan_core.layers.attention import SelfAttention
from gan_core.layers.init import glorot_weights
from gan_core.layers.labels import class_weights
from gan_core.layers.normalisation import ConditionalBatchNorm2d
from gan_core.layers.residual import DownBlock, UpBlock, convolution
from gan_core.layers.spectral import SpectralLinear
from gan_core.options import option
from gan_core.variants.adversarial import AdversarialOptions, AdversarialVariant
from gan_core.variants.unrolling import STEEP_RATE, UNROLLED_RATE

BOTTOM = 4
"""Pixels a side where generators begin."""


@dataclasses.dataclass(frozen=True)
class Widths:
    """Channels of the networks for one size, as multiples of a base.

    ``up``: of the generator's feature maps from 4 pixels on, each twice as large as the last.
    ``down``: of the discriminator's blocks, the first ``halvings`` of which halve the size.
    """

    base_g: int
    up: tuple[int, ...]
    base_d: int
    down: tuple[int, ...]
    halvings: int


WIDTHS = {
    16: Widths(256, (1, 1, 1), 128, (1, 1, 1), 1),
    32: Widths(256, (1, 1, 1, 1), 128, (1, 1, 1, 1), 2),
    64: Widths(64, (16, 8, 4, 2, 1), 64, (1, 2, 4, 8, 16), 4),
    128: Widths(64, (16, 16, 8, 4, 2, 1), 64, (1, 2, 4, 8, 16, 16), 5),
}


@dataclasses.dataclass(frozen=True)
class ResNetOptions(AdversarialOptions):
    """Options of the ResNet systems."""

    image_size: int = option(32, "pixels a side of the pictures: 16, 32, 64 or 128", minimum=1)
    width_g: int | None = option(
        None,
        "channels of the generator's layer next to the picture; not given: the paper's 256 up to "
        "32 pixels, 64 beyond",
        minimum=1,
    )
    width_d: int | None = option(
        None,
        "channels of the discriminator's first block; not given: the paper's 128 up to 32 "
        "pixels, 64 beyond",
        minimum=1,
    )
    attention: int = option(
        0, "pixels a side of the feature maps that get self-attention, 0 for none", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that the networks of a ResNet system are made from.

    ``up``, ``down``, ``halvings``: channels, as in :class:`Widths`. ``classes``: 0 for no labels.
    ``spectral_g``: spectral norm in the generator. ``wide_d``: a block of D has its larger number
    of channels between its convolutions as well. ``second_order``: D is differentiated twice.
    """

    size: int
    up: tuple[int, ...]
    down: tuple[int, ...]
    halvings: int
    latent: int
    image_channels: int
    classes: int = 0
    attention: int = 0
    spectral_g: bool = False
    wide_d: bool = True
    second_order: bool = False


class GeneratorTrunk(nn.Module):
    """Feature maps (N, C, 4, 4), and a condition for each block, to pictures in [-1, 1].

    ``conditions``: the width of every block's condition, 0 for plain batch normalisation.
    """

    def __init__(
        self, shape: Architecture, conditions: int = 0, *, spectral_conditions: bool = False
    ) -> None:
        super().__init__()
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for number, (inputs, outputs) in enumerate(itertools.pairwise(shape.up)):
            self.blocks.append(
                UpBlock(
                    inputs,
                    outputs,
                    conditions=conditions,
                    spectral=shape.spectral_g,
                    spectral_conditions=spectral_conditions,
                )
            )
            if BOTTOM * 2 ** (number + 1) == shape.attention:
                self.attention[str(number)] = SelfAttention(outputs)
        self.norm = nn.BatchNorm2d(shape.up[-1])
        self.output = convolution(shape.up[-1], shape.image_channels, 3, spectral=shape.spectral_g)

    def forward(self, values: Tensor, conditions: Sequence[Tensor | None]) -> Tensor:
        for number, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            values = block(values, condition)
            if str(number) in self.attention:
                values = self.attention[str(number)](values)
        return torch.tanh(self.output(F.relu(self.norm(values))))


class Generator(nn.Module):
    """Latent (N, latent), and labels where there are classes, to pictures in [-1, 1]."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.classes, self.start = shape.classes, (shape.up[0], BOTTOM, BOTTOM)
        linear = SpectralLinear if shape.spectral_g else nn.Linear
        self.project = linear(shape.latent, math.prod(self.start))
        self.trunk = GeneratorTrunk(shape, shape.classes)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        condition = None if label is None else class_weights(label, self.classes, latent)
        values = self.project(latent).unflatten(1, self.start)
        return self.trunk(values, [condition] * len(self.trunk.blocks))


class Discriminator(nn.Module):
    """Pictures (N, C, S, S), and labels where there are classes, to logits (N,).

    With labels it is the projection discriminator (Miyato and Koyama 2018, equation 3): to the
    logit of the features is added their product with the class's embedding.
    """

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.classes = shape.classes
        layers: list[nn.Module] = []
        size, channels = shape.size, (shape.image_channels, *shape.down)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            first, halve = number == 0, number < shape.halvings
            hidden = outputs if first or shape.wide_d else inputs
            layers.append(DownBlock(inputs, outputs, hidden, halve=halve, first=first))
            size = size // 2 if halve else size
            if size == shape.attention and halve:
                layers.append(SelfAttention(outputs, second_order=shape.second_order))
        self.blocks = nn.Sequential(*layers)
        self.output = SpectralLinear(shape.down[-1], 1, bias=False)
        if shape.classes:
            self.embedding = SpectralLinear(shape.classes, shape.down[-1], bias=False)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = F.relu(self.blocks(image)).sum(dim=(2, 3))
        logits = self.output(features).flatten()
        if label is None:
            return logits
        embedded = self.embedding(class_weights(label, self.classes, features))
        return logits + (embedded * features).sum(dim=1)


def glorot_resnet(network: nn.Module, residual_gain: float = 1.0) -> None:
    """Glorot's weights, with a gain of their own in the 3x3 convolutions of residual blocks."""
    glorot_weights(network)
    for module in network.modules():
        if isinstance(module, (UpBlock, DownBlock)):
            glorot_weights(module.conv1, residual_gain)
            glorot_weights(module.conv2, residual_gain)
        elif isinstance(module, ConditionalBatchNorm2d):
            module.begin()


class ResNetVariant(AdversarialVariant):
    """A ResNet system; a subclass says what is special about its networks."""

    Options = ResNetOptions
    widths: ClassVar[dict[int, Widths]] = WIDTHS
    """The networks by size, which may be other ones than most systems'."""
    spectral_g: ClassVar[bool] = False
    wide_d: ClassVar[bool] = True
    residual_gain: ClassVar[float] = 1.0

    def check_options(self) -> None:
        super().check_options()
        size, attention = self.options.image_size, self.options.attention
        if size not in self.widths:
            raise UserError(f"--image-size must be {_listed(self.widths)}, not {size}")
        maps = _maps(size, self.widths[size])
        if attention and attention not in maps:
            raise UserError(
                f"--attention must be 0 or {_listed(maps)} at {size} pixels, not {attention}"
            )

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        plain = getattr(self.options, "architecture", "resnet") == "cnn"
        rate = UNROLLED_RATE if plain else STEEP_RATE
        return {**super().resolve(data), "unrolled_rate": rate}

    def view(self, spec: DataSpec) -> View:
        return SquareView(self.options.image_size)

    def architecture(self, data: DataSpec) -> Architecture:
        """The networks for targets like those of ``data``."""
        recipe = self.recipe
        widths = self.widths[recipe.image_size]
        return Architecture(
            size=recipe.image_size,
            up=tuple(m * (recipe.width_g or widths.base_g) for m in widths.up),
            down=tuple(m * (recipe.width_d or widths.base_d) for m in widths.down),
            halvings=widths.halvings,
            latent=recipe.latent,
            image_channels=data.target_shape[0],
            classes=data.classes if self.conditional else 0,
            attention=recipe.attention,
            spectral_g=self.spectral_g,
            wide_d=self.wide_d,
            second_order=self.second_order or recipe.unrolled > 0,
        )

    def make_generator(self, data: DataSpec) -> nn.Module:
        generator = Generator(self.architecture(data))
        glorot_resnet(generator, self.residual_gain)
        return generator

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        discriminator = Discriminator(self.architecture(data))
        glorot_resnet(discriminator, self.residual_gain)
        return discriminator


def _maps(size: int, widths: Widths) -> list[int]:
    """The sizes of feature maps that both networks for ``size`` have, where attention may be."""
    smallest = max(2 * BOTTOM, size // 2**widths.halvings)
    return [s for s in (size // 2**n for n in range(1, 8)) if s >= smallest]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
