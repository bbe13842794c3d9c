"""Charts as SVG text, to be put into an HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from pipelines.report.scales import Scale

GOOD, POOR, BAD, INK, FAINT = "#0b6bb8", "#c4ccd3", "#c8352b", "#27313a", "#dfe5ea"
PALETTE = ("#0b6bb8", "#d9730d", "#2a8c4a", "#8a4fbf", "#b8860b", "#c2417c", "#3a7d8c", "#6b5b4d")
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 50


@dataclasses.dataclass(frozen=True)
class Dot:
    """A point of a scatter plot; ``told`` is shown when the pointer rests on it. One that is not
    ``full`` is a ring.
    """

    x: Any
    y: Any
    colour: str = GOOD
    told: str = ""
    full: bool = True


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart, through ``points`` in their order."""

    points: Sequence[tuple[float, float]]
    colour: str = GOOD
    told: str = ""
    width: float = 1.5


def blend(share: float) -> str:
    """From the colour of the best (0) to that of the worst (1)."""
    pairs = [(int(GOOD[i : i + 2], 16), int(POOR[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def scatter(
    dots: Iterable[Dot], x: Scale, y: Scale, names: tuple[str, str], size: tuple[int, int]
) -> str:
    """Dots over two scales; ``names`` of the axes, ``size`` in pixels."""
    frame = _Frame(size)
    marks = []
    for dot in dots:
        left, top = x.place(dot.x), y.place(dot.y)
        if left is not None and top is not None:
            marks.append(
                f'<circle cx="{frame.x(left):.1f}" cy="{frame.y(top):.1f}" r="4.5" '
                f'fill="{dot.colour if dot.full else "white"}" fill-opacity="0.8" '
                f'stroke="{dot.colour}"><title>{escape(dot.told)}</title></circle>'
            )
    return frame.drawn(x, y, names, marks)


def lines(
    series: Iterable[Line], x: Scale, y: Scale, names: tuple[str, str], size: tuple[int, int]
) -> str:
    """Lines over two scales; what is not finite interrupts them."""
    frame = _Frame(size)
    marks = []
    for line in series:
        for part in _parts(line.points, x, y):
            places = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in part)
            marks.append(
                f'<polyline points="{places}" fill="none" stroke="{line.colour}" '
                f'stroke-width="{line.width}"><title>{escape(line.told)}</title></polyline>'
            )
            if len(part) == 1:
                left, top = part[0]
                marks.append(
                    f'<circle cx="{frame.x(left):.1f}" cy="{frame.y(top):.1f}" r="2.5" '
                    f'fill="{line.colour}"><title>{escape(line.told)}</title></circle>'
                )
    return frame.drawn(x, y, names, marks)


def _parts(
    points: Sequence[tuple[float, float]], x: Scale, y: Scale
) -> Iterable[list[tuple[float, float]]]:
    part: list[tuple[float, float]] = []
    for a, b in points:
        left, top = x.place(a), y.place(b)
        if left is None or top is None:
            if part:
                yield part
            part = []
        else:
            part.append((left, top))
    if part:
        yield part


def bars(values: Sequence[tuple[str, float]], width: int = 560) -> str:
    """Horizontal bars from 0 to 1, each with its name and number."""
    row, left = 24, 150
    height = row * len(values) + 8
    room = width - left - 60
    marks = []
    for place, (name, value) in enumerate(values):
        top = 4 + place * row
        long = max(1.0, room * min(1.0, max(0.0, value)))
        marks.append(
            f'<text x="{left - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{top + 3}" width="{long:.1f}" height="{row - 8}" '
            f'fill="{GOOD}" rx="2"/>'
            f'<text x="{left + long + 6:.1f}" y="{top + 15}">{value:.2f}</text>'
        )
    return _svg(width, height, marks)


def parallel(
    axes: Sequence[tuple[str, Scale]],
    rows: Iterable[tuple[Sequence[Any], str, str, bool]],
    size: tuple[int, int],
) -> str:
    """Parallel coordinates: an upright axis a name, a line a row (values, colour, told, full); one
    that is not full is dashed.
    """
    width, height = size
    top, bottom, side = 40, 16, 56
    gap = (width - 2 * side) / max(1, len(axes) - 1)
    reach = height - top - bottom
    marks = []
    for values, colour, told, full in rows:
        places = [scale.place(v) for (_, scale), v in zip(axes, values, strict=True)]
        points = " ".join(
            f"{side + gap * n:.1f},{top + reach * (1 - p):.1f}"
            for n, p in enumerate(places)
            if p is not None
        )
        dashes = "" if full else ' stroke-dasharray="5 4"'
        marks.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6" '
            f'stroke-opacity="0.7"{dashes}><title>{escape(told)}</title></polyline>'
        )
    for number, (name, scale) in enumerate(axes):
        left = side + gap * number
        lift = 14 if number % 2 == 0 or gap > 90 else 28  # names of neighbours must not meet
        marks.append(
            f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{top}" y2="{top + reach}" stroke="{INK}"/>'
            f'<text x="{left:.1f}" y="{lift}" text-anchor="middle" font-weight="600">'
            f"{escape(name)}</text>"
        )
        marks += [
            f'<text x="{left + 4:.1f}" y="{top + reach * (1 - place) + 4:.1f}" class="tick" '
            f'stroke="white" stroke-width="3" paint-order="stroke">{escape(text)}</text>'
            for place, text in scale.ticks()
        ]
    return _svg(width, height, marks)


class _Frame:
    """The field of a chart inside its margins."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size

    def x(self, place: float) -> float:
        return _LEFT + place * (self.width - _LEFT - _RIGHT)

    def y(self, place: float) -> float:
        return self.height - _BOTTOM - place * (self.height - _TOP - _BOTTOM)

    def drawn(self, x: Scale, y: Scale, names: tuple[str, str], marks: Sequence[str]) -> str:
        """The chart with its axes."""
        low, high, left, right = self.y(0), self.y(1), self.x(0), self.x(1)
        parts = [
            f'<rect x="{left}" y="{high}" width="{right - left:.1f}" height="{low - high:.1f}" '
            f'fill="none" stroke="{FAINT}"/>'
        ]
        ticks = x.ticks()
        crowded = 6.5 * sum(len(text) + 2 for _, text in ticks) > right - left
        for number, (place, text) in enumerate(ticks):
            across = self.x(place)
            drop = 13 + 12 * (crowded and number % 2)
            parts.append(
                f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{high}" y2="{low:.1f}" '
                f'stroke="{FAINT}"/><text x="{across:.1f}" y="{low + drop:.1f}" '
                f'text-anchor="middle" class="tick">{escape(text)}</text>'
            )
        for place, text in y.ticks():
            down = self.y(place)
            parts.append(
                f'<line x1="{left}" x2="{right:.1f}" y1="{down:.1f}" y2="{down:.1f}" '
                f'stroke="{FAINT}"/><text x="{left - 6}" y="{down + 4:.1f}" '
                f'text-anchor="end" class="tick">{escape(text)}</text>'
            )
        middle = (high + low) / 2
        parts.append(
            f'<text x="{(left + right) / 2:.1f}" y="{self.height - 8}" text-anchor="middle">'
            f'{escape(names[0])}</text><text transform="translate(14 {middle:.1f}) rotate(-90)" '
            f'text-anchor="middle">{escape(names[1])}</text>'
        )
        return _svg(self.width, self.height, [*parts, *marks])


def _svg(width: int, height: int, marks: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">{"".join(marks)}</svg>'
    )
