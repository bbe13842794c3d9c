from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, configure, events, final_state, metric_steps, same

from gan_core.config import make_config, write_config
from gan_core.engine.checkpoint import write_shared
from gan_core.errors import UserError
from pipelines.ending import TOGETHER
from pipelines.run_folder import RunFolder, changes_of
from pipelines.tracking import State
from pipelines.train import RunFailed, train

QUICK = [
    *("gan", "--data", "digits", "--workers", "0", "--device", "cpu", "--extractor", "none"),
    *("--batch-size", "32", "--log-every", "10"),
]


def start(
    storage: Path,
    *words: str,
    command: Sequence[str] = (sys.executable, "-m", "pipelines", "train"),
) -> subprocess.Popen[str]:
    """``python -m pipelines train``, in its own process group."""
    return subprocess.Popen(
        [*command, *words, "--storage", str(storage)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


PAIR = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
    *("-m", "pipelines", "train", *QUICK),
]
"""``python -m pipelines train`` in two processes."""


def torchrun(storage: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A run by :data:`PAIR`, to its end."""
    return subprocess.run(
        [*PAIR, "--steps", "20", "--storage", str(storage), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def end(*processes: subprocess.Popen[str]) -> None:
    """Whatever is left of them, each the first of its group, also where a test has failed."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.integration
def test_ctrl_c_saves_and_the_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    words = [*QUICK, "--steps", "120", "--checkpoint-every", "0"]
    whole = start(tmp_path, *words, "--name", "whole")
    stopped = start(tmp_path, *words, "--name", "stopped")
    try:
        wait_until(lambda: any(step >= 30 for _, step in metric_steps(tmp_path / "stopped")))
        os.killpg(stopped.pid, signal.SIGINT)
        out, errors = stopped.communicate(timeout=60)
        assert stopped.returncode == 130, errors
        assert "stopped; go on with: python -m pipelines train --resume stopped" in out
        assert "stopping: a checkpoint is written" in errors
        resumed = start(tmp_path, "--resume", "stopped")
        _, errors = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, errors
        assert whole.wait(timeout=120) == 0
    finally:
        end(whole, stopped)
    assert len(events(tmp_path / "stopped", "start")) == 2
    assert same(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))
    assert metric_steps(tmp_path / "stopped") == metric_steps(tmp_path / "whole")


@pytest.mark.integration
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    # An iteration that takes many seconds: the first Ctrl-C waits for its end.
    process = start(tmp_path, *QUICK, "--k", "100000", "--name", "long")
    journal = tmp_path / "long" / "journal.jsonl"
    try:
        wait_until(lambda: journal.exists() and '"start"' in journal.read_text())
        os.killpg(process.pid, signal.SIGINT)
        wait_until((tmp_path / "long" / "STOP").exists)  # the first has been heard
        time.sleep(TOGETHER)
        assert process.poll() is None, "the first waits for the iteration"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        end(process)
    assert events(tmp_path / "long", "end")[-1]["status"] == "stopped"


@pytest.mark.integration
def test_two_processes_of_torchrun_play_one_run(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "--name", "pair")
    assert done.returncode == 0, done.stderr
    assert events(tmp_path / "pair", "start")[0]["workers"] == 2
    assert (tmp_path / "pair" / "checkpoints" / "step_00000020" / "rank_1.pt").exists()
    assert done.stdout.count("finished: pair") == 1


@pytest.mark.integration
def test_ctrl_c_saves_what_two_processes_of_torchrun_play(tmp_path: Path) -> None:
    # The terminal's Ctrl-C reaches torchrun and both processes, and torchrun hands its own on.
    pair = start(tmp_path, "--steps", "100000", "--name", "pair", command=PAIR)
    try:
        wait_until(lambda: any(step >= 20 for _, step in metric_steps(tmp_path / "pair")))
        os.killpg(pair.pid, signal.SIGINT)
        out, errors = pair.communicate(timeout=60)
    finally:
        end(pair)
    assert "stopped; go on with: python -m pipelines train --resume pair" in out, errors
    assert events(tmp_path / "pair", "end")[-1]["status"] == "stopped"
    (saved,) = (tmp_path / "pair" / "checkpoints").iterdir()
    assert (saved / "rank_1.pt").exists()
    assert not (tmp_path / "pair" / "STOP").exists()
    steps = str(int(saved.name.removeprefix("step_")) + 10)
    resumed = torchrun(tmp_path, "--resume", "pair", "--steps", steps)
    assert resumed.returncode == 0, resumed.stderr


def test_an_error_keeps_its_trace_and_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by nothing\nand more")

    monkeypatch.setattr("pipelines.train.play", fail)
    config = configure(tmp_path, "broken", workers=0)
    with pytest.raises(RunFailed) as failed:
        train(config)
    trace = config.folder / "failure.txt"
    assert str(failed.value) == (
        f"run broken failed: ZeroDivisionError: by nothing (the whole trace: {trace})"
    )
    assert "in fail" in trace.read_text()
    assert events(config.folder, "end")[-1]["status"] == "failed"


def test_an_option_of_the_schedule_may_change_on_resume_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, "longer", workers=0, steps=20)
    train(config)
    summary = train(configure(tmp_path, "longer", workers=0, steps=30), resume=True)
    assert summary["step"] == 30
    assert "resuming run longer with steps: 20 -> 30\n" in capsys.readouterr().out
    tags = {event["name"]: event["value"] for event in events(config.folder, "tag")}
    assert tags["resumed_with.20"] == "steps: 20 -> 30"
    starts = [start["options"] for start in events(config.folder, "start")]
    assert [options["steps"] for options in starts] == [20, 30]


def test_what_is_played_on_without_mlflow_is_said_to_be_missing_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, "tracked", workers=0, steps=10)
    train(config)
    assert "MLflow knows nothing of it: --workers 0 plays without\n" in capsys.readouterr().out
    State("sqlite:///nowhere.db", "gan", "key", run_id="1").save(config.folder)
    train(configure(tmp_path, "tracked", workers=0, steps=20), resume=True)
    assert (
        "MLflow has what was played before; add this with: "
        f"python -m pipelines sync tracked --storage {tmp_path}\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"lr_d": 1.0}, {"steps": 10}, {"steps": 20, "batch_size": 7}])
def test_a_run_that_is_over_is_not_resumed_otherwise_and_keeps_its_configuration(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = configure(tmp_path, "over", workers=0, steps=20)
    train(config)
    before = {path: path.read_bytes() for path in config.folder.iterdir() if path.is_file()}
    with pytest.raises(UserError, match="over has been played up to step 20, so nothing") as told:
        train(configure(tmp_path, "over", workers=0, **{"steps": 20, **changes}), resume=True)
    assert all(f"{name}: " in str(told.value) for name in changes if name != "steps")
    assert {path: path.read_bytes() for path in before} == before
    assert train(config, resume=True)["step"] == 20, "as it was it may"


def test_what_cannot_be_played_on_is_told_before_ray_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(configure(tmp_path, "over", workers=0, steps=20))
    monkeypatch.setattr("pipelines.train._train_on_ray", None)
    with pytest.raises(UserError, match="over has been played up to step 20, so nothing"):
        train(configure(tmp_path, "over", workers=1, steps=20, lr_d=1.0), resume=True)
    assert "resuming run" not in capsys.readouterr().out


def test_a_run_that_is_being_trained_is_not_resumed_and_nothing_of_it_changes(
    tmp_path: Path,
) -> None:
    config = configure(tmp_path, "alive", workers=0, steps=20)
    longer = configure(tmp_path, "alive", workers=0, steps=30)
    train(config)
    (config.folder / "STOP").touch()

    def content() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in config.folder.rglob("*") if p.is_file()}

    with RunFolder(config) as other:
        other._take()
        before = content()
        with pytest.raises(UserError, match="run 'alive' is being trained by another process"):
            train(longer, resume=True)
        assert content() == before
    assert train(longer, resume=True)["step"] == 30


def test_a_start_that_is_interrupted_or_refused_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path, "early", workers=0, steps=20)
    for error in (KeyboardInterrupt(), UserError("not like this")):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("pipelines.train.play", fail)
            with pytest.raises(type(error)):
                train(config)
        assert not config.folder.exists()
    train(config)
    monkeypatch.setattr("pipelines.train.play", fail)
    with pytest.raises(UserError):
        train(configure(tmp_path, "early", workers=0, steps=30), resume=True)
    assert config.folder.exists(), "what has been trained is kept"


@pytest.mark.integration
def test_a_refusal_is_told_once_under_torchrun(tmp_path: Path) -> None:
    config = configure(tmp_path, "pair", workers=0, steps=20)
    train(config)
    with RunFolder(config) as other:
        other._take()
        done = torchrun(tmp_path, "--resume", "pair", "--steps", "30")
    assert done.returncode != 0
    assert done.stderr.count("error: run 'pair' is being trained by another process") == 1
    assert "gloo" not in done.stderr
    assert "Connection" not in done.stderr


def test_torchrun_wants_no_workers_of_ray_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="pass --workers 0"):
        train(configure(tmp_path, "pair", workers=2))
    assert not (tmp_path / "pair").exists()


def test_what_a_run_is_resumed_as_is_judged_by_its_checkpoint(tmp_path: Path) -> None:
    # Stage-II was asked for with a width that came to nothing: no checkpoint was made by it.
    wish = {"variant": "stackgan", "data": "captions", "storage": str(tmp_path), "name": "two"}
    alone, wide, narrow = (
        make_config(wish | more)
        for more in ({"steps_2": 0}, {"steps_2": 5, "width_2": 256}, {"steps_2": 5, "width_2": 8})
    )
    checkpoint = alone.folder / "checkpoints" / "step_00000001"
    checkpoint.mkdir(parents=True)
    told = {"step": 1, "world_size": 1, "config": alone.to_dict(), "data": ""}
    write_shared(checkpoint, {}, told)
    write_config(wide, alone.folder / "config.yaml")
    assert sorted(changes_of(narrow)) == ["steps_2: 0 -> 5", "width_2: 128 -> 8"]
    write_shared(checkpoint, {}, told | {"config": wide.to_dict()})
    with pytest.raises(UserError, match="width_2 was 256 and is now 8"):
        changes_of(narrow)
