"""Maxout units (Goodfellow et al. 2013, arXiv:1302.4389)."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """``units`` outputs, each the largest of ``pieces`` linear functions of the input.

    (N, inputs) to (N, units). Paper, section 3.
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, units * pieces)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values).unflatten(1, (-1, self.pieces)).amax(dim=2)
