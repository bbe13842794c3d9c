"""Convolutions that change the resolution, in one pass: 4/9 of the arithmetic of two.

Nearest enlarging copies each pixel to a square of four, so the nine taps of a 3x3 convolution
after it meet only four different pixels. Averaging squares of four after a 3x3 convolution is one
linear map of 4x4 pixels. Both are exact: same weights, same borders (zeros), same gradients, up
to rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.layers.spectral import SpectralConv2d


def _boxed(weight: Tensor) -> Tensor:
    """Kernels (O, I, 3, 3) convolved with a square of four ones: (O, I, 4, 4)."""
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


def _weight(layer: nn.Conv2d) -> Tensor:
    assert layer.kernel_size == (3, 3)
    assert layer.padding == (1, 1)
    return layer.normalised_weight() if isinstance(layer, SpectralConv2d) else layer.weight


def enlarged_convolution(values: Tensor, layer: nn.Conv2d) -> Tensor:
    """``layer``, a 3x3 convolution, of ``values`` enlarged: (N, C, H, W) to (N, C', 2 H, 2 W).

    The same as ``layer(interpolate(values, scale_factor=2, mode="nearest"))``.
    """
    kernel = _boxed(_weight(layer).flip(2, 3)).transpose(0, 1)
    return F.conv_transpose2d(values, kernel, layer.bias, stride=2, padding=1)


class EnlargingConv2d(nn.Conv2d):
    """A 3x3 convolution of what is enlarged: (N, C, H, W) to (N, C', 2 H, 2 W)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, values: Tensor) -> Tensor:
        return enlarged_convolution(values, self)


def convolution_halved(values: Tensor, layer: nn.Conv2d) -> Tensor:
    """``layer``, a 3x3 convolution, of ``values``, averaged: (N, C, 2 H, 2 W) to (N, C', H, W).

    The same as ``avg_pool2d(layer(values), 2)``.
    """
    return F.conv2d(values, _boxed(_weight(layer)) / 4, layer.bias, stride=2, padding=1)
