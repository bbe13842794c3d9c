"""The journal: what a run has to say, a JSON line an event, on disk before it is sent anywhere.

Whoever shows progress or sends metrics to a tracking server follows this file, so neither can
slow training down or lose anything. Rank 0 alone writes it.

Events are objects with ``kind``, ``step`` and ``time`` (seconds since 1970), and by kind:

- ``start``: ``steps`` (that the run is to have in all), ``workers``, ``device``, ``engine``
  ("eager", "compile", "graph" or "compiled-graph"), ``precision`` ("fp32", "tf32" or "bf16"),
  ``memory_format`` ("channels_last" or "contiguous"), ``parameters`` (network to count),
  ``examples`` (count), ``data`` (their fingerprint), ``resumed_from`` (a checkpoint's folder or
  null), ``begun_from`` (of another run's networks: its ``run``, ``step``, and if known the figure,
  ``metric`` and ``value``; or null), ``variant``, ``source``, ``target`` (the tensor that is
  learned: "image", "point"...), ``modes_in_data`` (classes or Gaussians, 0 if there are none to
  count), ``samples`` (that an evaluation makes), ``real`` (examples that they are compared with),
  ``least_share`` (of the rarest mode, or null), ``expected_modes`` (that as many real examples
  show: mean and standard deviation, or null), ``options`` (the variant's, name to value: a resumed
  run may have others than before), ``decided`` (those that were left to the variant, name to
  value), ``refused`` (names of options that these data or the others forbid), ``unopposed`` (the
  iterations after which stages begin that one player plays alone)
- ``metrics``: ``values`` (name to number)
- ``picture``: ``name``, ``path`` (relative to the run's folder)
- ``message``: ``text``, ``level`` ("info" or "warning")
- ``tag``: ``name``, ``value``
- ``checkpoint``: ``path``
- ``rewind``: the run goes on from another's state at ``step``, so what is said of this step and
  later ones takes the place of what was said before; ``source`` (the other), ``point`` (settings)
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
STATUSES = ("finished", "stopped", "failed")
"""How a run may end."""
_REPLACED = ("metrics", "picture")
"""What there is once of a step."""


class Journal:
    """The journal of the run in ``folder``, open for appending.

    A restarted run replays the steps since its checkpoint; metrics that the journal holds
    already are not written again, so no step is logged twice. After a ``rewind`` they are others.
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
            _remember(event, seen)
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
        if kind in _REPLACED and all(self._knows(key, step) for key in _keys(event)):
            return
        self._append(event)

    def replace_metrics(self, step: int, values: dict[str, float]) -> None:
        """Append metrics that were measured in another way: they count, not those before."""
        self._append({"kind": "metrics", "step": step, "time": time.time(), "values": values})

    def _append(self, event: dict[str, Any]) -> None:
        _remember(event, self._seen)
        self._file.write(json.dumps(event, default=float) + "\n")
        self._file.flush()

    def _knows(self, key: str, step: int) -> bool:
        return step in self._seen.get(key, ())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _remember(event: dict[str, Any], seen: dict[str, set[int]]) -> None:
    """Note in ``seen`` what ``event`` has said, or what it has taken back."""
    for key in _keys(event):
        seen.setdefault(key, set()).add(event["step"])
    if event["kind"] == "rewind":
        for steps in seen.values():
            steps.difference_update([step for step in steps if step >= event["step"]])


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


def read_standing(path: Path) -> list[dict[str, Any]]:
    """All events, but for metrics and pictures of a play that was taken back by a ``rewind``."""
    events: list[dict[str, Any]] = []
    for event, _ in read(path):
        if event["kind"] == "rewind":
            since = event["step"]
            events = [e for e in events if e["kind"] not in _REPLACED or e["step"] < since]
        events.append(event)
    return events


def last_status(folder: Path) -> str | None:
    """The status of the last ``end`` of the run in ``folder``; ``None`` if it was started again
    since.
    """
    status = None
    for event, _ in read(folder / FILE):
        if event["kind"] == "start":
            status = None
        elif event["kind"] == "end" and event["status"] in STATUSES:
            status = event["status"]
    return status


def finite(value: float) -> float | None:
    """``value``, or ``None`` where it is NaN or infinite."""
    return value if math.isfinite(value) else None
