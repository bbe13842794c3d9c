"""One's own pictures: a folder of them, in class folders or not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import ClassVar

import torch

from gan_core.data.examples import Examples, Split
from gan_core.data.kept_pictures import kept_pictures
from gan_core.data.listing import Listing, list_pictures
from gan_core.data.picture_source import PictureSource
from gan_core.data.pictures import PictureFormat
from gan_core.data.source_options import AllowUpscale, Channels, ImageSize, OnBadFile, PictureCache
from gan_core.data.sources import picture_spec, register
from gan_core.errors import UserError


@register("folder")
class Folder(PictureSource):
    """Pictures (png, jpg, bmp, webp, gif, tif, avif) in a folder.

    Layouts: ``root/*.png``; ``root/<class>/*``; ``root/train/...`` with ``root/test/...`` and
    ``root/validation/...`` (or ``valid``, ``val``; in capitals or not), each with the same class
    folders or none. Class names, sorted, are the labels. Where there is no test or validation
    folder, a hash of the relative file name puts about 10 % of each class's training pictures
    there, and at least one: the same ones on every machine, whatever else is added.

    Transparency is laid over white, the camera's orientation (EXIF) is honoured.
    """

    summary: ClassVar[str] = "your own pictures in a folder, in class folders or not"

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
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

    @property
    def read_whole(self) -> Path | None:
        return self.root

    @functools.cached_property
    def _listing(self) -> Listing:
        if self.root is None:
            raise UserError("--data folder needs --data-root: the folder of pictures")
        return list_pictures(self.root)

    @functools.cached_property
    def _format(self) -> tuple[PictureFormat, tuple[int, int, int]]:
        return self.format_of(self._listing.paths)

    def load(self, split: Split) -> Examples:
        pictures = self._listing.splits[split]
        form, shape = self._format
        paths = [picture.path for picture in pictures]
        images, kept = kept_pictures(paths, form, shape, self.skip_bad, self.picture_cache)
        if not kept:
            raise UserError(f"none of the {len(paths)} {split} files in {self.root} can be used")
        tensors = {"image": images}
        names = self._listing.class_names
        if names:
            tensors["label"] = torch.tensor([pictures[i].label for i in kept], dtype=torch.int64)
        return Examples(tensors, picture_spec(shape, names), "folder", split)
