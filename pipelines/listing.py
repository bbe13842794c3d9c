"""The verb ``list``: what there is to train, to learn from and to judge by."""

from __future__ import annotations

import json
from typing import Any

from pipelines.command_line import Parser, add_plugin
from pipelines.launch import register_everything


def list_command(arguments: list[str]) -> int:
    """``list``: returns the exit code."""
    parser = Parser(
        "list",
        description="Variants, data sources, losses and feature extractors, with a line on each.",
    )
    parser.add_argument("--json", action="store_true", help="for programs to read")
    add_plugin(parser)
    given = parser.read(arguments)
    found = catalogue(tuple(given.get("plugin", ())))
    print(json.dumps(found, indent=1) if given.get("json") else as_text(found))
    return 0


def catalogue(plugins: tuple[str, ...] = ()) -> dict[str, list[dict[str, Any]]]:
    """Everything that is registered, by kind: name, summary, and what else a user must know."""
    register_everything(plugins)
    from gan_core.data.sources import SOURCES
    from gan_core.losses import LOSSES
    from gan_core.metrics.extractors import EXTRACTORS
    from gan_core.variant import VARIANTS

    variants = [
        {
            "name": name,
            "summary": VARIANTS[name].summary,
            "paper": VARIANTS[name].paper,
            "needs": sorted(VARIANTS[name].needs),
            "targets": sorted(VARIANTS[name].targets),
        }
        for name in VARIANTS
    ]
    sources = [
        {"name": name, "summary": SOURCES[name].summary, "needs_root": SOURCES[name].needs_root}
        for name in SOURCES
    ]
    losses = [{"name": name, "summary": LOSSES[name].summary} for name in LOSSES]
    extractors = [{"name": name, "summary": EXTRACTORS[name].summary} for name in EXTRACTORS]
    return {"variants": variants, "sources": sources, "losses": losses, "extractors": extractors}


def as_text(found: dict[str, list[dict[str, Any]]]) -> str:
    """The catalogue for people."""
    titles = {
        "variants": "variants (train VARIANT)",
        "sources": "data sources (--data SOURCE)",
        "losses": "adversarial losses (--loss NAME, of all systems but stackgan; relativistic of "
        "those whose game is the plain one)",
        "extractors": "feature extractors (--extractor NAME)",
    }
    width = 2 + max(len(entry["name"]) for entries in found.values() for entry in entries)
    lines = []
    for kind, entries in found.items():
        lines += [titles[kind], *(f"  {e['name']:<{width}}{_line(e)}" for e in entries), ""]
    return "\n".join([*lines, "`train VARIANT --help` lists a variant's options."])


def _line(entry: dict[str, Any]) -> str:
    parts = [entry["summary"]]
    if entry.get("needs"):
        names = ["labels" if name == "label" else name for name in entry["needs"]]
        parts.append(f"needs {', '.join(names)}")
    if entry.get("paper"):
        parts.append(entry["paper"])
    if entry.get("needs_root"):
        parts.append("needs --data-root")
    return "; ".join(parts)
