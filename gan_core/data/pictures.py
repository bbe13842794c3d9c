"""Picture files as uint8 arrays: upright, over white, in the wanted size; and many at once."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps
from torch import Tensor

from gan_core.errors import UserError

_NAMES = ".png .jpg .jpeg .jfif .bmp .webp .gif .tif .tiff .avif"
EXTENSIONS = tuple(_NAMES.split())
"""What counts as a picture; of an animation, or of pages, the first is taken."""

Half = Literal["left", "right"]

_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_LYING = (5, 6, 7, 8)  # EXIF orientations by which rows become columns
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_NEITHER = "its values are not whole numbers of 8 or 16 bits"
_CHUNK = 64  # pictures a task: less overhead than one by one
_WORTH_A_THREAD = 7000  # bytes
_TOLD_EVERY = 5.0  # seconds

logger = logging.getLogger(__name__)


SKIP = ", or pass --on-bad-file skip"
"""What a picture that cannot be used may be told to do: not where there is no such option."""
_REMEDY = f": repair or remove it{SKIP}"


def expect_large_pictures() -> None:
    """Silence Pillow's warning of pictures from half of its limit on: they are the user's own."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


expect_large_pictures()


class BadPicture(UserError):
    """A picture that cannot be used, and why.

    ``passing``: the system refused the file, as it may not the next time (permissions, network).
    """

    passing = False


@dataclasses.dataclass(frozen=True)
class PictureFormat:
    """How pictures are wanted.

    ``channels`` is 1 or 3. With ``image_size`` they are cropped to their central square and
    resized to that many pixels a side (bicubic, with antialiasing); a smaller one is refused
    unless ``allow_upscale``. With ``None`` they stay as they are. ``half`` takes that side of files
    that hold two squares side by side.
    """

    channels: int
    image_size: int | None = None
    allow_upscale: bool = False
    half: Half | None = None

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """The picture as (channels, rows, columns); ``BadPicture`` if it cannot be used."""
        with _told_as_bad(path), Image.open(path) as image:
            if image.format == "TIFF":
                _turn_upright(image)
            if self.half is not None:
                _check_halves(path, _upright_size(image))
            if self.image_size is not None:
                self._check_size(path, image.size)
                # JPEG only: decode at a fraction, still at least twice the wanted size.
                image.draft(None, (2 * self.image_size, 2 * self.image_size))
            _check_bits(image)
            upright = _flattened(ImageOps.exif_transpose(image), self.channels)
            array = np.asarray(self._resized(self._own_half(upright)))
        return array[None] if self.channels == 1 else array.transpose(2, 0, 1)

    def _check_size(self, path: str, size: tuple[int, int]) -> None:
        if min(size) < (self.image_size or 0) and not self.allow_upscale:
            raise BadPicture(
                f"{path} has {size[0]} x {size[1]} pixels, smaller than --image-size "
                f"{self.image_size}: choose a smaller size, remove it, or pass --allow-upscale"
            )

    def _own_half(self, image: Image.Image) -> Image.Image:
        if self.half is None:
            return image
        # Reduced by JPEG's decoder the width may be odd: the middle column is in neither half.
        half = image.width // 2
        left = 0 if self.half == "left" else image.width - half
        return image.crop((left, 0, left + half, image.height))

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.image_size is None or image.size == (self.image_size, self.image_size):
            return image
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Not resize's own ``box``: the filter would look beyond its edges.
        square = image.crop((left, top, left + side, top + side))
        return square.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)


def _turn_upright(image: Image.Image) -> None:
    """Decode a TIFF, which Pillow turns as the camera's orientation has it while it does so.

    It would map a file that it knows by name and whose pixels are not packed, and divide these into
    rows by the size of the turned picture (Pillow 13.0): noise, where rows become columns.
    """
    if isinstance(image, ImageFile.ImageFile):
        image.filename = ""
    exif = image.getexif()
    image.load()
    exif.pop(ExifTags.Base.Orientation, None)  # which versions before leave there


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as the camera's orientation (EXIF) has them, before anything is decoded."""
    width, height = image.size
    lies = image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
    return (height, width) if lies else (width, height)


def _check_halves(path: str, size: tuple[int, int]) -> None:
    if size[0] != 2 * size[1]:
        raise BadPicture(
            f"{path} has {size[0]} x {size[1]} pixels, which are not two squares side by side: "
            "remove it, or name the two folders of inputs and targets (--input-folder, "
            "--target-folder)"
        )


@contextmanager
def _told_as_bad(path: str) -> Iterator[None]:
    """Turns whatever Pillow raises on broken bytes into ``BadPicture``, naming the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels, the most that is read"
        raise BadPicture(
            f"{path} is too large, over {most}: shrink, cut or remove it{SKIP}"
        ) from None
    except Exception as problem:  # OSError, SyntaxError, struct.error, EOFError and others
        told = getattr(problem, "strerror", None) or str(problem)
        reason = " ".join(told.replace(f" {path!r}", "").split())
        bad = BadPicture(
            f"{path} is no readable picture ({reason or type(problem).__name__}){_REMEDY}"
        )
        bad.passing = isinstance(problem, OSError) and problem.errno is not None
        raise bad from None


def _check_bits(image: Image.Image) -> None:
    """Raises ``ValueError`` for a TIFF of 32 bits, which would be taken for one of 16."""
    if max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))) > 16:
        raise ValueError(_NEITHER)


def _flattened(image: Image.Image, channels: int) -> Image.Image:
    """``image`` in 8 bits with 1 or 3 channels; what is transparent becomes white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _from_16_bits(image)
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, of which Pillow reads the upper
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L" if channels == 1 else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """0..65535 scaled to 0..255, white where it is the transparent value; Pillow's own conversion
    would clip at 255 instead.
    """
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(_NEITHER)
    scaled = np.rint(values / 257).astype(np.uint8)
    scaled[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(scaled)


def size_of(path: str) -> tuple[int, int]:
    """Width and height of the picture, upright; ``BadPicture`` if it cannot be read."""
    with _told_as_bad(path), Image.open(path) as image:
        if image.format == "TIFF":
            _turn_upright(image)
        return _upright_size(image)


def is_colour(path: str) -> bool:
    """Whether the file says that it holds colours (a palette counts as colours)."""
    with _told_as_bad(path), Image.open(path) as image:
        return image.mode not in _GRAY_MODES


def count_workers(paths: Sequence[str]) -> int:
    """How many threads decode fastest.

    Small files cost more Python than decoding, and threads only fight for the interpreter:
    32 px JPEG take 127 us each with one thread, 178 us with two; from about 7 KB on two are faster.
    """
    sample = paths[:: max(1, len(paths) // 16)]
    sizes = [Path(path).stat().st_size for path in sample if Path(path).is_file()]
    if not sizes or sum(sizes) / len(sizes) < _WORTH_A_THREAD:
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(16, available or 1)


def read_pictures(
    paths: Sequence[str], form: PictureFormat, shape: tuple[int, int, int], skip_bad: bool
) -> tuple[Tensor, list[int]]:
    """The pictures uint8 (M, *shape) and the positions in ``paths`` that they come from.

    The first bad picture raises; with ``skip_bad`` bad ones are left out, counted and logged. A
    picture of another shape than ``shape`` always raises.
    """
    try:
        pixels = np.empty((len(paths), *shape), np.uint8)
    except MemoryError:
        size = len(paths) * math.prod(shape) / 2**30
        raise UserError(
            f"{len(paths):,} pictures of {shape[2]} x {shape[1]} pixels take {size:,.0f} GiB, more "
            "than there is: choose a smaller --image-size"
        ) from None
    bad = decode_pictures(paths, form, shape, skip_bad, pixels)
    kept = positions_but(bad, len(paths))
    tell_skipped(len(bad), len(paths), str(next(iter(bad.values()), "")))
    return torch.from_numpy(pixels[kept] if bad else pixels), kept


def positions_but(skipped: Iterable[int], count: int) -> list[int]:
    """0 to ``count``, without those ``skipped``."""
    without = set(skipped)
    return [position for position in range(count) if position not in without]


def tell_skipped(skipped: int, count: int, first: str) -> None:
    """Log that so many of ``count`` pictures are left out, if any, and what the first has."""
    if skipped:
        told = first.removesuffix(_REMEDY).removesuffix(SKIP)
        logger.warning("skipped %d of %d pictures, the first: %s", skipped, count, told)


def decode_pictures(
    paths: Sequence[str],
    form: PictureFormat,
    shape: tuple[int, int, int],
    skip_bad: bool,
    pixels: npt.NDArray[np.uint8],
) -> dict[int, BadPicture]:
    """Fill ``pixels`` (N, *shape), each picture at its position in ``paths``; what is wrong with
    those that cannot be used, by position.

    As for :func:`read_pictures`. Large files are decoded by threads (Pillow releases the
    interpreter for that). How far it is, is logged where it takes long.
    """

    def read_chunk(start: int) -> list[BadPicture | None]:
        problems: list[BadPicture | None] = []
        for position in range(start, min(start + _CHUNK, len(paths))):
            try:
                picture = form.read(paths[position])
            except BadPicture as problem:
                if not skip_bad:
                    raise
                problems.append(problem)
                continue
            _check_shape(paths[position], picture.shape, shape)
            pixels[position] = picture
            problems.append(None)
        return problems

    problems: list[BadPicture | None] = []
    told = begun = time.monotonic()
    with ThreadPoolExecutor(count_workers(paths)) as pool:
        for chunk in pool.map(read_chunk, range(0, len(paths), _CHUNK)):
            problems += chunk
            now = time.monotonic()
            if now - told > _TOLD_EVERY:
                told = now
                left = (now - begun) * (len(paths) / len(problems) - 1)
                logger.info("read %d of %d pictures, %.0f s left", len(problems), len(paths), left)
    return {i: problem for i, problem in enumerate(problems) if problem is not None}


def _check_shape(path: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise UserError(
            f"{path} has {found[2]} x {found[1]} pixels where others have "
            f"{wanted[2]} x {wanted[1]}: pass --image-size to bring all to one size"
        )


def common_format(
    paths: Sequence[str],
    *,
    channels: int | None,
    image_size: int | None,
    allow_upscale: bool,
    skip_bad: bool,
    half: Half | None = None,
) -> tuple[PictureFormat, tuple[int, int, int]]:
    """The format in which all ``paths`` can be had, and their shape (channels, rows, columns).

    ``channels`` ``None`` is 3 if any picture is in colour, else 1; the rows and columns are those
    of the first picture that can be read.
    """
    if channels is None:
        channels = 3 if any_colour(paths, skip_bad)[0] else 1
    form = PictureFormat(channels, image_size, allow_upscale, half)
    if image_size is not None:
        return form, (channels, image_size, image_size)
    for path in paths:
        try:
            _, rows, columns = form.read(path).shape
        except BadPicture:
            if not skip_bad:
                raise
            continue
        return form, (channels, rows, columns)
    raise UserError(f"none of {len(paths)} files such as {Path(paths[0])} is a readable picture")


def any_colour(paths: Sequence[str], skip_bad: bool) -> tuple[bool, bool]:
    """Whether any picture is in colour; and whether the answer will be the same the next time."""
    lasting = True
    for path in paths:
        try:
            if is_colour(path):
                return True, True
        except BadPicture as problem:
            if not skip_bad:
                raise
            lasting &= not problem.passing
    return False, lasting
