"""The report of a search: one HTML file about what was tried and what it showed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.progress import duration
from pipelines.report import page, svg
from pipelines.report.scales import Choices, Linear, Log, Scale, fitting
from pipelines.report.svg import BAD, GOOD, POOR, Dot, Line
from pipelines.tuning.importance import MINIMUM, importances
from pipelines.tuning.objective import WORST
from pipelines.tuning.records import Trial, best_trial, ranked
from pipelines.tuning.results import LAST_SETTINGS, REPORT, required_figures
from pipelines.tuning.study import Study
from pipelines.tuning.table import show_point, show_value
from tune_spaces import SearchSpace

_SMALL, _WIDE = (360, 250), (1080, 360)


def write_report(study: Study, trials: Sequence[Trial], space: SearchSpace) -> Path:
    """Write the report into the study's folder; its path."""
    path = study.folder / REPORT
    path.write_text(render(study, trials, space))
    return path


def render(study: Study, trials: Sequence[Trial], space: SearchSpace) -> str:
    """The report as HTML. ``space``: what was searched, with its reasons."""
    from pipelines.tuning.schedulers import describe

    domains = {name: _with_all(describe(d), name, trials) for name, d in space.domains().items()}
    order = ranked([t for t in trials if t.curve or t.ended])
    sections = [
        _summary(study, trials),
        page.section("Samples, from the best trial to the worst", _grids(study, order)),
        page.section("What mattered", _importance(order, domains)),
        page.section(
            f"{study.options.metric} against each option", _against(study, order, domains)
        ),
        page.section("All options together", _parallel(order, domains)),
        page.section("Learning curves", _curves(study, order)),
        page.section("Trials", _table(study, order, list(domains))),
        page.section("What was searched, and why", _space(study, space, domains)),
    ]
    return page.page(f"Search {study.run.name}", sections)


def _with_all(domain: Mapping[str, Any], name: str, trials: Sequence[Trial]) -> Mapping[str, Any]:
    """``domain`` with choices that trials have though the space has them no more: of a search that
    an earlier version began.
    """
    if "choices" not in domain:
        return domain
    choices = [*domain["choices"]]
    for trial in trials:
        value = trial.point.get(name)
        if value is not None and value not in choices:
            choices.append(value)
    return {**domain, "choices": tuple(choices)}


def _colours(order: Sequence[Trial]) -> dict[str, str]:
    """From the best (blue) to the worst (grey); red for what failed or was diagnosed."""
    last = max(1, len(order) - 1)
    return {
        t.name: BAD if t.verdict or t.status == "failed" else svg.blend(place / last)
        for place, t in enumerate(order)
    }


_KEY = page.key(
    [(GOOD, "best"), (POOR, "worst"), (BAD, "failed, or stopped as collapsed or diverged")]
)


def _told(trial: Trial, metric: str | None) -> str:
    return (
        f"{trial.name}: {metric} {trial.value:.4g} at step {trial.step}, {show_point(trial.point)}"
    )


def _summary(study: Study, trials: Sequence[Trial]) -> str:
    from pipelines.tuning.results import summarise

    best = best_trial(trials)
    n = summarise(study, trials, best)
    run, options = study.run, study.options
    lines = [
        f"{run.variant} on {run.data}, {n['trials']} trials of up to {study.max_steps:,} "
        f"iterations{_of_which(study, trials)}, scheduler {options.scheduler}, "
        f"search {_search(study)}, seed {run.seed}; "
        f"{options.metric} is {'minimised' if study.objective.mode == 'min' else 'maximised'}"
        + (f" under {', '.join(options.require)}" if options.require else ""),
        f"{_trials_were(n['finished'])} played to the end, {n['behind']} stopped as behind, "
        f"{n['diagnosed']} as diagnosed, {n['failed']} failed"
        f"{f', {opened} are open' if (opened := n['open']) else ''}. "
        f"{_saved(n['steps_saved_share'])} of the iterations{' of those that ended' * bool(opened)}"
        f" ({n['steps_played']:,} of {study.max_steps * len(trials):,}"
        f"{' of all' * bool(opened)} played, {duration(sum(t.seconds for t in trials))} of "
        "training).",
    ]
    if best is None:
        required = " and met what is required" if options.require else ""
        lines.append(f"No trial was played to its end{required}.")
    else:
        lines.append(f"Best: {_told(best, options.metric)}")
        if best.went_on:
            lines.append(LAST_SETTINGS.format(best.went_on).capitalize() + ".")
    protocol = best.protocol if best else next((t.protocol for t in trials if t.protocol), {})
    notes = [page.paragraph(f"{k}: {v}", note=True) for k, v in sorted(protocol.items())]
    return "".join(page.paragraph(line) for line in lines) + "".join(notes)


def _trials_were(count: int) -> str:
    return "1 trial was" if count == 1 else f"{count} trials were"


def _search(study: Study) -> str:
    """What has chosen the points: pbt begins all trials at once, when nothing is learnt yet."""
    if study.points:
        return "a list of points"
    return "random" if study.options.scheduler == "pbt" else study.options.search


def _grids(study: Study, order: Sequence[Trial]) -> str:
    shown = [t for t in order if t.grid is not None]
    if not shown:
        return ""
    # The best is what the summary calls so: it was played to its end and meets what is required.
    places = {len(shown) // 2: "median", len(shown) - 1: "worst"}
    places[0] = "best" if shown[0] is best_trial(order) else "first in rank"
    return page.row(
        page.figure(
            page.picture(shown[place].grid, f"samples of {shown[place].name}", 340),
            f"{name}: {_told(shown[place], study.options.metric)}",
        )
        for place, name in sorted(places.items())
    )


def _importance(order: Sequence[Trial], domains: Mapping[str, Mapping[str, Any]]) -> str:
    found = importances(order, domains)
    if not found:
        few = f"Too few trials have ended, or nothing tells them apart: {MINIMUM} are needed."
        return page.paragraph(few, note=True)
    told = (
        "Share of the variance of the trials' ranks that each option explains (fANOVA, Hutter et "
        "al. 2014, by Optuna). With few trials these are rough."
    )
    return svg.bars(list(found.items())) + page.paragraph(told, note=True)


def _scale(domain: Mapping[str, Any]) -> Scale:
    if "choices" in domain:
        return Choices(tuple(domain["choices"]))
    kind = Log if domain["log"] else Linear
    return kind(float(domain["lower"]), float(domain["upper"]))


def _value_scale(order: Sequence[Trial]) -> Linear | Log:
    return fitting([t.value for t in order if t.objective < WORST] or [t.value for t in order])


def _against(study: Study, order: Sequence[Trial], domains: Mapping[str, Mapping[str, Any]]) -> str:
    colours, metric = _colours(order), str(study.options.metric)
    upright = _value_scale(order)
    charts = [
        svg.scatter(
            [
                Dot(t.point.get(n), t.value, colours[t.name], _told(t, metric), _whole(t))
                for t in order[::-1]
            ],
            _scale(domain),
            upright,
            (n, metric),
            _SMALL,
        )
        for n, domain in domains.items()
    ]
    early = (
        "A ring is a trial that was stopped early, or is open, at what it had reached by then: "
        "below or above a dot it shows how long it played as much as how good its settings are."
    )
    note = "" if all(map(_whole, order)) else page.paragraph(early, note=True)
    return page.row(map(page.figure, charts)) + _KEY + note


def _whole(trial: Trial) -> bool:
    return trial.status == "finished"


def _parallel(order: Sequence[Trial], domains: Mapping[str, Mapping[str, Any]]) -> str:
    colours = _colours(order)
    values: Scale = _value_scale(order)
    axes = [*((n, _scale(d)) for n, d in domains.items()), ("result", values)]
    rows = [
        (
            [*(t.point.get(n) for n in domains), t.value],
            colours[t.name],
            _told(t, "result"),
            _whole(t),
        )
        for t in order[::-1]
    ]
    early = "A dashed line is a trial that was stopped early, or is open, at what it had reached."
    note = "" if all(map(_whole, order)) else page.paragraph(early, note=True)
    return svg.parallel(axes, rows, _WIDE) + _KEY + note


def _curves(study: Study, order: Sequence[Trial]) -> str:
    colours, metric, objective = _colours(order), str(study.options.metric), study.objective
    series = [
        Line(
            [(study.progress(s, t.interval), objective.value(figures)) for s, figures in t.curve],
            colours[t.name],
            _told(t, metric),
        )
        for t in order[::-1]
    ]
    values = [v for line in series for _, v in line.points if math.isfinite(v)]
    own = "" if _one_pace(study, order) else " (at k and batches as given)"
    chart = svg.lines(
        series, Linear(0, study.max_steps), fitting(values), (f"iteration{own}", metric), _WIDE
    )
    return chart + _KEY


def _of_which(study: Study, trials: Iterable[Trial]) -> str:
    """How iterations are counted, where trials differ in that."""
    if _one_pace(study, trials):
        return ""
    return " (as many examples where k or batches are others than given)"


def _one_pace(study: Study, trials: Iterable[Trial]) -> bool:
    """Whether no trial's settings gave it more or fewer iterations than others."""
    return all(trial.interval == study.every for trial in trials)


def _table(study: Study, order: Sequence[Trial], names: Sequence[str]) -> str:
    head = [
        "trial",
        "ended as",
        "played",
        "iterations",
        "seconds",
        str(study.options.metric),
        *required_figures(study),
        *names,
        "why",
    ]
    rows = [
        [
            t.name,
            t.verdict.replace("_", " ") or t.status,
            f"{t.progress / study.max_steps:.0%}",
            f"{t.step:,}",
            f"{t.seconds:.0f}",
            f"{t.value:.4g}",
            *(f"{t.figures.get(name, math.nan):.4g}" for name in required_figures(study)),
            *(show_value(t.point.get(name)) for name in names),
            _why(t),
        ]
        for t in order
    ]
    return page.table(head, rows, text=(0, 1, len(head) - 1))


def _why(trial: Trial) -> str:
    """Why a trial ended as it did, and whose state it has gone on from."""
    ended = trial.reason or "; ".join(trial.findings.values())
    went_on = f"went on from {trial.went_on}" if trial.went_on else ""
    return "; ".join(part for part in (ended, went_on) if part)


def _space(study: Study, space: SearchSpace, domains: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, dimension in space.dimensions.items():
        d = domains[name]
        if "choices" in d:
            told = ", ".join(map(str, d["choices"]))
        else:
            told = f"{d['lower']:g} to {d['upper']:g}{' (log)' * d['log']}"
        rows.append([name, told, dimension.reason])
    tried = space.first_points(study.run.options)[: study.options.trials]
    settings: dict[bool, list[list[str]]] = {True: [], False: []}
    for s in space.settings:
        was = space.filled(s, study.run.options) in tried
        settings[was].append([s.source, show_point(s.values) or "the defaults"])
    heads = {True: "tried first", False: "not tried: outside of the ranges, or of the trials"}
    tables = [
        page.table([heads[was], "values"], s, text=(0, 1)) for was, s in settings.items() if s
    ]
    return page.table(["option", "range", "reason"], rows, text=(0, 1, 2)) + "".join(tables)


def _saved(share: float) -> str:
    if share >= 0:
        return f"Stopping early saved {share:.0%}"
    return f"Going back to others' states took {-share:.0%} more"
