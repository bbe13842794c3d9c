"""What came of a search: the best configuration, the champion, the report, the last words."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gan_core.journal import Journal
from pipelines.run_folder import append
from pipelines.tracking import how_to_see
from pipelines.tuning.champion import NotRegistered, crown
from pipelines.tuning.family import Family
from pipelines.tuning.objective import WORST
from pipelines.tuning.records import BEHIND, Trial, best_trial, read_trials
from pipelines.tuning.study import Study
from pipelines.tuning.table import show_point

_OF_THE_SEARCH = (
    "name", "stop_on", "stop_patience", "checkpoint_every", "evaluate_every", "log_every",
)  # fmt: skip
"""What a trial's configuration has that is not of its setting."""
BEST, SUMMARY, REPORT = "best.yaml", "summary.json", "report.html"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a search; ``complete``: all trials were played to their ends."""

    study: Study
    trials: Sequence[Trial]
    best: Trial | None
    complete: bool


def saved_share(trials: Sequence[Trial], max_steps: int) -> float:
    """The share of all trials' iterations that stopping early has saved.

    Below 0 where more was played: trials of a population play again what they are set back by.
    """
    ended = [trial for trial in trials if trial.ended]
    played = sum(trial.iterations_played for trial in ended)
    return 1.0 - played / (max_steps * len(ended)) if ended else 0.0


def conclude(study: Study, family: Family, complete: bool) -> Outcome:
    """Write what came of the study, send it, register the winner, and print the last words."""
    trials = read_trials(study)
    best = best_trial(trials)
    if best is not None:
        write_best(study, best)
    status = "finished" if complete else "stopped"
    summary = summarise(study, trials, best)
    (study.folder / SUMMARY).write_text(json.dumps({"status": status, **summary}, indent=1))
    if trials:
        from pipelines.tuning.report import write_report
        from pipelines.tuning.schedulers import study_space

        write_report(study, trials, study_space(study))
    _note(study, status, summary, trials)
    print("\n".join(last_words(study, trials, best, complete)), flush=True)
    sent = family.end(status)  # for which a slow server has minutes
    if not sent:
        print(f"MLflow at {family.where} did not take everything; send it with: {_resuming(study)}")
        return Outcome(study, trials, best, complete)
    print("\n".join(how_to_see(family.parent.state)))
    if complete and best is not None:
        _register(study, best)
    return Outcome(study, trials, best, complete)


def write_best(study: Study, best: Trial) -> Path:
    """The best configuration as the file that ``train --config`` takes."""
    values = study.trial_config(best.point, best.name).to_dict()
    for name in _OF_THE_SEARCH:
        del values[name]
    values.update(storage=study.run.storage, cache=study.run.cache)
    path = study.folder / BEST
    path.write_text(
        f"# {study.run.name}, {best.name}: {study.options.metric} {best.value:.6g} "
        f"at step {best.step}\n" + yaml.safe_dump(values, sort_keys=False)
    )
    return path


def summarise(study: Study, trials: Sequence[Trial], best: Trial | None) -> dict[str, Any]:
    """The search in numbers."""
    return {
        "metric": study.options.metric,
        "trials": len(trials),
        "finished": sum(t.status == "finished" for t in trials),
        "behind": sum(t.status == "stopped" and t.reason == BEHIND for t in trials),
        "failed": sum(t.status == "failed" for t in trials),
        "diagnosed": sum(bool(t.verdict) for t in trials),
        "open": sum(not t.ended for t in trials),
        "steps_played": sum(t.iterations_played for t in trials),
        "steps_saved_share": saved_share(trials, study.max_steps),
        "best": best
        and {
            "trial": best.name,
            "value": best.value,
            "figures": best.figures,
            "point": best.point,
        },
    }


def _note(study: Study, status: str, summary: dict[str, Any], trials: Sequence[Trial]) -> None:
    """The end of the search in its own journal, from where the parent run has it."""
    numbers = {k: float(v) for k, v in summary.items() if isinstance(v, int | float)}
    if summary["best"]:
        numbers[f"best/{summary['metric']}"] = summary["best"]["value"]
        append(study.folder, "tag", name="best_trial", value=summary["best"]["trial"])
    values = {n: v for n, v in numbers.items() if math.isfinite(v)}
    book = Journal(study.folder)
    book.write("metrics", sum(t.ended for t in trials), values=values)
    book.close()
    append(study.folder, "end", status=status, summary={})


def last_words(
    study: Study, trials: Sequence[Trial], best: Trial | None, complete: bool
) -> list[str]:
    """What is said at the end."""
    numbers = summarise(study, trials, best)
    left = f"{numbers['open']} to be played on, " if numbers["open"] else ""
    saved = numbers["steps_saved_share"]
    lines = [
        f"{'finished' if complete else 'stopped'}: {study.run.name}, {numbers['trials']} trials: "
        f"{numbers['finished']} played to the end, {numbers['behind']} stopped as behind, "
        f"{numbers['diagnosed']} as diagnosed, {left}{numbers['failed']} failed; "
        + (f"{saved:.0%} of the steps saved" if saved >= 0 else f"{-saved:.0%} more steps played")
    ]
    if best is None:
        required = ", ".join(study.options.require)
        met, yet = f" and met {required}" * bool(required), " yet" * (not complete)
        whole = [t for t in trials if t.status == "finished" and t.objective < WORST]
        nearest = min(whole, key=lambda t: t.objective, default=None)
        near = f"; nearest is {told_of(study, nearest)}" if nearest else ""
        lines.append(f"no trial was played to its end{met}{yet}{near}")
        if complete and numbers["diagnosed"]:
            lines.append(
                "give trials more iterations (--max-steps), if their failures may be those of a "
                "beginning, or play them on in spite of them (--stop-on divergence)"
            )
    else:
        lines.append(f"best   {told_of(study, best)}")
        lines.append(f"       {show_point(best.point)}")
        if best.went_on:
            lines.append(f"       {LAST_SETTINGS.format(best.went_on)}")
        lines.append(f"config {study.folder / BEST}")
        config = shlex.quote(str(study.folder / BEST))
        lines.append(f"       python -m pipelines train --config {config} --seed 1")
    if (study.folder / REPORT).exists():
        lines.append(f"report {study.folder / REPORT}")
    if not complete:
        lines.append(how_to_go_on(study))
    return lines


LAST_SETTINGS = (
    "it went on from {}: these settings are the last of several, by which a training from its "
    "beginning may end elsewhere"
)
"""What is to be known of the best of a population, of whose course ``best.yaml`` has the end."""


def told_of(study: Study, trial: Trial) -> str:
    """``trial`` with its figure, and those that requirements are about."""
    figures = {name: trial.figures.get(name, math.nan) for name in required_figures(study)}
    also = "".join(f", {name} {value:.4g}" for name, value in figures.items())
    return f"{trial.name}: {study.options.metric} {trial.value:.4g}{also}"


def required_figures(study: Study) -> list[str]:
    """The names of the figures that requirements are about, beside the metric."""
    names = dict.fromkeys(r.figure for r in study.objective.requirements)
    return [name for name in names if name != study.options.metric]


def how_to_go_on(study: Study) -> str:
    """The line for a user whose search has been stopped."""
    return f"go on with: {_resuming(study)}"


def _resuming(study: Study) -> str:
    name, storage = shlex.quote(str(study.run.name)), shlex.quote(study.run.storage)
    return f"python -m pipelines tune --resume {name} --storage {storage}"


def _register(study: Study, best: Trial) -> None:
    name = study.options.register or f"{study.run.variant}-{study.run.data}"
    if name != "none":
        try:
            told = crown(
                name,
                best.folder,
                study.objective,
                best.figures,
                best.protocol,
                again=f"try again with: {_resuming(study)}",
            )
        except NotRegistered as error:
            told = str(error)
        print(f"model  {told}")
