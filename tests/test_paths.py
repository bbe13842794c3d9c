"""Paths as users write them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gan_core.errors import UserError
from gan_core.paths import exists, user_path


def test_home_is_expanded_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a b=ü") == tmp_path / "a b=ü"
    assert user_path("a/~/b") == Path("a/~/b")
    assert user_path(".") == Path()


def test_what_means_no_path_is_told_with_its_option() -> None:
    with pytest.raises(UserError, match=r"^--storage is empty: give a path, or \. for the current"):
        user_path("", "--storage")
    with pytest.raises(UserError, match=r"^~nobody-at-all/x: there is no such user"):
        user_path("~nobody-at-all/x")


def test_what_may_not_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert exists(tmp_path)
    assert not exists(tmp_path / "nothing")
    assert not exists(tmp_path / ("x" * 300))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(UserError, match=r"^cannot look at .*: Permission denied$"):
        exists(tmp_path)
