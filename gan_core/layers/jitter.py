"""Random crops and flips from the batch's noise, on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def jittered(images: Tensor, enlarged: int, crop: Tensor, flip: Tensor | None) -> Tensor:
    """Pictures (N, C, S, S), enlarged to ``enlarged`` pixels a side, cropped to S, and mirrored.

    ``crop`` (N, 2), uniform in (0, 1), says where each is cropped (row, column); ``flip`` (N,),
    uniform in (0, 1), which are mirrored (below 1/2), or ``None`` for none. The enlargement is
    bilinear (Isola et al. 2016, section 6.2: 256 to 286 pixels). All channels are treated alike,
    so pictures that belong together go in as channels of one.
    """
    size = images.shape[-1]
    if enlarged == size:
        if flip is None:
            return images
        return torch.where(flip[:, None, None, None] < 0.5, images.flip(3), images)
    offset = (crop * (enlarged - size + 1)).floor().clamp_max(enlarged - size)
    pixels = torch.arange(size, device=images.device, dtype=crop.dtype)
    # The centres of the enlarged picture's pixels, where the whole picture is -1 to 1.
    centres = (2 * (offset[:, :, None] + pixels) + 1) / enlarged - 1
    rows, columns = centres.unbind(1)
    if flip is not None:
        columns = torch.where(flip[:, None] < 0.5, columns.flip(1), columns)
    count = len(images)
    grid = torch.stack(
        (
            columns[:, None, :].expand(count, size, size),
            rows[:, :, None].expand(count, size, size),
        ),
        dim=-1,
    )
    return F.grid_sample(
        images, grid.to(images.dtype), "bilinear", padding_mode="border", align_corners=False
    )
