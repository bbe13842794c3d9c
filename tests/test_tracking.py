from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import yaml
from PIL import Image

from gan_core.config import RunConfig, make_config
from gan_core.errors import UserError
from gan_core.journal import FILE, Journal, last_status
from pipelines import tracking
from pipelines.comparison.from_mlflow import read_experiment
from pipelines.launch import check_here, plan
from pipelines.mlflow_client import _let_go_of, connect, import_mlflow, reason, tracking_uri
from pipelines.parcels import BATCH, flat_params, flat_tags, parcels
from pipelines.run_folder import LOCK, STOP, RunFolder, append, read_summary, unwritten
from pipelines.shipper import Shipper
from pipelines.sync import sync
from pipelines.tracking import (
    Busy,
    State,
    Tracker,
    Unkept,
    code_version,
    how_to_see,
)
from pipelines.train import RunFailed, conclude, explained, give_up

CONFIG = {
    "variant": "gan",
    "data": "digits",
    "experiment": "trials",
    "name": "first",
    "data_options": {"size": 32},
    "options": {"k": 5, "steps": 100},
    "plugins": [],
}
NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once
ROOT = Path(__file__).parents[1]


def first_run(storage: Path) -> RunConfig:
    """The configuration of a run called first, in ``storage``."""
    return make_config({
        "variant": "gan", "data": "digits", "storage": str(storage), "name": "first",
    })  # fmt: skip


def make_run(folder: Path, steps: int = 3, pictures: bool = True) -> Path:
    """A run's folder with a journal of ``steps`` logging points."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "name": folder.name}))
    book = Journal(folder)
    book.write("start", 0, workers=2, device="cpu", parameters={"generator": 7})
    for step in range(1, steps + 1):
        book.write("metrics", step, values={"loss/generator": 1 / step, "images_seen": 64.0 * step})
    if pictures:
        (folder / "samples").mkdir()
        Image.new("L", (8, 8), 200).save(folder / "samples" / "grid.png")
        book.write("picture", steps, name="samples", path="samples/grid.png")
    book.write("tag", steps, name="protocol.fid", value="2000 against 2000")
    book.close()
    return folder


def end(folder: Path, status: str = "finished") -> None:
    book = Journal(folder)
    book.write("end", 3, status=status, summary={})
    book.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with MLflow's tables, to copy: making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    import_mlflow()
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


class Server:
    """What MLflow has of a run."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)

    def runs(self) -> list[Any]:
        ids = [e.experiment_id for e in self.client.search_experiments()]
        return list(self.client.search_runs(ids))

    def history(self, name: str) -> list[tuple[int, float]]:
        (run,) = self.runs()
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, name)]

    def images(self) -> list[str]:
        (run,) = self.runs()
        files = self.client.list_artifacts(run.info.run_id, "images")
        return [Path(f.path).name for f in files if f.path.endswith(".png")]


@pytest.fixture
def tracker(tmp_path: Path, uri: str) -> Iterator[Tracker]:
    tracker = Tracker(make_run(tmp_path / "runs" / "first"), uri=uri, tags={"variant": "gan"})
    yield tracker
    tracker.close()


# -- without MLflow ------------------------------------------------------------------------------


def test_a_parcel_holds_at_most_a_batch_and_an_event(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=1700, pictures=False)
    cut = list(parcels(folder / FILE, 0))
    assert sum(len(p.metrics) for p in cut) == 3400
    assert max(len(p.metrics) for p in cut) <= BATCH + 2
    assert cut[-1].end == (folder / FILE).stat().st_size
    assert [m[3] for p in cut for m in p.metrics if m[0] == "images_seen"] == list(range(1, 1701))


def test_an_event_that_is_still_being_written_waits(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=2, pictures=False)
    whole = (folder / FILE).stat().st_size
    with (folder / FILE).open("a") as file:
        file.write('{"kind": "metrics", "step": 3, "time": 1.0, "val')
    (parcel,) = parcels(folder / FILE, 0)
    assert parcel.end == whole
    with (folder / FILE).open("a") as file:
        file.write('ues": {"x": 1.0}}\n')
    (rest,) = parcels(folder / FILE, whole)
    assert [(m[0], m[1], m[3]) for m in rest.metrics] == [("x", 1.0, 3)]


def test_parameters_are_flat_and_carry_the_options_plain_names() -> None:
    flat = flat_params({**CONFIG, "plugins": ["a.b", "c"], "data_root": None})
    assert flat["k"] == "5"
    assert flat["data_options.size"] == "32"
    assert flat["plugins"] == "a.b,c"
    assert flat["data_root"] == "None"
    assert "options" not in flat


def test_nested_facts_become_tags() -> None:
    tags = flat_tags(
        {"parameters": {"generator": 7}, "protocol": {"fid": "a", "kid": "b"}, "x": None}
    )
    assert tags == {"parameters/generator": "7", "protocol": "fid: a; kid: b"}
    assert len(flat_tags({"long": "y" * 9000})["long"]) == 5000


def test_the_default_database_has_an_absolute_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri() == "http://there:5000"


@pytest.mark.parametrize("uri", ["file:///there/some%20runs", "/there/some runs"])
def test_a_folder_of_files_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    for call in (tracking_uri, lambda: connect(uri), lambda: plan(["gan", "--data", "ring"])):
        with pytest.raises(UserError, match=r"such as sqlite:////there/some runs/mlflow.db, or"):
            call()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert tracking_uri() == uri
    for other in ("databricks", "http://there:5000", "postgresql://u@there/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
        monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
        assert tracking_uri() == other


def test_a_folder_that_no_address_can_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "what?").mkdir()
    monkeypatch.chdir(tmp_path / "what?")
    with pytest.raises(UserError, match=r"has a \? in its name"):
        tracking_uri()
    with pytest.raises(UserError, match=r"has a \? in its name"):  # before anything is started
        plan(["gan", "--data", "ring"])
    begun = make_config({"variant": "gan", "data": "ring", "name": "begun"})
    check_here(begun, resume=True)  # in a database of its own, wherever that is
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert plan(["gan", "--data", "ring"])[0] is not None


def test_how_to_see_a_run_can_be_pasted_into_a_shell() -> None:
    uri = "sqlite:////home/anna/anna's runs/mlflow.db"
    state = State(uri, "gan", "key", run_id="1", experiment_id="2")
    told, _ = how_to_see(state)
    assert shlex.split(told)[:5] == ["MLflow", "mlflow", "ui", "--backend-store-uri", uri]


def test_the_state_file_is_replaced_whole(tmp_path: Path) -> None:
    state = State("sqlite:///x", "gan", "key", offset=12, unsure=True)
    state.save(tmp_path)
    assert State.load(tmp_path) == state
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.json"]
    (tmp_path / "mlflow.json").write_text('{"offs')
    assert State.load(tmp_path) is None


def test_only_one_process_sends_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    first = Tracker(folder, uri=NOBODY)
    with pytest.raises(Busy, match="run is being sent by another process"):
        Tracker(folder, uri=NOBODY)
    first.close()
    Tracker(folder, uri=NOBODY).close()


def test_a_run_that_is_being_sent_is_not_trained(tmp_path: Path) -> None:
    from pipelines.train import Watch, track

    config = first_run(tmp_path)
    sending = Tracker(make_run(config.folder), uri=NOBODY)
    with pytest.raises(UserError, match="run 'first' is being sent to MLflow by another process"):
        track(config, Watch(config))
    sending.close()


def test_the_status_is_the_last_end_unless_started_again(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert last_status(folder) is None
    end(folder, "stopped")
    assert last_status(folder) == "stopped"
    book = Journal(folder)
    book.write("start", 3)
    book.close()
    assert last_status(folder) is None


def test_the_code_version_of_another_project_around_this_one_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "venv" / "pipelines"
    site.mkdir(parents=True)
    (site / "tracking.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    sha = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    monkeypatch.setattr(tracking, "__file__", str(site / "tracking.py"))
    assert sha not in code_version()
    subprocess.run([*git, "add", "-f", "venv"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "this"], check=True)
    sha = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert code_version() == sha
    (site / "tracking.py").write_text("changed")
    assert code_version() == f"{sha}-dirty"


# -- with MLflow on a database -------------------------------------------------------------------


@pytest.mark.integration
def test_mlflow_has_what_the_journal_says(tracker: Tracker, uri: str) -> None:
    assert tracker.send() == 7
    server = Server(uri)
    (run,) = server.runs()
    assert server.history("loss/generator") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert server.history("images_seen") == [(1, 64.0), (2, 128.0), (3, 192.0)]
    assert len(server.images()) == 1
    assert server.images()[0].startswith("samples+step+3+")
    assert run.info.run_name == "first"
    assert run.data.params["k"] == "5"
    wanted = {"variant": "gan", "device": "cpu", "parameters/generator": "7", "workers": "2"}
    assert wanted.items() <= run.data.tags.items()
    assert run.data.tags["protocol.fid"] == "2000 against 2000"


@pytest.mark.integration
def test_options_that_a_resumed_run_has_otherwise_are_told_beside_its_parameters(
    tracker: Tracker, uri: str
) -> None:
    tracker.send()
    for options in ({"k": 5, "steps": 200}, {"k": 5, "steps": 300, "lr_d": 1e-4}):
        book = Journal(tracker.folder)
        book.write("start", 3, options={**options, "lr_g": None}, decided={"lr_g": 0.5})
        book.close()
        tracker.send()
    data = Server(uri).runs()[0].data
    assert (data.params["k"], data.params["steps"], data.params["lr_g"]) == ("5", "100", "0.5")
    told = {name: value for name, value in data.tags.items() if name.startswith("option")}
    assert told == {"option.steps": "300", "option.lr_d": "0.0001"}
    (entry,) = read_experiment(uri, "trials")
    settings = {name: entry.settings[name] for name in ("k", "steps", "lr_d", "lr_g")}
    assert settings == {"k": 5, "steps": 300, "lr_d": 1e-4, "lr_g": 0.5}


@pytest.mark.integration
def test_nothing_is_sent_twice(tracker: Tracker, uri: str) -> None:
    tracker.send()
    assert tracker.send() == 0
    tracker.close()
    book = Journal(tracker.folder)
    book.write("metrics", 4, values={"loss/generator": 0.25})
    book.close()
    again = Tracker(tracker.folder)
    assert again.send() == 1
    again.close()
    assert [step for step, _ in Server(uri).history("loss/generator")] == [1, 2, 3, 4]


@pytest.mark.integration
def test_a_crash_between_sending_and_noting_it_repeats_nothing(
    tracker: Tracker, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.send()
    tracker.close()
    path = tracker.folder / "mlflow.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "offset": 0, "unsure": True}))
    again = Tracker(tracker.folder)
    logged: list[Any] = []
    client = again.connect()
    monkeypatch.setattr(client, "log_batch", lambda run, metrics=(), **_: logged.extend(metrics))
    assert again.send() == 0
    again.close()
    assert logged == []
    assert len(Server(uri).images()) == 1


@pytest.mark.integration
def test_a_server_that_fails_in_the_middle_gets_the_rest_later(
    tracker: Tracker, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracker.connect()
    with monkeypatch.context() as patch:
        patch.setattr(client, "log_image", _refuse)
        with pytest.raises(ConnectionError):
            tracker.send()
    assert tracker.state.offset == 0
    assert tracker.send() == 1, "the picture alone: the metrics had arrived"
    assert [step for step, _ in Server(uri).history("loss/generator")] == [1, 2, 3]
    assert len(Server(uri).images()) == 1


def _refuse(*_: Any, **__: Any) -> None:
    raise ConnectionError("gone")


@pytest.mark.integration
def test_a_run_whose_creation_was_not_answered_is_found_again(tracker: Tracker, uri: str) -> None:
    tracker.connect()
    tracker.close()
    path = tracker.folder / "mlflow.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "run_id": None, "unsure": True}))
    again = Tracker(tracker.folder)
    again.send()
    again.close()
    (run,) = Server(uri).runs()
    assert run.info.run_id == state["run_id"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("status", "shown"), [("finished", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")]
)
def test_the_run_ends_in_mlflow_as_it_ended(
    tracker: Tracker, uri: str, status: str, shown: str
) -> None:
    tracker.send()
    (tracker.folder / "summary.json").write_text("{}")
    tracker.note({"protocol": "fid: all"})
    tracker.finish(status)
    (run,) = Server(uri).runs()
    assert run.info.status == shown
    assert run.data.tags["protocol"] == "fid: all"
    files = {f.path for f in Server(uri).client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "summary.json"} <= files
    tracker.reopen()
    assert Server(uri).runs()[0].info.status == "RUNNING"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("then", "ended"),
    [
        ([], 300.5),
        ([("tag", 900.0)], 300.5),  # of `evaluate`, after the end
        ([("start", 700.0), ("checkpoint", 800.0)], 800.0),  # killed after it had gone on
    ],
)
def test_a_run_that_is_sent_later_began_and_ended_when_it_was_played(
    tmp_path: Path, uri: str, then: list[tuple[str, float]], ended: float
) -> None:
    folder = make_run(tmp_path / "first", steps=0, pictures=False)
    told = [("start", 100.5), ("metrics", 200.0), ("end", 300.5), *then]
    more = {"values": {}, "status": "stopped", "name": "about", "value": "it"}
    lines = [json.dumps({"kind": kind, "step": 0, "time": time, **more}) for kind, time in told]
    (folder / FILE).write_text("\n".join(lines) + "\n")
    tracker = Tracker(folder, uri=uri, models=False)
    tracker.send()
    tracker.finish("stopped")
    tracker.close()
    info = Server(uri).runs()[0].info
    assert (info.start_time, info.end_time) == (100_500, int(1000 * ended))


@pytest.mark.integration
def test_a_run_that_is_asked_to_stop_is_ended_in_mlflow_before_it_has_ended(
    tracker: Tracker, uri: str
) -> None:
    """Whoever asked may kill this process within seconds."""
    (tracker.folder / STOP).touch()
    shipper = Shipper(tracker, print)
    shipper.send()
    assert Server(uri).runs()[0].info.status == "KILLED"
    (tracker.folder / STOP).unlink()
    shipper.send()
    assert Server(uri).runs()[0].info.status == "KILLED", "it stops still"
    (tracker.folder / "summary.json").write_text("{}")
    tracker.finish("finished")
    (run,) = Server(uri).runs()
    assert run.info.status == "FINISHED", "it had got to its end"
    files = {f.path for f in Server(uri).client.list_artifacts(run.info.run_id)}
    assert "summary.json" in files


@pytest.mark.integration
def test_a_run_whose_driver_was_killed_as_it_stopped_goes_on_in_mlflow(
    tracker: Tracker, uri: str
) -> None:
    tracker.stopping()
    tracker.close()
    again = Tracker(tracker.folder)
    Shipper(again, print).send()
    again.close()
    assert Server(uri).runs()[0].info.status == "RUNNING"


@pytest.mark.integration
def test_files_stand_beside_the_database_wherever_the_process_was_started(
    tracker: Tracker, uri: str, tmp_path: Path
) -> None:
    tracker.send()
    assert list((tmp_path / "mlartifacts" / "trials").glob("*/artifacts/images/*.png"))
    assert not Path("mlruns").exists()


@pytest.mark.integration
def test_a_server_that_is_down_is_mentioned_once_and_sync_sends_everything(
    tmp_path: Path,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_run(tmp_path / "runs" / "first")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    shipper = Shipper(Tracker(folder, uri=NOBODY), said.append, interval=0.05)
    shipper.start()
    _wait(lambda: bool(said))
    time.sleep(0.5)
    end(folder)
    assert not shipper.end("finished", timeout=20)
    assert len(said) == 1
    assert said[0].startswith(f"warning: MLflow at {NOBODY} does not take metrics (")
    assert "(127.0.0.1:9: Failed to establish a new connection: [Errno " in said[0], "why"
    with pytest.raises(UserError, match="not everything could be sent to MLflow"):
        sync(folder.parent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert sync(folder.parent) == 7
    assert capsys.readouterr().out.endswith("first: 7 values and pictures sent\n")
    assert [step for step, _ in Server(uri).history("loss/generator")] == [1, 2, 3]
    assert Server(uri).runs()[0].info.status == "FINISHED"
    assert sync(folder.parent) == 0
    assert capsys.readouterr().out == "first: nothing was left to send\n"


@pytest.mark.integration
def test_a_run_that_is_being_played_is_sent_and_not_ended(
    tmp_path: Path,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = make_run(tmp_path / "runs" / "first")
    with (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sync(folder.parent, [folder]) > 0
    assert "first is being trained: send the rest when it has ended" in capsys.readouterr().out
    assert Server(uri).runs()[0].info.status == "RUNNING"
    sync(folder.parent, [folder])
    assert Server(uri).runs()[0].info.status == "KILLED"


def _wait(ready: Any, seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.integration
def test_a_server_that_comes_back_gets_what_was_kept(
    tracker: Tracker, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    away = threading.Event()
    away.set()
    really = tracker.send

    def send() -> int:
        if away.is_set():
            raise ConnectionError("no route")
        return really()

    monkeypatch.setattr(tracker, "send", send)
    shipper = Shipper(tracker, said.append, interval=0.02)
    shipper.start()
    _wait(lambda: bool(said))
    away.clear()
    _wait(lambda: len(said) == 2)
    assert said[1] == "MLflow answers again: what was kept has been sent"
    monkeypatch.setattr(tracker, "send", _full_once(really))
    _wait(lambda: len(said) == 4)
    assert said[2].startswith("warning: metrics are not sent to MLflow: cannot write mlflow.json")
    assert said[3] == "there is room again: what was kept has been sent", "MLflow was never away"
    assert shipper.end("finished", timeout=20)
    assert [step for step, _ in Server(uri).history("loss/generator")] == [1, 2, 3]


def _full_once(send: Callable[[], int]) -> Callable[[], int]:
    full = [Unkept("cannot write mlflow.json (No space left on device)")]

    def first_full() -> int:
        if full:
            raise full.pop()
        return send()

    return first_full


def fill_disk(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let writing to ``folder`` fail, as on a disk that has filled up."""
    write_text, write = Path.write_text, Journal.write

    def look(path: Path) -> None:
        if folder in path.parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_text_if_there_is_room(path: Path, text: str, **how: Any) -> int:
        look(path)
        return write_text(path, text, **how)

    def write_if_there_is_room(book: Journal, kind: str, step: int, **content: Any) -> None:
        look(book.path)
        write(book, kind, step, **content)

    patch.setattr(Path, "write_text", write_text_if_there_is_room)
    patch.setattr(Journal, "write", write_if_there_is_room)


@pytest.mark.integration
def test_on_a_full_disk_the_run_is_told_of_in_a_line_and_ended_in_mlflow(
    tracker: Tracker, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.send()
    config = first_run(tracker.folder.parent)
    fill_disk(monkeypatch, tracker.folder)
    said: list[str] = []
    shipper = Shipper(tracker, said.append, interval=0.02)
    shipper.start()

    def play() -> dict[str, Any]:
        append(tracker.folder, "message", text="a checkpoint", level="info")
        return {}

    with pytest.raises(RunFailed) as failed:
        explained(config, play)
    with (tracker.folder / FILE).open("a") as book:  # what was written while there was room
        book.write('{"kind": "metrics", "step": 9, "time": 1.0, "values": {"x": 1.0}}\n')
    give_up(RunFolder(config), shipper, failed.value)
    full = "No space left on device"
    assert str(failed.value) == (
        f"run first failed: a disk is full ([Errno 28] {full}): make room in {config.storage} and "
        f"in {gettempdir()} (the trace cannot be kept: {full})"
    )
    assert said == [
        f"warning: metrics are not sent to MLflow: cannot write {tracker.folder / 'mlflow.json'} "
        f"({full}); training goes on, they are kept in the run's folder"
    ]
    assert Server(uri).runs()[0].info.status == "FAILED"


def test_a_summary_that_cannot_be_kept_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = first_run(tmp_path)
    make_run(config.folder)
    fill_disk(monkeypatch, config.folder)
    summary = {"status": "finished", "step": 3, "seconds": 1.0, "images_per_second": 9.0}
    conclude(config, summary)
    told = capsys.readouterr()
    assert "finished: first, step 3" in told.out
    assert told.err.endswith("summary.json (No space left on device)\n")


def test_what_came_of_a_run_is_told_before_a_slow_server_has_had_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = first_run(tmp_path)
    shipper = Shipper(Tracker(make_run(config.folder), uri=NOBODY), print)
    told: list[str] = []

    def wait(status: str) -> bool:
        told.append(capsys.readouterr().out)
        return False

    monkeypatch.setattr(shipper, "end", wait)
    summary = {"status": "finished", "step": 3, "seconds": 1.0, "images_per_second": 9.0}
    conclude(config, summary, shipper)
    shipper.tracker.close()
    assert "finished: first, step 3" in told[0]
    assert "did not take everything" in capsys.readouterr().out


def test_what_cannot_be_written_whole_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plain = tmp_path / "summary.json", Path.write_text
    path.write_text('{"step": 3}')

    def cut_short(self: Path, text: str, *words: Any) -> int:
        plain(self, text[:0], *words)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", cut_short)
    assert unwritten(path, '{"step": 9}') == "No space left on device"
    assert read_summary(tmp_path) == {"step": 3}
    assert list(tmp_path.iterdir()) == [path]
    plain(path, "")
    assert read_summary(tmp_path) == {}, "as an earlier version may have left it"


@pytest.mark.parametrize("asked_first", [False, True])
def test_a_run_that_ends_twice_alike_has_its_last_files_there(
    tracker: Tracker, uri: str, asked_first: bool
) -> None:
    summary = tracker.folder / "summary.json"
    for step in (3, 9):
        summary.write_text(json.dumps({"step": step}))
        if step == 9:
            book = Journal(tracker.folder)
            book.write("start", 3, steps=9)
            book.write("metrics", 9, values={"images_seen": 9.0})
            book.close()
            if asked_first:
                tracker.stopping()
        end(tracker.folder, "stopped")
        tracker.send()
        tracker.finish("stopped")
    client = Server(uri).client
    there = client.download_artifacts(str(tracker.state.run_id), "summary.json")
    assert json.loads(Path(there).read_text()) == {"step": 9}


@pytest.mark.integration
def test_another_tracking_server_gets_the_whole_run(
    tracker: Tracker,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty_database: Path,
) -> None:
    tracker.state.log_models = False
    tracker.send()
    tracker.note({"protocol": "fid: all"})
    tracker.finish("finished")
    tracker.close()
    shutil.copy(empty_database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    moved = Tracker(tracker.folder)
    assert moved.send() == 7
    moved.finish("finished")
    moved.close()
    assert len(Server(other).history("loss/generator")) == 3
    tags = Server(other).runs()[0].data.tags
    assert (tags["variant"], tags["protocol"]) == ("gan", "fid: all")
    assert not moved.state.log_models, "a trial's generators are logged nowhere"


@pytest.mark.integration
@pytest.mark.parametrize("deleted", ["run", "experiment"])
def test_a_run_that_was_deleted_in_mlflow_is_brought_back_where_it_goes_on_or_is_named(
    tracker: Tracker, uri: str, capsys: pytest.CaptureFixture[str], deleted: str
) -> None:
    tracker.state.log_models = False
    end(tracker.folder)
    tracking.send_all(tracker)
    client, run_id = Server(uri).client, str(tracker.state.run_id)
    if deleted == "run":
        client.delete_run(run_id)
    else:
        client.delete_experiment(str(tracker.state.experiment_id))
    assert sync(tracker.folder.parent) == 0
    assert client.get_run(run_id).info.lifecycle_stage == "deleted", "nothing was to be sent"
    assert sync(tracker.folder.parent, [tracker.folder]) == 0
    assert "first had been deleted in MLflow: it is brought back" in capsys.readouterr().out
    assert [run.info.run_id for run in Server(uri).runs()] == [run_id]


@pytest.mark.integration
def test_a_run_that_mlflow_has_lost_is_sent_from_its_beginning(
    tracker: Tracker, uri: str, capsys: pytest.CaptureFixture[str], empty_database: Path
) -> None:
    tracker.state.log_models = False
    end(tracker.folder)
    tracking.send_all(tracker)
    lost = str(tracker.state.run_id)
    _let_go_of(uri)
    shutil.copy(empty_database, tracker.folder.parents[1] / "mlflow.db")
    assert sync(tracker.folder.parent, [tracker.folder]) == 7
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "first is not in MLflow any more: it is sent from its beginning",
        "first: 7 values and pictures sent",
    ]
    (run,) = Server(uri).runs()
    assert (run.info.status, run.data.tags["variant"]) == ("FINISHED", "gan")
    assert run.info.run_id != lost
    assert len(Server(uri).history("loss/generator")) == 3


def test_mlflow_is_imported_quietly_where_a_run_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(make_run(tmp_path / "first"), uri=NOBODY)
    tracker.state.run_id = "1"

    def first(uri: str) -> None:
        raise ConnectionError(uri)

    monkeypatch.setattr(tracking, "connect", first)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)  # importing it fails
    with pytest.raises(ConnectionError):
        tracker.connect()


@pytest.mark.integration
def test_a_run_played_without_mlflow_is_sent_when_it_is_named(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = make_run(tmp_path / "runs" / "alone")
    assert sync(folder.parent) == 0
    assert sync(folder.parent, [folder]) == 7
    assert Server(uri).runs()[0].info.run_name == "alone"
    with pytest.raises(UserError, match="is no run"):
        sync(folder.parent, [tmp_path])


@pytest.mark.integration
def test_processes_that_make_the_same_database_at_once_do_not_break_it(tmp_path: Path) -> None:
    database = tmp_path / "new.db"
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    program = (
        "import sys, pathlib; from pipelines.tracking import Tracker;"
        "t = Tracker(pathlib.Path(sys.argv[1]), uri=sys.argv[2]); t.connect();"
        "print('ready', flush=True)"
    )
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                program,
                str(make_run(tmp_path / name)),
                f"sqlite:///{database}",
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in started:
        out, errors = process.communicate(timeout=120)
        assert "ready" in out, errors
    assert len(Server(f"sqlite:///{database}").runs()) == 2


def test_importing_the_tracker_does_not_import_mlflow() -> None:
    program = "import sys, pipelines.tracking, pipelines.sync; print('mlflow' in sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert found == "False\n"


def test_metrics_keep_their_place_in_batches_of_the_servers_size(tmp_path: Path) -> None:
    sent: list[int] = []

    class Client:
        def log_batch(self, run_id: str, metrics: Any = (), tags: Any = ()) -> None:
            sent.append(len(metrics) + len(tags))

    Tracker._log(Client(), "run", list(range(2500)), list(range(150)))  # type: ignore[arg-type]
    assert sum(sent) == 2650
    assert max(sent) <= BATCH


@pytest.mark.parametrize(("code", "told"), [(401, True), (403, True), (500, False), (4010, False)])
def test_a_server_that_wants_a_password_is_told_as_one(code: int, told: bool) -> None:
    text = (
        "API request to endpoint /api/2.0/mlflow/experiments/get-by-name failed with error code "
        f"{code} != 200. Response body: '<html>'"
    )
    found = reason(RuntimeError(text))
    assert ("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in found) == told
    assert ("<html>" in found) != told
