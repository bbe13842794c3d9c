"""A comparison as one HTML file, or as Markdown."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from pipelines.comparison.entries import Entry
from pipelines.comparison.table import (
    HEAD,
    MEANS,
    Column,
    columns,
    differing_settings,
    mean_rows,
    notes,
    rows,
)
from pipelines.report import page, svg
from pipelines.report.scales import Linear, fitting
from pipelines.report.svg import PALETTE, Line
from pipelines.tuning.table import show_value

AXES = {"step": "iterations", "images": "images seen", "seconds": "seconds of training"}
_CHARTS = 6
_SIZE = (540, 300)
_FAMOUS = ("fid", "coverage", "modes_covered", "high_quality_share", "kid", "recall")


def html(entries: Sequence[Entry], title: str, by: str = "step") -> str:
    """The page. ``by``: what curves run over, see :data:`AXES`."""
    found = columns(entries)
    means = mean_rows(entries, found)
    sections = [
        page.section(
            "Figures",
            page.table([*HEAD, *(c.title for c in found)], rows(entries, found), text=(0, 1, 2, 3)),
            page.paragraph(
                "A star marks a column's best, where there is one. Figures of different protocols "
                "are in different columns, since they do not compare.",
                note=True,
            ),
            *(page.paragraph(line, note=True) for line in notes(entries, found)),
        ),
        page.section(
            "Means over seeds (+- one standard deviation)",
            page.table([*MEANS, *(c.title for c in found)], means, text=(0, 1)) if means else "",
        ),
        page.section("Curves", _curves(entries, found, by)),
        page.section("Samples", page.row(_grid(entry) for entry in entries)),
        page.section("Settings that differ", _settings(entries)),
    ]
    return page.page(title, sections)


def _colours(entries: Sequence[Entry]) -> dict[str, str]:
    return {e.place: PALETTE[n % len(PALETTE)] for n, e in enumerate(entries)}


def _curves(entries: Sequence[Entry], found: Sequence[Column], by: str) -> str:
    """Charts of the figures that matter most, of what some run has measured more than once."""
    colours = _colours(entries)
    charts: list[str] = []
    for column in found:
        if not column.figure.startswith(_FAMOUS) or len(charts) == _CHARTS:
            continue
        series = [
            Line(_over(entry, column, by), colours[entry.place], entry.name)
            for entry in entries
            if column.value(entry) is not None and column.curve(entry)
        ]
        if not any(len(line.points) > 1 for line in series):
            continue
        points = [p for line in series for p in line.points if math.isfinite(p[1])]
        across = Linear(0.0, max((x for x, _ in points), default=1.0) or 1.0)
        upright = fitting([y for _, y in points])
        chart = svg.lines(series, across, upright, (AXES[by], column.title), _SIZE)
        charts.append(page.figure(chart, width=_SIZE[0]))
    if not charts:
        return ""
    return page.row(charts) + page.key([(colours[e.place], e.name) for e in entries])


def _over(entry: Entry, column: Column, by: str) -> list[tuple[float, float]]:
    """The curve of a figure over iterations, images seen or seconds."""
    curve = column.curve(entry)
    if by == "step":
        return [(float(step), value) for step, value in curve]
    place = 1 if by == "images" else 2
    points = []
    for step, value in curve:
        reached = [mark[place] for mark in entry.clock if mark[0] <= step]
        if reached:
            points.append((reached[-1], value))
    return points


def _grid(entry: Entry) -> str:
    caption = f"{entry.name}: {entry.variant} on {entry.data}, iteration {entry.step:,}"
    if entry.grid is None:
        return page.figure(page.paragraph("no picture", note=True), caption)
    kind = "webp" if entry.grid[:4] == b"RIFF" else "png"
    data = base64.b64encode(entry.grid).decode()
    image = f'<img src="data:image/{kind};base64,{data}" alt="samples" width="350">'
    return page.figure(image, caption)


def _settings(entries: Sequence[Entry]) -> str:
    names = differing_settings(entries)
    if not names:
        return ""
    table = [
        [e.name, *(show_value(e.settings[n]) if n in e.settings else "" for n in names)]
        for e in entries
    ]
    return page.table(["run", *names], table)


def markdown(entries: Sequence[Entry], title: str) -> str:
    """The tables and the protocols as Markdown."""
    found = columns(entries)
    means = mean_rows(entries, found)
    parts = [f"## {title}", _markdown([*HEAD, *(c.title for c in found)], rows(entries, found))]
    if means:
        parts += ["Means over seeds:", _markdown([*MEANS, *(c.title for c in found)], means)]
    return "\n\n".join([*parts, *notes(entries, found)]) + "\n"


def _markdown(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *table]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)
