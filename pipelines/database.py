"""MLflow's database as a SQLite file: there whole or not at all, and what to do about a broken one.

MLflow makes its tables where the database is to be, step by step for seconds. A process that is
killed meanwhile leaves a file that MLflow refuses from then on. So they are made elsewhere, and
the file is put in its place when it is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gan_core.errors import UserError

_PREFIX = "sqlite:///"


class UnusableDatabase(UserError):
    """MLflow refuses the database; one line that says what to do."""


def file_of(uri: str) -> Path | None:
    """The file that ``uri`` names; ``None`` if it is not a SQLite file on this machine."""
    name = uri.removeprefix(_PREFIX)
    if name in (uri, "", ":memory:") or name.startswith("file:") or "?" in name:
        return None
    return Path(name)


def make_sure_of(uri: str, fill: Callable[[str], object]) -> None:
    """Make the database at ``uri`` if it is a SQLite file that is missing or empty.

    ``fill`` makes the tables of a database by its address. Processes that want the same database
    take turns, so it is made once.
    """
    path = file_of(uri)
    if path is None or _has_something(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(uri):
        if not _has_something(path):
            _make(path, fill)


def refused(uri: str, error: Exception, head: str) -> Exception:
    """``error``, with which MLflow answered ``uri``, or what to do if the database is at fault.

    ``head`` is the version of tables that MLflow wants. A database that has it is merely busy, or
    cannot be written to: that passes.
    """
    path = file_of(uri)
    if path is None or not path.is_file():
        return error
    try:
        version, runs = _facts(path)
    except sqlite3.OperationalError:  # locked, or may not be read
        return error
    except sqlite3.DatabaseError:
        return UnusableDatabase(
            f"{path} is no SQLite database: move it away, or name another by MLFLOW_TRACKING_URI"
        )
    if version == head:
        return error
    if not runs:
        return UnusableDatabase(
            f"MLflow's database {path} is not whole (its making was interrupted) and holds no "
            "runs: delete it, then it is made anew"
        )
    return UnusableDatabase(
        f"MLflow's database {path} holds {runs} runs in tables of version {version}, this MLflow "
        f"has {head}: copy the file, then try `mlflow db upgrade '{uri}'`, or name another "
        "database by MLFLOW_TRACKING_URI"
    )


def _has_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _make(path: Path, fill: Callable[[str], object]) -> None:
    """A database in a folder of its own is filled, then its copy appears at ``path`` in one step.

    A copy, since the library that filled the first may keep it open.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with tempfile.TemporaryDirectory(prefix="gan-mlflow-") as scratch:
        first = Path(scratch) / path.name
        fill(f"{_PREFIX}{first}")
        try:
            with closing(sqlite3.connect(first)) as source, closing(sqlite3.connect(beside)) as to:
                source.backup(to)
            _put(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def _put(whole: Path, place: Path) -> None:
    """Move ``whole`` to ``place``, unless there is a database by now.

    A process on another machine, or MLflow's own server, may have made one: renaming would take
    away what it has written since.
    """
    if place.exists() and not _has_something(place):
        place.unlink()
    with suppress(FileExistsError):
        try:
            os.link(whole, place)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if not place.exists():
                shutil.move(whole, place)


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    lock = Path(tempfile.gettempdir()) / f"gan-mlflow-{os.getuid()}-{digest}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _facts(path: Path) -> tuple[str | None, int]:
    """The version of the tables in ``path``, ``None`` if it is not noted, and how many runs."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        row = None
        if "alembic_version" in tables:
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        runs = 0
        if "runs" in tables:
            (runs,) = database.execute("SELECT count(*) FROM runs").fetchone()
    return (None if row is None else str(row[0])), int(runs)
