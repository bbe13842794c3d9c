"""Large pictures of any sizes, as square tiles of one size: what crops are taken from."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from gan_core.data.examples import Examples, Split
from gan_core.data.listing import Listing, list_pictures
from gan_core.data.pictures import SKIP, BadPicture, PictureFormat, count_workers, tell_skipped
from gan_core.data.source_options import OnBadFile
from gan_core.data.sources import Source, picture_spec, register
from gan_core.errors import UserError


def tile_starts(length: int, tile: int) -> list[int]:
    """Where tiles begin along a side of ``length`` pixels: as few as cover it, evenly spread."""
    count = math.ceil(length / tile)
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


def tiles_of(picture: npt.NDArray[np.uint8], tile: int) -> npt.NDArray[np.uint8]:
    """The tiles (M, C, ``tile``, ``tile``) that cover ``picture`` (C, H, W), row by row.

    They overlap where the sides are no multiples of ``tile``.
    """
    _, rows, columns = picture.shape
    return np.stack(
        [
            picture[:, top : top + tile, left : left + tile]
            for top in tile_starts(rows, tile)
            for left in tile_starts(columns, tile)
        ]
    )


@register("hires")
class Hires(Source):
    """Large pictures (png, jpg, bmp, webp, gif, tif, avif) of any sizes in a folder.

    Layouts and splits as those of ``folder``: ``root/*.png``, or ``root/train/``, with
    ``root/validation/`` and ``root/test/`` or without (then a hash of the file name puts about
    10 % of the pictures into each; whole pictures, so that no part of one is seen in training).

    Every picture is cut into the fewest squares of ``tile`` pixels a side that cover it, which
    are the examples: 40 photographs of a megapixel are about 1,200 tiles of 192 and take 130 MB on
    the device, so that a batch of random crops is a gather. A picture smaller than a tile is
    refused (with ``--on-bad-file skip``: left out).
    """

    summary: ClassVar[str] = "large pictures of any sizes in a folder, as tiles to crop from"

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
        tile: Annotated[int, "pixels a side of the squares that pictures are cut into"] = 192,
        channels: Annotated[int, "1 gray, 3 colour"] = 3,
    ) -> None:
        super().__init__(root, on_bad_file=on_bad_file)
        if tile < 1:
            raise UserError(f"--tile must be at least 1, not {tile}")
        if channels not in (1, 3):
            raise UserError(f"--channels must be 1 (gray) or 3 (colour), not {channels}")
        self.tile = tile
        self.form = PictureFormat(channels)

    @property
    def read_whole(self) -> Path | None:
        return self.root

    @functools.cached_property
    def _listing(self) -> Listing:
        if self.root is None:
            raise UserError("--data hires needs --data-root: the folder of pictures")
        return list_pictures(self.root)

    def load(self, split: Split) -> Examples:
        paths = [picture.path for picture in self._listing.splits[split]]
        with ThreadPoolExecutor(count_workers(paths)) as pool:
            found = list(pool.map(self._read, paths))
        tiles = [tiles for tiles in found if isinstance(tiles, np.ndarray)]
        bad = [problem for problem in found if isinstance(problem, BadPicture)]
        tell_skipped(len(bad), len(paths), str(next(iter(bad), "")))
        if not tiles:
            raise UserError(f"none of the {len(paths)} {split} files in {self.root} can be used")
        images = torch.from_numpy(np.concatenate(tiles))
        shape = (self.form.channels, self.tile, self.tile)
        return Examples({"image": images}, picture_spec(shape), "hires", split)

    def _read(self, path: str) -> npt.NDArray[np.uint8] | BadPicture:
        """The tiles of a file, or what is wrong with it where such files are left out."""
        try:
            picture = self.form.read(path)
            _, rows, columns = picture.shape
            if min(rows, columns) < self.tile:
                raise BadPicture(
                    f"{path} has {columns} x {rows} pixels, smaller than --tile {self.tile}: "
                    f"choose smaller tiles, or remove it{SKIP}"
                )
            return tiles_of(picture, self.tile)
        except BadPicture as problem:
            if self.on_bad_file == "error":
                raise
            return problem
