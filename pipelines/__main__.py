"""The command line: ``python -m pipelines VERB ...``, also installed as ``gan``.

Wrong input is answered by one line on stderr and exit code 2. This module imports nothing heavy,
so that help and mistakes are answered at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence

from gan_core.errors import UserError, unknown_word
from gan_core.exit_codes import exit_code
from gan_core.host_memory import keep_freed_memory
from pipelines.collector import collect_seldom

VERBS = {
    "list": (
        "pipelines.listing:list_command",
        "what there is: variants, data sources, losses, feature extractors",
    ),
    "train": (
        "pipelines.launch:train_command",
        "train a GAN, alone or on a Ray cluster, tracked in MLflow",
    ),
    "tune": (
        "pipelines.tune:tune_command",
        "search the options that a GAN is sensitive to, with Ray Tune",
    ),
    "evaluate": (
        "pipelines.evaluate:evaluate_command",
        "score the generator of a run: FID, coverage, likelihood",
    ),
    "compare": (
        "pipelines.compare:compare_command",
        "put runs side by side: figures with protocols, curves, samples",
    ),
    "study": (
        "pipelines.study:study_command",
        "the whole: search each system, train the winners, test, compare",
    ),
    "diagnose": (
        "pipelines.diagnose:diagnose_command",
        "say how a run has failed (mode collapse, vanishing gradient, ...), and what to try",
    ),
    "sample": ("pipelines.sample:sample_command", "draw pictures from the generator of a run"),
    "sync": (
        "pipelines.sync:sync_command",
        "send to MLflow what could not be sent while it was away",
    ),
}

_HELP = """\
Train, score and compare generative adversarial nets.

  python -m pipelines VERB ...       (installed as: gan VERB ...)

{verbs}

A first run, and what it made:

  python -m pipelines train dcgan --data digits --image-size 16 --width 32 --kernel 4 \\
    --batch-size 64 --lr-d 5e-4 --lr-g 5e-4 --r1 2 --steps 2000 --workers 0 --name first
  python -m pipelines sample first --out grid.png

`VERB --help` says more, `train VARIANT --help` lists a variant's own options.
"""


def overview() -> str:
    """The help without a verb."""
    lines = [f"  {verb:<10}{summary}" for verb, (_, summary) in VERBS.items()]
    return _HELP.format(verbs="\n".join(lines))


def run(arguments: Sequence[str]) -> int:
    """Run the verb that ``arguments`` begin with; returns the exit code, raises ``UserError``."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        if verb.startswith("-"):
            raise UserError(f"{verb} before the verb: begin with one of {', '.join(VERBS)}")
        raise unknown_word("verb", verb, VERBS)
    module, _, function = VERBS[verb][0].partition(":")
    try:
        command: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return command(list(arguments[1:]))
    except ModuleNotFoundError:
        if importlib.util.find_spec("torch") is not None:
            raise
        raise UserError(
            f"{sys.executable} has no torch: activate the environment (. .venv/bin/activate), "
            "which `make environment` makes"
        ) from None


class _Lines(logging.Formatter):
    """Warnings as such; what is merely told, plain."""

    def format(self, record: logging.LogRecord) -> str:
        told = super().format(record)
        return told if record.levelno < logging.WARNING else f"warning: {told}"


class _Once(logging.Filter):
    """Passes each warning about data once: they are read to be checked, and again to be played."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not record.name.startswith("gan_core.data."):
            return True
        text = record.getMessage()
        known = text in self._told
        self._told.add(text)
        return not known


def _show_log() -> None:
    """Warnings, and how far the reading of data is, on stderr."""
    shown = logging.StreamHandler()
    shown.setFormatter(_Lines("%(message)s"))
    shown.addFilter(_Once())
    logging.basicConfig(level=logging.WARNING, handlers=[shown])
    logging.getLogger("gan_core.data").setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; ``arguments`` default to the process's own. Returns the exit code."""
    if "" not in sys.path:  # `gan` must find a plugin in the current folder as `python -m` does
        sys.path.insert(0, "")
    collect_seldom()
    keep_freed_memory()
    _show_log()
    return exit_code(lambda: run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
