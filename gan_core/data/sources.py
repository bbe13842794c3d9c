"""The registry of data sources: what a GAN can learn from.

A source is a class with a one-line ``summary``; it finds its files below ``root`` and hands out
:class:`~gan_core.data.examples.Examples` for each split. ``register`` enters one's own.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from gan_core.data.examples import Examples, Split
from gan_core.registry import Registry


class Source(abc.ABC):
    """Something to learn from.

    ``root`` is the folder that holds the files (``None``: the source needs none, or its default).
    Every source defines train, validation and test; the same call gives the same examples
    anywhere, at any time. ``load`` raises :class:`gan_core.UserError`, naming the file and what
    to do, for anything wrong with the data.
    """

    summary: ClassVar[str] = ""
    needs_root: ClassVar[bool] = True

    def __init__(self, root: Path | None = None, *, on_bad_file: str = "error") -> None:
        self.root = root
        self.on_bad_file = on_bad_file

    @abc.abstractmethod
    def load(self, split: Split) -> Examples:
        """The examples of one split."""


SOURCES: Registry[type[Source]] = Registry("data source")
register = SOURCES.register
