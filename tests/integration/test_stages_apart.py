"""Stages played apart: several processes, a failure that costs the others nothing, put together."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from gan_core import journal
from gan_core.config import RunConfig, make_config
from gan_core.engine.checkpoint import find_checkpoint, read_shared
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.journal import last_status
from gan_core.observers import FolderObserver
from gan_core.release import load_generator
from gan_core.run import Run
from pipelines import apart, ending
from pipelines import train as training
from pipelines.apart import _ended, _join, _Parts, parts_of
from pipelines.cluster import Cluster
from pipelines.comparison.entries import read_folder
from pipelines.run_folder import finished, read_summary
from pipelines.tracking import State

pytestmark = pytest.mark.integration
TINY = {
    "levels": 2, "latent": 3, "hidden": 8, "width": 3, "steps": 4, "dropout": 0.0, "batch_size": 4,
    "log_every": 2, "evaluate_every": 0, "extractor": "none", "ema": 0.9,
}  # fmt: skip


def config_of(folder: Path, **values: Any) -> RunConfig:
    plain = {"variant": "lapgan", "data": "folder", "data_root": str(folder / "pictures")}
    place = {"storage": str(folder / "runs"), "name": "whole", "workers": 2}
    return make_config({**plain, **place, **TINY, **values})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        values = torch.randint(0, 256, (12, 12), generator=generator, dtype=torch.uint8)
        Image.fromarray(values.numpy()).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path


def state_of(config: RunConfig) -> dict[str, Any]:
    checkpoint = find_checkpoint(config.folder)
    assert checkpoint is not None
    return dict(read_shared(checkpoint, torch.device("cpu"))["game"])


def test_which_runs_play_the_stages(tmp_path: Path) -> None:
    def found(workers: int, **values: Any) -> dict[str, tuple[str | None, int]]:
        parts = parts_of(config_of(tmp_path, workers=workers, **values))
        assert all(part.options["level"] is not None for part in parts.values())
        return {stage: (part.name, part.workers) for stage, part in parts.items()}

    assert found(2) == {"level_0": ("whole-level_0", 1), "level_1": ("whole-level_1", 1)}
    assert [w for _, w in found(5).values()] == [2, 2]
    assert [w for _, w in found(5, batch_size=5).values()] == [1, 1]
    assert found(1) == {}
    assert found(2, level=1) == {}
    needing = make_config({"variant": "gan", "data": "digits", "workers": 4, "name": "x"})
    assert parts_of(needing) == {}


def test_a_failed_stage_costs_the_others_nothing_and_all_are_put_together(
    pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = config_of(pictures)
    # Without Ray, which changes nothing here: what is played apart are processes.
    parts = {n: dataclasses.replace(p, workers=0) for n, p in parts_of(config).items()}
    wrong = dataclasses.replace(parts["level_1"], data_root=str(pictures / "nowhere"))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # the same bits
    assert _Parts(parts | {"level_1": wrong}, 2, environment).play() == ["level_1"]
    assert finished(parts["level_0"])
    log = Path(f"{parts['level_1'].folder}.log")
    assert "no folder" in log.read_text()
    with pytest.raises(UserError, match="no whole checkpoint of level_1"):
        _join(config, parts)
    capfd.readouterr()
    assert _Parts(parts, 2, environment).play() == []
    told = capfd.readouterr().err
    assert "level_1: finished" in told
    assert "level_0" not in told
    other = config_of(pictures, lr_d=0.01)  # a rate that a stage that has ended knows nothing of
    assert all(_ended(part) for part in parts_of(other).values())
    assert not any(_ended(part) for part in parts_of(config_of(pictures, steps=9)).values())
    summary = _join(config, parts)
    assert (summary["status"], summary["step"]) == ("finished", 8)
    assert load_generator(config.folder).info["stage"] == "level_1"
    spent = sum(read_summary(part.folder)["seconds"] for part in parts.values())
    assert summary["seconds"] == pytest.approx(spent)

    turn = dataclasses.replace(config, name="turn", workers=0)
    Run(turn, World(), FolderObserver(turn.folder, World())).play()
    joined, played = state_of(config), state_of(turn)
    assert joined["step"] == played["step"] == 8
    for name, value in played["networks"].items():
        assert torch.equal(value, joined["networks"][name]), name
    seen = read_folder(turn.folder).images_seen
    assert read_folder(config.folder).clock == [(8, seen, summary["seconds"])], "compare shows it"


STAGE = """
import os, pathlib, signal, subprocess, sys, time

folder, ends_at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
asked = 0

def note(number, frame):
    global asked
    asked += 1
    if asked == ends_at:
        (folder / "ended").touch()
        child.kill()
        child.wait()
        sys.exit(130)
    (folder / f"asked_{asked}").touch()

sleeper = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(100)"
child = subprocess.Popen([sys.executable, "-c", sleeper])
signal.signal(signal.SIGINT, note)
(folder / "writing").write_text(f"{os.getpid()} {child.pid}")
(folder / "writing").rename(folder / "numbers")
while True:
    time.sleep(100)
"""
"""A stage that ends at the ``ends_at``-th SIGINT, with a process of its own."""


class Stages(_Parts):
    """Stages that are played by ``STAGE``."""

    def __init__(self, folder: Path, ends_at: dict[str, int]) -> None:
        parts = {stage: config_of(folder, name=stage) for stage in ends_at}
        super().__init__(parts, 2, dict(os.environ))
        self.ends_at = ends_at
        for stage in ends_at:
            (folder / "runs" / stage).mkdir(parents=True)

    def _command(self, part: RunConfig) -> list[str]:
        ends_at = self.ends_at[str(part.name)]
        return [sys.executable, "-c", STAGE, str(part.folder), str(ends_at)]

    def numbers(self) -> list[int]:
        """The numbers of all processes that the stages consist of."""
        files = [part.folder / "numbers" for part in self.parts.values()]
        return [
            int(number) for file in files if file.exists() for number in file.read_text().split()
        ]


def wait_for(found: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("ends_at", "interrupts"),
    [
        ({"one": 1, "two": 1}, 1),  # all write their checkpoints
        ({"one": 1, "two": 2}, 2),  # one is aborted
        ({"one": 9, "two": 2}, 2),  # one does not end, and is killed
        ({"one": 9, "two": 9}, 3),
    ],
)
def test_no_process_of_a_stage_outlives_an_interrupt(
    ends_at: dict[str, int], interrupts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "POLL", 0.02)
    monkeypatch.setattr(ending, "TOGETHER", 0.0)  # each of these is a wish of its own
    killed = max(ends_at.values()) > interrupts == 2
    monkeypatch.setattr(apart, "GRACE", 3 if killed else 100)
    stages = Stages(tmp_path, ends_at)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def press() -> None:
        wait_for(lambda: len(stages.numbers()) == 4)
        for number in range(1, interrupts + 1):
            os.kill(os.getpid(), (signal.SIGINT, signal.SIGTERM)[number % 2])
            if number < min(interrupts, 3):
                told = [s for s, last in ends_at.items() if number < last]
                files = [tmp_path / "runs" / stage / f"asked_{number}" for stage in told]
                for file in files:
                    wait_for(file.exists)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            stages.play()
        presser.join()
        wait_for(lambda: not any(map(is_running, stages.numbers())))
    finally:
        for number in filter(is_running, stages.numbers()):
            os.kill(number, signal.SIGKILL)
    for stage, last in ends_at.items():
        assert (tmp_path / "runs" / stage / "ended").exists() == (last <= interrupts)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_is_passed_on_while_it_is_one_wish_with_that_which_a_stage_had_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    stages = Stages(tmp_path, {"one": 1})
    monkeypatch.setattr(stages, "_command", lambda _: [sys.executable, "-c", "pass"])
    monkeypatch.setattr(
        apart, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic)
    )
    assert stages.play() == []
    assert pauses
    assert max(pauses) <= ending.TOGETHER / 4, "a loaded machine adds to it"


KILLED = """
import dataclasses, os, pathlib, sys
sys.path[:0] = [{tests!r}, {root!r}]
from test_stages_apart import _Parts, config_of, parts_of

config = config_of(pathlib.Path(sys.argv[1]), steps=100_000_000, log_every=20)
parts = {{n: dataclasses.replace(p, workers=0) for n, p in parts_of(config).items()}}
_Parts(parts, 2, {{**os.environ, "OMP_NUM_THREADS": "1"}}).play()
"""
"""A process that plays stages for ever. Without Ray, as above."""


def test_stages_whose_process_was_killed_write_checkpoints_and_end(pictures: Path) -> None:
    program = KILLED.format(tests=str(Path(__file__).parent), root=str(Path(__file__).parents[2]))
    parent = subprocess.Popen([sys.executable, "-c", program, str(pictures)])
    parts = parts_of(config_of(pictures))
    journals = [part.folder / journal.FILE for part in parts.values()]
    children: list[psutil.Process] = []
    try:
        wait_for(lambda: all(map(has_logged, journals)), 120)
        children = psutil.Process(parent.pid).children()
        assert len(children) == 2
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    finally:
        for process in [parent, *filter(psutil.Process.is_running, children)]:
            process.kill()
    for part in parts.values():
        assert last_status(part.folder) == "stopped"
        assert state_of(part)["step"] > 0
        assert "has died: stopping" in Path(f"{part.folder}.log").read_text()


def has_logged(path: Path) -> bool:
    return path.exists() and any(e["kind"] == "metrics" for e, _ in journal.read(path))


STUBBORN = """
import signal, sys, time
from pipelines.tethered import tether

signal.signal(signal.SIGINT, lambda *_: print("asked", flush=True))
tether(2, 2)
print("ready", flush=True)
while True:
    time.sleep(100)
"""


def test_a_command_that_does_not_end_with_its_starter_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert process.communicate(timeout=60) == ("asked\nasked\n", None)  # it closes the input
    assert process.returncode == -signal.SIGKILL


def test_an_error_ends_the_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "POLL", 0.02)
    stages = Stages(tmp_path, {"one": 1, "two": 1})
    look = stages._look

    def broken() -> None:
        if len(stages.numbers()) == 4 and not stages._asked:
            raise OSError("no more")
        look()

    monkeypatch.setattr(stages, "_look", broken)
    with pytest.raises(OSError, match="no more"):
        stages.play()
    assert len(stages.numbers()) == 4
    assert not any(map(is_running, stages.numbers()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_stages_that_were_stopped_are_gone_on_with_by_the_name_of_the_whole(
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: type[BaseException],
) -> None:
    config, told = config_of(pictures), []

    def play(self: _Parts) -> list[str]:
        told.append(self.environment)
        raise error

    cluster = Cluster(own=True, resources={"CPU": 8.0}, autoscaling=False)
    monkeypatch.setattr(training, "prepare", lambda *_: cluster)
    monkeypatch.setattr(apart._Parts, "play", play)
    monkeypatch.setenv("RAY_ADDRESS", "here")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(error):
        apart.train_apart(config, parts_of(config), resume=False)
    assert (config.folder / "config.yaml").exists()
    said = "stopped; go on with: python -m pipelines train --resume whole" in capfd.readouterr().err
    assert said == (error is KeyboardInterrupt)
    assert (told[0]["RAY_ADDRESS"], told[0]["GAN_THREADS_PER_WORKER"]) == ("here", "4")
    with pytest.raises(error):
        apart.train_apart(config, parts_of(config), resume=True)


def test_an_interrupt_as_stages_are_put_together_says_so(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return {}

    config = config_of(pictures)
    cluster = Cluster(own=True, resources={"CPU": 8.0}, autoscaling=False)
    monkeypatch.setattr(training, "prepare", lambda *_: cluster)
    monkeypatch.setattr(training, "track", lambda *_: None)
    monkeypatch.setattr(training, "give_up", lambda *_: None)
    monkeypatch.setattr(apart, "_play", lambda *_: [])
    monkeypatch.setattr(apart, "_join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apart.train_apart(config, parts_of(config), resume=False)
    assert capfd.readouterr().err.splitlines() == [
        "stopped before the stages were put together",
        training.how_to_go_on(config),
    ]


class ToldShipper:
    """Notes what MLflow would be told of a run as it ends."""

    def __init__(self) -> None:
        self.tracker = self
        self.notes: dict[str, str] = {}
        self.ends: list[tuple[str, dict[str, str]]] = []
        self.state = State("http://127.0.0.1:1", "gan", "key", experiment_id="1", run_id="2")

    def note(self, changes: dict[str, str]) -> None:
        self.notes.update(changes)

    def end(self, status: str) -> bool:
        self.ends.append((status, dict(self.notes)))
        return True


def test_the_whole_has_its_protocol_in_mlflow_as_any_run(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, shipper = config_of(pictures), ToldShipper()
    summary = {
        "status": "finished", "step": 8, "seconds": 2.0, "images_per_second": 9.0,
        "figures": {"fid": 3.0}, "protocol": {"classifier": "ten pictures", "modes": "2"},
    }  # fmt: skip
    cluster = Cluster(own=True, resources={"CPU": 8.0}, autoscaling=False)
    monkeypatch.setattr(training, "prepare", lambda *_: cluster)
    monkeypatch.setattr(training, "track", lambda *_: shipper)
    monkeypatch.setattr(apart, "_play", lambda *_: [])
    monkeypatch.setattr(apart, "_join", lambda *_: summary)
    apart.train_apart(config, parts_of(config), resume=False)
    assert shipper.ends == [("finished", {"protocol": "classifier: ten pictures; modes: 2"})]


def test_stages_need_as_many_processors_as_they_have_workers(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(pictures)
    cluster = Cluster(own=True, resources={"CPU": 1.0}, autoscaling=False)
    monkeypatch.setattr(training, "prepare", lambda *_: cluster)
    with pytest.raises(UserError, match="--workers 2 needs a CPU for each and this machine has 1"):
        apart.train_apart(config, parts_of(config), resume=False)
    assert not config.folder.exists()
