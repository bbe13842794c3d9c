"""A worker that trials share, without Ray: its games wait, end and fail each for itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import RayActorError

from gan_core.config import RunConfig, make_config
from gan_core.engine import taking_turns
from gan_core.engine.world import World
from gan_core.journal import FILE, read
from gan_core.observers import FolderObserver
from gan_core.run import play
from pipelines.tuning import shared_workers, study
from pipelines.tuning.shared_workers import Said, SharedWorker
from pipelines.tuning.trial import TrialObserver, WorkerLost

TIMING = {"images_per_second", "seconds"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shared_workers, "_POLL", 0.2)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def configure(storage: Path, name: str, **options: Any) -> RunConfig:
    """gan, with dropout, on the ring: 60 iterations, judged every 20."""
    values = {
        "variant": "gan", "data": "ring", "storage": str(storage), "name": name, "steps": 60,
        "evaluate_every": 20, "checkpoint_every": 20, "log_every": 10, "samples": 100, "hidden": 8,
        "maxout_units": 4, "dropout": 0.3, "batch_size": 16, "device": "cpu", **options,
    }  # fmt: skip
    return make_config(values)


def begin(worker: SharedWorker, config: RunConfig, checkpoint: str | None = None) -> bool:
    config.folder.mkdir(parents=True, exist_ok=True)
    return worker.begin(config.to_dict(), checkpoint)


def ask(worker: SharedWorker, trial: str) -> Said:
    """What the game says next."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        said = worker.follow(trial)
        if said is not None:
            return said
    raise AssertionError("it says nothing")


def networks(folder: str | Path) -> dict[str, Any]:
    """Those of a checkpoint, with the random state that the game goes on with."""
    shared = torch.load(Path(folder) / "state.pt", weights_only=True)["game"]["networks"]
    return shared | {"random": torch.load(Path(folder) / "rank_0.pt", weights_only=True)["random"]}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def logged(folder: Path) -> list[str]:
    """Every metric in a journal but for how long things took."""
    return [
        f"{event['step']} {name} {value}"
        for event, _ in read(folder / FILE)
        if event["kind"] == "metrics"
        for name, value in event["values"].items()
        if name not in TIMING
    ]


def alone(config: RunConfig) -> list[dict[str, Any]]:
    """The networks at every report of the game in a process of its own."""
    found = []

    def report(step: int, figures: Any, saved: Path | None) -> None:
        assert saved is not None
        found.append(networks(saved))

    world = World()
    play(config, world, TrialObserver(config.folder, world, report))
    return found


def until_there_is_room(worker: SharedWorker) -> float:
    """The seconds after which a game may begin."""
    begun = time.monotonic()
    while not worker.has_room():
        assert time.monotonic() < begun + 30
        time.sleep(0.01)
    return time.monotonic() - begun


def test_games_on_a_shared_worker_are_the_games_alone(tmp_path: Path) -> None:
    points = {"one": {"k": 1}, "two": {"k": 2, "lr_d": 0.01}, "three": {"k": 1, "seed": 3}}
    worker = SharedWorker(3, 1, "cpu")
    expected = {name: alone(configure(tmp_path / "alone", name, **p)) for name, p in points.items()}
    for name, point in points.items():
        assert begin(worker, configure(tmp_path / "shared", name, **point))
    assert not worker.has_room()
    for step in (20, 40, 60):
        for name in points:
            said = ask(worker, name)
            assert said.step == step
            assert "mode_kl" in said.figures
            assert equal(networks(said.folder), expected[name][step // 20 - 1])
    for name in points:
        summary = ask(worker, name).summary
        assert summary is not None
        assert (summary["status"], summary["step"]) == ("finished", 60)
        assert logged(tmp_path / "shared" / name) == logged(tmp_path / "alone" / name)
        assert list((tmp_path / "shared" / name).glob("report-*")) == []
    until_there_is_room(worker)


def test_a_game_waits_for_its_trial_while_others_play_to_their_ends(tmp_path: Path) -> None:
    worker = SharedWorker(2, 1, "cpu")
    for name in ("waits", "plays"):
        begin(worker, configure(tmp_path, name))
    assert ask(worker, "waits").step == 20
    while ask(worker, "plays").summary is None:
        pass
    (last,) = [e["step"] for e, _ in read(tmp_path / "waits" / FILE) if e["kind"] == "metrics"][-1:]
    assert last == 20, "it has played no further"
    assert ask(worker, "waits").step == 40


def test_a_game_that_is_ended_gives_its_place_away_and_goes_on_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    worker = SharedWorker(2, 1, "cpu")
    expected = alone(configure(tmp_path / "alone", "stopped"))
    long = configure(tmp_path, "long", steps=100_000, evaluate_every=0, checkpoint_every=0)
    stopped = configure(tmp_path, "stopped")
    begin(worker, stopped)
    begin(worker, long)
    kept = Path(ask(worker, "stopped").folder).rename(tmp_path / "kept")
    assert not worker.has_room()
    worker.end("stopped")
    assert worker.has_room()
    assert begin(worker, stopped, str(kept))
    assert equal(networks(ask(worker, "stopped").folder), expected[1])
    worker.end("long")  # it waits for nothing: it plays
    assert until_there_is_room(worker) < 10
    assert equal(networks(ask(worker, "stopped").folder), expected[2])


def test_a_game_that_fails_says_why_and_leaves_the_others_alone(tmp_path: Path) -> None:
    worker = SharedWorker(2, 1, "cpu")
    expected = alone(configure(tmp_path / "alone", "plays"))
    begin(worker, configure(tmp_path, "fails", data="folder", data_root=str(tmp_path / "nowhere")))
    begin(worker, configure(tmp_path, "plays"))
    with pytest.raises(Exception, match="nowhere"):
        ask(worker, "fails")
    until_there_is_room(worker)
    assert equal(networks(ask(worker, "plays").folder), expected[0])


def test_the_place_of_a_trial_whose_process_was_lost_is_given_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = SharedWorker(1, 1, "cpu")
    begin(worker, configure(tmp_path, "silent"))
    ask(worker, "silent")
    assert not begin(worker, configure(tmp_path, "other"))
    monkeypatch.setattr(shared_workers, "_SILENT", 0.3)
    for _ in range(3):
        time.sleep(0.2)
        worker.hear("silent")
        assert not worker.has_room(), "it gives signs of life"
    time.sleep(0.4)
    until_there_is_room(worker)
    with pytest.raises(WorkerLost, match="silent"):
        worker.follow("silent")
    assert begin(worker, configure(tmp_path, "other"))
    assert ask(worker, "other").step == 20


def test_a_worker_that_was_started_anew_knows_no_games() -> None:
    worker = SharedWorker(1, 1, "cpu")
    worker.hear("trial_0001")
    worker.end("trial_0001")
    with pytest.raises(WorkerLost, match="trial_0001 has been started anew"):
        worker.follow("trial_0001")


class Answers:
    """A worker that answers with the next of ``answers``, and then always with the last."""

    def __init__(self, *answers: bool | Exception) -> None:
        self._answers = list(answers)
        self.has_room = self.begin = SimpleNamespace(remote=self._next)

    def _next(self, *_: object) -> bool | Exception:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(answer: bool | Exception) -> bool:
        if isinstance(answer, Exception):
            raise answer
        return answer

    fake = SimpleNamespace(get=get, wait=lambda asked, timeout: (asked, ()))
    monkeypatch.setattr(shared_workers, "ray", fake)
    monkeypatch.setattr(shared_workers, "_LOOK", 0.01)


@pytest.mark.usefixtures("_without_ray")
def test_a_trial_waits_for_a_worker_that_is_started_anew_or_has_room(tmp_path: Path) -> None:
    busy, lost = Answers(False), Answers(RayActorError(), RayActorError(), True, True)
    assert shared_workers._begin([busy, lost], configure(tmp_path, "run"), None) is lost


@pytest.mark.usefixtures("_without_ray")
def test_a_trial_fails_where_no_worker_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_workers, "_ANEW", 0.2)
    begun = time.monotonic()
    with pytest.raises(WorkerLost, match="was lost"):
        shared_workers._begin([Answers(RayActorError())], configure(tmp_path, "run"), None)
    assert time.monotonic() - begun >= 0.2


def test_a_worker_has_as_many_places_as_games_can_take_turns() -> None:
    assert study.MOST_GAMES == taking_turns.MOST_GAMES


def test_a_trial_of_its_own_process_reports_from_a_folder_outside_its_own(tmp_path: Path) -> None:
    seen: list[Path] = []

    def report(step: int, figures: Any, saved: Path | None) -> None:
        assert saved is not None
        seen.append(saved)

    observer: FolderObserver = TrialObserver(tmp_path, World(), report)
    observer.checkpoint(1, lambda folder: (folder / "state").touch(), {})
    assert tmp_path not in seen[0].parents
    assert not seen[0].exists()


def test_trials_that_follow_on_each_other_ask_different_workers_first() -> None:
    names = ["a", "b", "c"]
    orders = [shared_workers.order_of_asking(names, f"trial_000{i}") for i in range(1, 7)]
    assert all(sorted(order) == names for order in orders)
    firsts = [order[0] for order in orders]
    assert firsts[:3] == firsts[3:]
    assert set(firsts[:3]) == set(names)
