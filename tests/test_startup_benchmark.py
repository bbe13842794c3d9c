"""What the benchmark of starts counts."""

from __future__ import annotations

from typing import Any

from benchmarks.startup import bounds


def event(kind: str, step: int, time: float) -> dict[str, Any]:
    return {"kind": kind, "step": step, "time": time}


def test_what_comes_after_the_last_iteration_belongs_to_the_end() -> None:
    events = [
        event("start", 0, 1.0), event("metrics", 1, 3.0), event("metrics", 2, 4.0),
        event("metrics", 3, 5.0), event("metrics", 3, 7.5),  # the probe's
        event("checkpoint", 3, 8.0), event("end", 3, 9.0),
    ]  # fmt: skip
    assert bounds(events) == (3.0, 5.0)
