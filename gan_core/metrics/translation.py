"""How near translated pictures are to the truth: absolute difference and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 64  # pictures at once: SSIM keeps several of their size


@torch.no_grad()
def closeness(images: Tensor, truth: Tensor) -> dict[str, float]:
    """``l1`` and ``ssim`` of ``images`` against ``truth``, both (N, C, H, W) in [-1, 1].

    ``l1`` is the mean absolute difference in that range (of 0 to 2), ``ssim`` the mean structural
    similarity of Wang et al. 2004 with a Gaussian window of 1.5 pixels, 1 where they are equal.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    parts = list(zip(images.float().split(_CHUNK), truth.float().split(_CHUNK), strict=True))
    differences = [(mine - true).abs().double().sum() for mine, true in parts]
    # Summed over a chunk: the mean over all is then the same however they are cut.
    similar = [
        torch.as_tensor(
            structural_similarity_index_measure(mine, true, data_range=(-1.0, 1.0), reduction="sum")
        ).double()
        for mine, true in parts
    ]
    return {
        "l1": (torch.stack(differences).sum() / images.numel()).item(),
        "ssim": (torch.stack(similar).sum() / len(images)).item(),
    }
