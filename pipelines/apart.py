"""Stages that need no other: played at the same time, as runs of their own, then put together.

Each is an ordinary run by Ray Train, ``NAME-STAGE``, in a process of its own with its own
checkpoints and its own run in MLflow. One that fails costs the others nothing: the command given
again with ``--resume NAME`` plays what is missing. When all have ended, the run NAME takes over
their networks, and is judged, saved and released as if it had played them in turn. Should this
process be killed, they stop as after Ctrl-C; a Ray that it has started ends too, within seconds:
a stage that is not saved by then goes on from its checkpoint before.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from gan_core.config import RunConfig, write_config
from gan_core.engine.world import World
from gan_core.journal import last_status
from gan_core.run import Run
from gan_core.variant import VARIANTS
from pipelines import ending
from pipelines import train as training
from pipelines.cluster import THREADS, Cluster, choose_device, threads_per_worker
from pipelines.ending import give_back, take_signals
from pipelines.progress import duration
from pipelines.run_folder import TRACE, RunFolder, read_summary, unwritten
from pipelines.tethered import GRACE

POLL = 0.2  # seconds between looks at the processes, which may have had a signal themselves
PATIENCE = 300.0  # seconds that a stage has for its checkpoint when this process has died
WITHOUT_RAY = 10.0  # as much where Ray was started by this process, which it survives by seconds


def parts_of(config: RunConfig) -> dict[str, RunConfig]:
    """The runs that play the stages of ``config`` alone, by stage.

    Empty where one run plays all: with fewer than two workers, or if stages need each other.
    """
    parts = VARIANTS[config.variant].parts(config.game) if config.workers > 1 else {}
    share = max(1, config.workers // max(1, len(parts)))
    if config.options["batch_size"] % share:
        share = 1
    return {
        stage: dataclasses.replace(
            config,
            name=f"{config.name}-{stage}",
            options={**config.options, **own},
            workers=share,
        )
        for stage, own in parts.items()
    }


def train_apart(config: RunConfig, parts: Mapping[str, RunConfig], resume: bool) -> dict[str, Any]:
    """Play ``parts`` at the same time, as many as ``config.workers`` allow; the joined summary.

    Raises ``UserError`` for wrong input, ``RunFailed`` if a part failed, and
    ``KeyboardInterrupt`` after Ctrl-C, when the parts have written their checkpoints, or after a
    second one, when they have been ended without.
    """
    with RunFolder(config) as folder, ExitStack() as stack:
        cluster = training.prepare(config, stack, resume)
        choose_device(config, cluster)
        folder.open(resume)
        failed = _play(config, parts, folder, cluster)
        if failed:
            _give_up(config, parts, failed)
        watch = stack.enter_context(training.Watch(config, "the stages were put together"))
        shipper = training.track(config, watch)
        try:
            summary = training.explained(config, lambda: _join(config, parts))
        except BaseException as error:
            stack.close()
            training.give_up(folder, shipper, error)
            if isinstance(error, KeyboardInterrupt):
                _say(training.how_to_go_on(config))
            raise
        return training.conclude(config, summary, shipper)


def _play(
    config: RunConfig, parts: Mapping[str, RunConfig], folder: RunFolder, cluster: Cluster
) -> list[str]:
    """Play ``parts``; the stages that failed. Their run's folder stays, by which they go on."""
    at_once = max(1, config.workers // next(iter(parts.values())).workers)
    patience = WITHOUT_RAY if cluster.own else PATIENCE
    threads = threads_per_worker(cluster, config.workers)
    try:
        return _Parts(parts, at_once, _environment(threads), patience).play()
    except KeyboardInterrupt:
        _say(training.how_to_go_on(config))
        raise
    finally:
        folder.keep()


def _environment(threads: int) -> dict[str, str]:
    """For processes that are to use the Ray that this one is connected to, and the cores that it
    has for each worker.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS") or ray.get_runtime_context().gcs_address
    return {**os.environ, "RAY_ADDRESS": address, THREADS: str(threads)}


class _Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP, which raise nothing meanwhile: no process is forgotten by
    one that comes at a wrong moment.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        self._before = take_signals(self._note, signal.SIGINT)
        return self

    def __exit__(self, *_: object) -> None:
        give_back(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class _Parts:
    """Runs that are played as processes, ``at_once`` at the same time.

    ``patience``: the seconds that they have to stop when this process has died.
    """

    def __init__(
        self,
        parts: Mapping[str, RunConfig],
        at_once: int,
        environment: dict[str, str],
        patience: float = PATIENCE,
    ) -> None:
        self.parts, self.at_once, self.environment = parts, at_once, environment
        self.patience = patience
        self.failed: list[str] = []
        self._waiting = [stage for stage, part in parts.items() if not _ended(part)]
        self._playing: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._asked, self._asked_at = 0, 0.0

    def play(self) -> list[str]:
        """Play all to their ends; the stages that failed. No process is left, whatever ends this.

        After Ctrl-C the processes write their checkpoints, after a second one they end at once, and
        ``KeyboardInterrupt`` is raised when they have.
        """
        with _Interrupts() as interrupts:
            try:
                while self._waiting or self._playing:
                    while self._waiting and len(self._playing) < self.at_once:
                        self._start(self._waiting.pop(0))
                    self._attend(interrupts.count)
            except BaseException:
                interrupts.count += 1
                raise
            finally:
                while self._playing:
                    self._attend(interrupts.count)
        if interrupts.count:
            raise KeyboardInterrupt
        return self.failed

    def _attend(self, interrupts: int) -> None:
        self._pass_on(interrupts)
        self._look()
        time.sleep(POLL)

    def _start(self, stage: str) -> None:
        part = self.parts[stage]
        command = self._command(part)
        with _beside(part, "log").open("ab") as log:
            # Ctrl-C reaches this process alone, which hands it on. The input ends with it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self._playing[stage] = process, time.monotonic()
        _say(f"{stage}: started as run {part.name}")

    def _command(self, part: RunConfig) -> list[str]:
        """What plays ``part``, or goes on with it; its configuration is written for that."""
        file = _beside(part, "yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_config(part, file)
        words = ["train", "--config", str(file)]
        if (part.folder / "config.yaml").exists():
            words += ["--resume", str(part.name), "--storage", part.storage]
        return [sys.executable, "-m", "pipelines.tethered", str(self.patience), *words]

    def _look(self) -> None:
        """See which processes have ended, and how."""
        for stage, (process, begun) in list(self._playing.items()):
            if process.poll() is None:
                continue
            del self._playing[stage]
            if process.stdin is not None:
                process.stdin.close()
            took = duration(time.monotonic() - begun)
            if process.returncode == 0:
                _say(f"{stage}: finished after {took}")
            elif self._asked:
                _say(f"{stage}: stopped after {took}")
            else:
                self.failed.append(stage)
                _say(f"{stage}: failed after {took}, see {_beside(self.parts[stage], 'log')}")

    def _pass_on(self, interrupts: int) -> None:
        """Interrupt the processes as often as this one was. Those that have not ended soon after
        the second time, or at the third, are killed, with all that they have started.
        """
        if interrupts == 0:
            return
        self._waiting.clear()
        while self._asked < min(interrupts, 2):
            if self._asked and time.monotonic() - self._asked_at <= ending.TOGETHER:
                break  # the processes would take both for one
            self._asked, self._asked_at = self._asked + 1, time.monotonic()
            for process, _ in self._playing.values():
                process.send_signal(signal.SIGINT)
            if self._asked == 1:
                _say("stopping: the stages write checkpoints (Ctrl-C again to abort at once)")
        late = self._asked == 2 and time.monotonic() - self._asked_at > GRACE
        if late or interrupts > 2:
            self._kill()

    def _kill(self) -> None:
        for process, _ in self._playing.values():
            if process.poll() is None:  # else its number may be another's already
                os.killpg(process.pid, signal.SIGKILL)  # it leads a session, so a group, of its own


def _ended(part: RunConfig) -> bool:
    """Whether the stage has been played for as long as it is to be, by whatever rates that was."""
    if last_status(part.folder) != "finished":
        return False
    return bool(read_summary(part.folder).get("step", -1) >= part.game.steps)


def _beside(part: RunConfig, kind: str) -> Path:
    """A file beside the run's folder, which the run itself will make."""
    return part.folder.with_name(f"{part.name}.{kind}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _give_up(config: RunConfig, parts: Mapping[str, RunConfig], failed: list[str]) -> None:
    """Say which stages are missing, and how to play them."""
    logs = " and ".join(str(_beside(parts[stage], "log")) for stage in failed)
    told = (
        f"{' and '.join(failed)} of {config.name} failed (see {logs}); the other stages are whole: "
        f"go on with --resume {shlex.quote(str(config.name))}"
    )
    unwritten(config.folder / TRACE, told + "\n")  # it is told here as well
    raise training.RunFailed(told)


def _join(config: RunConfig, parts: Mapping[str, RunConfig]) -> dict[str, Any]:
    from pipelines.worker import WatchingObserver

    world = World.current(None if config.device == "auto" else config.device)
    run = Run(config, world, WatchingObserver(config.folder, world))
    return run.join({stage: part.folder for stage, part in parts.items()})
