"""Freed memory is kept and taken again, where training on a CPU would ask the kernel for it anew.

An iteration frees what it has taken, the same blocks every time. The GNU C library gives blocks of
more than 32 MiB back to the kernel at once, and smaller ones where more than 64 MiB lie free at the
end of its heap. The kernel clears every page before it hands it out again, in which time nothing is
computed: for networks with large maps a third of an iteration, and most of an extractor's pass over
pictures of 224 pixels (``benchmarks.speed``, ``docs/results.md``).

With :func:`keep_freed_memory` a process keeps what it once had, and so takes up its peak from then
on. That reaches blocks of the thread in which a process begins; other threads have heaps of their
own, of 64 MiB each at most. A process in which another thread trains, as in Ray Train's workers, is
started with :func:`environment` instead, which lets all threads share one.

Nothing is done where another C library is used, nor against what the user has set of these.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

BLOCK, FREE, HEAPS = "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"
"""What the GNU C library calls the largest block on its heap, what may lie free at the heap's end
(both in bytes), and the number of heaps."""
_LARGEST = 2**31 - 1  # all that its functions take, who take an int
_LARGEST_ONCE = 2**25  # bytes, that it takes before its version 2.35
_UNBOUNDED = 2**62
_VERSION = "CS_GNU_LIBC_VERSION"  # such as "glibc 2.36"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _ALL = -1, -3, -1  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Let this process keep what its first thread frees; whether it does now."""
    return not _set_by_user(os.environ) and _set(block=_largest_block(), free=_ALL)


def environment() -> dict[str, str]:
    """Variables to start a process with that shall keep freed memory, whichever thread frees it.

    Without those that this process has already, as what it starts has them too.
    """
    if _set_by_user(os.environ):
        return {}
    return {name: value for name, value in _keeping().items() if name not in os.environ}


def _keeping() -> dict[str, str]:
    return {BLOCK: str(_largest_block()), FREE: str(_UNBOUNDED), HEAPS: "1"}


def _largest_block() -> int:
    """The largest block that the C library of this machine lets one ask it to keep."""
    known = _VERSION in getattr(os, "confstr_names", ())
    name = (os.confstr(_VERSION) if known else None) or ""
    version = tuple(int(part) for part in name.rpartition(" ")[2].split(".")[:2] if part)
    return _LARGEST if version >= (2, 35) else _LARGEST_ONCE


def give_back_freed_memory() -> bool:
    """Let this process do as it would without us, had it had blocks of 32 MiB: to compare with.

    Whether it does now.
    """
    return _set(block=32 * 2**20, free=64 * 2**20)


def _set_by_user(environ: Mapping[str, str]) -> bool:
    own = any(environ.get(name, value) != value for name, value in _keeping().items())
    return own or "glibc.malloc" in environ.get("GLIBC_TUNABLES", "")


def _set(*, block: int, free: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # Where the first is refused the second would do harm: it ends the library's own adapting.
    return bool(mallopt(_M_MMAP_THRESHOLD, block) == 1 and mallopt(_M_TRIM_THRESHOLD, free) == 1)
