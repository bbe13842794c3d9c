from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import events, ray_processes

from gan_core.config import RunConfig, make_config, write_config
from pipelines.cluster import Cluster
from pipelines.tuning.records import read_trials
from pipelines.tuning.study import Study, TuneOptions
from pipelines.tuning.table import Table
from pipelines.tuning.trial import WorkerLost

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]
POINTS = ({"k": 1, "lr_d": 0.01}, {"k": 2, "lr_d": 0.02}, {"k": 1, "lr_d": 0.005})
TIMING = {"images_per_second", "seconds"}


def make_study(storage: Path, name: str, **options: Any) -> Study:
    values = {
        "variant": "gan", "data": "ring", "storage": str(storage), "name": name, "steps": 60,
        "evaluate_every": 20, "checkpoint_every": 20, "log_every": 10, "samples": 100,
        "hidden": 8, "maxout_units": 4, "batch_size": 16, "device": "cpu",
    }  # fmt: skip
    words = TuneOptions(
        metric="mixture_score", scheduler="none", gpus_per_trial=0.0, trials=3, **options
    )
    config = make_config(values)
    return Study(run=config, options=words, target="point", modes=8, points=POINTS)


def search(study: Study) -> bool:
    from pipelines.tuning.driver import run

    study.save()
    cluster = Cluster(own=True, resources={"CPU": 2.0}, autoscaling=False)
    return run(study, cluster, Table("mixture_score", 3, study.max_steps), resume=False)


def logged(folder: Path) -> list[tuple[int, str, float]]:
    return [
        (event["step"], name, value)
        for event in events(folder, "metrics")
        for name, value in event["values"].items()
        if name not in TIMING
    ]


def test_trials_that_share_a_worker_are_the_trials_of_their_own_processes(tmp_path: Path) -> None:
    own = make_study(tmp_path, "own", concurrent=1)
    shared = make_study(tmp_path, "shared", concurrent=2, games_per_worker=3)
    reported: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            reported.update(path.parent.name for path in shared.folder.glob("trial_*/report-*"))

    assert search(own)
    thread = threading.Thread(target=look)
    thread.start()
    assert search(shared)
    over.set()
    thread.join()
    assert reported == {"trial_0001", "trial_0002", "trial_0003"}, "the worker has played them"
    for one, other in zip(read_trials(own), read_trials(shared), strict=True):
        assert (other.name, other.status, other.point) == (one.name, "finished", one.point)
        assert repr(logged(other.folder)) == repr(logged(one.folder))
        assert other.objective == one.objective
        assert len(list(other.folder.glob("checkpoint_*"))) == 2, "Tune has copied them"
    _, alive = psutil.wait_procs(ray_processes("SharedWorker"), timeout=60)
    assert alive == [], "it ends with the search, soon after Ray was told to kill it"


def played(
    names: tuple[str, ...], config: RunConfig, checkpoint: Path | None, report: Callable[..., None]
) -> Any:
    from pipelines.tuning.shared_workers import play_on_shared_worker

    try:
        return play_on_shared_worker(names, config, checkpoint, report)
    except BaseException as error:
        return error


def test_a_lost_worker_fails_its_trials_and_a_stopped_trial_leaves_its_place(
    tmp_path: Path,
) -> None:
    import ray

    from pipelines.tuning.shared_workers import shared_workers

    study = make_study(tmp_path, "search", games_per_worker=1)
    configs = [study.trial_config(point, f"trial_000{i}") for i, point in enumerate(POINTS)]
    for config in configs:
        config.folder.mkdir(parents=True)
        write_config(config, config.folder / "config.yaml")

    def stop(step: int, figures: Mapping[str, float], saved: Path | None) -> None:
        raise SystemExit  # as Tune ends the thread of a trial that it stops

    def kill_worker(step: int, figures: Mapping[str, float], saved: Path | None) -> None:
        for process in ray_processes("SharedWorker"):
            process.kill()

    with shared_workers(study, 1) as names:
        assert isinstance(played(names, configs[0], None, stop), SystemExit)
        worker, begun = ray.get_actor(names[0]), time.monotonic()
        while not ray.get(worker.has_room.remote()):
            assert time.monotonic() - begun < 15, "not after the 20 s in which a lost trial is lost"
            time.sleep(0.05)
        stopped = events(configs[0].folder, "metrics")
        assert played(names, configs[1], None, lambda *_: None)["status"] == "finished"
        assert events(configs[0].folder, "metrics") == stopped, "it has played no further"
        assert isinstance(played(names, configs[2], None, kill_worker), WorkerLost)
        again = played(names, configs[2], None, lambda *_: None)
        assert (again["status"], again["step"]) == ("finished", 60)
    assert [event["step"] for event in events(configs[2].folder, "start")] == [0, 0]
