"""The folder of a run that is about to be trained: locked, checked, and made or reopened."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gan_core import journal
from gan_core.config import RunConfig, check_resumable, make_config, read_config, write_config
from gan_core.engine.checkpoint import (
    MANIFEST,
    all_checkpoints,
    find_best,
    find_checkpoint,
    read_manifest,
)
from gan_core.errors import UserError
from gan_core.journal import last_status
from gan_core.options import flag

SUMMARY, TRACE, STOP, LOCK = "summary.json", "failure.txt", "STOP", ".run.lock"


class RunFolder:
    """The folder of the run ``config``, which from :meth:`open` on nobody else trains.

    The lock ends with the block, or with the process, however that ends. A block that is left by
    an error before the run has started leaves no trace: the name is free again.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.path = config.folder
        self._made = False
        self._lock: IO[str] | None = None
        self._before: tuple[str, int] | None = None  # the configuration, the journal's starts

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is None:
            return
        if error is not None and self._before is not None and self._before[1] == self._starts():
            with contextlib.suppress(OSError):  # nothing was played by another configuration
                (self.path / "config.yaml").write_text(self._before[0])
        forgotten = error is not None and self.never_started()
        if forgotten:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        if forgotten:
            with contextlib.suppress(OSError):
                self.path.rmdir()  # where an open file, the lock, keeps its folder (NFS)

    def open(self, resume: bool) -> Path | None:
        """Make or reopen the folder; the checkpoint to start from.

        Raises ``UserError`` if another process trains the run, if it exists although it is not
        resumed, or if it cannot be resumed as ``config``.
        """
        self._check_known(resume)
        self._take()
        changes = [*changes_of(self.config), *self._decided_otherwise()] if resume else []
        checkpoint = find_checkpoint(self.path) if resume else None
        nothing = resume and checkpoint is None and last_status(self.path) is not None
        if nothing and self._has_saved():
            instead = ""
            if find_best(self.path):
                instead = f", with --begin-from {shlex.quote(str(self.config.name))} from its best"
            raise UserError(
                f"run '{self.config.name}' has no whole checkpoint to resume: start a new run"
                f"{instead}, or remove {self.path} to have its name again"
            )
        try:
            (self.path / STOP).unlink(missing_ok=True)
            (self.path / TRACE).unlink(missing_ok=True)
            before = (self.path / "config.yaml").read_text() if resume else None
            write_config(self.config, self.path / "config.yaml")
        except OSError as error:
            raise self._unwritable(error) from None
        self._before = None if before is None else (before, self._starts())
        if changes:
            print(f"resuming run {self.config.name} with {'; '.join(changes)}")
        if nothing:
            print(f"run {self.config.name} had ended before it saved anything: it begins anew")
        return checkpoint

    def keep(self) -> None:
        """An error that ends the block leaves folder and configuration, though the run itself has
        not started: others have played for it.
        """
        self._made, self._before = False, None

    def _check_known(self, resume: bool) -> None:
        name, storage = self.config.name, self.config.storage
        known = (self.path / "config.yaml").exists()
        if known and not resume:
            raise UserError(
                f"run '{name}' exists already in {storage}: choose another --name, "
                f"or continue it with --resume {shlex.quote(str(name))}"
            )
        if resume and not known:
            raise UserError(f"no run '{name}' in {storage} to resume")

    def _take(self) -> None:
        """Make the folder if it is missing, and lock it before anything is changed in it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir()
                self._made = True
            self._lock = (self.path / LOCK).open("a")
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._made = False
            raise UserError(
                f"run '{self.config.name}' is being trained by another process: "
                "wait for its end, or stop it"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write to {self.path} ({error.strerror}): use --storage")

    def never_started(self) -> bool:
        """Whether the folder is new and holds neither a start nor the trace of a failure."""
        return self._made and not self._starts() and not (self.path / TRACE).exists()

    def _has_saved(self) -> bool:
        """Whether there is, or was, more of the run than its beginning: a checkpoint, be it broken,
        or the generator that is written with each.
        """
        if last_status(self.path) == "finished" or any((self.path / "generator").glob("*")):
            return True
        return any((folder / MANIFEST).exists() for folder in all_checkpoints(self.path))

    def _starts(self) -> int:
        """How often the run has begun to play."""
        return len(self._beginnings())

    def _beginnings(self) -> list[dict[str, Any]]:
        return [e for e, _ in journal.read(self.path / journal.FILE) if e["kind"] == "start"]

    def _decided_otherwise(self) -> list[str]:
        """What the version that played before had decided of options that were left open, in words,
        where this one decides otherwise by the same options.
        """
        before = [{}, *(start.get("decided") or {} for start in self._beginnings())][-1]
        game, kept = self.config.game, kept_config(self.path).game
        return [
            f"{name}: {before[name]} -> {now}, as this version decides ({flag(name)} "
            f"{before[name]} keeps it)"
            for name, now in game.decided.items()
            if isinstance(before.get(name), (int, float))
            and getattr(game, name) is None
            and now != before[name]
            and now == kept.decided.get(name)
        ]


@contextlib.contextmanager
def unplayed(folder: Path) -> Iterator[bool]:
    """Whether no process trains the run in ``folder``; within the block none begins to."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True


def changes_of(config: RunConfig) -> list[str]:
    """What a resumed run does otherwise than before; ``UserError`` if it would be another run."""
    return check_resumable(kept_config(config.folder), config)


def kept_config(folder: Path) -> RunConfig:
    """What the newest checkpoint in a run's ``folder`` was made by; without one, ``config.yaml``.

    The file may hold wishes of a resumption that came to nothing.
    """
    for checkpoint in all_checkpoints(folder):
        with contextlib.suppress(UserError):  # a broken one is told of when it is read
            return make_config(read_manifest(checkpoint)["config"])
    return make_config(read_config(folder / "config.yaml"))


def finished(config: RunConfig) -> bool:
    """Whether the run has ended as its configuration wants."""
    folder = config.folder
    whole = last_status(folder) == "finished" and bool(read_summary(folder))
    return whole and not changes_of(config)


def check_left(config: RunConfig) -> None:
    """Raises ``UserError`` if the run is to be resumed otherwise than before, and its newest
    checkpoint is of its end: before anything is started for that.
    """
    from gan_core.run import nothing_left

    if not (config.folder / "config.yaml").exists():
        return
    changes = changes_of(config)
    newest = find_checkpoint(config.folder) if changes else None
    step = -1 if newest is None else read_manifest(newest)["step"]
    if step >= sum(config.game.stage_steps):
        raise nothing_left(config, step, changes)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary in a run's ``folder``; empty if there is none, or none that is whole."""
    return read_json(folder / SUMMARY)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it is missing, or not whole."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def unwritten(path: Path, text: str) -> str:
    """Write ``text`` to ``path``; why that cannot be done (a full disk), "" if it was.

    A file that cannot be written whole is left as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        return str(error.strerror or error)
    return ""


def append(folder: Path, kind: str, **content: Any) -> None:
    """Add an event to the journal that no worker can say; only while none is running."""
    last = 0
    for event, _ in journal.read(folder / journal.FILE):
        last = max(last, int(event["step"]))
    book = journal.Journal(folder)
    book.write(kind, last, **content)
    book.close()
