"""Float32 that is float32, and a random number generator that nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


def _precision_switches() -> list[Any]:
    backends: Any = torch.backends
    return [
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    ]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Products and convolutions in IEEE float32: no TF32, no bfloat16, no autocast.

    The caller's settings are back afterwards, whatever happens inside.
    """
    switches = _precision_switches()
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        with ExitStack() as stack:
            for kind in ("cuda", "cpu"):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


@contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """The CPU's global generator seeded with ``seed`` inside, and untouched outside.

    For code of others that can only draw from the global generator. The generators of
    accelerators are neither seeded nor saved: draw nothing from them inside.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) between the rows of (N, d) and (M, d).

    Computed by one matrix product, so small distances between long vectors cancel: centre
    float32 rows first (:func:`exact_float32` around the call), or pass float64.
    """
    lengths = left.square().sum(1, keepdim=True) + right.square().sum(1)
    return torch.addmm(lengths, left, right.t(), alpha=-2).clamp_(min=0)
