"""MS-SSIM between pictures of one class: high means that they all look alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gan_core.metrics.given import check_pictures

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, from fine to coarse
PAIRS, FEWEST_PAIRS = 500, 50
"""Pairs that are compared, over all classes together: of up to 64 pixels, and of large ones."""
PICTURES = 2_000
"""At most this many pictures are drawn from."""


def scales(size: int) -> tuple[int, tuple[float, ...]]:
    """The window's side and the weights of the scales that pictures of ``size`` pixels have.

    Five scales of an 11-pixel window need 176 pixels: smaller pictures have fewer of them, below
    22 pixels with a window of 7 or 3, their weights brought to a sum of 1.
    """
    window = 11 if size >= 22 else 7 if size >= 14 else 3
    count = max(1, min(len(_WEIGHTS), 1 + int(math.log2(size / window))))
    while count > 1 and size // (count - 1) ** 2 < window:
        count -= 1  # torchmetrics refuses what would fit: four scales below 99 pixels
    chosen = _WEIGHTS[:count]
    return window, tuple(weight / sum(chosen) for weight in chosen)


@torch.no_grad()
def ms_ssim(first: Tensor, second: Tensor) -> float:
    """Mean multi-scale structural similarity of pictures (N, C, H, W) in [-1, 1] with others.

    Wang et al. 2003, by torchmetrics; 1 for equal pictures. At the coarsest scale windows reach
    beyond the edge, where the picture is mirrored: of small pictures that is up to 0.04 lower than
    the authors' code, which keeps all of them inside.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    for images in (first, second):
        check_pictures(images)
    window, weights = scales(min(first.shape[-2:]))
    found = multiscale_structural_similarity_index_measure(
        (first + 1) / 2,
        (second + 1) / 2,
        gaussian_kernel=window == 11,
        kernel_size=window,
        data_range=1.0,
        betas=weights,
        normalize="relu",
    )
    return float(found)


def similarity_within_classes(images: Tensor, labels: Tensor, seed: int = 0) -> float:
    """Mean :func:`ms_ssim` of random pairs of one class (Odena et al. 2016, section 4.2).

    Images (N, C, H, W) in [-1, 1] with labels (N,); every class with two pictures has as many
    pairs. NaN where no class has.
    """
    generator = torch.Generator().manual_seed(seed)
    members = [torch.nonzero(labels == k).flatten().cpu() for k in labels.unique().tolist()]
    members = [m for m in members if len(m) > 1]
    if not members:
        return math.nan
    total = max(FEWEST_PAIRS, PAIRS * 64**2 // max(64**2, images[0, 0].numel()))
    each = max(1, total // len(members))
    pairs = []
    for group in members:
        first = torch.randint(len(group), (each,), generator=generator)
        step = torch.randint(1, len(group), (each,), generator=generator)  # never itself
        pairs.append(group[torch.stack((first, (first + step) % len(group)))])
    left, right = torch.cat(pairs, dim=1)
    return ms_ssim(images[left], images[right])
