"""Runs of a given training time, judged at several times: what benchmarks of quality share."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.kept import check_asked
from benchmarks.stopping import UntilDeadline, stoppable
from gan_core.config import RunConfig
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.release import load_generator
from gan_core.run import Run
from pipelines.evaluate import EvaluateOptions, evaluate


class Budget(UntilDeadline):
    """Stops a run when it has trained for ``seconds``, or when the clock shows ``deadline``.

    Seconds of training are known at logging points, so ``log_every`` is how late a stop may come.
    ``spent``: those that went by before the run began.
    """

    def __init__(
        self, folder: Path, world: World, seconds: float, deadline: float, spent: float = 0.0
    ) -> None:
        super().__init__(folder, world, deadline)
        self.seconds = seconds
        self._before, self.trained = spent, spent

    @property
    def spent(self) -> bool:
        """Whether the training time is over."""
        return self.trained >= self.seconds

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        if "seconds" in values:
            self.trained = self._before + values["seconds"]

    def should_stop(self) -> bool:
        return self.spent or super().should_stop()


def kept_folder(config: RunConfig, seconds: float) -> Path:
    """Where the generator of a run is kept as it was after ``seconds`` of training."""
    return config.folder / "kept" / f"{seconds:g}".zfill(6)


class Session:
    """A run of ``config`` that is trained from one time to the next, and judged in between.

    What was kept already is not trained again, and a session that ended goes on from where it was.
    Time spent on loading and evaluating does not count; that on compiling and capturing does.
    ``deadline`` (as ``time.time()``) ends it early. ``spent``: seconds that count before it begins.
    """

    def __init__(
        self,
        config: RunConfig,
        world: World,
        deadline: float = float("inf"),
        spent: float = 0.0,
    ) -> None:
        self.config, self.world, self._spent = config, world, spent
        self._observer = Budget(config.folder, world, 0.0, deadline, spent)
        self._run: Run | None = None

    def until(self, seconds: float) -> Path | None:
        """Train until ``seconds`` in all; the folder of the generator as it is then.

        ``None`` if the deadline came first, or Ctrl-C.
        """
        kept = kept_folder(self.config, seconds)
        if kept.exists():
            return kept
        self._observer.seconds = seconds
        summary = self._play()
        if not self._observer.spent and summary["status"] != "finished":
            return None
        partial = kept.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.config.folder / "generator" / "last", partial)
        told = {name: summary[name] for name in ("step", "seconds", "images_per_second")}
        told["seconds"] += self._spent
        (partial / "training.json").write_text(json.dumps(told, indent=1))
        partial.replace(kept)
        return kept

    def _play(self) -> dict[str, Any]:
        """Play on: the same networks and graphs in this process, else from the last checkpoint."""
        with stoppable(self.config, progress=False):
            if self._run is not None:
                return self._run.play()
            self._run = Run(self.config, self.world, self._observer)
            return self._run.play(find_checkpoint(self.config.folder))


def kept_figures(kept: Path, extractors: Sequence[str], samples: int) -> dict[str, Any] | None:
    """What ``judged`` has found before; ``UserError`` if it was asked for other figures then."""
    file = kept / "figures.json"
    if not file.exists():
        return None
    found = dict(json.loads(file.read_text()))
    asked = {"extractors": list(extractors), "samples": samples}
    check_asked(file, found.get("asked") or _told(found, asked), asked)
    return found


def _told(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What figures were ``asked``, by the protocol alone: earlier versions wrote no more down."""
    protocol = found.get("protocol", {})
    told: dict[str, Any] = {}
    if protocol:
        told["extractors"] = [name for name in asked["extractors"] if name in protocol]
    for samples in re.findall(r" against (\d+) generated", " ".join(protocol.values())):
        told["samples"] = int(samples)
    return told


def judged(
    kept: Path,
    extractors: Sequence[str],
    samples: int,
    *,
    cache: Path,
    device: str,
    weights: str | None = None,
) -> dict[str, Any]:
    """The training time, figures and protocols of a generator; what was judged once is read.

    ``weights`` is the file of the first extractor's weights.
    """
    before = kept_figures(kept, extractors, samples)
    if before is not None:
        return before
    generator = load_generator(kept, device)
    found: dict[str, Any] = json.loads((kept / "training.json").read_text())
    asked = {"extractors": list(extractors), "samples": samples}
    found |= {"figures": {}, "protocol": {}, "asked": asked}
    for number, extractor in enumerate(extractors):
        options = EvaluateOptions(
            extractor=extractor,
            extractor_weights=None if number else weights,
            samples=samples,
        )
        scores = evaluate(generator, options, cache)
        found["figures"] |= scores.figures
        found["protocol"] |= scores.protocol
    (kept / "figures.json").write_text(json.dumps(found, indent=1))
    return found
