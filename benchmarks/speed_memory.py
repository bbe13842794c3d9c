"""The memory that an iteration needs on a CPU: a part of `benchmarks.speed`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

_MARK = "the iteration that is looked at"


def needed_bytes(iterate: Callable[[], object]) -> int:
    """The most bytes of tensors that ``iterate()`` holds beyond those that lay there before it.

    By torch's profiler, which notes every allocation and release of torch's CPU allocator, so also
    what operations and the backward pass take for a while. A first call is noted too but not looked
    at, as the profiler is blind to the release of what came before it: gradients, for example, that
    one iteration leaves to the next. What libraries allocate past torch is not counted, nor what
    other processes do (a DataLoader's).
    """
    with (
        _library_silent(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found,
    ):
        iterate()
        with record_function(_MARK):
            iterate()
    with tempfile.TemporaryDirectory(prefix="gan-speed-") as folder:
        trace = Path(folder) / "trace.json"
        found.export_chrome_trace(str(trace))
        return peak_within(json.loads(trace.read_text())["traceEvents"])


def peak_within(events: Iterable[dict[str, Any]]) -> int:
    """The peak of a trace's allocations within the marked iteration, over the level before it."""
    noted = list(events)
    mark = next(e for e in noted if e.get("name") == _MARK and e.get("ph") == "X")
    begins, ends = mark["ts"], mark["ts"] + mark["dur"]
    changes = [
        (event["ts"], event["args"]["Bytes"])
        for event in noted
        if event.get("name") == "[memory]" and begins <= event["ts"] <= ends
    ]
    level = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        level += change
        peak = max(peak, level)
    return peak


@contextlib.contextmanager
def _library_silent() -> Iterator[None]:
    """Without what torch's profiler itself writes to the process's standard error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
