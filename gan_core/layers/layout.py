"""Where maps (N, C, H, W) meet vectors: without leaving the layout in which a network is kept.

A network in channels-last has maps whose channels lie side by side. Vectors are reshaped to maps,
and maps to vectors, channel by channel: what comes after the one is in the plain layout, and so is
the gradient that comes before the other. Every operation there then reads one layout and another,
which on a CPU takes ten times as long, or copies the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS_LAST = torch.channels_last


def to_map(vectors: Tensor, shape: tuple[int, int, int], first: nn.Module) -> Tensor:
    """(N, C * H * W) as maps (N, C, H, W) in the layout of the convolution ``first``'s weight."""
    maps = vectors.unflatten(1, shape)
    weight = first.weight
    assert isinstance(weight, Tensor)
    if weight.is_contiguous(memory_format=_CHANNELS_LAST):
        return maps.contiguous(memory_format=_CHANNELS_LAST)
    return maps


class FlatLinear(nn.Linear):
    """A linear layer of flattened maps: (N, C, H, W) to (N, outputs).

    ``forward(maps)`` is what ``nn.Linear`` gives for ``maps.flatten(1)``, up to rounding, with the
    same weights (outputs, C * H * W). Channels-last maps are read as they lie, and get a gradient
    that lies so too.
    """

    def forward(self, maps: Tensor) -> Tensor:
        weight = self.weight
        if maps.is_contiguous(memory_format=_CHANNELS_LAST):
            weight = weight.unflatten(1, maps.shape[1:]).permute(0, 2, 3, 1).flatten(1)
            maps = maps.permute(0, 2, 3, 1)
        return F.linear(maps.flatten(1), weight, self.bias)
