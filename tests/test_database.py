"""MLflow's database as a file: whole or not at all, and what is said of a broken one."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from test_tracking import ROOT, Server, empty_database, end, make_run

from gan_core.errors import UserError
from pipelines import database
from pipelines.database import UnusableDatabase, file_of, make_sure_of
from pipelines.mlflow_client import connect
from pipelines.shipper import Shipper
from pipelines.sync import sync
from pipelines.tracking import Tracker

__all__ = ["empty_database"]  # a fixture
KILLED = """
import os, pathlib, signal, sys
import mlflow.store.db.utils
from alembic.operations import Operations

create = Operations.create_table

def create_table(self, name, *columns, **options):
    made = create(self, name, *columns, **options)
    if name == "evaluation_datasets":
        os.kill(os.getpid(), signal.SIGKILL)
    return made

Operations.create_table = create_table
"""
"""A process that is killed while MLflow makes its tables, in the middle of a migration."""


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def killed(program: str, *words: str) -> None:
    """Run ``program`` until it is killed while MLflow makes its tables."""
    process = subprocess.run(
        [sys.executable, "-c", KILLED + program, *words],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


@pytest.fixture(scope="module")
def half_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow leaves it when its process is killed."""
    path = tmp_path_factory.mktemp("half") / "mlflow.db"
    killed("mlflow.MlflowClient('sqlite:///' + sys.argv[1])", str(path))
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as opened:
        for statement in statements:
            opened.execute(statement)
        opened.commit()


@pytest.mark.integration
def test_a_process_killed_while_the_tables_are_made_leaves_no_database(tmp_path: Path) -> None:
    path, run = tmp_path / "mlflow.db", make_run(tmp_path / "runs" / "first")
    program = "from pipelines.tracking import Tracker;"
    program += "Tracker(pathlib.Path(sys.argv[1]), uri=sys.argv[2]).connect()"
    killed(program, str(run), f"sqlite:///{path}")
    assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    Tracker(run, uri=f"sqlite:///{path}").send()
    assert Server(f"sqlite:///{path}").history("images_seen")


@pytest.mark.integration
def test_a_database_that_was_left_half_made_is_named_with_what_to_do(
    tmp_path: Path, half_made: Path
) -> None:
    path, run = tmp_path / "mlflow.db", make_run(tmp_path / "runs" / "first")
    shutil.copy(half_made, path)
    end(run)
    said: list[str] = []
    shipper = Shipper(Tracker(run, uri=f"sqlite:///{path}"), said.append, interval=0.02)
    shipper.start()
    assert not shipper.end("finished")
    (line,) = said
    assert f"{path} is not whole" in line
    assert "holds no runs: delete it" in line
    with pytest.raises(UserError, match=r"not everything could be sent .* delete it"):
        sync(run.parent)
    path.unlink()
    sync(run.parent)
    (sent,) = Server(f"sqlite:///{path}").runs()
    assert sent.info.status == "FINISHED"


@pytest.mark.integration
def test_tables_of_another_version_with_runs_in_them_are_not_to_be_deleted(
    tmp_path: Path, empty_database: Path
) -> None:
    path, run = tmp_path / "mlflow.db", make_run(tmp_path / "runs" / "first")
    shutil.copy(empty_database, tmp_path / "first.db")
    Tracker(run, uri=f"sqlite:///{tmp_path / 'first.db'}").send()
    shutil.move(tmp_path / "first.db", path)
    change(path, "UPDATE alembic_version SET version_num = 'ffff'", "DROP TABLE span_metrics")
    with pytest.raises(UnusableDatabase) as caught:
        connect(f"sqlite:///{path}")
    assert "holds 1 runs in tables of version ffff" in str(caught.value)
    assert f"copy the file, then try `mlflow db upgrade 'sqlite:///{path}'`" in str(caught.value)


@pytest.mark.integration
def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("a letter to grandmother\n" * 50)
    with pytest.raises(UnusableDatabase, match="is no SQLite database: move it away"):
        connect(f"sqlite:///{path}")


@pytest.mark.integration
def test_what_passes_is_not_blamed_on_the_database(tmp_path: Path, empty_database: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    busy, head = OSError("busy"), "dc11669786a5"
    with closing(sqlite3.connect(path)) as opened:
        (head,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    assert database.refused(f"sqlite:///{path}", busy, head) is busy
    assert database.refused("http://127.0.0.1:5000", busy, head) is busy
    assert database.refused(f"sqlite:///{tmp_path / 'none.db'}", busy, head) is busy


# -- without MLflow ------------------------------------------------------------------------------


def fill(uri: str) -> None:
    path = file_of(uri)
    assert path is not None
    change(path, "CREATE TABLE runs (name TEXT)", "INSERT INTO runs VALUES ('made')")


def names(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as opened:
        return [name for (name,) in opened.execute("SELECT name FROM runs")]


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////home/me/mlflow.db", "/home/me/mlflow.db"),
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:x?mode=memory&uri=true", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql://me@there/runs", None),
    ],
)
def test_which_addresses_are_files(uri: str, file: str | None) -> None:
    assert file_of(uri) == (None if file is None else Path(file))


def test_a_database_is_made_where_there_is_none_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mlflow.db"
    make_sure_of(f"sqlite:///{path}", fill)
    assert names(path) == ["made"]
    assert [p.name for p in path.parent.iterdir()] == ["mlflow.db"]
    change(path, "INSERT INTO runs VALUES ('first')")
    make_sure_of(f"sqlite:///{path}", fill)
    assert names(path) == ["made", "first"]


def test_an_empty_file_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()
    make_sure_of(f"sqlite:///{path}", fill)
    assert names(path) == ["made"]


@pytest.mark.parametrize("links", [True, False])
def test_a_database_that_another_has_made_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "mlflow.db"

    def fill_late(uri: str) -> None:
        fill(uri)
        change(path, "CREATE TABLE runs (name TEXT)", "INSERT INTO runs VALUES ('theirs')")

    def refuse(*_: object) -> None:
        raise OSError("a file system without hard links")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    make_sure_of(f"sqlite:///{path}", fill_late)
    assert names(path) == ["theirs"]
    path.unlink()
    make_sure_of(f"sqlite:///{path}", fill)
    assert names(path) == ["made"]
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]
