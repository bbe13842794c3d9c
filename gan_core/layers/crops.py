"""Squares out of pictures, and pictures turned, by random numbers that are given as data."""

from __future__ import annotations

import torch
from torch import Tensor


def crops(images: Tensor, places: Tensor, size: int) -> Tensor:
    """A square (N, C, ``size``, ``size``) out of each of ``images`` (N, C, H, W), in one gather.

    ``places`` (N, 2) in (0, 1): 0 is the top or left edge, and every position is equally likely
    for uniform numbers. Raises ``ValueError`` for pictures smaller than the square.
    """
    count, channels, rows, columns = images.shape
    if min(rows, columns) < size:
        raise ValueError(f"pictures of {rows} x {columns} have no square of {size}")
    top = _beginnings(places[:, :1], rows - size + 1)
    left = _beginnings(places[:, 1:], columns - size + 1)
    along = torch.arange(size, device=images.device)
    example = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    row = (top + along)[:, None, :, None]
    column = (left + along)[:, None, None, :]
    return images[example, channel, row, column]


def _beginnings(places: Tensor, free: int) -> Tensor:
    """The first row or column (int64), of ``free`` to begin at, for ``places`` in (0, 1).

    ``free`` is a number: as a tensor it would be copied to the device, which no turn that is
    recorded as a CUDA graph may do.
    """
    return (places * free).long().clamp_max(free - 1)


def turned(images: Tensor, choices: Tensor) -> Tensor:
    """Square pictures (N, C, S, S), each in one of the eight ways that a square can lie.

    ``choices`` (N,) are whole numbers 0 to 7: the bits mirror left and right, top and bottom, and
    exchange rows and columns. 0 leaves a picture as it is.
    """
    bits = [((choices >> place) & 1).bool()[:, None, None, None] for place in range(3)]
    images = torch.where(bits[0], images.flip(3), images)
    images = torch.where(bits[1], images.flip(2), images)
    return torch.where(bits[2], images.transpose(2, 3), images)
