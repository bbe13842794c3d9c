from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, events

from gan_core import host_memory, journal
from gan_core.engine.checkpoint import find_checkpoint

pytestmark = pytest.mark.integration
RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Head:
    """A Ray head of this test alone: with ports, folder and token of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        gcs, self.port, agent, metrics = free_ports(4)
        self.address = f"http://127.0.0.1:{self.port}"
        command = [
            *(RAY, "start", "--head", "--block", "--num-cpus", "2", "--num-gpus", "0"),
            *("--port", str(gcs)),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self.port)),
            *("--dashboard-agent-listen-port", str(agent), "--metrics-export-port", str(metrics)),
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *("--temp-dir", str(folder), "--object-store-memory", str(128 * 1024**2)),
            "--disable-usage-stats",
        ]
        with (folder / "head.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        limit = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "head.log").read_text()
            assert time.monotonic() < limit, (self.folder / "head.log").read_text()
            time.sleep(0.3)

    def _answers(self) -> bool:
        token = self.environment["RAY_AUTH_TOKEN"]
        request = urllib.request.Request(
            f"{self.address}/api/version", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        import psutil

        if self._process.poll() is not None:
            return
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=10)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))  # sockets need a short path
    unwanted = ("RAY_", "MLFLOW_", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "HOME": str(home),
        # As on a cluster, where cluster.yaml puts them into the head's environment.
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
    }
    head = Head(folder, environment)
    try:
        head.wait()
        yield head
    finally:
        head.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as a user has it, with 120 MB of runs that must not travel."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("gan_core", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".rayignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("runs", "data", ".venv"):
        (folder / name).mkdir()
        with (folder / name / "large").open("wb") as file:
            file.truncate(120 * 1024**2)
    return folder


TELLS = """
from pathlib import Path

whole = [Path(f"/proc/self/{{name}}").read_bytes() for name in ("cmdline", "environ")]
with open({seen!r}, "ab") as file:
    file.write(b"".join(whole) + b"end of one")
"""
"""A plugin that leaves with which command line and environment its process was begun."""

STILL_STARTING = ("No available agent", "Remote end closed connection without response")
"""What Ray's head says to a submission while it is still starting its agents."""


def submitted(command: list[str], head: Head) -> subprocess.CompletedProcess[str]:
    """What came of the submission; a head that took none because it is still starting is asked
    again."""
    for _ in range(30):
        done = subprocess.run(
            command, env=head.environment, capture_output=True, text=True, timeout=280, check=False
        )
        taken = "submitted successfully" in done.stdout
        if taken or not any(words in done.stderr for words in STILL_STARTING):
            break
        time.sleep(2)
    return done


def submission(head: Head, checkout: Path, storage: Path, *words: str) -> list[str]:
    """The words of a job that trains ``gan`` on digits."""
    given, own = words[: words.index("--")], words[words.index("--") + 1 :]
    return [
        *(RAY, "job", "submit", "--address", head.address, "--working-dir", str(checkout), *given),
        *("--", sys.executable, "-m", "pipelines", "train", "gan", "--data", "digits"),
        *("--device", "cpu", "--batch-size", "32", "--extractor", "none"),
        *("--checkpoint-every", "0", "--storage", str(storage), *own),
    ]


def test_a_submitted_job_trains_with_two_workers_and_is_found_in_mlflow(
    head: Head, home: Path, checkout: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "begun_with"
    (checkout / "tells.py").write_text(TELLS.format(seen=str(seen)))
    own = ("--workers", "2", "--steps", "60", "--log-every", "20", "--name", "submitted")
    own += ("--plugin", "tells")
    done = submitted(submission(head, checkout, tmp_path, "--", *own), head)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: submitted, step 60" in done.stdout
    assert "gan [====================] 60/60" in done.stdout
    assert "warning: `ray job stop`" not in done.stdout
    assert events(tmp_path / "submitted", "start")[0]["workers"] == 2
    workers = [w for w in seen.read_bytes().split(b"end of one") if b"ray::" in w]
    assert len(workers) >= 2
    assert all(f"{host_memory.HEAPS}=1".encode() in worker for worker in workers)
    assert_found_in_mlflow(head.environment["MLFLOW_TRACKING_URI"])
    assert not (home / ".ray").exists(), "no token is left in the home folder"


def test_a_job_that_is_stopped_leaves_a_checkpoint_and_is_ended_in_mlflow(
    head: Head, checkout: Path, tmp_path: Path
) -> None:
    given = ("--no-wait", "--submission-id", "stopped")
    own = ("--workers", "1", "--steps", "1000000", "--log-every", "10", "--name", "stopped")
    done = submitted(submission(head, checkout, tmp_path, *given, "--", *own), head)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "stopped"
    limit = time.monotonic() + 120
    while not (folder / journal.FILE).exists() or not events(folder, "metrics"):
        assert time.monotonic() < limit
        time.sleep(0.3)
    command = [RAY, "job", "stop", "--address", head.address, "stopped"]
    stopped = subprocess.run(
        command, env=head.environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert "was stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert events(folder, "end")[-1]["status"] == "stopped"
    assert (folder / "summary.json").exists()
    assert find_checkpoint(folder) is not None
    assert not (folder / "STOP").exists()
    assert in_mlflow(head.environment["MLFLOW_TRACKING_URI"], "stopped")[1].info.status == "KILLED"


def in_mlflow(uri: str, name: str) -> tuple[Any, Any]:
    """A client, and the run of that name."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(ids, f"attributes.run_name = '{name}'")
    return client, run


def assert_found_in_mlflow(uri: str) -> None:
    client, run = in_mlflow(uri, "submitted")
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss/generator")
    assert [m.step for m in history] == [20, 40, 60]
    artifacts = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "summary.json", "images"} <= artifacts
