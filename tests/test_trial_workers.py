"""Workers of a trial wait until Tune has decided; without Ray."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from gan_core import journal
from gan_core.engine.checkpoint import all_checkpoints, step_of
from gan_core.engine.world import World
from pipelines.trainer import next_attempt
from pipelines.tuning import workers
from pipelines.tuning.workers import Decided, TunesLeave
from pipelines.worker import RayObserver


class FakeActor:
    """``Decided`` as an actor that answers at once; it may be dead."""

    def __init__(self) -> None:
        self._decided, self.dead = Decided(), False
        for name in ("note", "step"):
            setattr(self, name, SimpleNamespace(remote=self._method(name)))

    def _method(self, name: str) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            if self.dead:
                raise RayActorError
            return getattr(self._decided, name)(*values)

        return call


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> FakeActor:
    made = FakeActor()
    fake = SimpleNamespace(
        get=lambda answer: answer,
        remote=lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: made)),
    )
    monkeypatch.setattr(workers, "ray", fake)
    monkeypatch.setattr(workers, "_LOOK", 0.005)
    monkeypatch.setattr(workers, "_LAST", 0.05)
    return made


def test_a_worker_waits_until_there_is_leave_for_its_step(actor: FakeActor) -> None:
    leave = TunesLeave()
    worker = threading.Thread(target=leave.wait, args=(60,))
    worker.start()
    leave.give(30)
    worker.join(0.1)
    waited = worker.is_alive()
    leave.give(60)
    worker.join()
    assert waited


def test_a_worker_that_replaces_a_lost_one_has_leave_for_what_it_repeats(actor: FakeActor) -> None:
    leave = TunesLeave()
    leave.give(60)
    leave.wait(30)
    leave.wait(60)


def test_a_worker_of_a_trial_that_has_ended_does_not_play_on(actor: FakeActor) -> None:
    leave = TunesLeave()
    actor.dead = True
    begun = time.monotonic()
    with pytest.raises(RayActorError):
        leave.wait(30)
    assert time.monotonic() - begun >= 0.05


class FakeLeave:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def wait(self, step: int) -> None:
        self.asked.append(step)


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_zero_asks_when_all_have_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    import ray.train

    reported: list[int] = []
    leave = FakeLeave()

    def report(metrics: dict[str, float], **_: Any) -> None:
        assert not leave.asked
        reported.append(int(metrics["step"]))

    monkeypatch.setattr(ray.train, "report", report)
    context = SimpleNamespace(get_experiment_name=lambda: "attempt_001")
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    world = World()
    monkeypatch.setattr(World, "leads", property(lambda _: rank == 0))
    observer = RayObserver(tmp_path, world, leave)
    observer.checkpoint(30, lambda folder: (folder / "state").touch(), {"fid": 1.0})
    assert reported == [30]
    assert leave.asked == ([30] if rank == 0 else [])


@pytest.mark.parametrize("of_a_trial", [True, False])
def test_checkpoints_of_earlier_starts_are_removed_when_there_are_two_of_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_a_trial: bool
) -> None:
    import ray.train

    def report(_: object, *, checkpoint: Any, checkpoint_dir_name: str) -> None:
        (tmp_path / "ray" / "attempt_002" / checkpoint_dir_name).mkdir(parents=True)

    monkeypatch.setattr(ray.train, "report", report)
    context = SimpleNamespace(get_experiment_name=lambda: "attempt_002")
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    former = ["ray/attempt_001/checkpoint_a_00000010", "ray/attempt_001/checkpoint_b_00000020"]
    for name in [*former, "ray/attempt_001/checkpoint_c_00000050", "checkpoints/step_00000015"]:
        (tmp_path / name).mkdir(parents=True)
    observer = RayObserver(tmp_path, World(), FakeLeave() if of_a_trial else None)

    def left() -> list[int]:
        return [step_of(folder) for folder in all_checkpoints(tmp_path)]

    observer.checkpoint(30, lambda folder: (folder / "state").touch(), {})
    assert left() == [50, 30, 20, 15, 10], "the one that it goes on from may be needed again"
    observer.checkpoint(40, lambda folder: (folder / "state").touch(), {})
    assert left() == ([50, 40, 30, 20, 15, 10] if of_a_trial else [50, 40, 30])


def test_each_start_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert next_attempt(tmp_path) == "attempt_001"
    for name in ("attempt_002", "attempt_010", "attempt_other"):
        (tmp_path / name).mkdir()
    assert next_attempt(tmp_path) == "attempt_011", "though nine of them have been removed"


@pytest.mark.parametrize("of_a_trial", [True, False])
def test_a_run_that_the_diagnosis_stops_says_so_in_its_last_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_a_trial: bool
) -> None:
    import ray.train

    reported: list[dict[str, float]] = []
    monkeypatch.setattr(ray.train, "report", lambda metrics, **_: reported.append(metrics))
    context = SimpleNamespace(get_experiment_name=lambda: "attempt_001")
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    observer = RayObserver(tmp_path, World(), FakeLeave() if of_a_trial else None)
    observer.checkpoint(30, lambda folder: (folder / "state").touch(), {"fid": 1.0})
    observer.tag(60, "stopped_by", "mode_collapse")
    observer.checkpoint(60, lambda folder: (folder / "state").touch(), {"fid": 1.0})
    observer.end(60, "stopped", {})
    kinds = [event["kind"] for event, _ in journal.read(tmp_path / journal.FILE)]
    assert ["stopped_by" in metrics for metrics in reported] == [False, of_a_trial]
    assert ("end" in kinds) != of_a_trial, "the trial tells its end itself"


def test_what_workers_report_of_a_trial_that_has_failed_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: queue.Queue[Any] = queue.Queue()
    for step, failed in ((30, {}), (60, {"stopped_by": 1.0})):
        said.put(({"fid": 1.0, "step": step, **failed}, "folder"))
    monkeypatch.setattr(said, "shutdown", lambda: None, raising=False)
    monkeypatch.setattr(workers, "Queue", lambda **_: said)
    monkeypatch.setattr(workers, "Empty", queue.Empty)  # where fit takes longer than the queue
    given: list[int] = []
    monkeypatch.setattr(workers, "TunesLeave", lambda: SimpleNamespace(give=given.append))
    result = SimpleNamespace(return_value={"stopped_by": "mode_collapse"})
    trainer = SimpleNamespace(fit=lambda: result)
    monkeypatch.setattr(workers, "make_trainer", lambda *_, **__: trainer)
    study: Any = SimpleNamespace(options=SimpleNamespace(gpus_per_trial=0.0))
    passed: list[tuple[int, dict[str, float]]] = []
    summary = workers.play_on_workers(
        study,
        SimpleNamespace(),
        None,
        lambda step, figures, _: passed.append((step, dict(figures))),
    )  # type: ignore[arg-type]
    assert passed == [(30, {"fid": 1.0})]
    assert given == [30, 60], "or its workers would wait for ever"
    assert summary == {"stopped_by": "mode_collapse"}
