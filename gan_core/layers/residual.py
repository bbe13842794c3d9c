"""Residual blocks of the ResNet systems: SN-GAN, SAGAN and BigGAN.

Miyato et al. 2018 (arXiv:1802.05957, appendix B.4 and the authors' code): before each of two 3x3
convolutions come (normalisation and) a rectifier; the shortcut has a 1x1 convolution where
resolution or channels change. That convolution is made at the lower of the two resolutions:
nearest enlarging, and averaging, give the same before and after it. Enlarging before a 3x3
convolution, and averaging after one, are done with it in one pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.layers.normalisation import ConditionalBatchNorm2d
from gan_core.layers.resampling import convolution_halved, enlarged_convolution
from gan_core.layers.spectral import SpectralConv2d


def convolution(inputs: int, outputs: int, kernel: int, *, spectral: bool) -> nn.Conv2d:
    """A convolution that keeps the resolution."""
    if spectral:
        return SpectralConv2d(inputs, outputs, kernel, padding=kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class UpBlock(nn.Module):
    """The generator's: (N, ``inputs``, H, W) to (N, ``outputs``, 2 H, 2 W).

    ``conditions``: the width of what normalisation depends on, 0 for plain batch normalisation.
    ``spectral``: whether convolutions (and conditional gains and biases) are spectral.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        conditions: int = 0,
        spectral: bool = False,
        spectral_conditions: bool = False,
    ) -> None:
        super().__init__()

        def norm(features: int) -> nn.Module:
            if not conditions:
                return nn.BatchNorm2d(features)
            return ConditionalBatchNorm2d(features, conditions, spectral=spectral_conditions)

        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = convolution(inputs, outputs, 3, spectral=spectral)
        self.conv2 = convolution(outputs, outputs, 3, spectral=spectral)
        self.shortcut = convolution(inputs, outputs, 1, spectral=spectral)

    def forward(self, values: Tensor, condition: Tensor | None = None) -> Tensor:
        given = () if condition is None else (condition,)
        hidden = enlarged_convolution(F.relu(self.norm1(values, *given)), self.conv1)
        hidden = self.conv2(F.relu(self.norm2(hidden, *given)))
        return _plus_enlarged(hidden, self.shortcut(values))


class DownBlock(nn.Module):
    """The discriminator's: (N, ``inputs``, H, W) to (N, ``outputs``, H', W'), halved or not.

    ``hidden``: channels between its convolutions. The ``first`` block sees the picture, and so
    has no rectifier before its first convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, *, halve: bool, first: bool = False
    ) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = convolution(inputs, hidden, 3, spectral=True)
        self.conv2 = convolution(hidden, outputs, 3, spectral=True)
        changes = halve or first or inputs != outputs
        self.shortcut = convolution(inputs, outputs, 1, spectral=True) if changes else None

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.conv1(values if self.first else F.relu(values))
        hidden = F.relu(hidden)
        hidden = convolution_halved(hidden, self.conv2) if self.halve else self.conv2(hidden)
        straight = F.avg_pool2d(values, 2) if self.halve else values
        return hidden + (straight if self.shortcut is None else self.shortcut(straight))


def _plus_enlarged(maps: Tensor, small: Tensor) -> Tensor:
    """``maps`` (N, C, 2 H, 2 W) and ``small`` (N, C, H, W), each pixel of which becomes a square.

    Compiled code reads enlarged pictures by index, and so adds up their gradient by atomic
    additions: slowly, and in another order every time. Squares that share a number do not need it.
    """
    if not torch.compiler.is_compiling():
        return maps + F.interpolate(small, scale_factor=2, mode="nearest")
    squares = maps.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)) + small[:, :, :, None, :, None]
    return squares.flatten(4, 5).flatten(2, 3)
