"""Turns recorded as a CUDA graph records them, on the CPU: operations on the tensors they had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from gan_core.data.examples import Batch
from gan_core.engine import capture
from gan_core.engine.capture import CapturedTurn

WARM_UP_TURNS = 2


class Tape(TorchDispatchMode):
    """Notes the operations of a block, and does the same again on the same tensors.

    A CUDA graph does nothing while it is recorded; here the block is played, so the first replay
    has happened already.
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[tuple[Any, Any, dict[str, Any], Any]] = []
        self._played = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = _as_now((args, kwargs or {}))
        found = func(*args, **(kwargs or {}))
        self._steps.append((func, *given, _as_now(found)))
        return found

    def __len__(self) -> int:
        return len(self._steps)

    @torch.no_grad()
    def replay(self) -> None:
        """All operations once more, but for views, which need none."""
        if not self._played:
            self._played = True
            return
        for func, args, kwargs, found in self._steps:
            given, made = _places((args, kwargs)), _places(found)
            shows = not func._schema.is_mutable and made <= given
            if shows or torch.Tag.inplace_view in func.tags:
                continue
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and not _places(old) <= given:
                    old.copy_(new)


def _as_now(tensors: Any) -> Any:
    """The same memory in the shapes of this moment: some operations change a tensor's in place."""
    return tree_map_only(Tensor, torch.ops.aten.alias.default, tensors)


def _places(tensors: Any) -> set[int]:
    """Where in memory they begin."""
    return {t.untyped_storage()._cdata for t in tree_leaves(tensors) if isinstance(t, Tensor)}


def record_on_tapes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on captured turns are recorded so, after :data:`WARM_UP_TURNS`.

    The list grows by a recorded turn's number of operations.
    """
    lengths: list[int] = []

    def play(self: CapturedTurn, turn: Callable[[Batch], Batch], batch: Batch) -> Batch:
        return turn(batch)

    def record(self: Any, turn: Callable[[Batch], Batch], batch: Batch) -> None:
        self._inputs = {name: values.clone() for name, values in batch.items()}
        self._graph = Tape()
        with self._graph:
            self._carry = turn(self._inputs)
        lengths.append(len(self._graph))

    monkeypatch.setattr(capture, "WARM_UP_TURNS", WARM_UP_TURNS)
    monkeypatch.setattr(capture, "_side_stream", lambda: None)
    monkeypatch.setattr(CapturedTurn, "_aside", play)
    monkeypatch.setattr(CapturedTurn, "_watch", play)
    monkeypatch.setattr(CapturedTurn, "_try_to_record", record)
    return lengths
