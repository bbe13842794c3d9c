"""A full disk: known by the errors that come of it."""

from __future__ import annotations

import errno
import os
import tempfile

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_SAYINGS = (
    *map(os.strerror, _NUMBERS),  # also of errors that are not Python's own: safetensors, Ray
    "iostream error",  # all that torch.save says where its file cannot be written
)


class DiskFull(RuntimeError):
    """A disk is full; one line that says who has met it."""


def full_disk(error: BaseException) -> str | None:
    """What ``error`` says of a full disk that it came of, in one line; ``None`` if of none."""
    return next(filter(None, map(_told, reversed(causes(error)))), None)


def causes(error: BaseException) -> list[BaseException]:
    """``error``, what it came of, what that came of, and so on."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return seen


def _told(error: BaseException) -> str | None:
    if isinstance(error, DiskFull):
        return str(error)
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return f"{os.strerror(error.errno)}: {error.filename}" if error.filename else str(error)
    return line_of_a_full_disk(str(error))


def line_of_a_full_disk(text: str) -> str | None:
    """The line of ``text`` that tells of a full disk; ``None`` if none does."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if any(said in line for said in _SAYINGS)), None)


def how_to_make_room(storage: str) -> str:
    """What the user of ``storage`` can do; checkpoints are written to the temporary folder too."""
    return f"make room in {storage} and in {tempfile.gettempdir()}"
