"""The live table of a search: on a terminal redrawn in place, elsewhere a line an event."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, TextIO

from pipelines.progress import duration

_OPEN = ("playing", "waiting")
ROWS = 14
"""Trials that the live table shows at most: those that play, then the best."""
SILENCE = 60.0
"""Seconds without a line after which how far a search is is told where there is no terminal."""


@dataclasses.dataclass
class Row:
    """A trial as the table shows it.

    ``state``: playing, waiting (to be promoted), finished, behind, failed, or a verdict.
    ``progress``: iterations at the study's pace.
    """

    name: str
    point: dict[str, Any]
    state: str = "playing"
    progress: int = 0
    value: float = math.nan
    objective: float = math.inf
    note: str = ""


def show_value(value: Any) -> str:
    """A value in few characters."""
    if not isinstance(value, float):
        return str(value)
    near_one = value != 1 and abs(value - 1) < 0.01  # decays: 0.9999 is not 1
    return f"{value:.7g}" if near_one else f"{value:.3g}"


def show_point(point: Mapping[str, Any]) -> str:
    """A point as ``k=1 lr_d=0.0002``."""
    return " ".join(f"{name}={show_value(value)}" for name, value in point.items())


class Table:
    """Shows rows, and messages above them; safe to call from any thread."""

    def __init__(
        self,
        metric: str,
        total: int,
        steps: int,
        *,
        stream: TextIO | None = None,
        interval: float = 0.5,
    ) -> None:
        self.metric, self.total, self.steps = metric, total, steps
        self.rows: dict[str, Row] = {}
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._interval = interval
        self._drawn, self._drawn_at = 0, -math.inf
        self._began = self._said_at = time.monotonic()
        self._lock = threading.RLock()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        with self._lock:
            self._erase()
            self._stream.write(text + "\n")
            self._stream.flush()
            self._said_at = time.monotonic()

    def show(self, row: Row) -> None:
        """Take in what ``row`` has become; a trial that has ended gets its line where there is
        no terminal.
        """
        with self._lock:
            self.rows[row.name] = row
            if not self._live and row.state not in _OPEN:
                self.say(f"{self._line(row)}  [{self._done()}/{self.total}]")

    def mark_waiting(self, names: Collection[str]) -> None:
        """Of the trials that are open those in ``names`` wait; the others say when they play."""
        with self._lock:
            for name in names:
                row = self.rows.get(name)
                if row is not None and row.state == "playing":
                    row.state = "waiting"

    def draw(self, force: bool = False) -> None:
        """Redraw the table if it is time to."""
        with self._lock:
            now = time.monotonic()
            if not self._live:
                self._say_how_far(now)
                return
            if now - self._drawn_at < self._interval and not force:
                return
            self._drawn_at = now
            width = shutil.get_terminal_size().columns - 1
            lines = [line[:width] for line in self.lines()]
            self._erase()
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
            self._drawn = len(lines)

    def _say_how_far(self, now: float) -> None:
        """A line where there is no terminal and none has been written for long."""
        playing = [row for row in self.rows.values() if row.state == "playing"]
        if playing and now - self._said_at >= SILENCE:
            shares = ", ".join(f"{row.name} {row.progress / self.steps:.0%}" for row in playing)
            self.say(f"{self._footer(len(playing))}: {shares}")

    def lines(self) -> list[str]:
        """The table as it stands."""
        rows = list(self.rows.values())
        playing = [row for row in rows if row.state == "playing"]
        others = sorted((r for r in rows if r not in playing), key=lambda r: r.objective)
        head = f"{'trial':<11} {'state':<12} {'played':>7} {self.metric:>16}  point"
        shown = [*playing, *others][:ROWS]
        left = len(rows) - len(shown)
        lines = [head, *(self._line(row) for row in shown)]
        if left > 0:
            lines.append(f"... and {left} more")
        return [*lines, self._footer(len(playing))]

    def _line(self, row: Row) -> str:
        value = "-" if math.isnan(row.value) else f"{row.value:.4g}"
        told = row.note or show_point(row.point)
        played = f"{row.progress / self.steps:.0%}"
        return f"{row.name:<11} {row.state:<12} {played:>7} {value:>16}  {told}"

    def _footer(self, playing: int) -> str:
        rows = self.rows.values()
        spent = sum(row.progress for row in rows)
        done = [row for row in rows if row.state not in _OPEN]
        saved = 1 - sum(row.progress for row in done) / max(1, self.steps * len(done))
        waiting = sum(row.state == "waiting" for row in rows)
        return (
            f"{len(done)} of {self.total} trials done, {playing} playing, "
            + (f"{waiting} waiting, " if waiting else "")
            + f"{spent:,} steps played"
            + (f", {saved:.0%} of the steps saved" if done else "")
            + f", {duration(time.monotonic() - self._began)}"
        )

    def _done(self) -> int:
        return sum(row.state not in _OPEN for row in self.rows.values())

    def close(self) -> None:
        """Leave the last state of the table on the screen."""
        with self._lock:
            self.draw(force=True)
            self._drawn = 0

    def _erase(self) -> None:
        if self._live and self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0
