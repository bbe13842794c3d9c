"""Batches of examples that stay in the host's memory, gathered and copied ahead of their turn.

Where a split does not fit the device, a thread gathers the next turns' rows into pinned memory and
copies them to the device on a stream of its own, while the device plays. What a turn sees is the
same as with the split on the device: rows are a function of the position alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from gan_core.data.examples import Batch

EXAMPLES_ON = ("auto", "device", "host")
"""Where a game's examples may be asked to lie."""

TURNS_AHEAD = 3
"""How many turns are gathered before they are asked for."""
DEVICE_SHARE = 0.5
"""The share of the device's free memory that examples may take; networks need the rest."""


def belongs_on_host(tensors: Mapping[str, Tensor], device: torch.device) -> frozenset[str]:
    """The names of the tensors that are better left on the host: the largest, until the rest fits.

    On a CPU none: its memory is the host's.
    """
    if device.type != "cuda":
        return frozenset()
    torch.cuda.empty_cache()  # what is kept for later would count as taken
    free, _ = torch.cuda.mem_get_info(device)
    return _largest(tensors, int(DEVICE_SHARE * free))


def _largest(tensors: Mapping[str, Tensor], room: int) -> frozenset[str]:
    """The largest tensors, until the others take at most ``room`` bytes together."""
    by_size = sorted(tensors, key=lambda name: -tensors[name].nbytes)
    left = sum(tensor.nbytes for tensor in tensors.values())
    chosen = set()
    for name in by_size:
        if left <= room:
            break
        chosen.add(name)
        left -= tensors[name].nbytes
    return frozenset(chosen)


@dataclasses.dataclass(frozen=True)
class _Copied:
    """Rows on the device, and the event after which they are there (``None``: they are)."""

    batch: Batch
    arrived: Any


class HostedRows:
    """The rows of ``stored`` (tensors on the host, by name) for each turn's position.

    ``rows_at(position)`` says which: int64 indices by name. Turns are ``batch_size`` positions
    apart; asking for any other position is allowed, and only slower.
    """

    def __init__(
        self,
        stored: Mapping[str, Tensor],
        rows_at: Callable[[int], Mapping[str, Tensor]],
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._stored, self._rows_at = dict(stored), rows_at
        self._batch_size, self._device = batch_size, device
        self._cuda = device.type == "cuda"
        # Of another priority than the streams that turns are recorded on, so that it is none of
        # those: torch deals out the streams of a priority in turn.
        self._side = torch.cuda.Stream(device, priority=-1) if self._cuda else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="examples")
        self._ahead: dict[int, Future[_Copied]] = {}

    def at(self, position: int) -> Batch:
        """The rows of the turn at ``position``, on the device; starts gathering the next ones."""
        wanted = range(position, position + (TURNS_AHEAD + 1) * self._batch_size, self._batch_size)
        self._ahead = {p: f for p, f in self._ahead.items() if p in wanted}
        for each in wanted:
            if each not in self._ahead:
                self._ahead[each] = self._thread.submit(self._copy, each)
        copied = self._ahead.pop(position).result()
        if self._cuda:
            present = torch.cuda.current_stream(self._device)
            present.wait_event(copied.arrived)
            for tensor in copied.batch.values():
                tensor.record_stream(present)  # its memory is not given away before it is read
        return copied.batch

    def _copy(self, position: int) -> _Copied:
        rows = self._rows_at(position)
        batch: Batch = {}
        with torch.cuda.stream(self._side) if self._cuda else contextlib.nullcontext():
            for name, tensor in self._stored.items():
                shape = (len(rows[name]), *tensor.shape[1:])
                chosen = torch.empty(shape, dtype=tensor.dtype, pin_memory=self._cuda)
                torch.index_select(tensor, 0, rows[name], out=chosen)
                batch[name] = chosen.to(self._device, non_blocking=True)
            arrived = self._side.record_event() if self._side is not None else None
        return _Copied(batch, arrived)
