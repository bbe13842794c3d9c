"""Batches as a function of (seed, global sample number): data and noise, drawn on the device.

The whole split lives on the device in its stored form (uint8 pictures); a batch is a gather and
a conversion there. What does not fit stays on the host (:mod:`gan_core.engine.hosted`). Orders
and noise are made for many turns at once, so that small games are not bound by the cost of
drawing, and nothing but a position has to be saved for an exact resume.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gan_core.data.examples import Batch
from gan_core.data.views import View
from gan_core.engine.hosted import HostedRows
from gan_core.engine.world import World
from gan_core.priors import draw
from gan_core.randomness import stream_key
from gan_core.variant import NoiseSpec

_TURNS_AHEAD = 64
_VALUES_AHEAD = {"cpu": 1 << 20, "cuda": 1 << 23}
"""Numbers of noise drawn at a time, by kind of device, if that is a turn's at least.

A GPU is bound by the launches of a draw, about 140 whatever its size, which no graph holds: for
pictures of noise it draws several turns at a time. That takes 320 MiB while it lasts, and 32 or
64 MiB after it.
"""


class ShuffledOrder:
    """Endless shuffled passes over ``count`` examples: position -> example.

    Every pass is a permutation of its own, made from ``(seed, names, pass)``.
    """

    def __init__(self, count: int, seed: int, *names: str) -> None:
        self.count = count
        self._seed, self._names = seed, names
        self._passes: dict[int, Tensor] = {}

    def _pass(self, number: int) -> Tensor:
        made = self._passes.get(number)
        if made is None:
            key = stream_key(self._seed, *self._names, "order", str(number))
            generator = torch.Generator().manual_seed(key & (2**63 - 1))
            made = torch.randperm(self.count, generator=generator)
            # A new dictionary each time: a thread that gathers ahead may be reading the old one.
            near = {n: p for n, p in self._passes.items() if abs(n - number) <= 1}
            self._passes = near | {number: made}
        return made

    def examples(self, positions: Tensor) -> Tensor:
        """The examples (int64) at increasing global ``positions`` (int64, on the CPU)."""
        passes = positions // self.count
        chosen = torch.empty_like(positions)
        for number in passes.unique().tolist():
            here = passes == number
            chosen[here] = self._pass(number)[positions[here] - number * self.count]
        return chosen


@dataclasses.dataclass(frozen=True)
class _Ahead:
    """What is drawn already: this rank's examples and noise for the turns from ``start`` on."""

    start: int
    turns: int
    examples: dict[str, Tensor]  # of each series
    noise: Batch


class BatchStream:
    """The batches of one player (or of a whole iteration, where the stage shares one).

    ``series`` says which tensors belong together (see ``TensorSpec``); each series is drawn in an
    order of its own. Those named in ``hosted`` are in the host's memory, and come ahead of their
    turn. ``batch_size`` is global; ``next`` gives this rank's slice. ``position``
    counts the samples that all ranks have drawn together; setting it moves the stream anywhere.
    """

    def __init__(
        self,
        stored: Mapping[str, Tensor],
        view: View,
        reads: Sequence[str],
        noise: Sequence[NoiseSpec],
        *,
        batch_size: int,
        seed: int,
        names: tuple[str, ...],
        world: World,
        series: Mapping[str, str] | None = None,
        hosted: Iterable[str] = (),
    ) -> None:
        far = {name: stored[name] for name in reads if name in set(hosted)}
        self._stored = {name: stored[name] for name in reads}
        self._series = {name: (series or {}).get(name, "") for name in reads}
        self._view, self._noise = view, tuple(noise)
        self._keys = {spec.name: stream_key(seed, *names, spec.name) for spec in noise}
        self._world = world
        self.batch_size = batch_size
        self.position = 0
        self._orders = {
            series: ShuffledOrder(len(self._stored[name]), seed, *names, *filter(None, (series,)))
            for name, series in self._series.items()
        }
        values = sum(math.prod(spec.shape) for spec in noise) + 1
        share = max(1, batch_size // world.size)
        most = _VALUES_AHEAD.get(world.device.type, _VALUES_AHEAD["cpu"])
        self._turns = max(1, min(_TURNS_AHEAD, most // (share * values)))
        self._ahead: _Ahead | None = None
        self._near = [name for name in reads if name not in far]
        self._far = HostedRows(far, self._rows_at, batch_size, world.device) if far else None

    def _rows_at(self, position: int) -> dict[str, Tensor]:
        """Which examples the turn at ``position`` sees on this rank, by tensor."""
        mine = self._world.slice_of(self.batch_size)
        index = position + torch.arange(mine.start, mine.stop)
        rows = {series: order.examples(index) for series, order in self._orders.items()}
        return {name: rows[series] for name, series in self._series.items()}

    def _draw_ahead(self) -> _Ahead:
        mine = self._world.slice_of(self.batch_size)
        turns = torch.arange(self._turns)[:, None] * self.batch_size
        index = (self.position + turns + torch.arange(mine.start, mine.stop)).flatten()
        device = self._world.device
        examples = {
            series: _to_device(order.examples(index), device)
            for series, order in self._orders.items()
            if any(self._series[name] == series for name in self._near)
        }
        index = _to_device(index, device)
        noise = {
            spec.name: draw(spec.prior, self._keys[spec.name], index, spec.shape)
            for spec in self._noise
        }
        return _Ahead(self.position, self._turns, examples, noise)

    def next(self) -> Batch:
        """This rank's share of the next global batch: presented data and noise, by name."""
        ahead = self._ahead
        turn, rest = divmod(self.position - (ahead.start if ahead else 0), self.batch_size)
        if ahead is None or rest or not 0 <= turn < ahead.turns:
            ahead, turn = self._draw_ahead(), 0
            self._ahead = ahead
        share = self._world.slice_of(self.batch_size)
        rows = slice(turn * (share.stop - share.start), (turn + 1) * (share.stop - share.start))
        batch = {name: values[rows] for name, values in ahead.noise.items()}
        if self._stored:
            chosen = {series: examples[rows] for series, examples in ahead.examples.items()}
            shown = {n: self._stored[n][chosen[self._series[n]]] for n in self._near}
            if self._far is not None:
                shown |= self._far.at(self.position)
            batch |= self._view.present(shown)
        self.position += self.batch_size
        return batch


def _to_device(index: Tensor, device: torch.device) -> Tensor:
    """``index`` on ``device``; from pinned memory, so that the host does not wait for the copy."""
    if device.type != "cuda":
        return index
    return index.pin_memory().to(device, non_blocking=True)
