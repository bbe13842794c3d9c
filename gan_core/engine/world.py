"""The processes that train together: one alone, or the ranks of ``torch.distributed``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class World:
    """Who I am among the workers. Every method is a no-op or the identity for a world of one."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def current(cls, device: str | torch.device | None = None) -> World:
        """The world of an initialised process group, or a world of one.

        ``device`` is chosen automatically when it is ``None``: CUDA where there is one.
        """
        grouped = dist.is_available() and dist.is_initialized()
        rank, size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        if device is None:
            local = int(os.environ.get("LOCAL_RANK", "0"))
            device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        return cls(rank, size, torch.device(device))

    @property
    def leads(self) -> bool:
        """True on the one rank that writes files and speaks to the user."""
        return self.rank == 0

    def slice_of(self, count: int) -> slice:
        """My contiguous share of ``count`` things; the shares of all ranks tile 0..count."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, share: Tensor, count: int) -> Tensor:
        """All ranks' shares (by :meth:`slice_of`) as one tensor (count, ...), on every rank."""
        if self.size == 1:
            return share
        sizes = [(r + 1) * count // self.size - r * count // self.size for r in range(self.size)]
        padded = share.new_zeros((max(sizes), *share.shape[1:]))
        padded[: len(share)] = share
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's ``tensor``, in place on every rank."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's small picklable ``value`` on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of ``tensor`` over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def meets(self, seconds: float) -> bool:
        """Whether all ranks call this, the first waiting ``seconds`` for the last.

        For after an error, when others may wait elsewhere for this one: the ranks meet by a group
        of their own, so what they have begun together before does not matter. Where they have not
        met, they can do nothing together any more.
        """
        if self.size == 1:
            return True
        try:
            dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
        except (RuntimeError, ValueError):
            return False
        return True

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def torchrun_world(device: str | None = None) -> Iterator[World]:
    """The world that ``torchrun`` announces in the environment, or a world of one."""
    joined = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    cuda = device != "cpu" and torch.cuda.is_available()
    if joined:
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World.current(device)
    finally:
        if joined:
            dist.destroy_process_group()
