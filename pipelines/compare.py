"""The verb ``compare``: runs side by side, with how their figures were measured."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError
from gan_core.options import option
from pipelines.command_line import Parser, add_fields, checked_options
from pipelines.runs import check_writable, find_run, out_file, runs_folder

if TYPE_CHECKING:
    from pipelines.comparison.entries import Entry


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """The options of ``compare``."""

    experiment: str | None = option(
        None, "the runs of this MLflow experiment (default: the runs in --storage)"
    )
    variants: tuple[str, ...] = option((), "only these systems, with commas")
    data: str | None = option(None, "only runs on this data source")
    trials: bool = option(False, "the trials of searches as well")
    by: str = option("step", "what curves run over", choices=("step", "images", "seconds"))
    out: str | None = option(None, "the HTML file to write (default: comparison.html)")
    markdown: bool = option(False, "print Markdown instead of writing a page")
    storage: str = option("runs", "where the runs are")


def compare_command(arguments: list[str]) -> int:
    """``compare``: returns the exit code."""
    parser = Parser(
        "compare",
        description="Put runs side by side: figures with their protocols, curves, samples. "
        "Figures of different protocols are never in one column.",
        epilog="example:\n  python -m pipelines compare --variants gan,dcgan --out report.html",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="names or folders; that of a search means its trials (default: all runs)",
    )
    names = [field.name for field in dataclasses.fields(CompareOptions)]
    add_fields(parser.add_argument_group("options of compare"), CompareOptions, names)
    given = parser.read(arguments)
    options = checked_options(CompareOptions, given)
    if options.markdown and options.out:
        raise UserError("--markdown is printed and --out writes a page: give one of them")
    entries = chosen(given.get("runs", []), options)
    title = options.experiment or _runs(len(entries))
    if options.markdown:
        from pipelines.comparison.render import markdown

        print(markdown(entries, title), end="")
        return 0
    path = write_page(entries, title, out_file(options.out or "comparison.html"), options.by)
    print(f"{_runs(len(entries))} compared: {path}")
    return 0


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def chosen(names: list[str], options: CompareOptions) -> list[Entry]:
    """The runs that are meant; ``UserError`` if there are none."""
    entries = _all(names, options)
    _check_words("--variants", options.variants, {e.variant for e in entries})
    _check_words("--data", (options.data,) if options.data else (), {e.data for e in entries})
    found = [
        e
        for e in entries
        if (not options.variants or e.variant in options.variants)
        and options.data in (None, e.data)
        and e.figures
    ]
    if not found:
        left_out = f" ({len(entries)} were left out)" if entries else ""
        trials = "" if names or options.trials else ", such as those of searches (--trials)"
        raise UserError(
            f"no run with figures is meant{left_out}: train one, or ask for others{trials}"
        )
    _tell_left_out([e for e in entries if e not in found])
    return sorted(found, key=lambda e: (e.data, e.variant))


def _check_words(option: str, words: Sequence[str], known: Collection[str]) -> None:
    """Raises ``UserError`` for a word that none of the runs has."""
    for word in words:
        if known and word not in known:
            raise UserError(
                f"no run has {option} {word}: runs have {', '.join(sorted(known))} (trials of "
                "searches are taken with --trials, or where a search is named)"
            )


def _tell_left_out(entries: list[Entry]) -> None:
    without = [e.name for e in entries if not e.figures]
    others = len(entries) - len(without)
    if without:
        names, remedy = ", ".join(sorted(without)), "`evaluate RUN --extractor ...` makes some"
        print(f"left out, without figures: {names} ({remedy})", file=sys.stderr)
    if others:
        print(f"left out, of other systems or sources: {others}", file=sys.stderr)


def _all(names: list[str], options: CompareOptions) -> list[Entry]:
    from pipelines.comparison.entries import read_folders, read_named, runs_in

    storage = runs_folder(options.storage)
    if names:
        found = dict.fromkeys(run for name in names for run in runs_in(find_run(name, storage)))
        return [read_named(run) for run in found]  # each once
    if options.experiment is not None:
        from pipelines.cluster import base_folder
        from pipelines.comparison.from_mlflow import read_experiment
        from pipelines.mlflow_client import tracking_uri

        return read_experiment(
            tracking_uri(base_folder()), options.experiment, trials=options.trials
        )
    if not storage.is_dir():
        raise UserError(f"no folder {storage}: give the runs' with --storage, or --experiment")
    return read_folders(storage, trials=options.trials, say=_warn)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def write_page(entries: list[Entry], title: str, path: Path, by: str = "step") -> Path:
    """Write the comparison to ``path``."""
    from pipelines.comparison.render import html

    path = path.resolve()
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name a file such as {path / 'comparison.html'}")
    check_writable(path.parent, f"--out {path}")
    path.write_text(html(entries, title, by))
    return path
