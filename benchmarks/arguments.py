"""Kinds of arguments that benchmarks take: what is wrong is one line before anything is played."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection

from gan_core.errors import unknown_word


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not '{text}'")
    return int(text)


def names_among(kind: str, known: Collection[str]) -> Callable[[str], str]:
    """Names with commas between them, each of those ``known``; ``kind``: what they are of."""

    def read(text: str) -> str:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(str(unknown_word(kind, name, known)))
        return text

    return read
