"""How long a run takes until its first iteration, and to end after its last, by Ray and without.

    python -m benchmarks.startup [--workers 0 1 2] [--starts 3]

Each start is the whole command, `python -m pipelines train dcgan --data digits` for 40 iterations
without evaluations, in a process and a folder of its own: imports, the check of the data, Ray, its
workers, MLflow. Numbers of workers take turns. Other words are options of the run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arguments import positive
from gan_core import journal
from gan_core.exit_codes import exit_code

RUN = ["--data", "digits", "--image-size", "16", "--width", "32", "--kernel", "4", "--steps", "40",
       "--log-every", "1", "--evaluate-every", "0", "--extractor", "none"]  # fmt: skip


def bounds(events: list[dict[str, Any]]) -> tuple[float, float]:
    """When the first iteration of a run had ended, and when its last: as each is logged first.

    After the last, a probe takes its time and is an event of the same step.
    """
    points = [event for event in events if event["kind"] == "metrics"]
    last = next(event for event in points if event["step"] == points[-1]["step"])
    return points[0]["time"], last["time"]


class Start(NamedTuple):
    """Seconds from the command to the end of the first iteration, and from the last to the end."""

    first: float
    ending: float


def start(workers: int, words: list[str], folder: Path) -> Start:
    """One run in ``folder``, which is empty; ``RuntimeError`` with its words if it fails."""
    command = [sys.executable, "-m", "pipelines", "train", "dcgan", *RUN, *words]
    place = ["--workers", str(workers), "--storage", str(folder), "--name", "run"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    environment.pop("RAY_ADDRESS", None)  # a Ray of its own
    begun = time.time()
    done = subprocess.run(
        [*command, *place], env=environment, capture_output=True, text=True, check=False
    )
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"the run failed: {done.stderr.strip()[-500:]}")
    events = [event for event, _ in journal.read(folder / "run" / journal.FILE, 0)]
    first, last = bounds(events)
    return Start(first - begun, ended - last)


def main() -> None:
    """Start in turns, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", type=positive, default=3, help="of each number of workers")
    arguments, words = parser.parse_known_args()
    found: dict[int, list[Start]] = {workers: [] for workers in arguments.workers}
    for _ in range(arguments.starts):
        for workers, starts in found.items():
            with tempfile.TemporaryDirectory(prefix="gan-startup-") as folder:
                starts.append(start(workers, words, Path(folder)))
            print(f"{workers} workers: {starts[-1].first:.1f} s", file=sys.stderr, flush=True)
    print("| workers | to the first iteration, s | after the last, s |\n|---|---|---|")
    for workers, starts in found.items():
        first, ending = (
            f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            for values in zip(*starts, strict=True)
        )
        print(f"| {workers or '0, without Ray and MLflow'} | {first} | {ending} |")


if __name__ == "__main__":
    sys.exit(exit_code(main))
