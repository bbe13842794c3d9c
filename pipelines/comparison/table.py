"""The table of a comparison: a column a figure and protocol, a row a run, means over seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from gan_core.metrics.names import direction
from pipelines.comparison.entries import Entry, repeats, spread
from pipelines.evaluate import PREFIXES, plain
from pipelines.progress import duration

_FIRST = (
    "fid", "kid", "coverage", "recall", "precision", "density", "modes_covered", "mode_kl",
    "high_quality_share", "smallest_mode_share", "inception_score", "class_accuracy", "parzen",
)  # fmt: skip
"""The order in which figures are shown; others come after, by name."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure measured by one protocol. ``mark``: the protocol's number in the notes."""

    figure: str
    protocol: str
    mark: int

    def value(self, entry: Entry) -> float | None:
        """The run's figure, if it has it by this protocol."""
        if entry.protocol_of(self.figure) != self.protocol:
            return None
        return entry.figures.get(self.figure)

    def curve(self, entry: Entry) -> list[tuple[int, float]]:
        """All points of the run's figure by this protocol, as (step, value)."""
        points = entry.curves.get(self.figure, [])
        at = entry.protocol_at
        return [(s, value) for s, value in points if at(self.figure, s) == self.protocol]

    def judged_at(self, entry: Entry) -> str:
        """Which generator of the run its figure is of, where the verb evaluate has judged another
        than the last.
        """
        curve = self.curve(entry)
        step = curve[-1][0] if curve else entry.step
        return f" @{step:,}" if plain(self.figure) != self.figure and step != entry.step else ""

    @property
    def good(self) -> str | None:
        """Whether "low" or "high" is good; ``None`` where neither is, or nobody knows."""
        return direction(plain(self.figure))

    @property
    def title(self) -> str:
        """The head of the column."""
        return f"{self.figure} [{self.mark}]" if self.protocol else self.figure


def columns(entries: Sequence[Entry]) -> list[Column]:
    """The columns that the runs fill: never two protocols in one."""
    protocols: dict[str, int] = {}
    found: dict[tuple[str, str], Column] = {}
    for entry in entries:
        for figure in sorted(entry.figures, key=_place):
            protocol = entry.protocol_of(figure)
            mark = protocols.setdefault(protocol, len(protocols) + 1) if protocol else 0
            found.setdefault((figure, protocol), Column(figure, protocol, mark))
    return sorted(found.values(), key=lambda c: (*_place(c.figure), c.mark))


def _place(figure: str) -> tuple[int, int, str]:
    """By what it was measured on (test first), then by the order above."""
    where = next((n for n, p in enumerate(PREFIXES) if figure.startswith(p)), len(PREFIXES))
    name = plain(figure)
    order = next((n for n, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST))
    return where, order, name


def notes(entries: Sequence[Entry], found: Sequence[Column]) -> list[str]:
    """What the marks in the table mean: the protocols by number, and other generators' steps."""
    marks = sorted({(c.mark, c.protocol) for c in found if c.protocol})
    lines = [f"[{mark}] {text}" for mark, text in marks]
    if any(c.judged_at(e) for c in found for e in entries if c.value(e) is not None):
        lines.append("@N is of the generator after N iterations (the best), not of the last one.")
    return lines


def best(column: Column, entries: Sequence[Entry]) -> float | None:
    """The best figure of a column; ``None`` where none is better than another."""
    values = [column.value(e) for e in entries]
    filled = [v for v in values if v is not None and math.isfinite(v)]
    if len(set(filled)) < 2 or column.good is None:
        return None
    return min(filled) if column.good == "low" else max(filled)


HEAD = ("run", "system", "data", "ended as", "iterations", "time")


def rows(entries: Sequence[Entry], found: Sequence[Column]) -> list[list[str]]:
    """A row a run: the head's columns, then the figures; the best of a column have a star."""
    stars = {c: best(c, entries) for c in found}
    table = []
    for entry in entries:
        cells = [entry.name, entry.variant, entry.data, ended_as(entry), played(entry)]
        cells.append(duration(entry.seconds))
        for column in found:
            value = column.value(entry)
            star = " *" if value is not None and value == stars[column] else ""
            cells.append("" if value is None else f"{value:.4g}{column.judged_at(entry)}{star}")
        table.append(cells)
    return table


def played(entry: Entry) -> str:
    """The run's iterations, and after which of another run's, if it has begun with its networks."""
    run_and_step, *_ = entry.beginning.split(", ")  # the figure there is of another run
    return f"{entry.step:,}" + (f" (after {run_and_step})" if run_and_step else "")


def ended_as(entry: Entry) -> str:
    """The run's status, with what the diagnosis has confirmed."""
    confirmed = [name for name, state in entry.findings.items() if state == "confirmed"]
    return f"{entry.status} ({', '.join(confirmed)})" if confirmed else entry.status


MEANS = ("system", "data", "seeds")


def mean_rows(entries: Sequence[Entry], found: Sequence[Column]) -> list[list[str]]:
    """Means and standard deviations over the seeds of runs that differ in nothing else.

    Of several runs of one seed the last (in time) that has the figure counts: more say nothing of
    other seeds.
    """
    table = []
    for group in repeats([e for e in entries if e.status == "finished"]):
        seeds = {entry.seed for entry in group}
        if len(seeds) < 2:
            continue
        cells = [group[0].variant, group[0].data, str(len(seeds))]
        for column in found:
            in_time = sorted(group, key=lambda e: e.begun)
            values = {e.seed: v for e in in_time if (v := column.value(e)) is not None}
            if len(values) < 2:
                cells.append("")
                continue
            mean, deviation = spread(list(values.values()))
            of = f" (of {len(values)})" if len(values) < len(seeds) else ""
            cells.append(f"{mean:.4g} +- {deviation:.2g}{of}")
        table.append(cells)
    return table


def differing_settings(entries: Sequence[Entry]) -> list[str]:
    """The names of settings in which runs of one system differ."""
    found: dict[str, None] = {}
    for variant in dict.fromkeys(e.variant for e in entries):
        same = [e.settings for e in entries if e.variant == variant]
        for name in same[0]:
            if len({repr(s.get(name)) for s in same}) > 1:
                found[name] = None
    return list(found)
