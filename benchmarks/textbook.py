"""Networks as a textbook writes them: the baseline of `benchmarks.speed`.

SN-GAN's residual networks (Miyato et al. 2018, arXiv:1802.05957, table 4) and BigGAN's (Brock et
al. 2018, arXiv:1809.11096, appendix B) from torch's own parts: spectral norm by
``torch.nn.utils.parametrizations``, nearest enlarging before a convolution, averaging after one,
shortcuts in the same order. DCGAN's networks in this project are plain layers already, so they
are taken as they are. Weights are as many as in the project's networks, and called alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_core.errors import UserError
from gan_core.variants.adversarial import AdversarialVariant
from gan_core.variants.resnet import BOTTOM, Architecture, ResNetVariant

Wrap = Callable[[nn.Module], nn.Module]
"""What is done to a layer that has just been made."""


def glorot(layer: Any) -> nn.Module:
    """``layer`` with Glorot's weights and no bias to begin with."""
    nn.init.xavier_uniform_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    return layer


def spectral(layer: nn.Module) -> nn.Module:
    """``layer`` under torch's own spectral normalisation."""
    return spectral_norm(glorot(layer))


class ConditionalNorm(nn.Module):
    """Batch normalisation of (N, C, H, W) with gains and biases by conditions (N, D)."""

    def __init__(self, features: int, conditions: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(features, affine=False)
        self.gain = spectral(nn.Linear(conditions, features, bias=False))
        self.bias = spectral(nn.Linear(conditions, features, bias=False))

    def forward(self, values: Tensor, condition: Tensor) -> Tensor:
        gain = 1 + self.gain(condition)[:, :, None, None]
        return self.normalise(values) * gain + self.bias(condition)[:, :, None, None]


class UpBlock(nn.Module):
    """(N, ``inputs``, H, W) to (N, ``outputs``, 2 H, 2 W); a condition goes to ``norm``."""

    def __init__(
        self, inputs: int, outputs: int, norm: Callable[[int], nn.Module], wrap: Wrap
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = wrap(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = wrap(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = wrap(nn.Conv2d(inputs, outputs, 1))

    def forward(self, values: Tensor, *condition: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(values, *condition))
        hidden = self.conv1(F.interpolate(hidden, scale_factor=2))
        hidden = self.conv2(F.relu(self.norm2(hidden, *condition)))
        return hidden + self.shortcut(F.interpolate(values, scale_factor=2))


class DownBlock(nn.Module):
    """(N, ``inputs``, H, W) to (N, ``outputs``, H', W'), halved or not, all spectral.

    The ``first`` block sees the picture, and so has no rectifier before its first convolution.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, halve: bool, first: bool) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = spectral(nn.Conv2d(inputs, hidden, 3, padding=1))
        self.conv2 = spectral(nn.Conv2d(hidden, outputs, 3, padding=1))
        changes = halve or first or inputs != outputs
        self.shortcut = spectral(nn.Conv2d(inputs, outputs, 1)) if changes else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.conv1(values if self.first else F.relu(values))
        hidden, straight = self.conv2(F.relu(hidden)), self.shortcut(values)
        if self.halve:
            hidden, straight = F.avg_pool2d(hidden, 2), F.avg_pool2d(straight, 2)
        return hidden + straight


class Generator(nn.Module):
    """SN-GAN's: latent (N, latent) to pictures (N, C, S, S) in [-1, 1]."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.start = (shape.up[0], BOTTOM, BOTTOM)
        self.project = glorot(nn.Linear(shape.latent, math.prod(self.start)))
        pairs = itertools.pairwise(shape.up)
        self.blocks = nn.ModuleList([UpBlock(a, b, nn.BatchNorm2d, glorot) for a, b in pairs])
        self.norm = nn.BatchNorm2d(shape.up[-1])
        self.output = glorot(nn.Conv2d(shape.up[-1], shape.image_channels, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        values = self.project(latent).view(-1, *self.start)
        for block in self.blocks:
            values = block(values)
        return torch.tanh(self.output(F.relu(self.norm(values))))


class HierarchicalGenerator(nn.Module):
    """BigGAN's: latent (N, latent) and classes (N,) to pictures (N, C, S, S) in [-1, 1]."""

    def __init__(self, shape: Architecture, embedding: int) -> None:
        super().__init__()
        self.start, count = (shape.up[0], BOTTOM, BOTTOM), len(shape.up)
        part = shape.latent // count
        self.embed = nn.Embedding(shape.classes, embedding)
        self.project = spectral(nn.Linear(part, math.prod(self.start)))

        def norm(features: int) -> nn.Module:
            return ConditionalNorm(features, embedding + part)

        pairs = itertools.pairwise(shape.up)
        self.blocks = nn.ModuleList([UpBlock(a, b, norm, spectral) for a, b in pairs])
        self.norm = nn.BatchNorm2d(shape.up[-1])
        self.output = spectral(nn.Conv2d(shape.up[-1], shape.image_channels, 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        embedded = self.embed(label)
        first, *others = latent.chunk(len(self.blocks) + 1, dim=1)
        values = self.project(first).view(-1, *self.start)
        for block, part in zip(self.blocks, others, strict=True):
            values = block(values, torch.cat((embedded, part), dim=1))
        return torch.tanh(self.output(F.relu(self.norm(values))))


class Discriminator(nn.Module):
    """Pictures (N, C, S, S), and classes (N,) where there are any, to logits (N,).

    With classes it is the projection discriminator (Miyato and Koyama 2018, arXiv:1802.05637).
    """

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        blocks, channels = [], (shape.image_channels, *shape.down)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            hidden = outputs if number == 0 or shape.wide_d else inputs
            halve = number < shape.halvings
            blocks.append(DownBlock(inputs, outputs, hidden, halve, first=number == 0))
        self.blocks = nn.Sequential(*blocks)
        self.output = spectral(nn.Linear(shape.down[-1], 1, bias=False))
        if shape.classes:
            self.embedding = spectral(nn.Embedding(shape.classes, shape.down[-1]))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = F.relu(self.blocks(image)).sum(dim=(2, 3))
        logits = self.output(features).flatten()
        if label is None:
            return logits
        return logits + (self.embedding(label) * features).sum(dim=1)


def _sngan(variant: ResNetVariant) -> tuple[nn.Module, nn.Module]:
    shape = variant.architecture(variant.data)
    return Generator(shape), Discriminator(shape)


def _biggan(variant: ResNetVariant) -> tuple[nn.Module, nn.Module]:
    shape = variant.architecture(variant.data)
    return HierarchicalGenerator(shape, variant.recipe.embedding), Discriminator(shape)


NETWORKS: dict[str, Callable[[Any], tuple[nn.Module, nn.Module]]] = {
    "dcgan": lambda variant: (variant.generator, variant.discriminator),
    "sngan": _sngan,
    "biggan": _biggan,
}
"""Variants that have a textbook loop, and how its networks are made."""


def networks(variant: AdversarialVariant) -> tuple[nn.Module, nn.Module]:
    """The textbook's generator and discriminator of ``variant``, which has been built."""
    if variant.name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise UserError(f"no textbook loop is written for {variant.name}, only for {known}")
    return NETWORKS[variant.name](variant)
