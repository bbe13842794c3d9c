"""Self-attention over the places of a feature map (Zhang et al. 2018, arXiv:1805.08318)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.layers.spectral import SpectralConv2d


class SelfAttention(nn.Module):
    """x + gamma o(attention(x)) for (N, C, H, W) with even H and W; gamma begins at 0.

    Section 3 and the authors' code: queries and keys of C/8 channels, values of C/2, keys and
    values pooled to half the resolution, every convolution 1x1 and spectrally normalised (here
    with a bias, in the code without), scores not scaled. ``second_order``: written out, because
    the fused attention has no second derivative.
    """

    def __init__(self, channels: int, *, second_order: bool = False) -> None:
        super().__init__()
        self.second_order = second_order
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = SpectralConv2d(channels, narrow, 1)
        self.key = SpectralConv2d(channels, narrow, 1)
        self.value = SpectralConv2d(channels, half, 1)
        self.output = SpectralConv2d(half, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        query = _places(self.query(values))
        key = _places(_pooled(self.key(values)))
        value = _places(_pooled(self.value(values)))
        attended = self._attend(query, key, value).transpose(1, 2)
        return values + self.gamma * self.output(attended.unflatten(2, values.shape[2:]))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(N, HW, C/8), (N, HW/4, C/8) and (N, HW/4, C/2) to (N, HW, C/2)."""
        if self.second_order:
            return torch.softmax(query @ key.transpose(1, 2), dim=2) @ value
        # One head; the fused kernels want a dimension for heads, and a place's channels together
        # in memory, as they are where the pictures' are (channels_last): there this copies nothing.
        query, key, value = (each.contiguous()[:, None] for each in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]


def _places(features: Tensor) -> Tensor:
    """(N, C, H, W) to (N, HW, C)."""
    return features.flatten(2).transpose(1, 2)


def _pooled(features: Tensor) -> Tensor:
    """The largest of each square: ``max_pool2d(features, 2)``, of equal numbers the first.

    Compiled code would scatter the gradient of pooling by atomic additions.
    """
    if not torch.compiler.is_compiling():
        return F.max_pool2d(features, 2)
    first, *others = (features[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    for other in others:
        first = torch.where(other > first, other, first)
    return first
