"""Optimisers whose rates follow a schedule of updates."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn, optim

from gan_core.variant import OptimizerSpec


def create_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The fused optimiser of ``spec`` over ``parameters``."""
    if spec.kind == "sgd":
        return optim.SGD(
            parameters, lr=spec.learning_rate, momentum=spec.momentum(0), fused=True
        )
    return optim.Adam(parameters, lr=spec.learning_rate, betas=spec.betas, fused=True)


def apply_schedule(optimizer: optim.Optimizer, spec: OptimizerSpec, updates: int) -> None:
    """Set the rate (and the momentum of ``sgd``) for the update after ``updates`` updates."""
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate * spec.rate(updates)
        if spec.kind == "sgd":
            group["momentum"] = spec.momentum(updates)
        else:
            group["betas"] = spec.betas
