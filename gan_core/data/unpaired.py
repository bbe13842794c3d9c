"""Two sets of pictures that do not belong together, for translation without pairs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.folder import Folder
from gan_core.data.kept_pictures import kept_pictures
from gan_core.data.listing import list_pictures, place_of
from gan_core.data.pairs import match_names, pair_spec, read_together, two_folders
from gan_core.data.pictures import PictureFormat
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

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_OWN = "input"  # the series of the inputs, which have a length and an order of their own


@register("unpaired")
class Unpaired(Folder):
    """Two sets of pictures, inputs and images, that do not belong together.

    Either two folders below the root, ``--input-folder`` and ``--target-folder``, each laid out as
    for the source folder; or, without these two, the layout of CycleGAN's data sets: ``trainA``
    and ``trainB``, with ``testA`` and ``testB`` (and ``valA`` and ``valB``) or without. The inputs
    are those of A, or of B with ``--direction BtoA``. Classes play no part.

    With ``--truth`` the two folders hold the same names, so that translations can be compared with
    the truth. Then the pictures of validation and test come in pairs, and those of train do not: a
    hash of the name gives each name's input or its image to train, never both.

    The options of folder are for both sets alike.
    """

    summary: ClassVar[str] = "two sets of pictures that do not belong together, in two folders"

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
        direction: Annotated[
            Literal["AtoB", "BtoA"], "which of trainA and trainB are the inputs: the first named"
        ] = "AtoB",
        truth: Annotated[
            bool, "the folders hold the same names: validation and test in pairs, with the truth"
        ] = False,
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
        self.direction, self.truth = direction, truth
        if truth and input_folder is None and target_folder is None:
            raise UserError("--truth needs --input-folder and --target-folder, of the same names")

    @property
    def read_whole(self) -> Path | None:
        return None  # but for folders that are named

    @functools.cached_property
    def _paths(self) -> dict[str, Mapping[Split, Sequence[str]]]:
        """The files of "input" and "image" in each split."""
        if self.truth:
            return self._with_truth()
        if self.input_folder is None and self.target_folder is None:
            return self._lettered()
        inputs, images = two_folders(self.root, self.input_folder, self.target_folder)
        return {"input": _files(inputs), "image": _files(images)}

    def _lettered(self) -> dict[str, Mapping[Split, Sequence[str]]]:
        assert self.root is not None, "the root is checked before a source is made"
        found: dict[str, Mapping[Split, Sequence[str]]] = {}
        for name, letter in zip(("input", "image"), self.direction.split("to"), strict=True):
            places = {"train": "train", "validation": "val", "test": "test"}
            folders = {s: self.root / f"{place}{letter}" for s, place in places.items()}
            present = {split: folder for split, folder in folders.items() if folder.is_dir()}
            if "train" not in present:
                raise UserError(
                    f"there is no folder {folders['train']}: add it, or name two folders with "
                    "--input-folder and --target-folder"
                )
            found[name] = _files(self.root, present)
        return found

    def _with_truth(self) -> dict[str, Mapping[Split, Sequence[str]]]:
        inputs, images = two_folders(self.root, self.input_folder, self.target_folder)
        pairs = match_names(inputs, images, skip=self.skip_bad)
        found: dict[str, dict[Split, list[str]]] = {
            name: {s: [getattr(p, name) for p in pairs[s]] for s in _SPLITS}
            for name in ("input", "image")
        }
        given = [place_of(f"input/{pair.name}") < 0.5 for pair in pairs["train"]]
        for name, wanted in (("input", True), ("image", False)):
            whole = found[name]["train"]
            found[name]["train"] = [p for p, own in zip(whole, given, strict=True) if own == wanted]
            if not found[name]["train"]:
                raise UserError(f"{inputs} holds too few pictures to be shared out: add some")
        return dict(found)

    @functools.cached_property
    def _format(self) -> tuple[PictureFormat, tuple[int, int, int]]:
        paths = [path for splits in self._paths.values() for s in _SPLITS for path in splits[s]]
        return self.format_of(paths)

    def load(self, split: Split) -> Examples:
        form, shape = self._format
        skip, paired = self.skip_bad, self.truth and split != "train"
        folder = self.picture_cache
        paths = {name: splits[split] for name, splits in self._paths.items()}
        if paired:
            tensors = read_together(paths, dict.fromkeys(paths, form), shape, skip, folder)
        else:
            tensors = {n: kept_pictures(p, form, shape, skip, folder)[0] for n, p in paths.items()}
        for name, pictures in tensors.items():
            if not len(pictures):
                raise UserError(f"none of the {split} files of '{name}' can be used")
        if self.truth:
            tensors["paired"] = torch.full((len(tensors["image"]),), int(paired))
        return Examples(tensors, self._spec(shape), "unpaired", split)

    def _spec(self, shape: tuple[int, int, int]) -> DataSpec:
        """With ``truth``, ``paired`` is 1 where input and image of a position belong together."""
        spec = pair_spec(shape, series=_OWN)
        if not self.truth:
            return spec
        return DataSpec({**spec.tensors, "paired": TensorSpec((), classes=2)})


def _files(root: Path, folders: Mapping[str, Path] | None = None) -> Mapping[Split, Sequence[str]]:
    """The files of each split in ``root``, or in ``folders`` by split."""
    splits = list_pictures(root, folders).splits
    return {split: [picture.path for picture in splits[split]] for split in _SPLITS}
