from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gan_core import journal
from gan_core.config import RunConfig, make_config

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TINY = {
    "variant": "gan",
    "data": "digits",
    "device": "cpu",
    "extractor": "none",
    "steps": 240,
    "batch_size": 32,
    "log_every": 10,
    "evaluate_every": 0,
    "checkpoint_every": 80,
}
"""A run of seconds: 240 iterations, a checkpoint every 80."""


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests of the session, on this machine alone."""
    from pipelines.cluster import set_environment

    before = dict(os.environ)
    set_environment(own=True)
    paths = [str(ROOT), str(HERE), before.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.05"
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 1024**2,
    )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a database for all runs of the session."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def tracked(tracking_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs of this test are tracked in the session's database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_database)
    return tracking_database


def configure(storage: Path, name: str, **changes: Any) -> RunConfig:
    """The tiny run under another name."""
    return make_config({**TINY, "storage": str(storage), "name": name, **changes})


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's journal."""
    return [e for e, _ in journal.read(folder / journal.FILE) if e["kind"] == kind]


def metric_steps(folder: Path) -> list[tuple[str, int]]:
    """Every metric of the journal with its step, in order."""
    return [(name, e["step"]) for e in events(folder, "metrics") for name in e["values"]]


def once_at_step(folder: Path, step: int, action: Callable[[], None]) -> threading.Thread:
    """Do ``action`` in a thread as soon as the run has logged ``step``."""

    def follow() -> None:
        limit = time.monotonic() + 120
        while time.monotonic() < limit:
            if any(e["step"] >= step for e in events(folder, "metrics")):
                action()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


def ray_processes(name: str) -> list[psutil.Process]:
    """Those of the Ray that these tests have started whose name has ``name`` in it."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if process.name().startswith("ray::") and name in process.name():
                found.append(process)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal, tensors bit for bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def without_empty_sums(state: Any) -> Any:
    """``state`` less the sums of diagnostics over no iteration, which may be zeros or absent."""
    if not isinstance(state, dict):
        return state
    kept = {k: v for k, v in state.items() if k != "sums" or state.get("count") != 0}
    return {k: without_empty_sums(v) for k, v in kept.items()}


def final_state(folder: Path) -> dict[str, Any]:
    """Networks, optimisers, positions and history of a run's newest checkpoint, of all ranks."""
    import torch

    from gan_core.engine.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    shared = torch.load(checkpoint / "state.pt", weights_only=True)
    ranks = sorted(checkpoint.glob("rank_*.pt"))
    return {
        "game": without_empty_sums(shared["game"]),
        "history": shared["history"],
        "ranks": [torch.load(path, weights_only=True) for path in ranks],
    }
