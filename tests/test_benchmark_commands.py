"""What the benchmarks' commands say to wrong input: one line, before any compute is spent."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.settings import read_settings
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code

REPOSITORY = Path(__file__).parents[1]
COMMANDS = sorted(
    path.stem
    for path in (REPOSITORY / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
NOWHERE = {
    "cifar": ["--data-root", "nowhere", "--extractors", "classifier"],
    "dcgan_features": ["--data-root", "nowhere"],
    "evaluation": ["--data", "mnist", "--data-root", "nowhere"],
    "lapgan": ["--data-root", "nowhere", "--extractor-weights", "weights"],
    "melodies": ["--data-root", "nowhere"],
    "mnist": ["--data-root", "nowhere"],
    "picture_folder": ["nowhere"],
    "picture_tags": ["--data-root", "nowhere"],
    "planted_failures": ["--mnist", "nowhere"],
    "remedies": ["--mnist", "nowhere"],
    "small": ["--data-root", "nowhere"],
    "speed": ["--data", "mnist", "--data-root", "nowhere"],
    "stackgan": ["nowhere"],
    "super_resolution": [
        *("--train", "here", "--extractor-weights", "weights"),
        *("--set5", "nowhere", "--set14", "here"),
    ],
    "translation": ["--data-root", "nowhere", "--extractor-weights", "weights"],
}
"""Commands that read a folder, given one that does not exist."""
OWN_DATA = {"diagnosis_cost", "on_a_gpu", "overhead", "search", "sensitivity", "startup"}


def test_every_command_is_looked_at() -> None:
    assert set(COMMANDS) == set(NOWHERE) | OWN_DATA


@pytest.mark.parametrize("name", list(NOWHERE))
def test_a_folder_that_is_not_there_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *NOWHERE[name]])
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is started
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    command = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(command, "create_extractor", lambda *given, **named: None, raising=False)
    with pytest.raises(UserError, match="nowhere"):
        command.main()


@pytest.mark.parametrize("name", ["cifar", "lapgan", "translation"])
def test_weights_that_are_not_there_are_missed_before_anything_is_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data-root", "nowhere", "--extractor-weights", "none.pth"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *words])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    with pytest.raises(UserError, match=r"none\.pth"):
        importlib.import_module(f"benchmarks.{name}").main()


def test_a_wrong_number_of_steps_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["remedies", "--set", "steps=abc"])
    with pytest.raises(UserError, match="steps must be a whole number"):
        importlib.import_module("benchmarks.remedies").main()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_by_its_exit_code(name: str) -> None:
    text = (REPOSITORY / "benchmarks" / f"{name}.py").read_text()
    assert text.endswith('if __name__ == "__main__":\n    sys.exit(exit_code(main))\n')


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stackgan", str(tmp_path / "no-run")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: no generator at {tmp_path / 'no-run'}")
    assert done.stderr.count("\n") == 1


def test_settings() -> None:
    assert read_settings(["steps=500", "lr-d=1e-3", "prior=a=b"]) == {
        "steps": "500",
        "lr_d": "1e-3",
        "prior": "a=b",
    }
    assert read_settings(None) == {}
    for wrong in ("steps", "=3"):
        with pytest.raises(UserError, match=f"--set takes name=value, not '{wrong}'"):
            read_settings([wrong])


def _raising(problem: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise problem

    return command


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 1) == 1
    assert exit_code(_raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""
    assert exit_code(_raising(UserError("no\n  folder"))) == 2
    assert capsys.readouterr().err == "error: no folder\n"
    with pytest.raises(ZeroDivisionError):
        exit_code(_raising(ZeroDivisionError()))
    with pytest.raises(SystemExit, match="a run failed"):
        exit_code(_raising(SystemExit("a run failed")))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("speed --rounds 0", "--rounds: must be a whole number from 1 on, not '0'"),
        ("speed --threads -1", "--threads: must be a whole number from 1 on"),
        ("startup --starts none", "--starts: must be a whole number from 1 on, not 'none'"),
        ("sensitivity --variants gna", "unknown system 'gna': did you mean 'gan'?"),
        ("remedies --data rnig", "unknown source 'rnig': did you mean 'ring'?"),
        ("remedies --data stacked-mnist", "--data stacked-mnist needs --mnist"),
        ("small --data-root here --seconds 5", "--seconds must be more than 5"),
    ],
)
def test_words_that_mean_nothing_are_refused_as_they_are_read(
    command: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{command.split(maxsplit=1)[0]}").main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
