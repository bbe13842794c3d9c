"""The one exception that means: the user can fix this, and here is how; and errors in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong input from the user, told in one line that says what to do.

    The command line prints it to stderr and exits with code 2; from Python it is a
    ``ValueError``. Raise it before any compute is spent.
    """


def unknown_word(kind: str, word: str, known: Iterable[str]) -> UserError:
    """The error for a word that is not among the ``known``, naming the nearest right one."""
    names = sorted(known)
    nearest = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"choose from: {', '.join(names)}"
    return UserError(f"unknown {kind} '{word}': {hint}")


def first_line(error: BaseException) -> str:
    """The first line of what ``error`` says; the name of its type if it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def named_line(error: BaseException) -> str:
    """:func:`first_line` behind the name of the error's type."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
