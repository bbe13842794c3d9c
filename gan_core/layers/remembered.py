"""Feature matching whose means have a memory, for what a batch alone tells too little about."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_core.losses import mean_over_workers

DECAY = 0.99
"""Of the memory's mean: it reaches back some hundred updates."""


class RememberedMatching(nn.Module):
    """1/2 ||E f(G(z)) - E f(x)||^2 of ``size`` features, the means over the last updates' examples.

    Feature matching as of Salimans et al. 2016 (arXiv:1606.03498, section 3.1) compares the means
    of a batch. Where these differ by more than those of the data and of the generator, its gradient
    is mostly that of the generated features' variance, which is no fault. Here the difference is
    averaged over updates (decay ``DECAY``, over all workers' examples), and the gradient is that of
    the generated mean along this average.
    """

    difference: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("difference", torch.zeros(size))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The distance, a scalar; ``real`` and ``fake`` are features (N, size) of a batch."""
        precise = self.difference.dtype  # bars may have come in half of it
        mean = mean_over_workers(fake.to(precise).mean(dim=0))
        with torch.no_grad():
            now = mean - mean_over_workers(real.to(precise).mean(dim=0))
            self.difference.lerp_(now, 1 - DECAY)
        remembered = self.difference.clone()
        along = (remembered * mean).sum()
        return 0.5 * remembered.square().sum() + along - along.detach()
