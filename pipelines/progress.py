"""The live progress line of a run, drawn from the events of its journal."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

BAR = 20
SHORT = {"discriminator": "D", "generator": "G"}


def duration(seconds: float) -> str:
    """``seconds`` as 0:42, 12:05 or 3:07:09."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressLine:
    """Shows iteration, images/s, losses and time left; messages are printed above the line.

    On a terminal one line is redrawn in place; elsewhere (the log of a job) a plain line is
    printed every ``interval`` seconds. ``total`` is the number of iterations of the run, which a
    ``start`` event may correct.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        stream: TextIO | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        self.total = total
        self.step = 0
        self._stream = sys.stderr if stream is None else stream
        self._interval = interval
        self._clock = clock
        self._live = self._stream.isatty()
        self._values: dict[str, float] = {}
        self._marks: deque[tuple[float, int]] = deque(maxlen=20)
        self._starts = 0
        self._printed = float("-inf")
        self._shown = ""

    def show(self, event: Mapping[str, Any]) -> None:
        """Take in an event of the journal and show what it changes."""
        kind = event["kind"]
        if kind == "start":
            self._start(event)
        elif kind == "metrics":
            self._take(event)
        elif kind == "message":
            prefix = "warning: " if event.get("level") == "warning" else ""
            self.say(prefix + event["text"])
        self.draw()

    def _start(self, event: Mapping[str, Any]) -> None:
        self._starts += 1
        self._marks.clear()
        self._marks.append((event["time"], event["step"]))
        self.total = int(event.get("steps") or self.total)
        if self._starts > 1:
            self.say(f"the workers were started again and go on from iteration {event['step']}")

    def _take(self, event: Mapping[str, Any]) -> None:
        self.step = max(self.step, event["step"])
        self._values.update(event["values"])
        if not self._marks or event["step"] > self._marks[-1][1]:
            self._marks.append((event["time"], event["step"]))

    def seconds_left(self) -> float | None:
        """Seconds to the end at the rate of the last logging points; ``None`` before two."""
        if len(self._marks) < 2:
            return None
        (begun, first), (now, last) = self._marks[0], self._marks[-1]
        if last <= first or now <= begun:
            return None
        return (self.total - last) * (now - begun) / (last - first)

    def text(self) -> str:
        """The line as it stands."""
        share = min(1.0, self.step / self.total) if self.total else 0.0
        filled = int(share * BAR)
        parts = [f"{self.label} [{'=' * filled}{'.' * (BAR - filled)}] {self.step}/{self.total}"]
        if "images_per_second" in self._values:
            parts.append(f"{self._values['images_per_second']:,.0f} images/s")
        losses = [n for n in sorted(self._values) if n.startswith("loss/")]
        for name in losses[:4]:
            player = name.removeprefix("loss/")
            parts.append(f"{SHORT.get(player, player)} {self._values[name]:.3f}")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def say(self, text: str) -> None:
        """Print ``text`` as a line of its own, above the progress line."""
        self._erase()
        self._write(text + "\n")

    def draw(self, force: bool = False) -> None:
        """Show the line: redrawn on a terminal, elsewhere at most every ``interval`` seconds."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            text = self.text()[:width]
            if text != self._shown:
                self._erase()
                self._write(text)
                self._shown = text
            return
        now = self._clock()
        if self._values and (force or now - self._printed >= self._interval):
            text = self.text()
            if text != self._shown:
                self.say(text)
                self._shown = text
            self._printed = now

    def close(self) -> None:
        """Leave the last state of the line on the screen and go to the next."""
        self.draw(force=True)
        if self._live and self._shown:
            self._write("\n")
            self._shown = ""

    def _erase(self) -> None:
        if self._live and self._shown:
            self._write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""

    def _write(self, text: str) -> None:
        """Print; a reader that has gone (``2>&1 | tee``, ended by the same Ctrl-C) is no reason to
        end a run without its checkpoint.
        """
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
