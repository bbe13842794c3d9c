"""A player's turn as a CUDA graph: recorded once, replayed without Python and without launches.

Small games are bound by the cost of launching their kernels, not by arithmetic. The first turns
are played as usual on a side stream (libraries set themselves up there); then one turn is
recorded on it, and from then on replayed on the tensors that it was recorded with. A turn that
cannot be recorded (one that asks the device for a value, say) is played as before, and that is
told. The last turn before the recording is watched: one that waits for the device need not be
tried, and it is better not to, for a recording that breaks leaves things behind in torch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_core.data.examples import Batch
from gan_core.errors import first_line

WARM_UP_TURNS = 11
"""Turns before recording; what DistributedDataParallel needs too."""
_WAITS = "called a synchronizing CUDA operation"
"""What torch says of an operation for which the host waits for the device."""
_BROKEN: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording broke: torch's allocators may keep pointers to them for ever."""

Turn = Callable[[Batch], Batch]
"""A function of a batch that trains on it; returns what it carries to other players."""


class CapturedTurn:
    """Plays a turn, captured after a warm-up.

    ``refuse`` is called with the reason, once, if it cannot be captured. The turn is not kept:
    whoever owns both would be part of a circle, and its memory would not be free when it goes.
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse
        self._refused = False
        self._side = _side_stream()
        self.restart()

    def restart(self) -> None:
        """Forget what was recorded: the tensors that it plays on are no longer those in use."""
        self._played = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}
        self._carry: Batch = {}

    def play(self, turn: Turn, batch: Batch) -> Batch:
        """``turn``, the same one each time, on ``batch``; the next one overwrites what it gives."""
        if self._graph is None and self._played >= WARM_UP_TURNS and not self._refused:
            self._try_to_record(turn, batch)
        if self._graph is None:
            self._played += 1
            watched = self._played == WARM_UP_TURNS and not self._refused
            return self._watch(turn, batch) if watched else self._aside(turn, batch)
        for name, values in batch.items():
            self._inputs[name].copy_(values)
        self._graph.replay()
        return self._carry

    def _aside(self, turn: Turn, batch: Batch) -> Batch:
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            carry = turn(batch)
        torch.cuda.current_stream().wait_stream(self._side)
        return carry

    def _watch(self, turn: Turn, batch: Batch) -> Batch:
        """As any other of the warm-up; refuses to record it if it waits for the device."""
        with _waits_noted() as places:
            carry = self._aside(turn, batch)
        if places:
            self._give_up(f"it waits for the device in {places[0]}")
        return carry

    def _try_to_record(self, turn: Turn, batch: Batch) -> None:
        """Nothing is played while recording: a turn that cannot be recorded changes nothing."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        present = torch.cuda.current_stream()
        causes: list[str] = []
        try:
            self._record(_noting_errors(turn, causes), batch, graph, pool)
        except RuntimeError as error:
            self._inputs, self._carry = {}, {}
            torch.cuda.set_stream(present)
            _clear_away(graph, pool, self._side)
            # The recording that ends in an error hides the one that broke it.
            self._give_up([*causes, first_line(error)][0])
        finally:
            torch.cuda.set_stream(present)  # which torch does not, where ending a recording fails

    def _record(self, turn: Turn, batch: Batch, graph: torch.cuda.CUDAGraph, pool: Any) -> None:
        self._inputs = {name: values.clone() for name, values in batch.items()}
        torch.cuda.synchronize()
        # On the stream of the warm-up, whose scratch memory the libraries go on using.
        with _recording(graph, self._side, pool):
            self._carry = turn(self._inputs)
        self._graph = graph

    def _give_up(self, reason: str) -> None:
        self._refused = True
        self._refuse(reason)


def _recording(
    graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any = None
) -> torch.cuda.graph:
    """A context in which ``graph`` is recorded on ``stream``, with its memory in ``pool``.

    Only this thread must do nothing that cannot be recorded: others may be copying examples.
    """
    return torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")


def _noting_errors(turn: Turn, errors: list[str]) -> Turn:
    def noting(batch: Batch) -> Batch:
        try:
            return turn(batch)
        except RuntimeError as error:
            errors.append(first_line(error))
            raise

    return noting


def _clear_away(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> None:
    """Leave the allocator and the random numbers as a recording that ends well does.

    Where the end of the recording itself fails, torch goes on allocating for it, by a rule that
    looks into ``graph``; and torch 2.11 takes every random number after it for part of a graph,
    until another is recorded (pytorch issue #171263). What can be ended is ended; ``graph`` is
    kept for what cannot be.
    """
    with contextlib.suppress(AttributeError, RuntimeError):  # private, or ended already
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
    with contextlib.suppress(RuntimeError):
        graph.reset()
    _BROKEN.append(graph)
    with contextlib.suppress(RuntimeError):
        number = torch.zeros((), device=stream.device)
        with torch.cuda.stream(stream), _recording(torch.cuda.CUDAGraph(), stream):
            number.add_(1)


@contextlib.contextmanager
def _waits_noted() -> Iterator[list[str]]:
    """Where this process waits for the device meanwhile, each as "file:line"; filled at the end.

    For a turn in which other threads do not wait for it. Other warnings than those of waits are
    lost; the turns before have given them too.
    """
    places: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)
    waits = [one for one in told if _WAITS in str(one.message)]
    places += [f"{Path(wait.filename).name}:{wait.lineno}" for wait in waits]


def _side_stream() -> torch.cuda.Stream:
    """A stream that can be recorded: the current one, unless it is the device's default.

    A game that has a stream of its own must record on that: libraries keep scratch memory by
    stream, and turns that were recorded on the same one must not be played at the same time.
    """
    present = torch.cuda.current_stream()
    return torch.cuda.Stream() if present == torch.cuda.default_stream() else present
