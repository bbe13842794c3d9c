"""Dropout whose masks come from the batch's noise, so that it may stay on when sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gan_core.priors import Integers

BITS = Integers(1 << 24)
"""The prior of the words that masks are made of; each word decides about three units."""
_BYTES = 3


def words_for(units: int) -> int:
    """How many words of :data:`BITS` decide about ``units`` units."""
    return math.ceil(units / _BYTES)


def scales(words: Tensor, units: int, rate: float) -> Tensor:
    """Factors (N, units) of inverted dropout, from ``words`` int64 (N, :func:`words_for`).

    A unit is 0 with probability ``rate``, rounded to 1/256, and else 1 / (1 - rate), so that its
    mean is 1.
    """
    shifts = 8 * torch.arange(_BYTES, device=words.device)
    values = ((words.unsqueeze(-1) >> shifts) & 255).flatten(1)[:, :units]
    dropped = min(round(256 * rate), 255)
    kept = (values >= dropped).to(torch.get_default_dtype())
    return kept * (256 / (256 - dropped))
