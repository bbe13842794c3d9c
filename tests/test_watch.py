"""What the one who looks on says to a user who interrupts."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest

from gan_core.config import RunConfig, make_config, write_config
from gan_core.engine.checkpoint import MANIFEST
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.journal import Journal
from gan_core.observers import FolderObserver
from gan_core.run import Run
from pipelines import run_folder
from pipelines.run_folder import STOP, RunFolder
from pipelines.train import Watch, _failure, how_to_go_on, unhurried


def config(storage: Path, name: str = "run") -> RunConfig:
    tiny = {"steps": 3, "hidden": 4, "maxout_units": 2, "latent": 2, "extractor": "none"}
    place = {"storage": str(storage), "name": name}
    made = make_config({"variant": "gan", "data": "ring", **place, **tiny})
    made.folder.mkdir(parents=True)
    return made


def test_an_interrupt_before_the_first_iteration_promises_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config(tmp_path)
    Journal(run.folder).close()
    with Watch(run) as watch:
        with pytest.raises(KeyboardInterrupt):
            watch._on_signal(signal.SIGINT, None)
        watch.look()
    said = capsys.readouterr().err
    assert "stopped before the first iteration" in said
    assert "a checkpoint is written" not in said
    assert not (run.folder / STOP).exists()


def test_an_interrupt_of_a_run_that_plays_asks_for_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config(tmp_path)
    with Watch(run) as watch:
        book = Journal(run.folder)
        book.write("start", 0, steps=20)
        watch._on_signal(signal.SIGINT, None)
        assert (run.folder / STOP).exists()
        watch.look()
    said = capsys.readouterr().err
    assert "stopping: a checkpoint is written" in said
    assert "before the first iteration" not in said


def test_an_interrupt_of_a_run_that_has_ended_promises_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config(tmp_path)
    with Watch(run) as watch:
        book = Journal(run.folder)
        book.write("start", 0, steps=20)
        book.write("end", 20, status="finished", summary={})
        watch._on_signal(signal.SIGINT, None)
        watch.look()
    assert "a checkpoint is written" not in capsys.readouterr().err


def test_an_interrupt_while_a_run_is_summed_up_is_answered_and_the_second_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ending.TOGETHER", 0.0)
    run, before = config(tmp_path), signal.getsignal(signal.SIGINT)
    with unhurried(run):
        signal.raise_signal(signal.SIGINT)
        assert "all is played and saved" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before

    def twice() -> None:
        with unhurried(run):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert "the summary is made by: python -m pipelines train --resume run" in (
        capsys.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_that_ended_before_it_saved_anything_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config(tmp_path)
    write_config(run, run.folder / "config.yaml")
    book = Journal(run.folder)
    book.write("start", 0, steps=20)
    book.write("end", 7, status="stopped", summary={})
    book.close()
    half = run.folder / "checkpoints" / "step_00000007"
    half.mkdir(parents=True)  # a copy of which the manifest was not reached
    (half / "state.pt").touch()
    with RunFolder(run) as folder:
        assert folder.open(resume=True) is None
    assert "run run had ended before it saved anything: it begins anew" in capsys.readouterr().out
    (half / MANIFEST).write_text("{}")  # one that was whole once
    with RunFolder(run) as folder, pytest.raises(UserError, match=r"or remove .*run to have"):
        folder.open(resume=True)


def test_a_failure_says_how_to_go_on_and_what_is_lost(tmp_path: Path) -> None:
    from ray.exceptions import ActorDiedError

    run = config(tmp_path)
    told = str(_failure(run, ActorDiedError(), []))
    assert "one of Ray's processes was killed" in told
    assert "unexpectedly" not in told
    assert "go on with" not in told
    world = World()
    made = Run(
        dataclasses.replace(run, workers=0, device="cpu"), world, FolderObserver(run.folder, world)
    )
    made.play()
    told = str(_failure(run, ValueError("wrong"), []))
    assert "ValueError: wrong" in told
    assert told.endswith(f"go on with: python -m pipelines train --resume run --storage {tmp_path}")


def test_a_name_with_a_space_is_quoted_where_the_user_pastes_it(tmp_path: Path) -> None:
    told = how_to_go_on(config(tmp_path, "my run"))
    assert "train --resume 'my run' --storage" in told


@pytest.mark.parametrize("others_played", [False, True])
def test_a_resumption_that_came_to_nothing_leaves_the_configuration(
    tmp_path: Path, others_played: bool
) -> None:
    run = config(tmp_path)
    write_config(run, run.folder / "config.yaml")
    before = (run.folder / "config.yaml").read_text()
    longer = make_config({**run.to_dict(), "options": {**run.options, "steps": 7}})
    with pytest.raises(UserError, match="no more"):  # noqa: PT012, SIM117
        with RunFolder(longer) as folder:
            folder.open(resume=True)
            if others_played:
                folder.keep()
            raise UserError("no more")
    assert ((run.folder / "config.yaml").read_text() == before) is not others_played


def begun(storage: Path, variant: str) -> RunConfig:
    """A run by the defaults of ``variant``, of which there is a configuration."""
    run = make_config({"variant": variant, "storage": str(storage), "name": "mine"})
    run.folder.mkdir(parents=True)
    write_config(run, run.folder / "config.yaml")
    return run


def test_what_another_version_decided_of_options_left_open_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path, "lapgan")
    decided = run.game.decided
    book = Journal(run.folder)
    book.write("start", 0, decided={n: decided[n] for n in ("lr_d", "lr_g")})
    with RunFolder(run) as folder:
        folder.open(resume=True)
        assert capsys.readouterr().out == ""
        book.write("start", 0, decided={"lr_d": 0.02, "lr_g": decided["lr_g"], "gone": 7})
        folder.open(resume=True)
    change = "lr_d: 0.02 -> 0.01, as this version decides (--lr-d 0.02 keeps it)"
    assert capsys.readouterr().out == f"resuming run mine with {change}\n"
    kept = make_config({**run.to_dict(), "options": {**run.options, "lr_d": 0.02}})
    with RunFolder(kept) as folder:
        folder.open(resume=True)
    assert "as this version decides" not in capsys.readouterr().out


def test_what_the_users_options_decide_is_not_put_down_to_the_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path, "gan")
    Journal(run.folder).write("start", 0, decided=run.game.decided)
    other = make_config({**run.to_dict(), "options": {**run.options, "loss": "wasserstein"}})
    assert run.game.decided["gradient_penalty"] != other.game.decided["gradient_penalty"]
    with RunFolder(other) as folder:
        folder.open(resume=True)
    told = capsys.readouterr().out
    assert "gradient_penalty" in told
    assert "as this version decides" not in told


def test_a_configuration_that_cannot_be_written_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(tmp_path)
    write_config(run, run.folder / "config.yaml")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_folder, "write_config", refuse)
    with RunFolder(run) as folder, pytest.raises(UserError, match=r"cannot write to .*denied"):
        folder.open(resume=True)
    assert folder._lock is not None
    assert folder._lock.closed
