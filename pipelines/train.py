"""Train one run: in this process, or by Ray Train with progress and MLflow looked after here.

The workers write the run's journal; this process, the driver, follows it to show progress and to
send metrics, handles Ctrl-C, and says how it ended. Ray and MLflow are imported only for
``workers >= 1``.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from gan_core import journal
from gan_core.config import RunConfig
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World, torchrun_world
from gan_core.errors import UserError, named_line
from gan_core.journal import last_status
from gan_core.preparing import check_data
from gan_core.run import play
from pipelines.cluster import (
    Cluster,
    absolute,
    base_folder,
    choose_device,
    connected,
    on_this_machine,
)
from pipelines.cluster import threads_per_worker as threads_of
from pipelines.collector import collect_as_usual
from pipelines.ending import give_back, take_signals
from pipelines.full_disk import full_disk, how_to_make_room
from pipelines.mlflow_client import reason, tracking_uri
from pipelines.progress import ProgressLine, duration
from pipelines.run_folder import (
    STOP,
    SUMMARY,
    TRACE,
    RunFolder,
    append,
    check_left,
    finished,
    read_summary,
    unwritten,
)
from pipelines.runs import named
from pipelines.shipper import Shipper
from pipelines.tracking import Busy, State, Tracker, code_version, how_to_see
from pipelines.trainer import make_trainer

POLL = 0.2  # seconds between looks at the journal


class RunFailed(RuntimeError):
    """Training ended by an error that is not the user's; one line that names the trace's file."""


def train(config: RunConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train by ``config`` and return the summary, which is also printed and kept in the folder.

    ``workers`` 0 plays in this process (or in each that ``torchrun`` started); otherwise Ray Train
    starts that many, for each stage some of them where stages need no other. With ``resume`` the
    run of that name goes on from its newest whole checkpoint. The summary's ``status`` is
    "finished", or "stopped" after the first Ctrl-C; a second raises ``KeyboardInterrupt``. Raises
    ``UserError`` for wrong input, ``RunFailed`` for anything else that ends training.
    """
    if config.workers and "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun has started the processes already: pass --workers 0")
    config = absolute(config if config.name else named(config))
    if resume and finished(config):
        summary = read_summary(config.folder)
        print(
            f"run {config.name} is finished already, at step {summary['step']}: "
            "ask for more with --steps"
        )
        return summary
    if resume:
        check_left(config)
    if config.workers == 0:
        return _train_here(config, resume)
    from pipelines.apart import parts_of, train_apart

    parts = parts_of(config)
    return train_apart(config, parts, resume) if parts else _train_on_ray(config, resume)


# -- looking on ----------------------------------------------------------------------------------


class Stopping:
    """Turns signals into a stop of the run in ``folder``.

    The first SIGINT, SIGTERM or SIGHUP (a closed terminal) asks the workers to write a checkpoint
    and end; a second one, or one before they have started, raises ``KeyboardInterrupt`` in the main
    thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / journal.FILE
        self._offset = path.stat().st_size if path.exists() else 0
        self._before: dict[int, Any] = {}
        self._asked = False
        self.signals = 0
        self.started = False

    def __enter__(self) -> Self:
        self._before = take_signals(self._on_signal, signal.SIGINT)
        return self

    def __exit__(self, *_: object) -> None:
        give_back(self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        self._asked = self._asked or self._has_begun()
        if self.signals > 1 or not self._asked:
            raise KeyboardInterrupt
        self.ask()

    def _has_begun(self) -> bool:
        """Whether the run has written to its journal, looked at already or not."""
        path = self.folder / journal.FILE
        return self.started or (path.exists() and path.stat().st_size > self._offset)

    def ask(self) -> None:
        """Pass the wish on; where other processes have it too, rank 0's is the one that counts."""


class Watch(Stopping):
    """Follows a run's journal for the progress line, and lets signals stop the run.

    ``first``: what the run begins with.
    """

    def __init__(self, config: RunConfig, first: str = "the first iteration") -> None:
        super().__init__(config.folder)
        self._first = first
        self._ended = False
        self.progress = ProgressLine(config.variant, config.game.steps)
        self._told = False
        self._speaking = threading.Lock()

    def __exit__(self, *_: object) -> None:
        self.progress.close()
        if self.signals and not self._asked:
            print(f"stopped before {self._first}", file=sys.stderr)
        super().__exit__()

    def ask(self) -> None:
        (self.folder / STOP).touch()

    def say(self, text: str) -> None:
        """Print a line above the progress line, from any thread."""
        with self._speaking:
            self.progress.say(text)

    def look(self) -> None:
        """Show what has been written to the journal since the last look."""
        with self._speaking:
            for event, offset in journal.read(self.folder / journal.FILE, self._offset):
                self._offset = offset
                self.started = True
                self._ended = event["kind"] == "end"
                self.progress.show(event)
            if self._asked and not self._told and not self._ended:
                self._told = True
                self.progress.say(
                    "stopping: a checkpoint is written (Ctrl-C again to abort at once)"
                )
            self.progress.draw()


@contextmanager
def looking_on(watch: Watch) -> Iterator[None]:
    """Look at the journal from a thread while this one plays."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(POLL):
            watch.look()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        watch.look()


# -- in this process -----------------------------------------------------------------------------


def _train_here(config: RunConfig, resume: bool) -> dict[str, Any]:
    device = None if config.device == "auto" else config.device
    with torchrun_world(device) as world:
        config = world.broadcast_object(config)  # the name of a run may hold the time
        check_data(config, resumed=resume)
        with RunFolder(config) as folder:
            checkpoint = _led(world, lambda: folder.open(resume))
            try:
                summary = _play_here(config, world, checkpoint)
            except KeyboardInterrupt:
                if world.leads and not folder.never_started():
                    print(how_to_go_on(config), file=sys.stderr)
                raise
            return conclude(config, summary) if world.leads else summary


def _play_here(config: RunConfig, world: World, checkpoint: Path | None) -> dict[str, Any]:
    from pipelines.worker import WatchingObserver

    observer = WatchingObserver(config.folder, world)
    collect_as_usual()
    if not world.leads:
        with Stopping(config.folder):
            return play(config, world, observer, checkpoint)
    with Watch(config) as watch, looking_on(watch):
        return explained(config, lambda: play(config, world, observer, checkpoint))


def _led(world: World, action: Callable[[], Path | None]) -> Path | None:
    """Rank 0's ``action()`` on every rank. If it is refused, all end and rank 0 says why."""
    found, refused = None, None
    if world.leads:
        try:
            found = action()
        except UserError as error:
            refused = error
    found, refused = world.broadcast_object((found, refused))
    if refused is None:
        return found
    if world.leads:
        raise refused
    time.sleep(1)  # torchrun ends all processes with the first: rank 0 must have spoken
    raise SystemExit(2)


def explained(config: RunConfig, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """``action()``; what ends it early is written to the journal and told in one line."""
    try:
        return action()
    except (UserError, KeyboardInterrupt) as error:
        _mark_end(config.folder, error)
        raise
    except Exception as error:
        _mark_end(config.folder, error)
        raise _failure(config, error, [error]) from error


def _mark_end(folder: Path, error: BaseException) -> str:
    """Write to the journal how the run ended, where the workers could not; the status."""
    status = last_status(folder)
    if status is None:
        status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError):  # of a full disk, of which the error itself is told
            append(folder, "end", status=status, summary={})
    return status


def _failure(config: RunConfig, error: BaseException, causes: list[BaseException]) -> RunFailed:
    """Keep the whole trace in the run's folder; the error that says it in one line."""
    path = config.folder / TRACE
    chain = [error, *(cause for cause in causes if cause is not error)]
    trace = "\n".join("".join(traceback.format_exception(one)) for one in chain)
    lost = unwritten(path, trace)
    kept = f"the trace cannot be kept: {lost}" if lost else f"the whole trace: {path}"
    full = next(filter(None, map(full_disk, chain)), None)
    first = causes[0] if causes else error
    if full is not None:  # of which the last error need not say a word
        said = f"a disk is full ({full[:300]}): {how_to_make_room(config.storage)}"
    elif _is_lost_process(first):
        said = "one of Ray's processes was killed: by the system, for its memory, or by hand"
    else:
        said = named_line(first)[:300]
    on = f"; go on with: {_resuming(config)}" if find_checkpoint(config.folder) else ""
    return RunFailed(f"run {config.name} failed: {said} ({kept}){on}")


def _is_lost_process(error: BaseException) -> bool:
    """Whether ``error`` says, at length, that a process of Ray's is there no more."""
    if "ray" not in sys.modules:
        return False
    from ray.exceptions import RayActorError

    # One that an error of ours has ended as it began has that to tell.
    return isinstance(error, RayActorError) and not error.actor_init_failed


# -- by Ray Train --------------------------------------------------------------------------------


def _train_on_ray(config: RunConfig, resume: bool) -> dict[str, Any]:
    with RunFolder(config) as folder, ExitStack() as stack:
        cluster = prepare(config, stack, resume)
        device = choose_device(config, cluster)
        if not cluster.own:
            check_data_on_cluster(config, resume)
        checkpoint = folder.open(resume)
        watching = stack.enter_context(ExitStack())
        watch = watching.enter_context(Watch(config))
        shipper = track(config, watch)
        try:
            run = _Training(config, cluster, device, checkpoint, watch)
            summary = _explained_by_ray(config, run)
        except BaseException as error:
            stack.close()  # no worker writes to the journal beyond this point
            give_up(folder, shipper, error)
            if isinstance(error, KeyboardInterrupt) and not folder.never_started():
                print(how_to_go_on(config), file=sys.stderr)
            raise
        watching.close()
        with unhurried(config):
            stack.close()  # no worker writes to the journal beyond this point
            return conclude(config, summary, shipper)


@contextmanager
def unhurried(config: RunConfig) -> Iterator[None]:
    """The end of a run that has been played: Ray stops, and the run is summed up.

    A Ctrl-C is only answered, since nothing is left to be stopped but what tells of the run; a
    second one ends that too.
    """
    heard = 0

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        if heard > 1:
            raise KeyboardInterrupt
        text = "all is played and saved; the summary follows (Ctrl-C again to leave without)"
        print(text, file=sys.stderr, flush=True)

    before = take_signals(hear, signal.SIGINT)
    try:
        yield
    except KeyboardInterrupt:
        print(f"the summary is made by: {_resuming(config)}", file=sys.stderr)
        raise
    finally:
        give_back(before)


def prepare(config: RunConfig, stack: ExitStack, resume: bool) -> Cluster:
    """Ray, joined or started; data on this machine are looked at before it is started."""
    if on_this_machine():
        check_data(config, resumed=resume)
    return stack.enter_context(connected())


def check_data_on_cluster(config: RunConfig, resume: bool) -> dict[str, Any]:
    """:func:`check_data` in a small task where the workers are, before a GPU is taken."""
    import ray
    from ray.exceptions import RayError

    from pipelines.worker import preflight

    task = ray.remote(preflight).options(num_cpus=0.1, max_retries=1)
    try:
        found = task.remote(config.to_dict(), resume)
        while not ray.wait([found], timeout=60)[0]:
            print("waiting for a free CPU to check the data", file=sys.stderr, flush=True)
        facts: dict[str, Any] = ray.get(found)
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise RunFailed(f"the check of the data failed: {reason(cause)}") from error
    return facts


def track(config: RunConfig, watch: Watch) -> Shipper:
    tags = {
        "variant": config.variant,
        "dataset": config.data,
        "code_version": code_version(),
        "mlflow.source.name": "python -m pipelines train",
    }
    try:
        tracker = Tracker(config.folder, uri=tracking_uri(base_folder()), tags=tags, say=watch.say)
    except Busy:
        raise UserError(
            f"run '{config.name}' is being sent to MLflow by another process: try again after it"
        ) from None
    shipper = Shipper(tracker, watch.say)
    shipper.start()
    return shipper


def _protocol(summary: Mapping[str, Any]) -> dict[str, str]:
    text = "; ".join(f"{k}: {v}" for k, v in (summary.get("protocol") or {}).items())
    return {"protocol": text} if text else {}


def give_up(folder: RunFolder, shipper: Shipper, error: BaseException) -> None:
    """After an error: end the MLflow run, unless the run has never started."""
    if folder.never_started():
        shipper.end(None, timeout=5)
        return
    shipper.end(_mark_end(folder.path, error), timeout=60)


class _Training:
    """One attempt by Ray Train: ``fit`` in a thread, this one looks on."""

    def __init__(
        self,
        config: RunConfig,
        cluster: Cluster,
        device: str,
        checkpoint: Path | None,
        watch: Watch,
    ) -> None:
        self.config, self.cluster, self.device, self.watch = config, cluster, device, watch
        self._checkpoint = checkpoint
        self._result: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> dict[str, Any]:
        """Train to the end; rank 0's summary. Raises what ``fit`` raises."""
        trainer = make_trainer(
            self.config,
            device=self.device,
            threads=threads_of(self.cluster, self.config.workers),
            checkpoint=self._checkpoint,
            alone=self.cluster.own,
        )
        thread = threading.Thread(target=self._fit, args=(trainer,), name="fit", daemon=True)
        thread.start()
        begun = told = time.monotonic()
        while thread.is_alive():
            self.watch.look()
            thread.join(POLL)
            now = time.monotonic()
            if not self.watch.started and now - told > 60:
                told = now
                self._waiting(now - begun)
        self.watch.look()
        if self._error is not None:
            raise self._error
        return dict(self._result.return_value)

    def _fit(self, trainer: Any) -> None:
        try:
            self._result = trainer.fit()
        except BaseException as error:
            self._error = error

    def _waiting(self, seconds: float) -> None:
        """Say what is missing; ``UserError`` when it was waited for long enough."""
        import ray

        kind = "GPU" if self.device == "cuda" else "CPU"
        free = ray.available_resources().get(kind, 0)
        limit = float(os.environ.get("GAN_START_TIMEOUT_S") or (600 if self.cluster.own else 3600))
        told = f"{self.config.workers} workers need a {kind} each, {free:g} are free"
        if seconds > limit:
            raise UserError(
                f"no worker has started in {duration(seconds)} ({told}): use fewer --workers, or "
                "wait longer with GAN_START_TIMEOUT_S=SECONDS"
            )
        coming = "; the cluster is adding nodes" if self.cluster.autoscaling else ""
        self.watch.say(f"waiting for the workers to start ({told}{coming})")


def _explained_by_ray(config: RunConfig, run: _Training) -> dict[str, Any]:
    """``run()``; Ray's wrapping of errors is taken off, and they are told in one line."""
    from ray.train import ControllerError, WorkerGroupError

    try:
        return run()
    except WorkerGroupError as error:
        causes: list[BaseException] = list(error.worker_failures.values())
        run.watch.look()
        raise _failure(config, error, causes) from error
    except ControllerError as error:
        cause = error.controller_failure
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise _failure(config, error, [cause]) from error
    except UserError:
        raise
    except Exception as error:
        raise _failure(config, error, [error]) from error


# -- the end -------------------------------------------------------------------------------------


def conclude(
    config: RunConfig, summary: dict[str, Any], shipper: Shipper | None = None
) -> dict[str, Any]:
    """Write and print the summary; the tracked run is ended in MLflow with all its files."""
    folder = config.folder
    (folder / STOP).unlink(missing_ok=True)
    summary = {"run": config.name, "folder": str(folder), "variant": config.variant, **summary}
    if lost := unwritten(folder / SUMMARY, json.dumps(summary, indent=1, default=str)):
        print(f"warning: cannot write {folder / SUMMARY} ({lost})", file=sys.stderr)
    if shipper is not None:
        shipper.tracker.note(_protocol(summary))
    print("\n".join(_lines(summary)), flush=True)  # a slow server has minutes for what is left
    complete = shipper is None or shipper.end(summary["status"])
    if shipper is not None:
        print("\n".join(_mlflow_lines(config, shipper.tracker.state, complete)))
    elif State.load(folder) is not None:
        print(f"MLflow has what was played before; add this with: {_how_to_send(config)}")
    else:
        print("MLflow knows nothing of it: --workers 0 plays without")
    if summary["status"] == "stopped":
        print(how_to_go_on(config))
    sys.stdout.flush()
    return summary


def how_to_go_on(config: RunConfig) -> str:
    """The line for a user who has stopped the run."""
    return f"stopped; go on with: {_resuming(config)}"


def _resuming(config: RunConfig) -> str:
    return f"python -m pipelines train --resume {_place(config)}"


def _figure(name: str, value: float, modes: int | None) -> str:
    """A figure as it is shown; modes beside the number that the data have."""
    return f"{value:.0f} of {modes}" if name == "modes_covered" and modes else f"{value:.4g}"


def _lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary for the user."""
    lines = [
        f"{summary['status']}: {summary['run']}, step {summary['step']}, "
        f"{duration(summary['seconds'])} of training, {summary['images_per_second']:,.0f} images/s"
    ]
    figures = summary.get("figures") or {}
    width = max((len(name) for name in figures), default=0)
    modes = summary.get("modes_in_data")
    lines += [f"  {n:<{width}}  {_figure(n, v, modes)}" for n, v in sorted(figures.items())]
    lines += [f"  ({name}: {text})" for name, text in (summary.get("protocol") or {}).items()]
    best = summary.get("best")
    if best:
        later = best.get("doubled")
        worse = f", twice that or more from step {later['step']} on" if later else ""
        kept = ", its whole state kept in best/" if best.get("state") else ""
        most = "most modes, with " if best["metric"] == "high_quality_share" else ""
        told = f"{most}{best['metric']} {best['value']:.4g} at step {best['step']}"
        lines.append(f"best   {told}{worse}{kept}")
    if summary.get("grid"):
        lines.append(f"grid   {Path(summary['folder']) / summary['grid']}")
    lines.append(f"run    {summary['folder']}")
    return lines


def _place(config: RunConfig) -> str:
    """The run as words for the command line."""
    return f"{shlex.quote(str(config.name))} --storage {shlex.quote(config.storage)}"


def _mlflow_lines(config: RunConfig, state: State, complete: bool) -> list[str]:
    """How to see the run in MLflow, or how to send it there."""
    if not complete or state.run_id is None:
        return [
            f"MLflow at {state.tracking_uri} did not take everything; send it with: "
            f"{_how_to_send(config)}"
        ]
    return how_to_see(state)


def _how_to_send(config: RunConfig) -> str:
    return f"python -m pipelines sync {_place(config)}"
