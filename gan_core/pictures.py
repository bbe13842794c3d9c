"""Pictures of what a generator makes: grids of images, scatter plots and histograms of points."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_core.data.examples import DataSpec, to_pixels
from gan_core.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_TILE = 64  # pixels a side that a tile should have to be readable
_GAP = 2  # pixels between tiles
_BACKGROUND = 255
_SIDE = 512  # pixels a side of a scatter plot
_BARS = 64  # of a histogram
_REAL, _GENERATED, _OUTSIDE = (170, 170, 170), (31, 99, 180), (200, 30, 30)


def enlargement(height: int, width: int) -> int:
    """How many times (a whole number) pictures of that size are enlarged to be readable."""
    return max(1, round(_TILE / max(height, width)))


def image_grid(images: Tensor, columns: int | None = None, enlarge: int | None = None) -> Tensor:
    """Images as one picture, row by row, with white separators.

    ``images``: (N, C, H, W) with C 1 or 3, floats in [-1, 1] or uint8 pixels. ``columns``:
    images in a row (default: as square as possible). ``enlarge``: the factor by which every
    pixel is repeated (default: by :func:`enlargement`). Returns uint8 (C, rows, columns) on the
    CPU; raises ``ValueError`` for anything that is no picture.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"a grid needs images (N, 1 or 3, H, W), not {tuple(images.shape)}")
    pixels = (images if images.dtype == torch.uint8 else to_pixels(images)).cpu()
    factor = enlarge or enlargement(pixels.shape[2], pixels.shape[3])
    pixels = pixels.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    count, channels, height, width = pixels.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    size = (channels, rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP)
    grid = torch.full(size, _BACKGROUND, dtype=torch.uint8)
    for place in range(count):
        top = _GAP + (place // columns) * (height + _GAP)
        left = _GAP + (place % columns) * (width + _GAP)
        grid[:, top : top + height, left : left + width] = pixels[place]
    return grid


def neighbour_rows(images: Tensor, neighbours: Tensor) -> Tensor:
    """Each image in a row with its neighbours, parted from them by a wider gap.

    ``images`` (N, C, H, W) and ``neighbours`` (N, K, C, H, W), each as for :func:`image_grid`.
    Returns uint8 (C, rows, columns).
    """
    left = image_grid(images, columns=1)
    right = image_grid(neighbours.flatten(0, 1), columns=neighbours.shape[1])
    gap = torch.full((left.shape[0], left.shape[1], 4 * _GAP), _BACKGROUND, dtype=torch.uint8)
    return torch.cat((left, gap, right), dim=2)


def scatter(generated: Tensor, real: Tensor | None = None) -> Tensor:
    """Generated points in blue over real ones in grey, as a square picture with equal axes.

    ``generated`` and ``real``: (N, D) with D at least 2, of which the first two are drawn. The
    frame is that of the real points with a margin (of the generated ones where there are none);
    what lies outside, or is not finite, is drawn in red on the edge and counted. Returns uint8
    (3, 512, 512).
    """
    from PIL import Image, ImageDraw

    points = generated.detach().float().cpu()[:, :2]
    behind = points[:0] if real is None else real.detach().float().cpu()[:, :2]
    centre, half = _frame(behind if len(behind) else points)
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, _SIDE - 1, _SIDE - 1), outline=_REAL)
    inside = ((points - centre).abs() <= half).all(dim=1)
    _dots(pen, (behind - centre) / half, _REAL)
    _dots(pen, (points[inside] - centre) / half, _GENERATED)
    _dots(pen, ((points[~inside] - centre) / half).nan_to_num(nan=1.0), _OUTSIDE)
    _legend(pen, len(behind), len(points), int((~inside).sum()))
    return _pixels_of(picture)


def histogram(generated: Tensor, real: Tensor | None = None) -> Tensor:
    """Shares of generated numbers as a blue line over the grey bars of real ones.

    ``generated`` and ``real``: (N, 1). The frame is as for :func:`scatter`, and what lies outside
    of it or is not finite is counted there too. Returns uint8 (3, 512, 512).
    """
    from PIL import Image, ImageDraw

    values = generated.detach().float().cpu()
    behind = values[:0] if real is None else real.detach().float().cpu()
    centre, half = _frame(behind if len(behind) else values)
    inside = ((values - centre).abs() <= half).flatten()
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    pen = ImageDraw.Draw(picture)
    grey, blue = (_shares((v - centre) / half) for v in (behind, values[inside]))
    highest = max(float(grey.max()), float(blue.max()), 1e-9)
    width, bottom = _SIDE // _BARS, _SIDE - 2
    tops = [
        [bottom - round(float(v / highest) * 0.8 * _SIDE) for v in bars] for bars in (grey, blue)
    ]
    for place, top in enumerate(tops[0]):
        pen.rectangle((place * width, top, (place + 1) * width - 1, bottom), fill=_REAL)
    corners = [(x, top) for i, top in enumerate(tops[1]) for x in (i * width, (i + 1) * width - 1)]
    pen.line(corners, fill=_GENERATED, width=2)
    pen.rectangle((0, 0, _SIDE - 1, _SIDE - 1), outline=_REAL)
    _legend(pen, len(behind), len(values), int((~inside).sum()))
    return _pixels_of(picture)


def _shares(places: Tensor) -> Tensor:
    """The share of ``places`` (N, 1) in each of the bars from -1 to 1."""
    bars = ((places.flatten().clamp(-1, 1) + 1) / 2 * _BARS).long().clamp_max(_BARS - 1)
    return torch.bincount(bars, minlength=_BARS) / max(1, len(places))


def _pixels_of(picture: Image.Image) -> Tensor:
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.reshape(_SIDE, _SIDE, 3).permute(2, 0, 1).contiguous()


def _frame(points: Tensor) -> tuple[Tensor, float]:
    """The middle (D,) of the finite points (N, D) and half the side of a square (D = 1: half the
    length of an interval) that holds them.
    """
    finite = points[points.isfinite().all(dim=1)]
    if len(finite) == 0:
        return torch.zeros(points.shape[1]), 1.0
    low, high = finite.amin(dim=0), finite.amax(dim=0)
    return (low + high) / 2, max(float((high - low).max()) * 0.55, 1e-6)


def _dots(pen: object, places: Tensor, colour: tuple[int, int, int]) -> None:
    """A dot for each of ``places`` (N, 2), where -1 and 1 are the edges of the frame."""
    last = _SIDE - 4
    columns = ((places[:, 0].clamp(-1, 1) + 1) / 2 * last + 1).round().long().tolist()
    rows = ((1 - places[:, 1].clamp(-1, 1)) / 2 * last + 1).round().long().tolist()
    for left, top in zip(columns, rows, strict=True):
        pen.rectangle((left, top, left + 1, top + 1), fill=colour)  # type: ignore[attr-defined]


def _legend(pen: object, real: int, generated: int, outside: int) -> None:
    lines = [(f"{real} real", _REAL)] * (real > 0) + [(f"{generated} generated", _GENERATED)]
    lines += [(f"{outside} of them outside", _OUTSIDE)] * (outside > 0)
    for row, (text, colour) in enumerate(lines):
        pen.text((8, 6 + 14 * row), text, fill=colour)  # type: ignore[attr-defined]


def can_be_drawn(spec: DataSpec) -> bool:
    """Whether :func:`sample_picture` has a picture for the target of ``spec``."""
    shape = spec.target_shape
    return len(shape) == 1 or (len(shape) == 3 and shape[0] in (1, 3))


def sample_picture(
    generated: Tensor, spec: DataSpec, real: Tensor | None = None, columns: int | None = None
) -> Tensor:
    """The picture for samples of ``spec``'s target: a grid of images, a scatter of points, or a
    histogram of points of one number.

    ``generated`` and ``real`` are targets (N, ...); ``real`` and ``columns`` matter for points
    and images respectively. Returns uint8 (C, H, W). Raises ``UserError`` for what cannot be drawn
    (see :func:`can_be_drawn`).
    """
    shape = spec.target_shape
    if not can_be_drawn(spec):
        raise UserError(
            f"no picture can be drawn of '{spec.target}' of the shape {shape}: draw it yourself, "
            "from what gan_core.load_generator gives"
        )
    if len(shape) == 1:
        return histogram(generated, real) if shape[0] == 1 else scatter(generated, real)
    return image_grid(generated, columns)


def save_png(image: Tensor, path: Path) -> Path:
    """Write ``image``, uint8 (1 or 3, H, W), as the PNG file ``path``; missing folders are made.

    Raises ``UserError`` where ``path`` cannot be written.
    """
    from PIL import Image

    rows = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(rows[:, :, 0] if rows.shape[2] == 1 else rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}): choose another place") from None
    return path
