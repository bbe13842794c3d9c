"""The registry of data sources: what a GAN can learn from.

A source is a class with a one-line ``summary``; it finds its files below ``root`` and hands out
:class:`~gan_core.data.examples.Examples` for each split. ``register`` enters one's own; its
options are the keyword-only arguments of its constructor, annotated and with defaults; what
``--help`` says of one is the text of ``Annotated[TYPE, "text"]``.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.source_options import ON_BAD_FILE, Download, OnBadFile
from gan_core.errors import unknown_word
from gan_core.registry import Registry


class Source(abc.ABC):
    """Something to learn from.

    ``root`` is the folder that holds the files (``None``: the source needs none, or its default).
    ``on_bad_file`` says what a picture that cannot be read gets: an error, or a counted and
    logged skip. Every source defines train, validation and test; the same call gives the same
    examples anywhere, at any time. ``load`` raises :class:`gan_core.UserError`, naming the file
    and what to do, for anything wrong with the data.
    """

    summary: ClassVar[str] = ""
    needs_root: ClassVar[bool] = True

    def __init__(self, root: Path | None = None, *, on_bad_file: OnBadFile = "error") -> None:
        if on_bad_file not in ON_BAD_FILE:
            raise unknown_word("--on-bad-file", on_bad_file, ON_BAD_FILE)
        self.root = root
        self.on_bad_file = on_bad_file

    @property
    def read_whole(self) -> Path | None:
        """The folder whose folders are all read, as classes or splits, if there is one: runs that
        lay in it would become a class of it.
        """
        return None

    @abc.abstractmethod
    def load(self, split: Split) -> Examples:
        """The examples of "train", "validation" or "test".

        Their concatenation "train+validation" is made by :func:`gan_core.data.load_examples`.
        """


class PublishedSource(Source):
    """A source whose files have publishers: with ``download`` they are fetched if they lack."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
        download: Download = False,
    ) -> None:
        super().__init__(root, on_bad_file=on_bad_file)
        self.download = download


SOURCES: Registry[type[Source]] = Registry("data source")
register = SOURCES.register


def picture_spec(shape: tuple[int, int, int], class_names: tuple[str, ...] = ()) -> DataSpec:
    """Pictures of ``shape`` (channels, rows, columns), with labels if there are class names."""
    tensors = {"image": TensorSpec(shape, -1.0, 1.0)}
    if class_names:
        tensors["label"] = TensorSpec((), classes=len(class_names))
    return DataSpec(tensors, "image", class_names)
