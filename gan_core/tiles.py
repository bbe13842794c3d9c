"""Pictures too large for the memory of a convolutional network, in parts that fit together."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

TILE = 256
"""Pixels a side of a part, before it is enlarged."""


def enlarged_in_tiles(
    enlarge: Callable[[Tensor], Tensor], low: Tensor, scale: int, reach: int, tile: int = TILE
) -> Tensor:
    """``enlarge(low)``, (N, C, h, w) to (N, C', ``scale`` h, ``scale`` w), by squares of ``tile``.

    Each is enlarged with what lies up to ``reach`` pixels around it, which is how far off a pixel
    may be that any pixel of the result depends on: then the parts are those of the whole.
    """
    rows, columns = low.shape[-2:]
    result: Tensor | None = None
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            bottom, right = min(top + tile, rows), min(left + tile, columns)
            above, before = max(0, top - reach), max(0, left - reach)
            part = enlarge(low[..., above : bottom + reach, before : right + reach])
            if result is None:
                size = (scale * rows, scale * columns)
                result = part.new_empty((*part.shape[:2], *size), device="cpu")
            inner = part[
                ...,
                scale * (top - above) : scale * (bottom - above),
                scale * (left - before) : scale * (right - before),
            ]
            place = (slice(scale * top, scale * bottom), slice(scale * left, scale * right))
            result[..., place[0], place[1]] = inner.cpu()
    assert result is not None
    return result
