from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, events

from gan_core.engine.checkpoint import find_checkpoint
from gan_core.journal import last_status
from pipelines.run_folder import TRACE
from pipelines.tracking import State

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
STEPS, EVERY = 300, 30
SEARCH = [
    *("tune", "gan", "--data", "ring", "--name", "search", "--trials", "4", "--concurrent", "2"),
    *("--max-steps", str(STEPS), "--evaluate-every", str(EVERY), "--grace", str(EVERY)),
    *("--samples", "200", "--stop-on", "divergence", "--finalists", "3"),
]
"""Two at a time, all to the first rung, three to the end: the third begins when one has ended."""


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until ``condition`` holds; the process must be alive."""
    limit = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.05)


def trials(study: Path) -> list[Path]:
    return sorted(study.glob("trial_*"))


def ended(study: Path) -> list[Path]:
    return [folder for folder in trials(study) if last_status(folder)]


def halfway(study: Path) -> bool:
    """Whether a trial has ended while another plays and has been saved."""
    playing = [folder for folder in trials(study) if not last_status(folder)]
    state = State.load(study)
    known = state is not None and state.run_id is not None  # MLflow has made its tables
    return (
        known
        and bool(ended(study))
        and any(
            sum("modes_covered" in e["values"] for e in events(folder, "metrics")) > 2
            for folder in playing
        )
    )


def traces(study: Path) -> dict[str, str]:
    """What went wrong in trials that have failed."""
    return {path.parent.name: path.read_text() for path in study.glob(f"*/{TRACE}")}


def mlflow_runs(folder: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = list(client.search_runs(ids))
    for run in runs:  # the whole history, for the comparison with the journal
        run.history = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
    return runs


def said(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a journal, as (step, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder, "metrics"):
        for name, value in event["values"].items():
            found.setdefault(name, []).append((event["step"], value))
    return found


def interval(folder: Path) -> int:
    """The iterations from one evaluation of a trial to the next: each has its own."""
    return int(yaml.safe_load((folder / "config.yaml").read_text())["evaluate_every"])


def test_a_search_whose_driver_was_killed_goes_on_and_mlflow_has_each_trial_once(
    tmp_path: Path,
) -> None:
    study = tmp_path / "runs" / "search"
    first = start(SEARCH, tmp_path)
    wait_for(lambda: halfway(study), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = ended(study)
    began = {folder.name: len(events(folder, "start")) for folder in trials(study)}
    assert 1 <= len(done) < 4
    second = start(["tune", "--resume", "search"], tmp_path)
    output = second.communicate(timeout=300)[0]
    assert second.returncode == 0, output
    assert "finished: search, 4 trials" in output

    assert len(trials(study)) == len(ended(study)) == 4
    for folder in done:
        assert len(events(folder, "start")) == began[folder.name], "it was played again"
    went_on = [(f, e["step"]) for f in trials(study) for e in events(f, "start")[1:]]
    assert any(step > 0 for _, step in went_on), "from its checkpoint, not from the beginning"
    assert all(step % interval(folder) == 0 for folder, step in went_on)

    runs = mlflow_runs(tmp_path)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {r.info.run_name: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    assert parent.info.run_name == "search"
    assert len(runs) == 5
    assert set(children) == {folder.name for folder in trials(study)}
    assert {r.data.tags["mlflow.parentRunId"] for r in children.values()} == {parent.info.run_id}
    statuses = {r.info.run_name: r.info.status for r in runs}
    assert set(statuses.values()) <= {"FINISHED", "KILLED"}, (statuses, traces(study), output)
    for folder in trials(study):
        assert children[folder.name].history == said(folder), folder.name

    assert (study / "report.html").is_file()
    assert (study / "best.yaml").is_file()
    assert find_checkpoint(study / "trial_0001") is None, "Tune keeps the checkpoints"
    assert len(list((study / "trial_0001").glob("checkpoint_*"))) <= 2
