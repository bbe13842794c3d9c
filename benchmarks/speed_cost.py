"""What an iteration costs as its batch, pictures or k grow: a part of `benchmarks.speed`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed_ways import Setting, Timed, Way, alternate, make_all
from gan_core.errors import UserError

AXES: dict[str, tuple[int, ...]] = {
    "batch_size": (16, 32, 64, 128, 256),
    "image_size": (16, 32, 64),
    "k": (1, 2, 3, 4, 5),
}
"""Options that are changed one at a time, and their values."""
PICTURES = 4096
"""Training pictures that a game of this table has: all games are held in memory at once."""


def read_axes(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``batch_size=16,32`` and the like, as in :data:`AXES`."""
    axes = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            axes[name.replace("-", "_")] = tuple(int(value) for value in values.split(","))
        except ValueError:
            raise UserError(f"--cost wants OPTION=WHOLE,NUMBERS, not '{word}'") from None
    return axes


def measure_cost(
    setting: Setting,
    ways: Sequence[Way],
    axes: Mapping[str, Sequence[int]],
    *,
    rounds: int,
    seconds: float,
    picture: Path | None,
) -> dict[str, Any]:
    """Play every point in turns, print the table and the slopes, draw them; the figures."""
    setting = dataclasses.replace(setting, most=PICTURES)
    for way in ways:
        way.check(setting.device)
    names = {point: _name(setting, *point) for point in points(ways, axes)}
    wanted = {
        name: (setting.but(**{option: value}), way) for (way, option, value), name in names.items()
    }
    timed = {loop.name: loop for loop in make_all(wanted)}
    if not timed:
        raise UserError("none of these can be played: the lines above say why")
    alternate(list(timed.values()), rounds, seconds)
    rows = [_row(*point, timed[name]) for point, name in names.items() if name in timed]
    found = {"setting": setting.describe(), "rows": rows, "slopes": slopes(rows)}
    print(table(found))
    if picture is not None:
        draw(found, picture)
    return found


def points(ways: Sequence[Way], axes: Mapping[str, Sequence[int]]) -> list[tuple[Way, str, int]]:
    """Each way, option and value of it."""
    return [(w, option, v) for w in ways for option, values in axes.items() for v in values]


def _name(setting: Setting, way: Way, option: str, value: int) -> str:
    """Of the point's game: one that changes nothing is the same for all options."""
    unchanged = getattr(setting.played, option, None) == value
    return str(way) if unchanged else f"{way} {option}={value}"


def _row(way: Way, option: str, value: int, timed: Timed) -> dict[str, Any]:
    return {
        "way": str(way),
        "option": option,
        "value": value,
        "milliseconds": timed.milliseconds,
        "rounds": timed.rounds,
        "images_per_second": 1000 * timed.images / timed.milliseconds,
    }


def slope(values: Sequence[float], times: Sequence[float]) -> float:
    """The power p by which ``times`` = c ``values`` ** p fits best: least squares of logarithms."""
    xs, ys = [math.log(v) for v in values], [math.log(t) for t in times]
    middle, level = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    return sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / spread


def slopes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each way, and option of several values, the power of it by which the time grows."""
    found = []
    for way, option in dict.fromkeys((r["way"], r["option"]) for r in rows):
        mine = [r for r in rows if (r["way"], r["option"]) == (way, option)]
        if len({r["value"] for r in mine}) > 1:
            power = slope([r["value"] for r in mine], [r["milliseconds"] for r in mine])
            found.append({"way": way, "option": option, "slope": power})
    return found


def table(found: Mapping[str, Any]) -> str:
    """A row a point, in Markdown, and a line for each slope."""
    lines = [
        f"{found['setting']}; one option changed at a time",
        "",
        "| way | option | ms an iteration | real images/s |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| {r['way']} | {r['option']} {r['value']} | {r['milliseconds']:.2f} | "
        f"{r['images_per_second']:,.0f} |"
        for r in found["rows"]
    ]
    lines.append("")
    lines += [
        f"{s['way']}: an iteration's time grows as {s['option']} to the power {s['slope']:.2f}"
        for s in found["slopes"]
    ]
    return "\n".join(lines)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """A panel an option, a line a way, both axes logarithmic; PNG or SVG by the file's name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    options = list(dict.fromkeys(r["option"] for r in found["rows"]))
    figure = Figure(figsize=(4.2 * len(options), 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(options), sharey=True, squeeze=False)[0]
    for option, axes in zip(options, panels, strict=True):
        for told in (s for s in found["slopes"] if s["option"] == option):
            mine = [r for r in found["rows"] if (r["way"], r["option"]) == (told["way"], option)]
            label = f"{told['way']}: slope {told['slope']:.2f}"
            values = [r["value"] for r in mine]
            axes.plot(values, [r["milliseconds"] for r in mine], marker="o", label=label)
        ticks = sorted({r["value"] for r in found["rows"] if r["option"] == option})
        axes.set(xscale="log", yscale="log", xlabel=option.replace("_", " "))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(which="both", alpha=0.3)
        axes.legend(fontsize="small", loc="upper left")
    panels[0].set_ylabel("ms an iteration")
    figure.suptitle(found["setting"], fontsize="small")
    figure.savefig(path)
