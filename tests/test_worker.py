"""What a worker does before it plays: where it starts from, what it can see."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_core.errors import UserError
from pipelines import worker
from pipelines.system_usage import SystemUsage


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Checkpoints of two attempts at steps 200, 300 and 250; the last is what Ray Train has."""
    names = ["attempt_001/checkpoint_a_200", "attempt_001/checkpoint_b_300"]
    folders = [tmp_path / "ray" / name for name in (*names, "attempt_002/checkpoint_c_250")]
    for folder in folders:
        folder.mkdir(parents=True)

    def verify(folder: Path) -> None:
        if (folder / "damaged").exists():
            raise worker.BrokenCheckpoint("damaged")

    monkeypatch.setattr(worker, "verify", verify)
    monkeypatch.setattr("gan_core.engine.checkpoint.verify", verify)
    reported = types.SimpleNamespace(path=str(folders[-1]))
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: reported)
    return folders


def start(folder: Path, checkpoint: str | None = None) -> Path | None:
    job = worker.Job(config={}, device="cpu", threads=1, checkpoint=checkpoint)
    return worker._start_from(job, folder)


def test_a_restarted_worker_goes_on_from_what_its_attempt_has_reported(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    assert start(tmp_path) == checkpoints[-1], "not from the later step of what was given up"
    (checkpoints[-1] / "damaged").touch()
    assert start(tmp_path) == checkpoints[1]
    for folder in checkpoints:
        (folder / "damaged").touch()
    assert start(tmp_path) == checkpoints[-1], "who reads it says what is wrong"


def test_without_a_report_it_starts_from_what_the_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)
    assert start(tmp_path) is None
    assert start(tmp_path, "/given") == Path("/given")


def test_a_folder_that_this_node_does_not_see_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=f"--storage {tmp_path} is not the same folder on node"):
        worker.check_shared(folder)
    folder.mkdir()
    (folder / "config.yaml").touch()
    worker.check_shared(folder)


def test_a_gpu_that_lacks_a_sensor_has_its_other_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        """As NVML's, of no other kind."""

    def utilization(device: torch.device) -> int:
        raise NVMLError("Not Supported")

    def gpu(**functions: Any) -> dict[str, float]:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3e9, 4e9))
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        return SystemUsage(torch.device("cuda", 1))._gpu()

    memory = {"system/gpu_1_memory_usage_megabytes", "system/gpu_1_memory_usage_percentage"}
    found = gpu(utilization=utilization, power_draw=lambda device: 250_000)
    assert found.keys() == memory | {"system/gpu_1_power_usage_watts"}
    assert found["system/gpu_1_power_usage_watts"] == 250.0
    assert gpu(utilization=utilization, power_draw=utilization).keys() == memory
