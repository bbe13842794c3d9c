"""Orthogonal regularisation (Brock et al. 2018, arXiv:1809.11096, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonality(weights: Iterable[Tensor]) -> Tensor:
    """The sum over ``weights`` of ||W W^T * (1 - I)||_F^2, W a weight as (outputs, all the rest).

    Equation 3: 0 where the rows of each W are orthogonal, whatever their lengths. Its gradient is
    4 (W W^T * (1 - I)) W.
    """
    total: Tensor | None = None
    for weight in weights:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            products = matrix @ matrix.t()
        # All products less those of a row with itself, without a mask as large as the products.
        penalty = products.square().sum() - products.diagonal().square().sum()
        total = penalty if total is None else total + penalty
    assert total is not None, "there is nothing to regularise"
    return total
