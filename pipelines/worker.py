"""What happens in a worker of Ray Train. Ray is imported inside, MLflow never."""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from gan_core.config import make_config
from gan_core.engine.checkpoint import (
    BrokenCheckpoint,
    find_checkpoint,
    remove_outdated,
    verify,
)
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import KEPT_CHECKPOINTS, FolderObserver
from gan_core.preparing import check_data
from gan_core.run import play
from pipelines.system_usage import SystemUsage

STOPPED_BY = "stopped_by"
"""The tag of a run that ends before its time, and among a report's figures: it is such a run's."""


class WatchingObserver(FolderObserver):
    """Keeps a run in its folder and adds how busy rank 0's machine is to what is logged."""

    def __init__(self, folder: Path, world: World) -> None:
        super().__init__(folder, world)
        self._usage = SystemUsage(world.device) if world.leads else None

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name, and ``system/...``."""
        usage = self._usage.read() if self._usage else {}
        super().metrics(step, values | usage)


class Leave(Protocol):
    """Whether a run may play on after a checkpoint."""

    def wait(self, step: int) -> None:
        """Return when it may, after the checkpoint of ``step``."""


class RayObserver(WatchingObserver):
    """Hands checkpoints to Ray Train, which restarts workers from the last that all reported.

    With ``leave`` rank 0 asks for it after each, and the others wait for rank 0 in their next turn.
    Whoever gives leave also tells the end of a run that the diagnosis stops, and knows it by its
    last report.
    """

    def __init__(self, folder: Path, world: World, leave: Leave | None = None) -> None:
        super().__init__(folder, world)
        self._leave = leave
        self._diagnosed = False
        self._reported: list[Path] = []

    def tag(self, step: int, name: str, value: str) -> None:
        """A fact about the run, such as that it is stopped."""
        super().tag(step, name, value)
        self._diagnosed |= self._leave is not None and name == STOPPED_BY

    def end(self, step: int, status: str, summary: dict[str, Any]) -> None:
        """The run has ended."""
        if not self._diagnosed:
            super().end(step, status, summary)

    def checkpoint(
        self, step: int, write: Callable[[Path], None], figures: dict[str, float]
    ) -> None:
        """Every rank reports its files; Ray gathers them in one folder of the run's storage."""
        import ray.train

        # A name of its own each time: should a step be played again, Ray would count the one folder
        # as two checkpoints, and delete it with the older.
        name = self.world.broadcast_object(f"checkpoint_{secrets.token_hex(3)}_{step:08d}")
        failed = {STOPPED_BY: 1.0} if self._diagnosed else {}
        with tempfile.TemporaryDirectory(prefix="gan-checkpoint-") as scratch:
            write(Path(scratch))
            ray.train.report(
                {**figures, **failed, "step": step},
                checkpoint=ray.train.Checkpoint.from_directory(scratch),
                checkpoint_dir_name=name,
            )
        attempt = ray.train.get_context().get_experiment_name()
        self._write("checkpoint", step, path=f"ray/{attempt}/{name}")
        if not self.world.leads:
            return
        if self._leave is not None:
            self._leave.wait(step)
            return
        # Ray Train sees to those of this start alone.
        self._reported = [*self._reported, self.folder / "ray" / attempt / name]
        if len(self._reported) >= KEPT_CHECKPOINTS:
            remove_outdated(self.folder, self._reported[-KEPT_CHECKPOINTS:])

    def keep_best(self, step: int, write: Callable[[Path], None]) -> Path | None:
        """All ranks' files in the run's folder; of a trial, which asks for leave, nothing."""
        return None if self._leave is not None else super().keep_best(step, write)


@dataclasses.dataclass(frozen=True)
class Job:
    """What the driver gives every worker."""

    config: dict[str, Any]
    device: str
    threads: int
    checkpoint: str | None
    """Where to start from if Ray Train has no checkpoint of this attempt yet."""
    leave: Leave | None = None


def work(values: dict[str, Any]) -> dict[str, Any]:
    """The loop of one worker: ``values`` are a :class:`Job`'s. Returns rank 0's summary."""
    job = Job(**values)
    torch.set_num_threads(job.threads)
    config = make_config(job.config)
    check_shared(config.folder)
    world = World.current(_device(job.device))
    observer = RayObserver(config.folder, world, job.leave)
    return play(config, world, observer, _start_from(job, config.folder))


def check_shared(folder: Path) -> None:
    """Whether this node sees the folder that the driver has made; ``UserError`` if not."""
    if not (folder / "config.yaml").exists():
        import socket

        raise UserError(
            f"--storage {folder.parent} is not the same folder on node {socket.gethostname()}: "
            "name one that all nodes share (NFS, EFS)"
        )


def _device(kind: str) -> str | torch.device:
    if kind == "cpu":
        return "cpu"
    import ray.train.torch

    device = ray.train.torch.get_device()
    torch.cuda.set_device(device)
    return device


def _start_from(job: Job, folder: Path) -> Path | None:
    """The checkpoint that all ranks start from.

    Ray Train's is one that every rank has reported; another attempt may have newer ones, of a
    state that was given up. Should its files have been damaged since, the newest whole one in the
    run's folder takes its place.
    """
    import ray.train

    world = World.current("cpu")
    reported = ray.train.get_checkpoint()
    if reported is None:
        return None if job.checkpoint is None else Path(job.checkpoint)
    found = _whole(Path(reported.path), folder) if world.leads else None
    return world.broadcast_object(found)


def _whole(reported: Path, folder: Path) -> Path:
    try:
        verify(reported)
    except BrokenCheckpoint:
        return find_checkpoint(folder) or reported  # who reads that says what is wrong with it
    return reported


def preflight(config: dict[str, Any], resumed: bool) -> dict[str, Any]:
    """Load and check the data where the workers are; raises ``UserError``."""
    return check_data(make_config(config), resumed=resumed)
