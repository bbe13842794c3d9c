"""How many iterations fit into a time of training here: what rates that fall to nothing ask for.

A game like the one to come is played for a few seconds and thrown away; its seconds count as
training of the other.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import tempfile
import time
from typing import Any

from benchmarks.kept import OUT, check_asked
from gan_core.config import RunConfig, make_config
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import Observer
from gan_core.run import Run

SETTLED = {"eager": 2}
"""Iterations after which an engine plays at its pace, by mode."""
LATEST = 20
"""The same of those that compile or record turns first."""
TIMED = 5.0
"""Seconds of training after these that tell the pace."""
BEGINS_AGAIN = 0.15
"""The share of the first time that compiling takes from its cache (7 s of 48 s on an H200)."""
ENDLESS = 1_000_000_000
MARGIN = 0.98
"""Better that the rates have fallen a little early than not at all."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """``steps`` iterations fit into ``seconds`` of training, ``spent`` on finding that out among
    them.
    """

    seconds: float
    steps: int
    spent: float


class Timekeeper(Observer):
    """Stops a run when it knows the pace, iterations a second between logging points.

    Or when the ``seconds`` are over, or the ``deadline`` (as ``time.time()``) has come.
    """

    def __init__(self, seconds: float, deadline: float = math.inf) -> None:
        self.seconds, self.deadline = seconds, deadline
        self.points: list[tuple[int, float]] = []
        self._settled, self._spent = LATEST, 0.0

    def start(self, step: int, info: dict[str, Any]) -> None:
        self._settled = SETTLED.get(info["engine"], LATEST)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._spent = values.get("seconds", self._spent)
        if step >= self._settled and "seconds" in values:
            self.points.append((step, self._spent))

    def should_stop(self) -> bool:
        known = bool(self.points) and self.points[-1][1] - self.points[0][1] >= TIMED
        return known or self._spent >= self.seconds or time.time() > self.deadline

    def plan(self) -> Plan:
        """For a run that begins now; ``UserError`` if nothing fits into what is left."""
        steps = self._steps_left() if len(self.points) > 1 else 0
        if steps < 1:
            raise UserError(
                f"{self.seconds:g} seconds of training are too few: {self._spent:.0f} are gone "
                "before it is known how many iterations fit; give more, or name these (--set "
                "steps=1000)"
            )
        return Plan(self.seconds, steps, self._spent)

    def _steps_left(self) -> int:
        (first, then), (last, now) = self.points[0], self.points[-1]
        each = (now - then) / (last - first)
        again = BEGINS_AGAIN * max(0.0, then - first * each)
        return int(MARGIN * (self.seconds - now - again) / each)


def kept_plan(config: RunConfig, seconds: float, remedy: str = OUT) -> Plan | None:
    """The plan of the run of ``config``, if it has one; ``UserError`` if for other ``seconds``."""
    file = config.folder / "pace.json"
    if not file.exists():
        return None
    found = Plan(**json.loads(file.read_text()))
    check_asked(file, dataclasses.asdict(found), {"seconds": seconds}, remedy)
    return found


def make_plan(
    config: RunConfig, world: World, seconds: float, deadline: float = math.inf
) -> Plan | None:
    """Find the plan of a run that is to begin, and keep it in its folder; ``None`` if the deadline
    comes first.
    """
    watch = Timekeeper(seconds, deadline)
    with tempfile.TemporaryDirectory() as folder:
        Run(dataclasses.replace(with_steps(config, ENDLESS), storage=folder), world, watch).play()
    gc.collect()  # its memory is the other's
    if time.time() > deadline:
        return None
    found = watch.plan()
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / "pace.json").write_text(json.dumps(dataclasses.asdict(found)))
    return found


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    """``config`` with that many iterations."""
    return make_config({**config.to_dict(), "options": {**config.options, "steps": steps}})
