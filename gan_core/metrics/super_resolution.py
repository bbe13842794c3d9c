"""PSNR and SSIM as super-resolution publishes them: on luma, without the picture's edge.

Ledig et al. 2017 (arXiv:1609.04802, section 3.1): on the Y channel, after 4 pixels of each border
have been removed. Y is that of ITU-R BT.601 (16 to 235) rounded to 8 bits, as MATLAB's
``rgb2ycbcr`` gives it; the peak is 255. Bicubic enlargement of Set5 by 4 scores 28.42 dB so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_core.metrics.given import check_pictures

SHAVED = 4
SMALLEST = 19
"""Pixels a side of the smallest pictures that :func:`ssim` takes."""
PROTOCOL = (
    f"PSNR (at most 58.9) and SSIM on luma (BT.601, 8 bits, peak 255), {SHAVED} px of each border "
    "shaved"
)
_ROUNDING = 1 / 12  # the mean squared error of values that are rounded to whole numbers
_INSIDE = 5  # half of the window of 11
_WEIGHTS = (65.481, 128.553, 24.966)


def luma(images: Tensor) -> Tensor:
    """Pictures (N, 1 or 3, H, W) in [-1, 1] as their Y channel (N, 1, H, W), whole 16 .. 235.

    float64. A gray picture counts as one of equal channels.
    """
    check_pictures(images)
    pixels = images.double().clamp(-1, 1).add(1).mul(127.5).round()
    weights = pixels.new_tensor(_WEIGHTS) / 255
    if images.shape[1] == 1:
        return (16 + pixels * weights.sum()).round()
    return (16 + (pixels * weights[:, None, None]).sum(dim=1, keepdim=True)).round()


def _shaved(images: Tensor) -> Tensor:
    return luma(images)[..., SHAVED:-SHAVED, SHAVED:-SHAVED]


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """10 log10(255^2 / MSE) in dB (N,), of pictures (N, C, H, W) in [-1, 1], more than 8 a side.

    At most 58.9, which the error of rounding to 8 bits alone would give: equal pictures (even ones,
    a sky) have no finite value, and one of them would leave a mean of pictures without one.
    """
    error = (_shaved(images) - _shaved(truth)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error.clamp_min(_ROUNDING))


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (N,), Wang et al. 2004: a Gaussian window of 11, sigma 1.5.

    Averaged over where the window lies inside, as in the authors' code (torchmetrics would take
    windows beyond the edge too). Of pictures (N, C, H, W) in [-1, 1], :data:`SMALLEST` or more
    pixels a side.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, everywhere = structural_similarity_index_measure(
        _shaved(images), _shaved(truth), sigma=1.5, data_range=255.0, return_full_image=True
    )
    return everywhere[..., _INSIDE:-_INSIDE, _INSIDE:-_INSIDE].mean(dim=(1, 2, 3))
