"""Gradients side by side in one tensor, averaged over the workers in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan_core.engine.world import World

_ALIGNED = 64  # numbers at multiples of which a parameter's gradient begins, as kernels like it


class SharedGradients:
    """The memory of the gradients of ``parameters``, all of one dtype and on one device.

    What DistributedDataParallel does within the backward pass is done after it, so that a CUDA
    graph can hold the pass itself, and another one the step: no graph waits for other workers, but
    where an objective asks for a mean over them itself (:func:`gan_core.losses.mean_over_workers`).
    The memory stays the same, as graphs need it to.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world: World) -> None:
        self._world = world
        begins, end = [], 0
        for parameter in parameters:
            begins.append(end)
            end += -(-parameter.numel() // _ALIGNED) * _ALIGNED
        self._flat: Tensor = torch.zeros(end, dtype=parameters[0].dtype, device=world.device)
        for parameter, begin in zip(parameters, begins, strict=True):
            shape, strides = parameter.shape, parameter.stride()
            parameter.grad = self._flat.as_strided(shape, strides, begin)

    def clear(self) -> None:
        """No gradient yet: what backward passes give is added up from here on."""
        self._flat.zero_()

    def average(self) -> None:
        """The workers' mean, on every worker."""
        self._world.mean(self._flat)
