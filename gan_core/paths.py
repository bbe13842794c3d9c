"""Folders and files as users write them."""

from __future__ import annotations

from pathlib import Path

from gan_core.errors import UserError


def user_path(text: str | Path, what: str = "") -> Path:
    """The path that ``text`` means, with ``~`` and ``~name`` as the home folder.

    ``what``: the option that it is of. Raises ``UserError`` for an empty text, which would mean the
    current folder and comes of a shell's variable that is not set, and for a user that is not here.
    """
    said = f"{what} " if what else ""
    if not str(text):
        raise UserError(f"{said or 'a path '}is empty: give a path, or . for the current folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{said}{text}: there is no such user, write the folder out") from None


def exists(path: Path) -> bool:
    """Whether there is a file or folder ``path``; not where its name is longer than any may be.

    Raises ``UserError`` for one that may not be looked at.
    """
    try:
        return path.exists()
    except PermissionError as problem:
        raise UserError(f"cannot look at {path}: {problem.strerror}") from None
    except OSError:
        return False
