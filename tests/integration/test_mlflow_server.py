from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gan_core.config import make_config
from gan_core.engine.world import World
from gan_core.journal import FILE, Journal
from gan_core.observers import FolderObserver
from gan_core.run import play
from pipelines.shipper import Shipper
from pipelines.sync import sync
from pipelines.tracking import Tracker
from pipelines.tuning.champion import ALIAS, crown
from pipelines.tuning.objective import Objective

pytestmark = pytest.mark.integration


class MlflowServer:
    """``mlflow server`` on loopback, on a port and a database of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")),
        ]
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        limit = time.monotonic() + 120
        while not self._healthy():
            assert time.monotonic() < limit, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End the server and its own processes, as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def wait(ready: object, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_server_s_registry_takes_a_champion_and_leaves_the_run_s_end(
    server: MlflowServer, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    given = {"variant": "gan", "data": "ring", "workers": 0, "device": "cpu", "steps": 2}
    tiny = {"hidden": 4, "maxout_units": 2, "latent": 2, "batch_size": 8, "extractor": "none"}
    config = make_config({**given, **tiny, "storage": str(tmp_path), "name": "run"})
    summary = play(config, World(), FolderObserver(config.folder, World()))
    tracker = Tracker(config.folder, models=False)
    shipper = Shipper(tracker, print, interval=0.05)
    shipper.start()
    assert shipper.end("finished", timeout=60)
    client, run_id = MlflowClient(server.uri), str(tracker.state.run_id)
    ended = client.get_run(run_id).info.end_time
    objective = Objective("modes_covered", "max")
    told = crown("ring", config.folder, objective, summary["figures"], summary["protocol"])
    assert "is the first champion (version 1)" in told
    version = client.get_model_version_by_alias("ring", ALIAS)
    assert (version.run_id, version.status) == (run_id, "READY")
    info = client.get_run(run_id).info
    assert (info.status, info.end_time) == ("FINISHED", ended)


def test_a_server_that_dies_in_the_middle_of_a_run_loses_no_metric(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "runs" / "long"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "long", "experiment": "gan"}))
    book = Journal(folder)
    said: list[str] = []
    tracker = Tracker(folder)
    shipper = Shipper(tracker, said.append, interval=0.05)
    shipper.start()
    for step in range(1, 51):
        book.write("metrics", step, values={"loss/generator": 1 / step})
    written = (folder / FILE).stat().st_size
    wait(lambda: tracker.state.offset == written and not tracker.state.unsure)
    server.kill()
    for step in range(51, 101):
        book.write("metrics", step, values={"loss/generator": 1 / step})
    wait(lambda: bool(said))
    assert said[0].startswith(f"warning: MLflow at {server.uri} does not take metrics")
    book.write("end", 100, status="finished", summary={})
    begun = time.monotonic()
    assert not shipper.end("finished", timeout=60)
    assert time.monotonic() - begun < 30, "a dead server must not keep the user waiting"
    server.start()
    assert sync(folder.parent) == 50
    client = MlflowClient(server.uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(ids)
    history = client.get_metric_history(run.info.run_id, "loss/generator")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 101)]
    assert run.info.status == "FINISHED"
    printed = capsys.readouterr().out
    assert printed == "long: 50 values and pictures sent\n", "MLflow's pictographs need UTF-8"
