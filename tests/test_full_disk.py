"""A full disk is known by what it makes others raise, and ends a search in one line."""

from __future__ import annotations

import errno
import io
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import torch
from ray.exceptions import OutOfMemoryError
from ray.tune import TuneError
from safetensors import SafetensorError
from test_tuning import make_study

from gan_core.config import make_config
from gan_core.errors import UserError
from pipelines.full_disk import DiskFull, full_disk, line_of_a_full_disk
from pipelines.run_folder import TRACE
from pipelines.train import RunFailed, explained
from pipelines.tune import _ended_in_one_line

FULL = "No space left on device"
WEIGHTS = {"weight": torch.zeros(4096)}


class FullFile(io.RawIOBase):
    """A file on a disk that has filled up."""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, FULL)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block no file of this process grows beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def name_the_file() -> None:
    raise OSError(errno.ENOSPC, FULL, "/data/runs/first")


def say_it_as_safetensors_does() -> None:
    raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")


def break_the_quota() -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (name_the_file, f"{FULL}: /data/runs/first"),
        (break_the_quota, "[Errno 122] Disk quota exceeded"),
        (lambda: torch.save(WEIGHTS, FullFile()), f"[Errno 28] {FULL}"),
        (say_it_as_safetensors_does, FULL),
    ],
)
def test_whatever_writes_to_a_full_disk_is_known_by_its_error(
    write: Callable[[], None], told: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each raises what it likes
        write()
    line = full_disk(caught.value)
    assert line is not None
    assert told in line
    assert "\n" not in line


def test_a_file_that_torch_cannot_write_is_known_though_it_says_not_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught, largest_file(4096):
        torch.save(WEIGHTS, tmp_path / "state.pt")
    assert "iostream error" in str(full_disk(caught.value))


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), ValueError("full"), KeyError(28)]
)
def test_other_errors_are_not(error: Exception) -> None:
    assert full_disk(error) is None


def test_an_error_that_hides_itself_has_an_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert full_disk(one) is None


class Told:
    """A family of runs in MLflow that notes how it is ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def is_alive(self) -> bool:
        return not self.ends

    def end(self, status: str, timeout: float) -> None:
        self.ends.append(status)


def raise_as_tune_does(error: Exception) -> None:
    """Ray raises what is no error of a trial so, and the search so again."""
    try:
        raise RuntimeError(f"Caught unexpected exception: {error}") from error
    except RuntimeError as caught:
        raise TuneError("the search has failed") from caught


def test_a_search_is_ended_in_a_line_that_says_how_it_goes_on(tmp_path: Path) -> None:
    def told_as_tune_does() -> None:
        try:
            raise DiskFull(f"trial_0001: {FULL}")
        except DiskFull:
            raise RuntimeError("Traceback (most recent call last): ...")  # noqa: B904

    family: Any = Told()
    study = make_study(tmp_path)
    with pytest.raises(RunFailed) as failed, _ended_in_one_line(study, family):
        told_as_tune_does()
    line = str(failed.value)
    assert f"search search has stopped for a full disk (trial_0001: {FULL}): make room" in line
    assert line.endswith(
        f"go on with: python -m pipelines tune --resume search --storage {tmp_path}"
    )
    assert family.ends == ["stopped"]
    family = Told()
    with pytest.raises(RunFailed) as failed, _ended_in_one_line(study, family):
        raise_as_tune_does(OutOfMemoryError("2 workers were killed"))
    assert "search search has stopped for full memory, for which Ray has" in str(failed.value)
    assert "tune --resume search" in str(failed.value)
    assert "\n" not in str(failed.value)
    with pytest.raises(ZeroDivisionError), _ended_in_one_line(study, family):
        1 / 0  # noqa: B018


def test_a_run_says_it_where_the_last_error_does_not(tmp_path: Path) -> None:
    def save() -> dict[str, Any]:
        try:
            raise RuntimeError("basic_ios::clear: iostream error")
        finally:  # as torch.save closes the file
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    config = make_config({"variant": "gan", "storage": str(tmp_path), "name": "first"})
    with pytest.raises(RunFailed) as failed:
        explained(config, save)
    assert str(failed.value) == (
        "run first failed: a disk is full (basic_ios::clear: iostream error): make room in "
        f"{tmp_path} and in {gettempdir()} (the whole trace: {tmp_path / 'first' / TRACE})"
    )


def test_what_others_say_of_it_is_told_apart() -> None:
    text = f"Trial controller checkpointing failed:\n [Errno 28] {FULL} \n"
    assert line_of_a_full_disk(text) == f"[Errno 28] {FULL}"
    assert line_of_a_full_disk("Trials did not complete") is None


def test_a_search_that_cannot_be_written_down_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    monkeypatch.setattr(Path, "write_text", lambda *_: name_the_file())
    with pytest.raises(UserError, match=rf"cannot write .*config.yaml \({FULL}\): use --storage"):
        study.save()
    assert not list(study.folder.iterdir())


def test_workers_whose_disk_is_full_are_not_started_again() -> None:
    from pipelines.refusal import RefusalEndsTraining

    callback: Any = RefusalEndsTraining()
    callback.after_exception(None, {0: RuntimeError("something else")})
    for error in (UserError("wrong"), OSError(errno.ENOSPC, FULL)):
        with pytest.raises(type(error)):
            callback.after_exception(None, {0: RuntimeError("something else"), 1: error})
