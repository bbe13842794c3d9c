"""Trials as their journals tell them: what was tried, how far it got, what came of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_core import journal
from gan_core.config import read_config
from pipelines.evaluate import PREFIXES
from pipelines.tuning.objective import WORST
from pipelines.tuning.study import Study
from pipelines.worker import STOPPED_BY

BEHIND = "behind"
"""The reason that ends trials that the scheduler stopped."""
SEARCHED = "searched/"
"""How metrics begin that hold what is searched, which can change while a trial plays."""
WENT_ON = "went_on_from"
"""The tag that says from whose state, and from which step of it, a trial went on last."""
_DIAGNOSIS, _PROTOCOL = "diagnosis.", "protocol."
_ASIDE = (SEARCHED, *PREFIXES)
"""How metrics begin that are no evaluation of the trial's own: the verb `evaluate` adds some."""


@dataclasses.dataclass
class Trial:
    """One trial. ``curve`` has (step, figures) of every evaluation, the last decides.

    ``step`` counts its own iterations, ``interval`` of them from one evaluation to the next;
    ``progress`` is how far it is, in iterations at the study's pace (``Study.progress``).
    ``status``: "finished", "stopped", "failed", or "open" while there is more to play.
    ``findings``: failures of training that the diagnosis has confirmed, with the evidence.
    ``verdict``: the one for which the trial was stopped, "" if it was not. ``reason``: why it was
    stopped, or the line of its error. ``seconds``: of playing, without evaluations. ``reached``:
    the objective of its last figures, which counts for nothing where it failed. ``went_on``: from
    whose state it went on last ("trial_0004 at step 100"), "" where it is all its own.
    """

    name: str
    folder: Path
    point: dict[str, Any]
    status: str = "open"
    verdict: str = ""
    reason: str = ""
    step: int = 0
    interval: int = 1
    progress: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, dict[str, float]]] = dataclasses.field(default_factory=list)
    findings: dict[str, str] = dataclasses.field(default_factory=dict)
    protocol: dict[str, str] = dataclasses.field(default_factory=dict)
    grid: Path | None = None
    went_on: str = ""
    value: float = float("nan")
    objective: float = WORST
    reached: float = WORST
    feasible: bool = False

    @property
    def figures(self) -> dict[str, float]:
        """The figures of the last evaluation."""
        return self.curve[-1][1] if self.curve else {}

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to play."""
        return self.status != "open"

    @functools.cached_property
    def iterations_played(self) -> int:
        """All that it has played, in iterations at the study's pace.

        That is more than how far it is where it was set back and played some of it again, and less
        where it took over what another had played.
        """
        played = place = 0
        for event, _ in journal.read(self.folder / journal.FILE):
            step = int(event["step"])
            if event["kind"] in ("start", "rewind"):
                place = step
            elif event["kind"] in ("metrics", "end") and step > place:
                played, place = played + step - place, step
        return round(self.progress * played / self.step) if self.step else 0


def trial_folders(study: Path) -> list[Path]:
    """The folders of all trials of the study in ``study``, in their order."""
    return sorted(p for p in study.glob("trial_*") if p.is_dir())


def read_trial(folder: Path, study: Study) -> Trial:
    """The trial in ``folder`` as far as it has got."""
    config = _config(folder)
    trial = Trial(folder.name, folder, _point(config, study))
    trial.interval = max(1, int(config.get("evaluate_every", study.every)))
    for event in journal.read_standing(folder / journal.FILE):
        _take(trial, event)
    objective = study.objective
    trial.value = objective.value(trial.figures)
    whole = trial.status == "finished"
    trial.progress = study.max_steps if whole else study.progress(trial.step, trial.interval)
    broken = trial.status == "failed" or bool(trial.verdict)
    trial.reached = objective(trial.figures)
    trial.objective = WORST if broken else trial.reached
    trial.feasible = not broken and objective.shortfall(trial.figures) == 0
    return trial


def stopped_by(folder: Path) -> str | None:
    """What the trial in ``folder`` says has stopped it since it was begun last."""
    found = None
    for event, _ in journal.read(folder / journal.FILE):
        if event["kind"] == "start":
            found = None
        elif event["kind"] == "tag" and event["name"] == STOPPED_BY:
            found = str(event["value"])
    return found


def _take(trial: Trial, event: dict[str, Any]) -> None:
    """Take in one event of the trial's journal."""
    kind, step = event["kind"], int(event["step"])
    if kind == "start":
        trial.status, trial.verdict, trial.reason, trial.findings = "open", "", "", {}
    elif kind == "metrics":
        _take_metrics(trial, step, event["values"])
    elif kind == "picture":
        trial.grid = trial.folder / event["path"]
    elif kind == "tag" and event["name"].startswith(_DIAGNOSIS):
        _take_finding(trial, event["name"].removeprefix(_DIAGNOSIS), event["value"])
    elif kind == "tag" and event["name"].startswith(f"{_PROTOCOL}evaluate."):
        pass
    elif kind == "tag" and event["name"].startswith(_PROTOCOL):
        trial.protocol[event["name"].removeprefix(_PROTOCOL)] = event["value"]
    elif kind == "tag" and event["name"] == WENT_ON:
        trial.went_on = str(event["value"])
    elif kind == "end":
        _take_end(trial, event["status"], event.get("summary") or {})
    trial.step = max(trial.step, step) if kind in ("metrics", "end") else trial.step


def _take_metrics(trial: Trial, step: int, values: dict[str, float]) -> None:
    if "seconds" in values:  # a logging point
        trial.seconds = max(trial.seconds, values["seconds"])
    elif all(name.startswith(_ASIDE) for name in values):
        pass
    elif trial.curve and trial.curve[-1][0] == step:  # an evaluation in two parts
        trial.curve[-1][1].update(values)
    else:
        trial.curve.append((step, dict(values)))


def _take_finding(trial: Trial, name: str, value: str) -> None:
    """A tag of the diagnosis: the state of a failure, or the evidence for it."""
    failure, _, evidence = name.partition(".")
    if not evidence and value != "confirmed":
        trial.findings.pop(failure, None)
    elif not evidence or failure in trial.findings:
        trial.findings[failure] = value


def _take_end(trial: Trial, status: str, summary: dict[str, Any]) -> None:
    trial.status = status
    trial.verdict = summary.get("stopped_by") or ""
    if trial.verdict:
        trial.reason = trial.findings.get(trial.verdict, trial.verdict)
    else:
        trial.reason = summary.get("reason") or ""


def _config(folder: Path) -> dict[str, Any]:
    """The configuration of the trial in ``folder``, empty where it has not begun."""
    path = folder / "config.yaml"
    return read_config(path) if path.exists() else {}


def _point(config: dict[str, Any], study: Study) -> dict[str, Any]:
    """The values of the options that were searched; none of a trial that has not begun."""
    options = config.get("options")
    return {name: options.get(name) for name in searched_names(study)} if options else {}


@functools.lru_cache(maxsize=8)
def _names(variant: str, target: str, fixed: tuple[str, ...]) -> tuple[str, ...]:
    from tune_spaces import space_of

    return tuple(n for n in space_of(variant, target).dimensions if n not in fixed)


def searched_names(study: Study) -> tuple[str, ...]:
    """The names of the options that the study varies."""
    if study.points:
        return tuple(study.points[0])
    return _names(study.run.variant, study.target, study.not_searched)


def read_trials(study: Study) -> list[Trial]:
    """All trials of a study, in the order in which they were begun."""
    return [read_trial(folder, study) for folder in trial_folders(study.folder)]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Trials from the best to the worst; those that broke equally early by what they had reached,
    then by name.
    """
    return sorted(trials, key=lambda trial: (*rank_key(trial), trial.reached, trial.name))


def rank_key(trial: Trial) -> tuple[bool, int, float]:
    """By what trials are ranked, low is good.

    What failed, or whose training did, comes last; then what was stopped for being behind,
    by how far it got; among those that got equally far the objective decides.
    """
    broken = trial.status == "failed" or bool(trial.verdict)
    return broken, -trial.progress, trial.objective


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The best of those that were played to their end and meet what is required.

    ``None`` if there is none. Of equally good ones the first that is all its own: by the settings
    of others a training from its beginning may end elsewhere.
    """
    whole = [t for t in trials if t.status == "finished" and t.feasible and t.objective < WORST]
    return min(whole, key=lambda t: (t.objective, bool(t.went_on)), default=None)
