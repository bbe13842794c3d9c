"""Errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gan_core.engine.checkpoint import BrokenCheckpoint, read_shared, write_shared
from gan_core.errors import first_line, named_line


@pytest.mark.parametrize(
    ("error", "line", "named"),
    [
        (ValueError("one"), "one", "ValueError: one"),
        (ValueError("\n\n  one \ntwo"), "one", "ValueError: one"),
        (RuntimeError(), "RuntimeError", "RuntimeError"),
        (OSError(" \n "), "OSError", "OSError"),
        (KeyError("name"), "'name'", "KeyError: 'name'"),
    ],
)
def test_an_error_is_told_by_its_first_line_or_its_name(
    error: Exception, line: str, named: str
) -> None:
    assert (first_line(error), named_line(error)) == (line, named)


def test_a_checkpoint_that_fails_without_a_word_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shared(tmp_path, {}, {"step": 1, "world_size": 0, "config": {}, "data": ""})

    def fails(*words: object, **options: object) -> None:
        raise EOFError

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(BrokenCheckpoint, match="cannot be read: EOFError"):
        read_shared(tmp_path, torch.device("cpu"))
