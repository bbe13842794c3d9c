"""What one rank does for all: a result, or an error, that every rank then has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from gan_core.engine.world import World
from gan_core.errors import UserError

T = TypeVar("T")


def on_leader(world: World, work: Callable[[], T]) -> T:
    """``work()`` done by rank 0 alone; its small picklable result on every rank.

    What it raises is raised on every rank, so that no rank waits for one that has failed.
    """
    result: T | None = None
    error: Exception | None = None
    if world.leads:
        try:
            result = work()
        except Exception as caught:
            error = caught
    told = None if error is None else (isinstance(error, UserError), str(error))
    result, told = world.broadcast_object((result, told))
    if error is not None:
        raise error
    if told is not None:
        ours, message = told
        raise UserError(message) if ours else RuntimeError(f"rank 0 failed: {message}")
    return result


def share_state(
    world: World, load: Callable[[], tuple[Mapping[str, Tensor], dict[str, str]]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and facts that rank 0 loads or makes, on ``world.device`` of every rank.

    Machines need not share a disk: what rank 0 has read travels to the others.
    """
    loaded: dict[str, Tensor] = {}

    def describe() -> tuple[dict[str, tuple[torch.Size, torch.dtype]], dict[str, str]]:
        state, facts = load()
        loaded.update(state)
        return {name: (t.shape, t.dtype) for name, t in state.items()}, facts

    layout, facts = on_leader(world, describe)
    shared = {}
    for name, (shape, dtype) in layout.items():
        if world.leads:
            tensor = loaded[name].detach().to(world.device).contiguous()
        else:
            tensor = torch.empty(shape, dtype=dtype, device=world.device)
        shared[name] = world.broadcast(tensor)
    return shared, facts
