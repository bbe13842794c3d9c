"""How many iterations fit into a time of training here: what rates that fall to nothing ask for.

A game like the one to come is played for a few seconds and thrown away; its seconds count as
training of the other.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import tempfile

from benchmarks.kept import OUT, check_asked
from gan_core.config import RunConfig, make_config
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import Observer
from gan_core.run import Run

SETTLED = 20
"""Iterations after which networks are compiled and turns recorded."""
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
    """Stops a run when it knows the pace: iterations a second between logging points."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if step >= SETTLED and "seconds" in values:
            self.points.append((step, values["seconds"]))

    def should_stop(self) -> bool:
        return bool(self.points) and self.points[-1][1] - self.points[0][1] >= TIMED

    def plan(self, seconds: float) -> Plan:
        """For a run that begins now; ``UserError`` if nothing fits into what is left."""
        (first, then), (last, now) = self.points[0], self.points[-1]
        each = (now - then) / (last - first)
        again = BEGINS_AGAIN * max(0.0, then - first * each)
        steps = int(MARGIN * (seconds - now - again) / each)
        if steps < 1:
            raise UserError(
                f"{seconds:g} seconds of training are too few: {now:.0f} are gone when the pace is "
                "known; give more, or name the iterations (--set steps=1000)"
            )
        return Plan(seconds, steps, now)


def kept_plan(config: RunConfig, seconds: float, remedy: str = OUT) -> Plan | None:
    """The plan of the run of ``config``, if it has one; ``UserError`` if for other ``seconds``."""
    file = config.folder / "pace.json"
    if not file.exists():
        return None
    found = Plan(**json.loads(file.read_text()))
    check_asked(file, dataclasses.asdict(found), {"seconds": seconds}, remedy)
    return found


def make_plan(config: RunConfig, world: World, seconds: float) -> Plan:
    """Find the plan of a run that is to begin, and keep it in its folder."""
    watch = Timekeeper()
    with tempfile.TemporaryDirectory() as folder:
        Run(dataclasses.replace(with_steps(config, ENDLESS), storage=folder), world, watch).play()
    gc.collect()  # its memory is the other's
    found = watch.plan(seconds)
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / "pace.json").write_text(json.dumps(dataclasses.asdict(found)))
    return found


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    """``config`` with that many iterations."""
    return make_config({**config.to_dict(), "options": {**config.options, "steps": steps}})
