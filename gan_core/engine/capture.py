"""A player's turn as a CUDA graph: recorded once, replayed without Python and without launches.

Small games are bound by the cost of launching their kernels, not by arithmetic. The first turns
are played as usual on a side stream (libraries set themselves up there); then one turn is
recorded on it, and from then on replayed on the tensors that it was recorded with. A turn that
cannot be recorded (one that asks the device for a value, say) is played as before, and that is
told.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_core.data.examples import Batch

WARM_UP_TURNS = 11
"""Turns before recording; what DistributedDataParallel needs too."""


class CapturedTurn:
    """Plays ``turn`` (a function of a batch that trains on it), captured after a warm-up.

    ``refuse`` is called with the reason, once, if it cannot be captured.
    """

    def __init__(self, turn: Callable[[Batch], Batch], refuse: Callable[[str], None]) -> None:
        self._turn, self._refuse = turn, refuse
        self._refused = False
        self._played = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}
        self._carry: Batch = {}
        self._side = _side_stream()

    def __call__(self, batch: Batch) -> Batch:
        """One turn on ``batch``; returns what it carries (overwritten by the next turn)."""
        if self._graph is None and self._played >= WARM_UP_TURNS and not self._refused:
            self._try_to_record(batch)
        if self._graph is None:
            self._played += 1
            return self._aside(batch)
        for name, values in batch.items():
            self._inputs[name].copy_(values)
        self._graph.replay()
        return self._carry

    def _aside(self, batch: Batch) -> Batch:
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            carry = self._turn(batch)
        torch.cuda.current_stream().wait_stream(self._side)
        return carry

    def _try_to_record(self, batch: Batch) -> None:
        """Nothing is played while recording: a turn that cannot be recorded changes nothing."""
        try:
            self._record(batch)
        except RuntimeError as error:
            self._graph, self._refused = None, True
            self._refuse(str(error).strip().splitlines()[0])

    def _record(self, batch: Batch) -> None:
        self._inputs = {name: values.clone() for name, values in batch.items()}
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # On the stream of the warm-up, whose scratch memory the libraries go on using. Only this
        # thread must do nothing that cannot be recorded: others may be copying examples.
        with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
            self._carry = self._turn(self._inputs)
        self._graph = graph


def _side_stream() -> torch.cuda.Stream:
    """A stream that can be recorded: the current one, unless it is the device's default.

    A game that has a stream of its own must record on that: libraries keep scratch memory by
    stream, and turns that were recorded on the same one must not be played at the same time.
    """
    present = torch.cuda.current_stream()
    return torch.cuda.Stream() if present == torch.cuda.default_stream() else present
