"""Unrolled GAN: the generator is judged by the discriminator that would answer it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

V = TypeVar("V", bound=nn.Module)
UNROLLED_RATE = 0.1
"""Of the descent in which a discriminator answers."""
STEEP_RATE = 0.0001
"""Of that of one which adds up features over all places: at 0.1 its answer is worse than none."""


class Reweighted(nn.Module):
    """``network`` called with the weights and buffers given, by name, in the place of its own."""

    def __init__(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._called = (network, dict(tensors))  # a tuple: its parameters are not this module's

    def forward(self, *inputs: Any) -> Any:
        network, tensors = self._called
        return functional_call(network, tensors, inputs)


def with_weights(variant: V, name: str, tensors: Mapping[str, Tensor]) -> V:
    """``variant``, its network ``name`` called with other weights; nothing of it is changed."""
    clone = copy.copy(variant)
    stand_in = Reweighted(getattr(variant, name), tensors)
    clone._modules = {**variant._modules, name: stand_in}
    return clone


def unrolled(variant: V, name: str, loss: Callable[[V], Tensor], steps: int, rate: float) -> V:
    """``variant`` with the network ``name`` after ``steps`` steps of gradient descent on ``loss``.

    The steps are part of the graph: what is computed with the result can be differentiated through
    them (Metz et al. 2017, arXiv:1611.02163, equations 7 to 9). Weights, buffers and gradients of
    ``variant`` stay as they are.
    """
    network: nn.Module = getattr(variant, name)
    weights = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    buffers = {n: b.clone() for n, b in network.named_buffers()}
    with torch.enable_grad():
        for _ in range(steps):
            total = loss(with_weights(variant, name, weights | buffers))
            slopes = torch.autograd.grad(total, list(weights.values()), create_graph=True)
            weights = {n: w - rate * s for (n, w), s in zip(weights.items(), slopes, strict=True)}
    return with_weights(variant, name, weights | buffers)
