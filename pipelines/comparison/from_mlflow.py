"""Runs read from an MLflow experiment, wherever they were trained."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.errors import UserError
from pipelines.comparison.entries import Entry, is_figure, take_tag, trial_name
from pipelines.database import file_of
from pipelines.evaluate import plain
from pipelines.mlflow_client import connect, import_mlflow, reason
from pipelines.parcels import OPTION

_PAGE = 1000
_CLOCK = ("images_seen", "seconds")
_CONFIG = {
    "variant", "data", "seed", "name", "storage", "cache", "experiment", "workers", "device",
    "engine", "precision", "memory_format", "examples_on", "log_every",
    "evaluate_every", "checkpoint_every", "extractor", "extractor_weights", "samples", "stop_on",
    "stop_patience",
    "plugins", "data_root", "train_split", "begin_from", "begun_from",
}  # fmt: skip
"""Parameters that are not settings of the variant."""


def read_experiment(uri: str, experiment: str, *, trials: bool = False) -> list[Entry]:
    """The runs of ``experiment``; with ``trials`` the child runs of searches as well.

    Raises ``UserError`` if there is no such experiment or the server does not answer.
    """
    path = file_of(uri)
    if path is not None and not path.is_file():
        raise UserError(
            f"no MLflow database {path}: compare where the runs were trained, or name the server "
            "by MLFLOW_TRACKING_URI"
        )
    import_mlflow()
    try:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = ", ".join(sorted(e.name for e in client.search_experiments()))
            raise UserError(f"no experiment '{experiment}' in MLflow at {uri}: it has {known}")
        wanted = [run for run in _runs(client, found.experiment_id) if _wanted(run, trials)]
        return [_entry(client, run) for run in reversed(wanted)]
    except UserError:
        raise
    except Exception as error:  # a driver that is missing, an address of no known kind
        raise UserError(f"MLflow at {uri} does not answer ({reason(error)})") from None


def _runs(client: Any, experiment: str) -> list[Any]:
    """All runs, page by page: a search may have played thousands."""
    page = client.search_runs([experiment], max_results=_PAGE)
    runs = list(page)
    while page.token:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=page.token)
        runs += page
    return runs


def _wanted(run: Any, trials: bool) -> bool:
    kind = run.data.tags.get("kind")
    return kind != "search" and (trials or kind != "trial")


def _entry(client: Any, run: Any) -> Entry:
    params, tags, name = run.data.params, run.data.tags, str(run.info.run_name)
    entry = Entry(
        name=trial_name(tags["study"], name) if "study" in tags else name,
        variant=params.get("variant", tags.get("variant", "?")),
        data=params.get("data", tags.get("dataset", "?")),
        settings=_settings(params, tags),
        seed=_whole(params.get("seed", "")),
        train_split=params.get("train_split", "train"),
        status={"RUNNING": "open", "KILLED": "stopped"}.get(
            run.info.status, run.info.status.lower()
        ),
        place=f"MLflow run {run.info.run_id}",
        fingerprint=tags.get("data", ""),
        begun=(run.info.start_time or 0) / 1000,
    )
    for name, value in tags.items():
        take_tag(entry, name, value)
    for name in run.data.metrics:
        if is_figure(name):
            for point in _history(client, run, name):
                entry.take(name, point.step, point.value)
    entry.clock = _clock(client, run)
    entry.step = max([c[0] for c in entry.clock], default=0)
    entry.grid = _picture(client, run.info.run_id)
    return entry


def _whole(text: str) -> int:
    """A seed; 0 in runs of others, who may call anything so."""
    return int(text) if text.lstrip("-").isdecimal() else 0


def _settings(params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    """What the run was played by in the end: a resumed one may have other options than at first,
    which are its parameters.
    """
    first = {k: v for k, v in params.items() if k not in _CONFIG}
    last = {k.removeprefix(OPTION): v for k, v in tags.items() if k.startswith(OPTION)}
    return {k.replace("data_options.", "data.", 1): _value(v) for k, v in (first | last).items()}


def _history(client: Any, run: Any, name: str) -> list[Any]:
    if name not in run.data.metrics:
        return []
    points = client.get_metric_history(run.info.run_id, name)
    if plain(name) != name:  # of the verb evaluate, which may look at later generators first
        return sorted(points, key=lambda m: (m.step, m.timestamp))
    return _standing(points)


def _standing(points: list[Any]) -> list[Any]:
    """The ``points`` of a metric by step, without those that were taken back: a trial that goes on
    from an earlier state of another has played later steps before.
    """
    kept: list[Any] = []
    for point in sorted(points, key=lambda m: (m.timestamp, m.step)):
        while kept and kept[-1].step >= point.step:
            kept.pop()
        kept.append(point)
    return kept


def _clock(client: Any, run: Any) -> list[tuple[int, float, float]]:
    images, seconds = (_history(client, run, name) for name in _CLOCK)
    return [(a.step, a.value, b.value) for a, b in zip(images, seconds, strict=False)]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _picture(client: Any, run_id: str) -> bytes | None:
    """The last picture of samples, in MLflow's small copy."""
    steps = {}
    for file in client.list_artifacts(run_id, "images"):
        found = re.search(r"samples\+step\+(\d+)\+.*\+compressed\.webp$", file.path)
        if found:
            steps[int(found[1])] = file.path
    if not steps:
        return None
    with tempfile.TemporaryDirectory(prefix="gan-picture-") as scratch:
        return Path(client.download_artifacts(run_id, steps[max(steps)], scratch)).read_bytes()
