"""Feature matching whose means have a memory, for what a batch alone tells too little about."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_core.losses import mean_over_workers

DECAY = 0.99
"""Of the memory's mean: it reaches back about 100 updates."""


class RememberedMatching(nn.Module):
    """1/2 ||E f(G(z)) - E f(x)||^2 of ``size`` features, the means over the last updates' examples.

    Feature matching as of Salimans et al. 2016 (arXiv:1606.03498, section 3.1) compares the means
    of a batch. Where those of two real batches differ by more than real from generated ones do, it
    teaches the generator little but to vary less. Here the difference is averaged over about the
    last 100 updates (decay ``DECAY``; all workers' examples), so it takes as many until it is felt.

    The value is for the log. Its gradient is that of the generated batch's mean along the average.
    ``parts``: in how many parts an update's batch comes.
    """

    difference: Tensor

    def __init__(self, size: int, parts: int = 1) -> None:
        super().__init__()
        self.decay = DECAY ** (1 / parts)
        self.register_buffer("difference", torch.zeros(size))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The distance, a scalar; ``real`` and ``fake`` are features (N, size) of a batch."""
        precise = self.difference.dtype  # bars may have come in half of it
        mean = mean_over_workers(fake.to(precise).mean(dim=0))
        with torch.no_grad():
            now = mean - mean_over_workers(real.to(precise).mean(dim=0))
            self.difference.lerp_(now, 1 - self.decay)
        remembered = self.difference.clone()
        along = (remembered * mean).sum()
        return 0.5 * remembered.square().sum() + along - along.detach()
