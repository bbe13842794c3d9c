"""Pairs of pictures, an input and what it is to become: in two folders, or side by side."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.folder import Folder
from gan_core.data.kept_pictures import kept_pictures
from gan_core.data.listing import Picture, list_pictures
from gan_core.data.pictures import BadPicture, Half, PictureFormat, size_of
from gan_core.data.source_options import (
    AllowUpscale,
    Channels,
    ImageSize,
    InputFolder,
    OnBadFile,
    PictureCache,
    TargetFolder,
)
from gan_core.data.sources import register
from gan_core.errors import UserError
from gan_core.paths import exists

logger = logging.getLogger(__name__)
_NAMED = 3  # missing names in an error
_COMPARED = 1000  # pairs whose shapes are: 0.1 ms each
_ALIKE = 0.01  # proportions, beside the pixel by which a picture that was made smaller is rounded


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of one example; the same file twice where it holds both side by side."""

    name: str
    input: str
    image: str


def folder_below(root: Path | None, name: str | None, option: str) -> Path:
    """The folder ``name`` in ``root``; ``UserError`` naming ``option`` if there is none."""
    if root is None or name is None:
        raise UserError(f"{option} is missing: give the name of a folder below --data-root")
    if not exists(root / name) or not (root / name).is_dir():
        raise UserError(f"{option} {name}: there is no folder {root / name}")
    return root / name


def two_folders(root: Path | None, inputs: str | None, images: str | None) -> tuple[Path, Path]:
    """The folders of inputs and of images in ``root``; ``UserError`` if one lacks, or both are one:
    then every translation would be its input.
    """
    found = (
        folder_below(root, inputs, "--input-folder"),
        folder_below(root, images, "--target-folder"),
    )
    if found[0].samefile(found[1]):
        raise UserError(
            f"--input-folder {inputs} and --target-folder {images} are one folder: name two"
        )
    return found


def by_stem(pictures: Sequence[Picture]) -> dict[str, Picture]:
    """Pictures by their names without the ending; ``UserError`` where two share one."""
    found: dict[str, Picture] = {}
    for picture in pictures:
        stem = str(PurePosixPath(picture.name).with_suffix(""))
        if stem in found:
            raise UserError(
                f"{found[stem].path} and {picture.path} have one name but for the ending: "
                "remove one of them"
            )
        found[stem] = picture
    return found


def match_names(inputs: Path, images: Path, *, skip: bool) -> Mapping[Split, Sequence[Pair]]:
    """The pairs of two folders by name (the ending may differ), split as ``inputs`` is.

    Raises ``UserError`` naming pictures without a namesake, which with ``skip`` are left out,
    counted and logged, and for pairs of two shapes.
    """
    listed = {folder: list_pictures(folder).splits for folder in (inputs, images)}
    stems = {
        folder: by_stem([p for pictures in splits.values() for p in pictures])
        for folder, splits in listed.items()
    }
    for one, other in ((inputs, images), (images, inputs)):
        lonely = sorted(stems[one].keys() - stems[other].keys())
        if lonely:
            _tell_lonely(lonely, one, other, skip)
    pairs: dict[Split, Sequence[Pair]] = {}
    for split in ("train", "validation", "test"):
        own = by_stem(listed[inputs][split])
        shared = [stem for stem in own if stem in stems[images]]
        pairs[split] = [Pair(s, own[s].path, stems[images][s].path) for s in shared]
        if not shared:
            raise UserError(f"{inputs} and {images} have no pair for the {split} split: add some")
    check_shapes([pair for own in pairs.values() for pair in own], skip)
    return pairs


def check_shapes(pairs: Sequence[Pair], skip_bad: bool) -> None:
    """Raises ``UserError`` for a pair of two shapes: each picture is cropped to its own central
    square, so that the two would show different things. Of many pairs some are looked at.
    """
    for pair in pairs[:: max(1, -(-len(pairs) // _COMPARED))]:
        try:
            one, other = size_of(pair.input), size_of(pair.image)
        except BadPicture:
            if not skip_bad:
                raise
            continue
        rounding = 1 / min(*one, *other)
        if abs(one[0] * other[1] / (one[1] * other[0]) - 1) > _ALIKE + rounding:
            raise UserError(
                f"{pair.input} has {one[0]} x {one[1]} pixels and {pair.image} "
                f"{other[0]} x {other[1]}, another shape, so their central squares would not "
                "match: crop the pictures of a pair alike"
            )


def _tell_lonely(lonely: list[str], one: Path, other: Path, skip: bool) -> None:
    """Raise, or with ``skip`` log, that ``other`` lacks the pictures ``lonely`` of ``one``."""
    more = ", ..." if len(lonely) > _NAMED else ""
    names = ", ".join(lonely[:_NAMED]) + more
    verb = "picture has" if len(lonely) == 1 else "pictures have"
    text = f"{len(lonely)} {verb} no namesake in {other}: {names} of {one}"
    if not skip:
        raise UserError(f"{text}; add them, remove these, or pass --on-bad-file skip")
    logger.warning("skipped what is no pair: %s", text)


def pair_spec(shape: tuple[int, int, int], series: str = "") -> DataSpec:
    """``input`` and ``image`` of one ``shape``; ``series`` of the input where it has its own."""
    return DataSpec(
        {
            "image": TensorSpec(shape, -1.0, 1.0),
            "input": TensorSpec(shape, -1.0, 1.0, series=series),
        }
    )


@register("pairs")
class Pairs(Folder):
    """Pairs of pictures: an input, and the image that it is to become.

    Either two folders below the root, ``--input-folder`` and ``--target-folder``, each laid out as
    for the source folder, with pictures of the same names (the ending may differ); or, without
    these two, files that hold both as squares side by side, laid out as for folder, of which
    ``--input-side`` is the input. Classes play no part.

    The options of folder are for inputs and images alike; the two of a pair have one shape, if not
    one size. A picture without a namesake is an error, or with ``--on-bad-file skip`` left out.
    """

    summary: ClassVar[str] = "pairs of pictures: two folders with the same names, or side by side"

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
        image_size: ImageSize = None,
        channels: Channels = None,
        allow_upscale: AllowUpscale = False,
        picture_cache: PictureCache = None,
        input_folder: InputFolder = None,
        target_folder: TargetFolder = None,
        input_side: Annotated[
            Literal["left", "right"], "the half that is the input, in files that hold both"
        ] = "left",
    ) -> None:
        super().__init__(
            root,
            on_bad_file=on_bad_file,
            image_size=image_size,
            channels=channels,
            allow_upscale=allow_upscale,
            picture_cache=picture_cache,
        )
        self.input_folder, self.target_folder = input_folder, target_folder
        self.input_side: Half = input_side

    @property
    def read_whole(self) -> Path | None:
        return self.root if self._side_by_side else None

    @property
    def _side_by_side(self) -> bool:
        return self.input_folder is None and self.target_folder is None

    @functools.cached_property
    def _pairs(self) -> Mapping[Split, Sequence[Pair]]:
        if not self._side_by_side:
            inputs, images = two_folders(self.root, self.input_folder, self.target_folder)
            return match_names(inputs, images, skip=self.skip_bad)
        splits = self._listing.splits
        return {
            split: [Pair(p.name, p.path, p.path) for p in splits[split]]
            for split in ("train", "validation", "test")
        }

    @functools.cached_property
    def _format(self) -> tuple[PictureFormat, tuple[int, int, int]]:
        paths = [p for pairs in self._pairs.values() for pair in pairs for p in _files(pair)]
        return self.format_of(paths, self.input_side if self._side_by_side else None)

    def load(self, split: Split) -> Examples:
        pairs, (form, shape) = self._pairs[split], self._format
        forms = {"input": form, "image": form}
        if self._side_by_side:
            other: Half = "right" if self.input_side == "left" else "left"
            forms["image"] = dataclasses.replace(form, half=other)
        paths = {name: [getattr(pair, name) for pair in pairs] for name in forms}
        tensors = read_together(paths, forms, shape, self.skip_bad, self.picture_cache)
        if not len(tensors["image"]):
            raise UserError(f"none of the {len(pairs)} {split} pairs in {self.root} can be used")
        return Examples(tensors, pair_spec(shape), "pairs", split)


def _files(pair: Pair) -> tuple[str, ...]:
    return (pair.input,) if pair.input == pair.image else (pair.input, pair.image)


def read_together(
    paths: Mapping[str, Sequence[str]],
    forms: Mapping[str, PictureFormat],
    shape: tuple[int, int, int],
    skip_bad: bool,
    folder: Path | None,
) -> dict[str, Tensor]:
    """Pictures uint8 (M, *shape) by name, of the positions at which all names' can be read.

    Kept in ``folder`` where there is one.
    """
    read = {
        name: kept_pictures(paths[name], forms[name], shape, skip_bad, folder) for name in paths
    }
    shared = set.intersection(*(set(kept) for _, kept in read.values()))
    tensors = {}
    for name, (pictures, kept) in read.items():
        chosen = [place for place, position in enumerate(kept) if position in shared]
        places = torch.tensor(chosen, dtype=torch.int64)
        tensors[name] = pictures if len(chosen) == len(kept) else pictures[places]
    return tensors
