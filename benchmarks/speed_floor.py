"""The least time that an iteration could take: its arithmetic, at the machine's best rate."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product shows the ceiling."""


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of ``work()``'s products and convolutions, backward too.

    A multiplication and an addition count two; what works element by element counts nothing.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


class Ceiling:
    """The best rate of a large matrix product seen so far, in operations a second."""

    def __init__(self, precision: str, device: str, side: int | None = None) -> None:
        self.precision, self.device = precision, device
        self.side = side or SIDES[device]
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self._factor = torch.randn(self.side, self.side, device=device).to(kind)
        self.rate = 0.0
        self.look(1)  # libraries set themselves up
        self.rate = 0.0

    def look(self, times: int = 3) -> None:
        """Multiply again; best of ``times``."""
        tf32 = "high" if self.precision == "tf32" else "highest"
        torch.set_float32_matmul_precision(tf32)
        for _ in range(times):
            self.rate = max(self.rate, 2 * self.side**3 / self._seconds())

    def _seconds(self) -> float:
        if self.device == "cpu":
            begun = time.perf_counter()
            torch.mm(self._factor, self._factor)
            return time.perf_counter() - begun
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        torch.mm(self._factor, self._factor)
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000
