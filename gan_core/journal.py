"""The journal: what a run has to say, a JSON line an event, on disk before it is sent anywhere.

Whoever shows progress or sends metrics to a tracking server follows this file, so neither can
slow training down or lose anything. Rank 0 alone writes it.

Events are objects with ``kind``, ``step`` and ``time`` (seconds since 1970), and by kind:

- ``start``: ``steps`` (that the run is to have in all), ``workers``, ``device``, ``engine``
  ("eager" or "graph"), ``parameters`` (network to count), ``examples`` (count), ``data`` (their
  fingerprint), ``resumed_from`` (a checkpoint's folder or null), ``variant``, ``source``,
  ``target`` (kind of data), ``modes_in_data`` (classes or Gaussians, 0 if there are none to count),
  ``decided`` (options that were left to the variant, name to value)
- ``metrics``: ``values`` (name to number)
- ``picture``: ``name``, ``path`` (relative to the run's folder)
- ``message``: ``text``, ``level`` ("info" or "warning")
- ``tag``: ``name``, ``value``
- ``checkpoint``: ``path``
- ``end``: ``status`` ("finished", "stopped" or "failed"), ``summary``
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "journal.jsonl"


class Journal:
    """The journal of the run in ``folder``, open for appending.

    A restarted run replays the steps since its checkpoint; metrics that the journal holds
    already are not written again, so no step is logged twice.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._seen = self._recover()
        self._file = self.path.open("a", encoding="utf-8")

    def _recover(self) -> dict[str, set[int]]:
        """The steps of every kind and name; a line cut off by a crash is removed."""
        seen: dict[str, set[int]] = {}
        if not self.path.exists():
            return seen
        whole = 0
        for event, end in read(self.path):
            whole = end
            for key in _keys(event):
                seen.setdefault(key, set()).add(event["step"])
        if whole < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return seen

    def write(self, kind: str, step: int, **content: Any) -> None:
        """Append an event; metrics and pictures of steps already written are left out."""
        if kind == "metrics":
            values = content["values"].items()
            content = {"values": {n: v for n, v in values if not self._knows(f"m/{n}", step)}}
        event = {"kind": kind, "step": step, "time": time.time(), **content}
        keys = _keys(event)
        if kind in ("metrics", "picture") and all(self._knows(key, step) for key in keys):
            return
        for key in keys:
            self._seen.setdefault(key, set()).add(step)
        self._file.write(json.dumps(event, default=float) + "\n")
        self._file.flush()

    def _knows(self, key: str, step: int) -> bool:
        return step in self._seen.get(key, ())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _keys(event: dict[str, Any]) -> list[str]:
    if event["kind"] == "metrics":
        return [f"m/{name}" for name in event["values"]]
    return [f"p/{event['name']}"] if event["kind"] == "picture" else []


def read(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Events from the byte ``offset`` on, each with the offset behind it.

    An incomplete last line (it is being written, or a crash cut it off) is left for later.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:  # a crash of the machine can leave zeros, or half a character
                continue
            if isinstance(event, dict) and {"kind", "step"} <= set(event):
                yield event, offset


def finite(value: float) -> float | None:
    """``value``, or ``None`` where it is NaN or infinite."""
    return value if math.isfinite(value) else None
