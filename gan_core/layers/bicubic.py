"""Bicubic resizing as Pillow and MATLAB do it, for float pictures on any device.

Torch's antialiasing filter is Keys's cubic with a = -0.5, stretched when it reduces: that of
Pillow and of MATLAB's ``imresize``, by which the published figures of super-resolution are made
(its plain bicubic mode has a = -0.75 and aliases, and measures up to 0.7 dB off).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(images: Tensor, rows: int, columns: int) -> Tensor:
    """Float pictures (N, C, H, W) as (N, C, ``rows``, ``columns``); values may overshoot.

    Those of 16 bits come out in 32: on a CPU torch has no such filter for them.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return F.interpolate(
        images, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False
    )


def reduced(images: Tensor, scale: int) -> Tensor:
    """Pictures in [-1, 1] whose sides are multiples of ``scale``, ``scale`` times smaller.

    In [-1, 1] and rounded to 8 bits, as a file of the small picture would hold them.
    """
    rows, columns = images.shape[-2:]
    if rows % scale or columns % scale:
        raise ValueError(f"{rows} x {columns} pixels cannot be reduced {scale} times")
    small = resized(images, rows // scale, columns // scale).clamp(-1, 1)
    return small.add(1).mul(127.5).round().div(127.5).sub(1)


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Pictures in [-1, 1], ``scale`` times larger, in [-1, 1]."""
    rows, columns = images.shape[-2:]
    return resized(images, rows * scale, columns * scale).clamp(-1, 1)
