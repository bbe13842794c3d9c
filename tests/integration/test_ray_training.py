from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from conftest import (
    configure,
    events,
    final_state,
    metric_steps,
    once_at_step,
    ray_processes,
    same,
)

from gan_core import host_memory
from gan_core.errors import UserError
from gan_core.journal import Journal
from gan_core.variant import VARIANTS
from pipelines.sync import sync
from pipelines.train import RunFailed, train

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def uninterrupted(
    local_ray: None, storage: Path, tracking_database: str
) -> tuple[Path, dict[str, Any]]:
    """The folder and the summary of a whole run with two workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking_database)
        config = configure(storage, "whole", workers=2)
        return config.folder, train(config)


def test_workers_of_a_ray_on_this_machine_have_the_priority_of_their_driver(
    local_ray: None,
) -> None:
    import ray

    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def test_workers_of_a_ray_on_this_machine_keep_freed_memory(local_ray: None) -> None:
    import ray

    def one_heap() -> bool:
        begun_with = Path("/proc/self/environ").read_bytes().split(b"\0")
        return f"{host_memory.HEAPS}=1".encode() in begun_with

    assert ray.get(ray.remote(one_heap).remote())


def mlflow_run(uri: str, name: str) -> tuple[Any, Any]:
    """The client and the one run of that name."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(ids, f"attributes.run_name = '{name}'")
    return client, run


def assert_mlflow_equals_journal(uri: str, folder: Path) -> Any:
    """Every value of the journal is in MLflow once, with its step; the run."""
    client, run = mlflow_run(uri, folder.name)
    said: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder, "metrics"):
        for name, value in event["values"].items():
            said.setdefault(name, []).append((event["step"], value))
    assert set(run.data.metrics) == set(said)
    for name, values in said.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in history] == values, name
    return run


def test_two_workers_train_and_mlflow_has_all_that_the_journal_says(
    uninterrupted: tuple[Path, dict[str, Any]], tracking_database: str
) -> None:
    folder, summary = uninterrupted
    assert summary["status"] == "finished"
    assert summary["step"] == 240
    assert events(folder, "start")[0]["workers"] == 2
    run = assert_mlflow_equals_journal(tracking_database, folder)
    assert {"loss/generator", "prob/real", "images_per_second"} <= set(run.data.metrics)
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "32"
    assert {
        "variant": "gan",
        "dataset": "digits",
        "engine": "eager",
    }.items() <= run.data.tags.items()
    assert run.data.tags["code_version"]


def test_the_generator_is_a_model_that_anyone_can_load(
    uninterrupted: tuple[Path, dict[str, Any]], tracking_database: str
) -> None:
    import mlflow
    import numpy as np
    import pandas as pd
    import torch

    from gan_core.release import load_generator

    folder, _ = uninterrupted
    client, run = mlflow_run(tracking_database, folder.name)
    (model,) = [
        m
        for m in client.search_logged_models([run.info.experiment_id])
        if m.name == "generator_last" and m.source_run_id == run.info.run_id
    ]
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_database)
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    mlflow.set_tracking_uri(before)
    index = np.arange(5, dtype=np.int64)
    samples = loaded.predict(pd.DataFrame({"index": index}))
    wanted = load_generator(folder).generate(torch.arange(5), native=True)
    assert samples.dtype == np.float32
    assert samples.shape == (5, *loaded.metadata.signature.outputs.inputs[0].shape[1:])
    np.testing.assert_allclose(samples, wanted.numpy(), atol=1e-6)


def test_a_model_brings_its_code_in_one_file_and_needs_no_other(
    uninterrupted: tuple[Path, dict[str, Any]], tracking_database: str, tmp_path: Path
) -> None:
    folder, _ = uninterrupted
    client, run = mlflow_run(tracking_database, folder.name)
    models = client.search_logged_models([run.info.experiment_id])
    place = next(m.artifact_location for m in models if m.source_run_id == run.info.run_id)
    code = [path.name for path in (Path(urlparse(place).path) / "code").rglob("*")]
    assert code == ["gan_core.zip"], "a file is a request to a server"
    script = (
        "import sys, mlflow; mlflow.pyfunc.load_model(sys.argv[1]); "
        "print(sys.modules['gan_core'].__file__)"
    )
    command = [sys.executable, "-c", script, place]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "gan_core.zip" in done.stdout, done.stdout + done.stderr


def kill_a_worker() -> None:
    """SIGKILL to one training process among this process's own."""
    ray_processes("TrainWorker")[0].kill()


def test_a_killed_worker_changes_nothing_and_no_step_is_logged_twice(
    uninterrupted: tuple[Path, dict[str, Any]], storage: Path, tracked: str
) -> None:
    config = configure(storage, "killed", workers=2)
    killer = once_at_step(config.folder, 120, kill_a_worker)
    summary = train(config)
    assert not killer.is_alive()
    assert summary["status"] == "finished"
    starts = [event["step"] for event in events(config.folder, "start")]
    assert starts in ([0, 80], [0, 160]), "started again from a checkpoint"
    assert same(final_state(config.folder), final_state(uninterrupted[0]))
    logged = metric_steps(config.folder)
    assert len(logged) == len(set(logged))
    assert sorted(logged) == sorted(metric_steps(uninterrupted[0]))
    assert_mlflow_equals_journal(tracked, config.folder)


def test_checkpoints_are_in_the_journal_under_their_paths(
    uninterrupted: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = uninterrupted
    paths = [folder / event["path"] for event in events(folder, "checkpoint")]
    assert [event["step"] for event in events(folder, "checkpoint")] == [80, 160, 240]
    assert [path.exists() for path in paths] == [False, True, True], "the last two are kept"
    assert {"state.pt", "rank_0.pt", "rank_1.pt"} <= {path.name for path in paths[-1].iterdir()}


def test_a_stopped_run_goes_on_as_if_nothing_had_been_while_its_server_is_down(
    uninterrupted: tuple[Path, dict[str, Any]],
    storage: Path,
    tracking_database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    config = configure(storage, "stopped", workers=2)
    once_at_step(config.folder, 110, (config.folder / "STOP").touch)
    summary = train(config)
    assert summary["status"] == "stopped"
    assert 110 <= summary["step"] < 240
    told = capsys.readouterr()
    assert f"--resume stopped --storage {storage}" in told.out
    assert f"python -m pipelines sync stopped --storage {storage}" in told.out
    assert told.err.count("does not take metrics") == 1
    with pytest.raises(UserError, match="'stopped' exists already"):
        train(config)
    assert train(config, resume=True)["status"] == "finished"
    assert events(config.folder, "start")[-1]["step"] == summary["step"]
    assert same(final_state(config.folder), final_state(uninterrupted[0]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_database)
    sync(storage, [config.folder])
    run = assert_mlflow_equals_journal(tracking_database, config.folder)
    assert run.info.status == "FINISHED"


def test_a_finished_run_is_not_trained_again(
    uninterrupted: tuple[Path, dict[str, Any]],
    storage: Path,
    tracked: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = events(uninterrupted[0], "start")
    summary = train(configure(storage, "whole", workers=2), resume=True)
    assert summary == uninterrupted[1]
    assert capsys.readouterr().out.startswith("run whole is finished already, at step 240")
    assert events(uninterrupted[0], "start") == before


def test_a_run_stopped_in_this_process_is_finished_by_a_worker_of_ray_bit_for_bit(
    storage: Path, tracked: str
) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = configure(storage, "here", workers=0)
        train(whole)
        stopped = configure(storage, "one", workers=0)
        once_at_step(stopped.folder, 130, (stopped.folder / "STOP").touch)
        assert train(stopped)["status"] == "stopped"
    finally:
        torch.set_num_threads(before)
    summary = train(configure(storage, "one", workers=1), resume=True)
    assert summary["status"] == "finished"
    assert events(stopped.folder, "start")[-1]["step"] >= 130
    assert same(final_state(stopped.folder), final_state(whole.folder))
    assert_mlflow_equals_journal(tracked, stopped.folder)


def test_bad_data_are_refused_by_the_workers_in_one_line_and_leave_no_run(
    storage: Path, tmp_path: Path, tracked: str
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(50):
        (tmp_path / "pictures" / f"{number}.png").write_text("no picture")
    config = configure(
        storage, "bad", workers=1, data="folder", data_root=str(tmp_path / "pictures")
    )
    with pytest.raises(UserError, match=r"\d+\.png") as refused:
        train(config)
    assert "\n" not in str(refused.value)
    assert not config.folder.exists()


def test_a_check_of_the_data_that_dies_is_told_in_one_line_and_leaves_no_run(
    storage: Path, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.worker.preflight", lambda *_: os._exit(1))
    config = configure(storage, "dies", workers=1)
    with pytest.raises(RunFailed, match=r"^the check of the data failed: WorkerCrashed") as failed:
        train(config)
    assert "\n" not in str(failed.value)
    assert not config.folder.exists()


def test_more_workers_than_there_can_be_are_refused_at_once(storage: Path, tracked: str) -> None:
    config = configure(storage, "many", workers=64, batch_size=64)
    with pytest.raises(UserError, match="--workers 64 needs a CPU for each"):
        train(config)
    assert not config.folder.exists()


def test_a_refusal_of_a_worker_is_not_tried_again(
    storage: Path, tracked: str, failing_variant: str
) -> None:
    config = configure(
        storage, "refused", variant="failing", workers=1, plugins=[failing_variant], refuse=True
    )
    with pytest.raises(UserError, match=r"^cannot go on, by order$"):
        train(config)
    assert [event["step"] for event in events(config.folder, "start")] == [0]
    assert events(config.folder, "end")[-1]["status"] == "failed"


def test_an_error_of_the_code_is_told_in_one_line_that_names_the_whole_trace(
    storage: Path, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(storage, "broken", workers=1)

    def fail(training: Any) -> dict[str, Any]:
        book = Journal(config.folder)
        book.write("start", 0, workers=1)
        book.close()
        raise WorkerGroupError("rank 0: in objective", {0: ArithmeticError("lost count\nof it")})

    from ray.train import WorkerGroupError

    monkeypatch.setattr("pipelines.train._Training.__call__", fail)
    with pytest.raises(RunFailed) as failed:
        train(config)
    trace = config.folder / "failure.txt"
    assert str(failed.value) == (
        f"run broken failed: ArithmeticError: lost count (the whole trace: {trace})"
    )
    assert "rank 0: in objective" in trace.read_text()
    assert "of it" in trace.read_text()
    assert [event["status"] for event in events(config.folder, "end")] == ["failed"]
    client, run = mlflow_run(tracked, "broken")
    assert run.info.status == "FAILED"
    assert "failure.txt" in {f.path for f in client.list_artifacts(run.info.run_id)}


@pytest.fixture
def failing_variant() -> Iterator[str]:
    """The import path of a plugin that the workers find too; forgotten afterwards."""
    yield "failing_variant"
    VARIANTS._entries.pop("failing", None)
    sys.modules.pop("failing_variant", None)
