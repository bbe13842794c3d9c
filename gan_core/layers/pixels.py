"""Between pictures in [-1, 1], as the program has them, and flat pixels in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_MARGIN = 1e-7  # a pixel that is black in every example would have a bias of minus infinity


def to_flat_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] to (N, C H W) in [0, 1]."""
    return (images.flatten(1) + 1) / 2


class PixelOutput(nn.Module):
    """Linear, sigmoid, and back to a picture: (N, features) to (N, C, H, W) in [-1, 1]."""

    def __init__(self, features: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(features, math.prod(shape))

    def forward(self, features: Tensor) -> Tensor:
        return (2 * torch.sigmoid(self.linear(features)) - 1).unflatten(1, self.shape)

    @torch.no_grad()
    def set_marginals(self, images: Tensor) -> None:
        """Let sigmoid(bias) be each pixel's mean over ``images`` (N, ...), uint8 or in [-1, 1].

        What pylearn2's ``init_sigmoid_bias_from_marginals`` does, in the official GAN code.
        """
        if images.dtype == torch.uint8:
            total = images.flatten(1).sum(dim=0, dtype=torch.int64)
            means = total.to(torch.float64) / (255 * len(images))
        else:
            means = (images.flatten(1).mean(dim=0, dtype=torch.float64) + 1) / 2
        bias = torch.logit(means.clamp(_MARGIN, 1 - _MARGIN))
        self.linear.bias.copy_(bias)
