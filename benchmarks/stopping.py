"""Runs that end at a deadline or at Ctrl-C, and go on when the command is given again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan_core.config import RunConfig
from gan_core.engine.world import World
from gan_core.observers import FolderObserver
from pipelines.run_folder import STOP
from pipelines.train import Stopping, Watch, looking_on


class UntilDeadline(FolderObserver):
    """Stops the run when the clock shows ``deadline`` (as ``time.time()``)."""

    def __init__(self, folder: Path, world: World, deadline: float = math.inf) -> None:
        super().__init__(folder, world)
        self.deadline = deadline

    def should_stop(self) -> bool:
        return time.time() > self.deadline or super().should_stop()


class _Asking(Stopping):
    def ask(self) -> None:
        (self.folder / STOP).touch()


@contextmanager
def stoppable(config: RunConfig, *, progress: bool = True) -> Iterator[None]:
    """While the run of ``config`` plays here: its progress, and Ctrl-C stops it with a checkpoint.

    Without ``progress`` where its iterations do not tell when it ends.
    """
    (config.folder / STOP).unlink(missing_ok=True)  # of a stop before
    if not progress:
        with _Asking(config.folder):
            yield
        return
    with Watch(config) as watch, looking_on(watch):
        yield
