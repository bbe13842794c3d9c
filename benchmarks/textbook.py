"""Networks as a textbook writes them: the baseline of `benchmarks.speed`.

SN-GAN's residual networks (Miyato et al. 2018, arXiv:1802.05957, table 4), SAGAN's (Zhang et al.
2018, arXiv:1805.08318) and BigGAN's (Brock et al. 2018, arXiv:1809.11096, appendix B) from torch's
own parts: spectral norm by ``torch.nn.utils.parametrizations``, nearest enlarging before a
convolution, averaging after one, shortcuts in the same order, attention by products of matrices.
:func:`plain` undoes what the project's other networks do better than a textbook: StackGAN's
enlargement within a convolution. All else are plain layers already, and taken as they are; so are
MidiNet's, whose convolutions are written as linear layers, which only favours the textbook.
Weights are as many as in the project's networks, and called alike.
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

from gan_core.layers.resampling import EnlargingConv2d
from gan_core.layers.unet import UNet
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


class ClassNorm(nn.Module):
    """Batch normalisation of (N, C, H, W) with a gain and a bias for each of ``classes``."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(features, affine=False)
        self.gain, self.bias = (nn.Embedding(classes, features) for _ in range(2))
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, values: Tensor, label: Tensor) -> Tensor:
        gain = 1 + self.gain(label)[:, :, None, None]
        return self.normalise(values) * gain + self.bias(label)[:, :, None, None]


class Attention(nn.Module):
    """SAGAN's self-attention of (N, C, H, W), as BigGAN's code writes it: its map is made whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = spectral(nn.Conv2d(channels, narrow, 1))
        self.key = spectral(nn.Conv2d(channels, narrow, 1))
        self.value = spectral(nn.Conv2d(channels, half, 1))
        self.output = spectral(nn.Conv2d(half, channels, 1))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        query = self.query(values).flatten(2)
        key = F.max_pool2d(self.key(values), 2).flatten(2)
        value = F.max_pool2d(self.value(values), 2).flatten(2)
        share = F.softmax(torch.bmm(query.transpose(1, 2), key), dim=-1)
        attended = torch.bmm(value, share.transpose(1, 2)).unflatten(2, values.shape[2:])
        return values + self.gamma * self.output(attended)


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
    """SN-GAN's or SAGAN's: latent (N, latent) to pictures (N, C, S, S) in [-1, 1].

    With classes it is given those (N,) too, and normalises by them.
    """

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.start = (shape.up[0], BOTTOM, BOTTOM)
        wrap: Wrap = spectral if shape.spectral_g else glorot
        self.project = wrap(nn.Linear(shape.latent, math.prod(self.start)))

        def norm(features: int) -> nn.Module:
            return ClassNorm(features, shape.classes) if shape.classes else nn.BatchNorm2d(features)

        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for number, (inputs, outputs) in enumerate(itertools.pairwise(shape.up)):
            self.blocks.append(UpBlock(inputs, outputs, norm, wrap))
            if BOTTOM * 2 ** (number + 1) == shape.attention:
                self.attention[str(number)] = Attention(outputs)
        self.norm = nn.BatchNorm2d(shape.up[-1])
        self.output = wrap(nn.Conv2d(shape.up[-1], shape.image_channels, 3, padding=1))

    def forward(self, latent: Tensor, *label: Tensor) -> Tensor:
        values = self.project(latent).view(-1, *self.start)
        for number, block in enumerate(self.blocks):
            values = block(values, *label)
            if str(number) in self.attention:
                values = self.attention[str(number)](values)
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
        blocks: list[nn.Module] = []
        size, channels = shape.size, (shape.image_channels, *shape.down)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            hidden = outputs if number == 0 or shape.wide_d else inputs
            halve = number < shape.halvings
            blocks.append(DownBlock(inputs, outputs, hidden, halve, first=number == 0))
            size = size // 2 if halve else size
            if halve and size == shape.attention:
                blocks.append(Attention(outputs))
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


class EnlargeThenConvolve(nn.Conv2d):
    """A 3x3 convolution (N, C, H, W) to (N, C', 2 H, 2 W) of what was enlarged before it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.interpolate(input, scale_factor=2))


def plain(network: nn.Module) -> nn.Module:
    """``network`` with every enlargement made before its convolution; the weights are the same."""
    for name, layer in network.named_children():
        if isinstance(layer, EnlargingConv2d):
            bias = layer.bias is not None
            widths = layer.in_channels, layer.out_channels
            other = EnlargeThenConvolve(*widths, 3, padding=1, bias=bias)
            other.weight, other.bias = layer.weight, layer.bias
            setattr(network, name, other)
        else:
            plain(layer)
    return network


class DroppingUNet(nn.Module):
    """The layers of the U-Net ``network`` with torch's dropout, as pix2pix's authors have it."""

    dropped = 3  # the first layers of the decoder

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.down, self.up, self.output = network.down, network.up, network.output
        self.rate = network.rate

    def forward(self, image: Tensor) -> Tensor:
        layer, skips = image, []
        for down in self.down:
            layer = down(layer)
            skips.append(layer)
        skips.pop()
        for place, up in enumerate(self.up):
            layer = up(layer)
            if place < self.dropped:
                layer = F.dropout(layer, self.rate)
            layer = torch.cat((layer, skips.pop()), dim=1)
        return self.output(layer)


def _sngan(variant: ResNetVariant) -> tuple[nn.Module, nn.Module]:
    shape = variant.architecture(variant.data)
    return Generator(shape), Discriminator(shape)


def _biggan(variant: ResNetVariant) -> tuple[nn.Module, nn.Module]:
    shape = variant.architecture(variant.data)
    return HierarchicalGenerator(shape, variant.recipe.embedding), Discriminator(shape)


NETWORKS: dict[str, Callable[[Any], tuple[nn.Module, nn.Module]]] = {
    "sngan": _sngan,
    "sagan": _sngan,
    "biggan": _biggan,
}
"""Variants of which a textbook writes the networks otherwise, and how they are made."""


def networks(variant: Any) -> tuple[nn.Module, nn.Module]:
    """The textbook's generator and discriminator of ``variant``, which has been built."""
    if variant.name in NETWORKS:
        return NETWORKS[variant.name](variant)
    return variant.generator, variant.discriminator
