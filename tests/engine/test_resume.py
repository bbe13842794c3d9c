"""N steps are k steps, the end of the process, and N - k steps: bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_toys import (
    SGD,
    Crash,
    CrashingObserver,
    Plain,
    StoppingObserver,
    difference,
    saved,
    tiny_config,
    tiny_game,
    toy_game,
    vectors,
)

from gan_core import checksums, journal
from gan_core import run as run_module
from gan_core.config import RunConfig, make_config, read_config
from gan_core.data.examples import Examples
from gan_core.engine import checkpoint as checkpoints
from gan_core.engine.checkpoint import BrokenCheckpoint, find_checkpoint, read_shared, verify
from gan_core.engine.game import Game
from gan_core.engine.sampling import Sampler
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.journal import FILE, read
from gan_core.observers import FolderObserver, Observer
from gan_core.release import load_generator
from gan_core.run import MADE_UP_FOR, Run, play
from pipelines.runs import check_checkpoints

ALONE = World()
ROOT = Path(__file__).parents[2]
TIMING = {"images_per_second", "seconds"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def played(config: RunConfig, checkpoint: Path | None = None) -> dict[str, Any]:
    torch.manual_seed(len(str(checkpoint)))  # what another process would not have
    return play(config, ALONE, FolderObserver(config.folder, ALONE), checkpoint)


def logged(folder: Path) -> list[tuple[int, str, float]]:
    """Every metric in a run's journal, in order, but for how long things took."""
    return [
        (event["step"], name, value)
        for event, _ in read(folder / FILE)
        if event["kind"] == "metrics"
        for name, value in event["values"].items()
        if name not in TIMING and not name.startswith("system/")
    ]


def newest(folder: Path) -> Path:
    found = find_checkpoint(folder)
    assert found is not None
    return found


def assert_same_run(first: Path, second: Path) -> None:
    """Two runs ended in the same state and told the same, once."""
    ends = [newest(folder) for folder in (first, second)]
    assert ends[0].name == ends[1].name
    assert difference(saved(ends[0]), saved(ends[1])) == []
    told = [logged(folder) for folder in (first, second)]
    steps = [(step, name) for step, name, _ in told[1]]
    assert len(set(steps)) == len(steps)
    assert sorted(map(repr, told[0])) == sorted(map(repr, told[1]))


@pytest.mark.parametrize("failing", [6, 12])
def test_an_evaluation_that_fails_takes_nothing_with_it_and_is_made_up_for(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"data": "ring", "extractor": "auto", "checkpoint_every": 0}
    whole = tiny_config(tmp_path / "whole", "gan", **options)
    broken = tiny_config(tmp_path / "broken", "gan", **options)
    summary = played(whole)
    evaluate = Run._evaluate

    def fail(run: Run) -> Sampler:
        return evaluate(run) if run.game.step != failing else 1 / 0  # type: ignore[return-value]

    monkeypatch.setattr(Run, "_evaluate", fail)
    for checkpoint in (None, *[broken.folder / "checkpoints" / f"step_{failing:08d}"] * 2):
        with pytest.raises(ZeroDivisionError):
            played(broken, checkpoint)
        assert newest(broken.folder).name == f"step_{failing:08d}"
    told = [e["text"] for e, _ in read(broken.folder / FILE) if e["kind"] == "message"]
    assert told.count(MADE_UP_FOR) == 1
    monkeypatch.setattr(Run, "_evaluate", evaluate)
    again = played(broken, newest(broken.folder))
    assert again["figures"] == summary["figures"]
    assert again["best"] == summary["best"]
    assert (broken.folder / "generator" / "last").exists()
    ends = [saved(newest(folder)) for folder in (whole.folder, broken.folder)]
    left = [d for d in difference(*ends) if not re.search(r"param_groups/0/lr: ", d)]
    assert left == []  # but for the rate of the last update, where none came after it
    told = [sorted(map(repr, logged(folder))) for folder in (whole.folder, broken.folder)]
    assert told[0] == told[1]


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "gan with dropout": ("gan", {"k": 2}),
    "dcgan with an average": ("dcgan", {"ema": 0.9}),
    "cgan": ("cgan", {}),
    "sngan by class": ("sngan", {"conditional": True, "diffaug": "color,cutout", "ema": 0.9}),
    "points with figures": ("gan", {"data": "ring", "extractor": "auto", "dropout": 0.3}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_crashed_and_was_stopped_is_the_run_in_one_go(name: str, tmp_path: Path) -> None:
    variant, options = RUNS[name]
    whole = tiny_config(tmp_path / "whole", variant, **options)
    parts = tiny_config(tmp_path / "parts", variant, **options)
    expected = played(whole)
    with contextlib.suppress(Crash):
        play(parts, ALONE, CrashingObserver(parts.folder, ALONE, crash_at=6))
    assert newest(parts.folder).name == "step_00000004"  # between two logging points
    torch.manual_seed(11)
    observer = StoppingObserver(parts.folder, ALONE, stop_at=9)
    summary = play(parts, ALONE, observer, newest(parts.folder))
    assert (summary["status"], summary["step"]) == ("stopped", 9)
    (parts.folder / "STOP").unlink()
    found = played(parts, newest(parts.folder))
    assert_same_run(whole.folder, parts.folder)
    assert found["status"] == "finished"
    for key in ("step", "figures", "protocol", "best", "grid", "parameters", "diagnosis"):
        assert found[key] == expected[key]
    assert (found["best"] is not None) == (name == "points with figures")


def test_the_configuration_is_written_unless_an_observer_of_ones_own_has_done_it(
    tmp_path: Path,
) -> None:
    class Own(FolderObserver):
        """Has written it itself, where it is there."""

    cases = ((FolderObserver, True, False), (Own, True, True), (Own, False, False))
    for kind, there, kept in cases:
        config = tiny_config(tmp_path / f"{kind.__name__}-{there}", "gan", steps=1)
        config.folder.mkdir()
        path = config.folder / "config.yaml"
        if there:
            path.write_text("variant: gan  # by hand\n")
        play(config, ALONE, kind(config.folder, ALONE))
        assert ("by hand" in path.read_text()) == kept
        assert kept or read_config(path)["options"]["steps"] == 1


def test_a_finished_run_asked_for_more_is_the_longer_run(tmp_path: Path) -> None:
    long = tiny_config(tmp_path / "long", "gan")
    played(long)
    short = tiny_config(tmp_path / "short", "gan", steps=6)
    played(short)
    played(dataclasses.replace(short, options={**short.options, "steps": 12}), newest(short.folder))
    assert_same_run(long.folder, short.folder)


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "train", *words, "--storage", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], arrived: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not arrived():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.integration
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    words = "gan --data digits --workers 0 --name killed --extractor none --samples 40"
    numbers = "--steps 600 --log-every 7 --evaluate-every 100 --checkpoint-every 20"
    sizes = "--latent 3 --hidden 16 --maxout-units 4 --batch-size 16"
    process = command(tmp_path, *f"{words} {numbers} {sizes}".split())
    try:
        wait_for(process, (folder / "checkpoints" / "step_00000040").exists)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
    events = [event for event, _ in read(folder / FILE)]
    assert max(event["step"] for event in events) < 600
    assert not any(event["kind"] == "end" for event in events)
    again = command(tmp_path, "--resume", "killed")
    told, _ = again.communicate(timeout=120)
    assert again.returncode == 0, told
    config = make_config({**read_config(folder / "config.yaml"), "name": "whole"})
    played(config)
    assert_same_run(config.folder, folder)
    assert newest(folder).name == "step_00000600"


# -- damaged checkpoints ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at 8 and 12."""
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("runs") / "run", "gan")
    played(config)
    return config.folder


@pytest.fixture
def damaged(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state cut": lambda folder: cut(folder / "state.pt"),
    "state empty": lambda folder: (folder / "state.pt").write_bytes(b""),
    "a bit flipped": lambda folder: flip(folder / "state.pt"),
    "rank cut": lambda folder: cut(folder / "rank_0.pt"),
    "no rank": lambda folder: (folder / "rank_0.pt").unlink(),
    "no checksum": lambda folder: (folder / "state.sha256").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest cut": lambda folder: cut(folder / "manifest.json"),
    "manifest changed": lambda folder: edit(folder / "manifest.json", '"data": "', '"data": "f'),
    "step of another kind": lambda folder: edit(folder / "manifest.json", ": 12", ': "12"'),
    "another format": lambda folder: (folder / "manifest.json").write_text('{"format": 7}'),
    "a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    damage: str, damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = damaged / "checkpoints" / "step_00000012"
    assert newest(damaged) == last
    DAMAGES[damage](last)
    with pytest.raises(BrokenCheckpoint, match="step_00000012") as caught:
        verify(last)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        assert newest(damaged) == damaged / "checkpoints" / "step_00000008"
    (record,) = caplog.records
    assert "step_00000012" in record.getMessage()


def test_a_resume_reads_each_file_once_to_know_that_it_is_whole(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(checksums, "sha256_of", counted)
    monkeypatch.setattr(checksums, "SETTLED", 0.0)
    config = tiny_config(damaged, "gan")
    check_checkpoints(damaged)
    Run(config, ALONE, Observer()).play(newest(damaged))
    assert sorted(read) == ["rank_0.pt", "state.pt"]


@pytest.mark.parametrize("settled", [0.0, 60.0], ids=["long ago", "just now"])
def test_a_file_that_is_damaged_after_it_was_found_whole_is_not_used(
    settled: float, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "SETTLED", settled)
    last = newest(damaged)
    run = Run(tiny_config(damaged, "gan"), ALONE, Observer())
    if not settled:
        time.sleep(0.05)  # a tick of the file system's clock
    before = (last / "state.pt").stat()
    flip(last / "state.pt")
    os.utime(last / "state.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BrokenCheckpoint, match="is damaged"):
        run.play(last)
    assert run.game.step == 0
    assert newest(damaged).name == "step_00000008"


def test_a_checkpoint_half_written_when_the_process_died_is_passed_over_and_swept(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partial = damaged / "checkpoints" / "step_00000016.partial"
    partial.mkdir()
    (partial / "rank_0.pt").write_bytes(b"half")
    assert newest(damaged).name == "step_00000012"
    assert caplog.records == []
    config = tiny_config(damaged, "gan", steps=14)
    played(config, newest(damaged))
    assert sorted(p.name for p in partial.parent.iterdir()) == ["step_00000012", "step_00000014"]


def test_a_run_resumed_past_a_damaged_checkpoint_is_the_run_in_one_go(
    damaged: Path, run: Path
) -> None:
    cut(damaged / "checkpoints" / "step_00000012" / "state.pt")
    played(tiny_config(damaged, "gan"), newest(damaged))
    assert_same_run(run, damaged)


def test_damaged_checkpoints_do_not_push_out_whole_ones(damaged: Path) -> None:
    folder = damaged / "checkpoints"
    for step in (12, 20, 24):
        (folder / f"step_{step:08d}").mkdir(exist_ok=True)
        (folder / f"step_{step:08d}" / "manifest.json").write_text("{")
    config = tiny_config(damaged, "gan", checkpoint_every=1, steps=11)
    played(config, newest(damaged))
    assert newest(damaged).name == "step_00000011"
    assert (folder / "step_00000010").exists()
    assert not (folder / "step_00000009").exists()


def test_checkpoints_of_other_starts_go_when_there_are_newer_ones_of_this(damaged: Path) -> None:
    """Of Ray Train's, as of this process's: the disk would fill up with each resume."""
    given = damaged / "checkpoints" / "step_00000012"
    for place in ("attempt_001/checkpoint_a_00000004", "attempt_001/checkpoint_b_00000014"):
        shutil.copytree(given, damaged / "ray" / place)
    played(tiny_config(damaged, "gan", checkpoint_every=0, steps=13), given)
    left = [path.name for path in (damaged / "ray").glob("*/*")]
    assert left == ["checkpoint_b_00000014"], "what is later than the second newest stays"
    assert (damaged / "ray" / "attempt_001").is_dir(), "the next start counts them"


def test_a_checkpoint_of_an_earlier_version_has_no_digest_of_its_manifest(run: Path) -> None:
    last, manifest = newest(run), newest(run) / "manifest.json"
    whole = manifest.read_text()
    said = json.loads(whole)
    del said["sha256"]
    manifest.write_text(json.dumps(said))
    try:
        assert verify(last)["step"] == 12
    finally:
        manifest.write_text(whole)


def test_a_run_without_a_whole_checkpoint_has_none(damaged: Path, tmp_path: Path) -> None:
    for folder in (damaged / "checkpoints").iterdir():
        cut(folder / "state.pt")
    assert find_checkpoint(damaged) is None
    assert find_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_is_found_in_both_layouts_by_its_step(damaged: Path) -> None:
    checkpoint = damaged / "checkpoints" / "step_00000012"
    for attempt, name in (("a", "checkpoint_00000030"), ("b", "checkpoint_00000020")):
        shutil.copytree(checkpoint, damaged / "ray" / attempt / name)
    assert newest(damaged) == damaged / "ray" / "a" / "checkpoint_00000030"
    cut(damaged / "ray" / "a" / "checkpoint_00000030" / "rank_0.pt")
    assert newest(damaged) == damaged / "ray" / "b" / "checkpoint_00000020"


@pytest.mark.parametrize("name", ["config.yaml", "."])
def test_a_foreign_folder_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("variant: gan\n")
    with pytest.raises(BrokenCheckpoint, match="is no checkpoint of this program") as caught:
        verify(tmp_path / name)
    assert "\n" not in str(caught.value)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(damaged: Path, tmp_path: Path) -> None:
    folder, sprung = damaged / "checkpoints" / "step_00000012", tmp_path / "sprung"
    torch.save({"game": Trap(sprung)}, folder / "state.pt")
    digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "state.sha256").write_text(digest)
    with pytest.raises(BrokenCheckpoint, match=r"state\.pt cannot be read") as caught:
        read_shared(folder, torch.device("cpu"))
    assert "\n" not in str(caught.value)
    with pytest.raises(BrokenCheckpoint):
        played(tiny_config(damaged, "gan"), folder)
    assert not sprung.exists()


def test_what_is_saved_can_be_read_without_code(tmp_path: Path) -> None:
    value = {"a": torch.arange(3), "b": [1.5, None, "x"], "c": (0.5, 0.9), 3: float("nan")}
    checkpoints.write_shared(
        tmp_path, value, {"step": 1, "world_size": 0, "config": {}, "data": ""}
    )
    assert difference(read_shared(tmp_path, torch.device("cpu")), value) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("manifest.json", "state.pt", "state.sha256")
    ]


# -- what may change -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hidden": 17}, r"generator\.body\.0\.weight is \(16, 3\) there and \(17, 3\) here"),
        ({"maxout_pieces": 3}, "discriminator.layers.1"),
    ],
)
def test_a_checkpoint_of_other_networks_is_refused_in_one_line(
    options: dict[str, Any], told: str, run: Path, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "other", "gan", **options)
    with pytest.raises(UserError, match=f"cannot resume from .*step_00000012: .*{told}") as caught:
        played(config, newest(run))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_data_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "other", "gan", train_split="train+validation")
    with pytest.raises(UserError, match="the training data have changed since") as caught:
        played(config, newest(run))
    assert "\n" not in str(caught.value)


def test_data_that_have_no_folder_are_asked_for_of_their_source(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "other", "gan")
    monkeypatch.setattr(Examples, "fingerprint", "another")
    with pytest.raises(UserError, match=r"another\): let the source give those again") as caught:
        played(config, newest(run))
    assert "--data-root" not in str(caught.value)


def test_a_worker_with_other_examples_than_the_first_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run", "gan")
    monkeypatch.setattr(World, "broadcast_object", lambda self, value: "the first one's")
    with pytest.raises(UserError, match="worker 0 has loaded other training data than worker 0"):
        Run(config, ALONE, Observer())


def test_another_rate_takes_effect_when_a_game_goes_on() -> None:
    before = toy_game(Plain(), vectors(point=(2,)))
    slow = {"optimizer": SGD}
    fast = {"optimizer": dataclasses.replace(SGD, learning_rate=0.4, momentum=lambda _: 0.5)}
    before = toy_game(Plain(9, generator=slow, discriminator=slow), vectors(point=(2,)))
    before.play(3)
    after = toy_game(Plain(9, generator=fast, discriminator=slow), vectors(point=(2,)))
    after.load_state_dict(before.state_dict())
    start = {n: p.detach().clone() for n, p in after.variant.named_parameters()}
    after.play(1)
    for name, parameter in after.variant.named_parameters():
        assert parameter.grad is not None
        rate = 0.4 if name.startswith("generator") else 0.05
        expected = start[name] - rate * parameter.grad
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)


def test_other_rates_of_adam_take_effect_and_its_moments_go_on() -> None:
    before = tiny_game("dcgan", {"lr_g": 1e-3, "beta1": 0.5})
    before.play(2)
    after = tiny_game("dcgan", {"lr_g": 5e-3, "beta1": 0.2})
    after.load_state_dict(before.state_dict())
    seat = after.seats[1]
    moments = [seat.optimizer.state[p]["exp_avg"].clone() for p in seat.parameters]
    start = [p.detach().clone() for p in seat.parameters]
    after.play(1)
    for old, then, parameter in zip(moments, start, seat.parameters, strict=True):
        state = seat.optimizer.state[parameter]
        mean = 0.2 * old + 0.8 * parameter.grad  # type: ignore[operator]
        torch.testing.assert_close(state["exp_avg"], mean)
        unbiased = mean / (1 - 0.2**3)
        scale = (state["exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-8
        step = 5e-3 * unbiased / scale
        torch.testing.assert_close(parameter.detach(), then - step, rtol=1e-4, atol=1e-6)


def test_an_average_asked_for_later_begins_at_the_weights_of_that_moment() -> None:
    before = tiny_game("dcgan", {})
    before.play(3)
    after = tiny_game("dcgan", {"ema": 0.9})
    after.load_state_dict(before.state_dict())
    generator = after.sampler().network("generator")
    live = dict(before.variant.generator.named_parameters())  # type: ignore[union-attr]
    assert difference(dict(generator.named_parameters()), live) == []


CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "r1 on": ("gan", {}, {"r1": 2.0}),
    "r1 off": ("gan", {"r1": 2.0}, {}),
    "r1 of a part": ("gan", {"r1": 2.0}, {"r1": 2.0, "penalty_stride": 2}),
    "gradient penalty on": ("gan", {"r1": 1.0}, {"gradient_penalty": 5.0}),
    "gradient penalty of layer norm off": (
        "dcgan",
        {"norm_d": "layer", "gradient_penalty": 5.0},
        {"norm_d": "layer", "gradient_penalty": 0.0},
    ),
    "loss": ("gan", {}, {"loss": "hinge"}),
    "instance noise on": ("gan", {}, {"instance_noise": 0.2}),
    "instance noise off": ("gan", {"instance_noise": 0.2}, {}),
    "k": ("gan", {}, {"k": 3}),
    "lr": ("gan", {}, {"lr_d": 0.01, "lr_g": 0.02}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_schedule_takes_over_in_the_middle_of_a_logging_window(
    name: str, tmp_path: Path
) -> None:
    variant, before, after = CHANGES[name]
    first = tiny_config(tmp_path / "run", variant, **before)
    with contextlib.suppress(Crash):
        play(first, ALONE, CrashingObserver(first.folder, ALONE, crash_at=6))
    assert newest(first.folder).name == "step_00000004"  # one turn after a logging point
    changed = tiny_config(tmp_path / "run", variant, **after)
    assert played(changed, newest(first.folder))["step"] == 12
    told = {n: v for step, n, v in logged(first.folder) if step == 9}
    wanted = {"penalty/r1"} if after.get("r1") else set()
    wanted |= {"penalty/gradient"} if after.get("gradient_penalty") else set()
    assert {key for key in told if key.startswith("penalty/")} == wanted
    assert all(math.isfinite(value) for value in told.values())


@pytest.mark.parametrize("kept", [False, True], ids=["", "as earlier versions saved it"])
@pytest.mark.parametrize("before", [0.0, 0.5])
@pytest.mark.parametrize("after", [0.0, 1.0])
def test_noise_is_as_low_as_if_it_had_been_there_from_the_start(
    before: float, after: float, kept: bool
) -> None:
    begun, resumed = (tiny_game("gan", {"instance_noise": s, "steps": 8}) for s in (before, after))
    begun.play(3)
    shared, own = begun.state_dict(), begun.rank_state()
    if kept:  # of each turn of the generator
        shared["networks"]["played"] = own["buffers"]["played"] = torch.tensor(6.0)
    elif not before:
        own["buffers"].pop("played")
    resumed.load_state_dict(shared)
    resumed.load_rank_state(own)
    resumed.play(1)
    images, noise = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    batch = {"image": images, "instance_noise_real": noise}
    shown = resumed.variant.real_targets(batch)  # type: ignore[operator]
    assert torch.equal(shown, after * (1 - 3 / 4) * noise)


def test_diagnostics_of_other_names_start_a_new_mean() -> None:
    seat = toy_game(Plain(), vectors(point=(2,))).seats[0]
    seat.load_window({"names": ["old", "older"], "sums": torch.ones(2), "count": 5}, ALONE.device)
    seat._note({"new": torch.tensor(3.0)})
    seat._count += 1
    names, means = seat.take_diagnostics()
    assert names == ["new"]
    assert torch.equal(means, torch.tensor([3.0]))  # type: ignore[arg-type]


# -- when ------------------------------------------------------------------------------------------


class Diary(Observer):
    """Notes the steps of what happens."""

    def __init__(self, stop_at: int = 1000) -> None:
        self.seen: dict[str, list[int]] = {"metrics": [], "picture": [], "checkpoint": []}
        self.stop_at, self.step = stop_at, 0

    def metrics(self, step, values):
        self.step = step
        if "images_seen" in values:
            self.seen["metrics"].append(step)

    def picture(self, step, name, image):
        self.seen["picture"].append(step)

    def checkpoint(self, step, write, figures):
        self.seen["checkpoint"].append(step)

    def should_stop(self):
        return self.step >= self.stop_at


def test_logging_judging_and_saving_keep_to_their_own_steps(tmp_path: Path) -> None:
    diary = Diary()
    config = tiny_config(
        tmp_path / "run", "gan", log_every=5, evaluate_every=4, checkpoint_every=3, steps=13
    )
    play(config, ALONE, diary)
    assert diary.seen == {
        "metrics": [5, 10, 13],
        "picture": [4, 8, 12, 13],
        "checkpoint": [3, 6, 9, 12, 13],
    }


def test_a_summary_names_a_grid_where_there_is_one(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", "gan", steps=2, evaluate_every=0, checkpoint_every=0)
    assert play(config, ALONE, Observer())["grid"] is None
    grid = played(config)["grid"]
    assert grid == "samples/samples_00000002.png"
    assert (config.folder / grid).is_file()


def test_what_is_judged_and_saved_at_one_step_is_copied_and_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(
        tmp_path / "run", "dcgan", ema=0.9, evaluate_every=4, checkpoint_every=2, steps=8
    )
    made: list[int] = []
    sampler = Game.sampler

    def counted(game: Game, **options: Any) -> Sampler:
        if options.get("averaged", True):  # not a logging point's
            made.append(game.step)
        return sampler(game, **options)

    monkeypatch.setattr(Game, "sampler", counted)
    run = Run(config, ALONE, FolderObserver(config.folder, ALONE))
    run.play()
    assert made == [2, 4, 6, 8]
    kept = load_generator(newest(config.folder)).variant.state_dict()
    now = sampler(run.game).variant.state_dict()
    assert all(torch.equal(kept[n], now[n]) for n in now if n.startswith("generator."))


def test_zero_means_only_at_the_end(tmp_path: Path) -> None:
    diary = Diary()
    config = tiny_config(tmp_path / "run", "gan", evaluate_every=0, checkpoint_every=0)
    play(config, ALONE, diary)
    assert diary.seen == {"metrics": [3, 6, 9, 12], "picture": [12], "checkpoint": [12]}


@pytest.mark.parametrize(("stop_at", "status", "step"), [(6, "stopped", 6), (12, "finished", 12)])
def test_a_stop_saves_and_a_stop_at_the_end_is_the_end(
    stop_at: int, status: str, step: int, tmp_path: Path
) -> None:
    diary = Diary(stop_at)
    config = tiny_config(tmp_path / "run", "gan", checkpoint_every=0)
    summary = play(config, ALONE, diary)
    assert (summary["status"], summary["step"]) == (status, step)
    assert diary.seen["checkpoint"] == [step]


class Asked(FolderObserver):
    """Notes at which iterations it is asked, and wants a stop from ``stop_at`` on."""

    def __init__(self, folder: Path, stop_at: int = 1000) -> None:
        super().__init__(folder, ALONE)
        self.stop_at = stop_at
        self.steps: list[int] = []

    def should_stop(self) -> bool:
        self.steps.append(self.run.game.step)
        return self.steps[-1] >= self.stop_at

    run: Run


def test_a_stop_between_two_looks_is_heard_and_the_run_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "STOP_WITHIN", 0.0)  # asked after every iteration
    often = {"log_every": 5, "evaluate_every": 4, "checkpoint_every": 4}
    whole = tiny_config(tmp_path / "whole", "gan", **often)
    parts = tiny_config(tmp_path / "parts", "gan", **often)
    played(whole)
    observer = Asked(parts.folder, stop_at=7)
    observer.run = Run(parts, ALONE, observer)
    summary = observer.run.play()
    assert (summary["status"], summary["step"]) == ("stopped", 7)
    assert observer.steps == [1, 2, 3, 4, 5, 6, 7]
    played(parts, newest(parts.folder))
    assert_same_run(whole.folder, parts.folder)


@pytest.mark.parametrize(
    ("seconds", "asked"), [(0.5, [1, 5, 9, 12]), (3.0, list(range(1, 13))), (0.01, [1, 12])]
)
def test_how_often_a_run_asks_follows_its_pace(
    seconds: float, asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(run_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    rare = {"log_every": 100, "evaluate_every": 0, "checkpoint_every": 0}
    observer = Asked(tmp_path / "run")
    observer.run = Run(tiny_config(tmp_path / "run", "gan", **rare), ALONE, observer)
    iterate = observer.run.game.iterate

    def slowly() -> None:
        clock[0] += seconds
        iterate()

    monkeypatch.setattr(observer.run.game, "iterate", slowly)
    observer.run.play()
    assert observer.steps == asked


def test_the_journal_s_own_text_names_all_that_a_start_says(run: Path) -> None:
    start = next(event for event, _ in read(run / FILE) if event["kind"] == "start")
    told = str(journal.__doc__)
    assert [n for n in start if n not in ("kind", "step", "time") and f"``{n}``" not in told] == []


def test_a_manifest_says_what_is_needed_to_go_on(run: Path) -> None:
    manifest = json.loads((newest(run) / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (12, 1)
    assert manifest["config"]["options"]["hidden"] == 16
