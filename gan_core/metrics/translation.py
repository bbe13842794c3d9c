"""How near translated pictures are to the truth: absolute difference and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_core.metrics.diversity import distances_of_pairs
from gan_core.metrics.given import check_pictures

SSIM_PROTOCOL = (
    "ssim of intensities in [0, 1], channel by channel, with a Gaussian window of 1.5 pixels (11 x "
    "11) where it lies inside"
)
COMPARED = 48
"""Pictures that are compared with each other."""
_CHUNK = 64  # pictures at once: SSIM keeps several of their size
_WINDOW = 11


@torch.no_grad()
def closeness(images: Tensor, truth: Tensor) -> dict[str, float]:
    """``l1`` and ``ssim`` of ``images`` against ``truth``, both (N, C, H, W) in [-1, 1].

    ``l1`` is the mean absolute difference in that range (of 0 to 2), ``ssim`` the mean structural
    similarity of Wang et al. 2004 with a Gaussian window of 1.5 pixels, 1 where they are equal.
    """
    for pictures in (images, truth):
        check_pictures(pictures)
    parts = list(zip(images.float().split(_CHUNK), truth.float().split(_CHUNK), strict=True))
    differences = [(mine - true).abs().double().sum() for mine, true in parts]
    # Summed over a chunk: the mean over all is then the same however they are cut.
    similar = [_similarities(mine, true).double().sum() for mine, true in parts]
    return {
        "l1": (torch.stack(differences).sum() / images.numel()).item(),
        "ssim": (torch.stack(similar).sum() / len(images)).item(),
    }


def relative_diversity(images: Tensor, real: Tensor) -> float:
    """The mean distance of two of ``images`` over that of two ``real`` pictures, both (N, ...), of
    the first :data:`COMPARED` of each: 0 where all are one picture. NaN of fewer than two.
    """
    for pictures in (images, real):
        check_pictures(pictures)
    made, true = (
        distances_of_pairs(pictures[:COMPARED].flatten(1)).mean() for pictures in (images, real)
    )
    return (made / true.clamp_min(1e-12)).item()


def _similarities(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (N,), averaged over where the window lies inside the picture.

    Of a picture smaller than the window, over all of it. The luminances that the definition
    compares are intensities from 0 on: of pictures (N, C, H, W) in [-1, 1] grey would have none.
    float64: where pictures are even, a variance in float32 is rounding, and equal ones had 0.9996.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    mine, true = ((pictures.double() + 1) / 2 for pictures in (images, truth))
    _, everywhere = structural_similarity_index_measure(
        mine, true, sigma=1.5, data_range=1.0, return_full_image=True
    )
    if min(images.shape[2:]) >= _WINDOW:
        edge = _WINDOW // 2
        everywhere = everywhere[..., edge:-edge, edge:-edge]
    return everywhere.mean(dim=(1, 2, 3))
