"""A run as a comparison needs it, and how it is read from its folder."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gan_core import journal
from gan_core.config import read_config
from gan_core.diagnostics.findings import called
from gan_core.errors import UserError
from gan_core.judging import comparable
from pipelines.evaluate import PREFIXES, family, plain

PROTOCOL = "protocol."
_SIGNALS = {
    "duality_gap", "rotation", "diversity", "neighbour_distance", "movement", "images_seen",
    "images_per_second", "seconds", "divergence",
}  # fmt: skip
"""Metrics without a group that say how training goes, and nothing about an evaluation; the last
is stackgan's of earlier versions."""


@dataclasses.dataclass
class Entry:
    """One run. ``figures``: by name, the last of each; ``curves``: all of each, as (step, value).

    ``protocols``: how figures were measured, by family, with ``evaluate.SPLIT.`` before those of
    the verb ``evaluate``; those of single points of a curve are in ``said``, by figure and step
    (MLflow knows only the last: there it is empty). ``clock``: (step, images seen, seconds).
    ``fingerprint``: of what was learned from, "" if that is not known. ``begun``: in seconds since
    1970, its first start. ``beginning``: which run's networks it has begun with, in words, "" where
    they were its own. ``grid``: the last picture of samples, PNG or WebP.
    """

    name: str
    variant: str
    data: str
    settings: dict[str, Any]
    seed: int = 0
    train_split: str = "train"
    status: str = "open"
    step: int = 0
    place: str = ""
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
    protocols: dict[str, str] = dataclasses.field(default_factory=dict)
    said: dict[tuple[str, int], dict[str, str]] = dataclasses.field(default_factory=dict)
    clock: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)
    findings: dict[str, str] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    begun: float = 0.0
    beginning: str = ""
    grid: bytes | None = None

    @property
    def seconds(self) -> float:
        """Of playing."""
        return self.clock[-1][2] if self.clock else 0.0

    @property
    def images_seen(self) -> float:
        """Real examples that were drawn."""
        return self.clock[-1][1] if self.clock else 0.0

    def protocol_of(self, figure: str) -> str:
        """How ``figure`` was measured the last time; "" if that is not known."""
        curve = self.curves.get(figure)
        return self.protocol_at(figure, curve[-1][0]) if curve else _how(figure, self.protocols)

    def protocol_at(self, figure: str, step: int) -> str:
        """How ``figure`` was measured at ``step``: a resumed run may have other ``--samples``."""
        return _how(figure, self.said.get((figure, step), {})) or _how(figure, self.protocols)

    def take(self, name: str, step: int, value: float) -> None:
        """Add one figure of one evaluation; of a step that has one, the later counts.

        The run's figure is that of the greatest step, in whichever order they were measured.
        """
        if not is_figure(name):
            return
        curve = self.curves.setdefault(name, [])
        if curve and curve[-1][0] >= step:
            curve[:] = [point for point in curve if point[0] != step]
        curve.append((step, value))
        curve.sort()
        self.figures[name] = curve[-1][1]


def _how(figure: str, protocols: dict[str, str]) -> str:
    """Which of the ``protocols`` is about ``figure``, as far as systems compare by it; "" if none
    is.
    """
    split = next((s for prefix, s in PREFIXES.items() if figure.startswith(prefix)), None)
    if split is None:
        known = {k: v for k, v in protocols.items() if not k.startswith("evaluate.")}
    else:
        start = f"evaluate.{split}."
        known = {k.removeprefix(start): v for k, v in protocols.items() if k.startswith(start)}
    about = family(figure, known)
    return comparable(plain(figure), known.get(about or "", ""))


def is_figure(name: str) -> bool:
    """Whether a metric says how good samples are (and not how training goes)."""
    return "/" not in plain(name) and plain(name) not in _SIGNALS


def read_folder(folder: Path) -> Entry:
    """The run in ``folder``."""
    config = read_config(folder / "config.yaml")
    entry = Entry(
        name=folder.name,
        variant=str(config.get("variant")),
        data=str(config.get("data")),
        settings={
            **(config.get("options") or {}),
            **{f"data.{k}": v for k, v in (config.get("data_options") or {}).items()},
        },
        seed=int(config.get("seed") or 0),
        train_split=config.get("train_split") or "train",
        place=str(folder),
    )
    picture: Path | None = None
    said: tuple[int, dict[str, str]] = (-1, {})
    for event in journal.read_standing(folder / journal.FILE):
        kind, step = event["kind"], int(event["step"])
        if kind == "metrics":
            entry.step = max(entry.step, step)
            said = step, _take_metrics(entry, step, event["values"])
        elif kind == "tag":
            take_tag(entry, event["name"], event["value"])
            if event["name"].startswith(PROTOCOL) and step == said[0]:
                # The first: an evaluation that is replayed says it again, and adds no figures.
                said[1].setdefault(event["name"].removeprefix(PROTOCOL), event["value"])
        elif kind == "picture":
            picture = folder / event["path"]
        elif kind in ("start", "end"):
            entry.fingerprint = event.get("data") or entry.fingerprint
            _fill_in(entry.settings, event.get("decided") or {})
            entry.begun = entry.begun or event["time"]
            entry.status = event.get("status") or "open"
    if picture is not None and picture.is_file():
        entry.grid = picture.read_bytes()
    return entry


def _fill_in(settings: dict[str, Any], decided: Mapping[str, Any]) -> None:
    """What was decided of settings that were left open, which MLflow's parameters say too."""
    for name, value in decided.items():
        if name in settings and settings[name] is None:
            settings[name] = value


def _take_metrics(entry: Entry, step: int, values: dict[str, float]) -> dict[str, str]:
    """Take in one event's metrics; where the protocols go that are told right after it."""
    said: dict[str, str] = {}
    if "seconds" in values:  # a logging point
        entry.clock.append((step, values.get("images_seen", 0.0), values["seconds"]))
        return said
    for name, value in values.items():
        entry.take(name, step, value)
        entry.said[name, step] = said
    return said


def take_tag(entry: Entry, name: str, value: str) -> None:
    """Take in a tag of the run: a protocol, its beginning, or what the diagnosis has found."""
    if name == "begun_from":
        entry.beginning = value
    elif name.startswith(PROTOCOL):
        entry.protocols[name.removeprefix(PROTOCOL)] = value
    elif name.startswith("diagnosis.") and name.count(".") == 1:
        failure = called(name.removeprefix("diagnosis."))
        if value in ("suspected", "confirmed"):
            entry.findings[failure] = value
        else:
            entry.findings.pop(failure, None)


def read_folders(
    storage: Path, *, trials: bool = False, say: Callable[[str], None] = print
) -> list[Entry]:
    """All runs in ``storage``; with ``trials`` those of searches as well.

    ``say`` is told of each that cannot be read, or whose configuration is gone.
    """
    from pipelines.tuning.study import is_study

    found: list[Entry] = []
    files = (path for name in ("config.yaml", journal.FILE) for path in storage.glob(f"*/{name}"))
    for folder in sorted({path.parent for path in files}):
        try:
            if trials or not is_study(folder):
                found += map(read_named, runs_in(folder))
        except UserError as error:
            say(f"left out, {folder.name}: {error}")
    return found


def runs_in(folder: Path) -> list[Path]:
    """The folder of a run itself; of a search those of its trials."""
    from pipelines.tuning.study import is_study

    if not is_study(folder):
        return [folder]
    return sorted(path.parent for path in folder.glob("*/config.yaml"))


def read_named(folder: Path) -> Entry:
    """The run in ``folder``; a trial by a name that no other search's trial has."""
    from pipelines.tuning.study import is_study

    entry = read_folder(folder)
    if not is_study(folder.parent):
        return entry
    return dataclasses.replace(entry, name=trial_name(folder.parent.name, entry.name))


def trial_name(search: str, trial: str) -> str:
    """What the trial of a search is called beside others: every search has a trial_0001."""
    return f"{search}/{trial}"


def repeats(entries: list[Entry]) -> list[list[Entry]]:
    """Runs that differ in nothing but their seed, together, in the order of the first of each.

    Those that have begun with the networks of others are not as those that began with their own.
    Two folders of pictures are different data, though their source is called the same.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        data = (entry.data, entry.train_split, entry.fingerprint)
        begun = bool(entry.beginning)
        key = repr((entry.variant, data, begun, sorted(entry.settings.items(), key=str)))
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the sample; 0 for one value)."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), deviation
