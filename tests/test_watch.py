"""What the one who looks on says to a user who interrupts."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gan_core.config import RunConfig, make_config
from gan_core.journal import Journal
from pipelines.run_folder import STOP
from pipelines.train import Watch, how_to_go_on


def config(storage: Path, name: str = "run") -> RunConfig:
    made = make_config({"variant": "gan", "data": "ring", "storage": str(storage), "name": name})
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
    assert "stopped before the first iteration: nothing has been played" in said
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
    assert "nothing has been played" not in said


def test_a_name_with_a_space_is_quoted_where_the_user_pastes_it(tmp_path: Path) -> None:
    told = how_to_go_on(config(tmp_path, "my run"))
    assert "train --resume 'my run' --storage" in told
