"""Conditioning augmentation (Zhang et al. 2016, arXiv:1612.03242, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditioningAugmentation(nn.Module):
    """Vectors (N, inputs) to conditions (N, size): mean + sigma * epsilon, and (mean, log sigma).

    A text's condition is drawn from a Gaussian that the text decides, so that nearby texts share
    conditions and a generator of few pairs meets more than these points.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(inputs, 2 * size)

    def forward(self, text: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_sigma = self.linear(text).chunk(2, dim=1)
        return mean + log_sigma.exp() * epsilon, mean, log_sigma


def gaussian_divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mean, sigma^2) || N(0, I)) of each example (N,), in nats.

    1/2 sum(mean^2 + sigma^2 - 1 - 2 log sigma): equation 2 of the paper, 0 at mean 0, sigma 1.
    """
    mean, log_sigma = mean.float(), log_sigma.float()
    terms = mean.square() + (2 * log_sigma).exp() - 1 - 2 * log_sigma
    return 0.5 * torch.sum(terms, dim=1)
