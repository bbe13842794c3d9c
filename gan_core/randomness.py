"""Randomness as data: every random number is a function of (seed, stream, sample, element).

A counter-based generator (Philox 4x32 with 10 rounds, Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3") has no state to save: a resumed run, another number of workers and
an evaluation in between all see the numbers that they would have seen.
"""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


@functools.lru_cache(maxsize=4096)
def stream_key(seed: int, *names: str) -> int:
    """A 64-bit key for the numbers called ``names`` under ``seed``; other names, other numbers."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _multiply(multiplier: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the 64-bit product, held in int64."""
    product = word * multiplier
    return (product >> 32) & _MASK, product & _MASK


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, ...]:
    """Philox 4x32-10: four int64 tensors with values in [0, 2^32) from four such tensors."""
    first, second, third, fourth = counter
    low, high = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        high_1, low_1 = _multiply(_MULTIPLIERS[0], first)
        high_3, low_3 = _multiply(_MULTIPLIERS[1], third)
        first, second, third, fourth = high_3 ^ second ^ low, low_3, high_1 ^ fourth ^ high, low_1
        low, high = (low + _WEYL[0]) & _MASK, (high + _WEYL[1]) & _MASK
    return first, second, third, fourth


def random_words(key: int, index: Tensor, count: int) -> Tensor:
    """``count`` random 32-bit words for each sample.

    ``index``: whole numbers (N,), global sample numbers. Returns int64 (N, count rounded up to a
    multiple of 4) with values in [0, 2^32).
    """
    if index.is_floating_point() or index.dim() != 1:
        raise ValueError(
            f"numbers of samples are whole, in one row, not {index.dtype} of shape "
            f"{tuple(index.shape)}"
        )
    index = index.to(torch.int64)  # others would overflow, and be other numbers
    blocks = torch.arange((count + 3) // 4, device=index.device)
    sample, block = index[:, None], blocks[None, :]
    zero = torch.zeros((), dtype=torch.int64, device=index.device)
    counter = (block + zero * sample, zero + zero * (block + sample), sample & _MASK, sample >> 32)
    words = philox(tuple(torch.broadcast_tensors(*counter)), key)
    return torch.stack(words, dim=-1).flatten(1)


def uniforms(words: Tensor) -> Tensor:
    """32-bit words as float64 in (0, 1): the middle of each of 2^32 equal steps."""
    return (words.to(torch.float64) + 0.5) * 2.0**-32
