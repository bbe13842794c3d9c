"""Borders that reflect a picture, with a gradient that is added up in the same order every time.

The one that torch has for GPUs adds by atomic additions, so that no run would repeat itself there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReflectingConv2d(nn.Conv2d):
    """A convolution with an odd ``kernel`` that keeps the size: (N, C, H, W) to (N, C', H, W).

    ``nn.Conv2d`` with ``padding_mode="reflect"``, with the same weights, numbers and gradients.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")

    def forward(self, values: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # what is compiled has an order of its own
            return super().forward(values)
        padded = reflected(values, self.kernel_size[0] // 2)
        return F.conv2d(padded, self.weight, self.bias)


def reflected(values: Tensor, border: int) -> Tensor:
    """(N, C, H, W) to (N, C, H + 2 ``border``, W + 2 ``border``); the edges are not repeated."""
    padded: Tensor = _Reflection.apply(values, border)
    return padded


class _Reflection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, border: int) -> Tensor:
        ctx.border = border
        return F.pad(values, (border,) * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _folded(_folded(gradients[0], ctx.border, 2), ctx.border, 3), None


def _folded(gradient: Tensor, border: int, dim: int) -> Tensor:
    """The borders at both ends of ``dim``, taken off and added to where they come from."""
    size = gradient.shape[dim] - 2 * border
    inner = gradient.narrow(dim, border, size).clone()
    first, last = (gradient.narrow(dim, start, border).flip(dim) for start in (0, border + size))
    inner.narrow(dim, 1, border).add_(first)
    inner.narrow(dim, size - 1 - border, border).add_(last)
    return inner
