"""What a run says in MLflow's terms: its configuration, and its journal in parcels to be sent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gan_core import journal

BATCH = 1000
"""The most metrics that a tracking server takes at once."""
TAG_LENGTH = 5000
OPTION = "option."
"""Before the name of an option in the tag that tells its value where the parameter does not."""


def flat_params(config: Mapping[str, Any]) -> dict[str, str]:
    """The configuration as MLflow parameters: the variant's options stand beside the others.

    A search's ``run``, of which its trials are variations, has its own behind "run.".
    """
    flat: dict[str, str] = {}
    for name, value in config.items():
        if name == "options":
            # What is None is decided when the data are known: the journal's start tells it.
            flat.update({k: str(v) for k, v in value.items() if v is not None})
        elif name == "data_options":
            flat.update({f"data_options.{k}": str(v) for k, v in (value or {}).items()})
        elif name == "plugins":
            flat[name] = ",".join(value)
        elif name == "run":
            flat.update({f"run.{k}": v for k, v in flat_params(value).items()})
        elif name == "begun_from":
            continue  # a tag of that name tells it in words
        else:
            flat[name] = str(value)
    return flat


def flat_tags(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as MLflow tags: ``{"parameters": {"generator": 5}}`` as parameters/generator.

    A mapping of texts (a protocol) becomes one tag of ``name: text`` parts.
    """
    tags: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            if value and all(isinstance(v, str) for v in value.values()):
                tags[key] = "; ".join(f"{k}: {v}" for k, v in value.items())
            else:
                tags.update(flat_tags(value, f"{key}/"))
        elif value is not None:
            tags[key] = str(value)
    return {k: v[:TAG_LENGTH] for k, v in tags.items()}


@dataclasses.dataclass
class Parcel:
    """Consecutive events of the journal that are sent together; ``end`` is the offset behind.

    ``params``: options that were decided as a run started; ``options``: all that it has since then.
    ``starts``: whether it has been started anew in them.
    """

    metrics: list[tuple[str, float, int, int]] = dataclasses.field(default_factory=list)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    params: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    starts: bool = False
    pictures: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    end: int = 0


def metric_name(name: str) -> str:
    """``name`` with the characters that MLflow does not take replaced."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def parcels(path: Path, offset: int) -> Iterator[Parcel]:
    """The journal from ``offset`` on in parcels of about a batch."""
    parcel = Parcel(end=offset)
    for event, end in journal.read(path, offset):
        milliseconds = int(1000 * event["time"])
        kind, step = event["kind"], event["step"]
        if kind == "metrics":
            parcel.metrics += [
                (metric_name(n), float(v), milliseconds, step) for n, v in event["values"].items()
            ]
        elif kind == "picture":
            parcel.pictures.append({**event, "milliseconds": milliseconds})
        elif kind == "tag":
            parcel.tags.update(flat_tags({event["name"]: event["value"]}))
        elif kind == "start":
            parcel.starts = True
            decided = {k: str(v) for k, v in event.pop("decided", {}).items()}
            parcel.params.update(decided)
            given = flat_params({"options": event.pop("options", {})})
            parcel.options = {**given, **decided} if given else {}  # earlier versions tell none
            elsewhere = ("kind", "step", "time", "begun_from")
            about = {k: v for k, v in event.items() if k not in elsewhere}
            parcel.tags.update(flat_tags(about))
        parcel.end = end
        if len(parcel.metrics) >= BATCH or len(parcel.pictures) >= 10:
            yield parcel
            parcel = Parcel(end=end)
    if parcel.end > offset and parcel != Parcel(end=offset):
        yield parcel
