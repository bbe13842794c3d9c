"""The one exception that means: the user can fix this, and here is how."""

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
