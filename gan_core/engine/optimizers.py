"""Optimisers whose rates follow a schedule, also inside a captured CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

from gan_core.variant import OptimizerSpec


class TensorSGD(optim.Optimizer):
    """SGD with momentum whose rate and momentum are tensors, so that a graph can replay it.

    The update and the state (``momentum_buffer``) are those of ``torch.optim.SGD``, whose
    momentum is a number that a captured graph would keep for ever.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: Tensor, momentum: Tensor) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            buffers = [self._momentum_of(p) for p in parameters]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, [p.grad for p in parameters])
            torch._foreach_sub_(parameters, torch._foreach_mul(buffers, group["lr"]))

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def create_optimizer(
    spec: OptimizerSpec, parameters: list[nn.Parameter], *, capturable: bool = False
) -> optim.Optimizer:
    """The optimiser of ``spec``; ``capturable`` holds what a schedule changes in tensors."""
    if not capturable:
        if spec.kind == "sgd":
            momentum = spec.momentum(0)
            return optim.SGD(parameters, lr=spec.learning_rate, momentum=momentum, fused=True)
        return optim.Adam(parameters, lr=spec.learning_rate, betas=spec.betas, fused=True)
    device = parameters[0].device
    rate = _scalar(spec.learning_rate, device)
    if spec.kind == "sgd":
        return TensorSGD(parameters, rate, _scalar(spec.momentum(0), device))
    return optim.Adam(parameters, lr=rate, betas=spec.betas, fused=True, capturable=True)


def _scalar(value: float, device: torch.device) -> Tensor:
    """In float32, whatever the networks are in: that is what Adam's fused kernel reads."""
    return torch.tensor(value, dtype=torch.float32, device=device)


def apply_schedule(
    optimizer: optim.Optimizer, spec: OptimizerSpec, updates: int, iterations: float
) -> None:
    """Set the rate (and the momentum of ``sgd``) for the update after ``updates`` updates, and
    after ``iterations`` of the stage, of which a player with several turns knows fractions.
    """
    rate = spec.learning_rate * spec.rate(updates) * spec.annealing(iterations)
    for group in optimizer.param_groups:
        _set(group, "lr", rate)
        if spec.kind == "sgd":
            _set(group, "momentum", spec.momentum(updates))
        else:
            group["betas"] = spec.betas


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def load_optimizer_state(optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
    """Load copies of moments and counts, but keep rates and flags: those are the engine's."""
    keep = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, keep, strict=True):
        for name in [n for n in group if n != "params" and n not in own]:
            del group[name]
        group.update(own)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if not isinstance(value, Tensor):
                continue
            if value.shape == parameter.shape:
                # In the parameter's layout, whichever the saved run had: fused updates want it.
                moments[name] = torch.empty_like(parameter).copy_(value)
            else:
                moments[name] = value.clone()  # a count, which goes up in place
