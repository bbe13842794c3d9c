"""A moving average of a network's weights, and the batch statistics that belong to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS_BATCHES, STATISTICS_BATCH = 16, 128
"""How many batches, and of how many samples, batch statistics are measured on."""


class MovingAverage:
    """Exponential moving average of the parameters of ``network``.

    The decay of update t is min(``decay``, (1 + t) / (10 + t)), so that a short run is not an
    average over its random start: 0.9, 0.99, 0.999 and 0.9999 are reached by updates 80, 890, 8,990
    and 89,990, and until then are the same. Only parameters are averaged: batch statistics belong
    to one set of weights, and are measured anew for the average (:func:`measure_batch_statistics`).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = list(network.parameters())
        self._average = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the network's present weights."""
        self.updates = 0
        for average, parameter in zip(self._average, self._live, strict=True):
            average.copy_(parameter)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Set the parameters of ``network`` (of the same architecture) to the average."""
        for parameter, average in zip(network.parameters(), self._average, strict=True):
            parameter.copy_(average)

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """The average and the number of its updates."""
        return {"updates": self.updates, "average": list(self._average)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        """The inverse of :meth:`state_dict`."""
        updates, average = state["updates"], state["average"]
        assert isinstance(updates, int)
        assert isinstance(average, list)
        self.updates = updates
        for mine, saved in zip(self._average, average, strict=True):
            mine.copy_(saved)


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether ``network`` keeps running batch statistics."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in network.modules())


@torch.no_grad()
def measure_batch_statistics(
    network: nn.Module, generate: Callable[[int], object], batches: int
) -> None:
    """Set the running statistics of ``network`` to the mean over ``batches`` of its batches.

    ``generate(i)`` runs the network on the i-th batch. Modes and momenta are left as they were.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(layer.momentum, layer.training) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the batches
        layer.train()
    for number in range(batches):
        generate(number)
    for layer, (momentum, training) in zip(layers, before, strict=True):
        layer.momentum = momentum
        layer.train(training)
