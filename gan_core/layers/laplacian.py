"""The Laplacian pyramid (Burt and Adelson 1983): a picture as a small one and what each level adds.

Level k of a pyramid of K levels is what enlarging level k - 1's picture lacks (Denton et al. 2015,
arXiv:1506.05751, equations 3 to 5). Reducing is the mean of 2 x 2 pixels, enlarging is bilinear:
on pixels that are whole numbers both are exact in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def down(images: Tensor) -> Tensor:
    """Pictures (N, C, H, W) of half the size; H and W must be even."""
    rows, columns = images.shape[-2:]
    if rows % 2 or columns % 2:
        raise ValueError(f"pictures of {rows} x {columns} pixels cannot be halved")
    return F.avg_pool2d(images, 2)


def up(images: Tensor) -> Tensor:
    """Pictures (N, C, H, W) of twice the size, smooth."""
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


def reduced(images: Tensor, times: int) -> Tensor:
    """Pictures halved ``times`` times."""
    for _ in range(times):
        images = down(images)
    return images


def build(images: Tensor, levels: int) -> list[Tensor]:
    """The pyramid, coarse to fine: a picture, then ``levels`` - 1 differences."""
    pyramid: list[Tensor] = []
    for _ in range(levels - 1):
        smaller = down(images)
        pyramid.append(images - up(smaller))
        images = smaller
    return [images, *reversed(pyramid)]


def collapse(pyramid: Sequence[Tensor]) -> Tensor:
    """The picture that ``pyramid`` was built from."""
    image = pyramid[0]
    for difference in pyramid[1:]:
        image = up(image) + difference
    return image
