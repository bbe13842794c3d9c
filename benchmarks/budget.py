"""Runs of a given training time, judged at several times: what benchmarks of quality share."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_core.config import RunConfig
from gan_core.engine.world import World
from gan_core.release import load_generator
from gan_core.run import FolderObserver, Run, find_checkpoint
from pipelines.evaluate import EvaluateOptions, evaluate


class Budget(FolderObserver):
    """Stops a run when it has trained for ``seconds``, or when the clock shows ``deadline``.

    It is asked at logging points, so ``log_every`` is how late a stop may come.
    """

    def __init__(self, folder: Path, world: World, seconds: float, deadline: float) -> None:
        super().__init__(folder, world)
        self.seconds, self.deadline = seconds, deadline
        self.trained = 0.0

    @property
    def spent(self) -> bool:
        """Whether the training time is over."""
        return self.trained >= self.seconds

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        self.trained = values.get("seconds", self.trained)

    def should_stop(self) -> bool:
        return self.spent or time.time() > self.deadline or super().should_stop()


def kept_folder(config: RunConfig, seconds: float) -> Path:
    """Where the generator of a run is kept as it was after ``seconds`` of training."""
    return config.folder / "kept" / f"{seconds:06.0f}"


def train_until(
    config: RunConfig, seconds: float, world: World, deadline: float = float("inf")
) -> Path | None:
    """Train, or go on training, for ``seconds`` in all; the folder of the generator as it is then.

    ``None`` if the ``deadline`` (as ``time.time()``) came first: the same call goes on from there.
    What was kept already is not trained again. Time spent on evaluations does not count; that
    spent on compiling and capturing does.
    """
    kept = kept_folder(config, seconds)
    if kept.exists():
        return kept
    observer = Budget(config.folder, world, seconds, deadline)
    summary = Run(config, world, observer).play(find_checkpoint(config.folder))
    if not observer.spent and summary["status"] != "finished":
        return None
    partial = kept.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(config.folder / "generator" / "last", partial)
    told = {name: summary[name] for name in ("step", "seconds", "images_per_second")}
    (partial / "training.json").write_text(json.dumps(told, indent=1))
    partial.replace(kept)
    return kept


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
    file = kept / "figures.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    generator = load_generator(kept, device)
    found: dict[str, Any] = json.loads((kept / "training.json").read_text())
    found |= {"figures": {}, "protocol": {}}
    for number, extractor in enumerate(extractors):
        options = EvaluateOptions(
            extractor=extractor,
            extractor_weights=None if number else weights,
            samples=samples,
        )
        scores = evaluate(generator, options, cache)
        found["figures"] |= scores.figures
        found["protocol"] |= scores.protocol
    file.write_text(json.dumps(found, indent=1))
    return found
