"""What Ray Train and MLflow cost: the same run by Ray and by torchrun, in turns.

    python -m benchmarks.overhead [--workers 1]

Both play the same loop under DistributedDataParallel (gloo on a CPU, NCCL on GPUs) with the same
logging and checkpoints; the first run is started by Ray Train and tracked in MLflow, the second
by torchrun with neither. Rounds alternate, so that other load on the machine hits both. Times
are between logging points, everything included, the first left out (it holds the start-up).
Other words are options of the run; without any it is that of `make demo` but for its penalty.

Let the machine be idle: Ray gives its workers a lower priority than a shell's processes have.
Every worker computes with one thread. Ray, the driver and MLflow are processes too: with as many
workers as cores they take what they need from the workers, with a core to spare they need not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_core import journal

DEMO = ["--image-size", "16", "--width", "32", "--kernel", "4", "--batch-size", "64"]
RAY, TORCHRUN = "Ray Train + MLflow", "torchrun"


@dataclass(frozen=True)
class Timing:
    """One run: wall milliseconds a step, and what a stop of the training clock took."""

    step: float
    logging_point: float
    checkpoint: float


def timing(run: Path) -> Timing:
    """The times of a finished run, from its journal."""
    points: list[tuple[int, float, float]] = []
    checkpoints: set[int] = set()
    for event, _ in journal.read(run / journal.FILE):
        if event["kind"] == "metrics" and "seconds" in event["values"]:
            points.append((event["step"], event["time"], event["values"]["seconds"]))
        if event["kind"] == "checkpoint":
            checkpoints.add(event["step"])
    plain: list[float] = []
    heavy: list[float] = []
    for (before, began, played), (_, ended, end_played) in itertools.pairwise(points):
        # What came after the clock stopped at `before`: the point's own work, and a checkpoint.
        pause = (ended - began) - (end_played - played)
        (heavy if before in checkpoints else plain).append(1000 * pause)
    (first, began, _), (last, ended, _) = points[0], points[-1]
    log = statistics.fmean(plain)
    extra = statistics.fmean(heavy) - log if heavy else float("nan")
    return Timing(1000 * (ended - began) / (last - first), log, extra)


def commands(arguments: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """The two ways to start the same run."""
    common = [
        *("train", arguments.variant, "--data", "digits", "--steps", str(arguments.steps)),
        *("--checkpoint-every", str(arguments.checkpoint_every), "--evaluate-every", "0"),
        *("--extractor", "none", "--storage", str(folder), *arguments.options),
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    workers = str(arguments.workers)
    torchrun += ["--nproc-per-node", workers, "-m", "pipelines"]
    return {
        RAY: [sys.executable, "-m", "pipelines", *common, "--workers", workers],
        TORCHRUN: [*torchrun, *common, "--workers", "0"],
    }


def play(name: str, command: Sequence[str], folder: Path, number: int) -> Timing:
    """Start one run, wait for its end, read its times."""
    run = f"{'ray' if name == RAY else 'torchrun'}-{number}"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    log = folder / f"{run}.log"
    with log.open("w") as output:
        code = subprocess.run(
            [*command, "--name", run],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code:
        raise SystemExit(f"the run {run} failed; its output:\n{log.read_text()[-3000:]}")
    return timing(folder / run)


def interval(ratios: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap confidence interval of the mean of ``ratios``."""
    generator = random.Random(0)
    means = sorted(statistics.fmean(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return means[draws // 40], means[-draws // 40]


def main() -> None:
    """Alternate the two, and print the ratio with its confidence interval."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variant", default="dcgan")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=1050)
    parser.add_argument("--checkpoint-every", type=int, default=1000)
    arguments, options = parser.parse_known_args()
    arguments.options = options or DEMO
    times: dict[str, list[Timing]] = {RAY: [], TORCHRUN: []}
    with tempfile.TemporaryDirectory(prefix="gan-overhead-") as scratch:
        folder = Path(scratch)
        ways = commands(arguments, folder)
        for number in range(arguments.rounds):
            order = [RAY, TORCHRUN] if number % 2 == 0 else [TORCHRUN, RAY]
            for name in order:
                found = play(name, ways[name], folder, number)
                times[name].append(found)
                print(f"round {number + 1}: {name:<20} {found.step:8.2f} ms a step", flush=True)
    report(times)


def report(times: dict[str, list[Timing]]) -> None:
    """The table, and the same as JSON."""
    ratios = [a.step / b.step for a, b in zip(times[RAY], times[TORCHRUN], strict=True)]
    low, high = interval(ratios)
    print(f"\n{'':<20} {'ms a step':>10} {'ms a logging point':>20} {'ms a checkpoint':>16}")
    for name, found in times.items():
        columns = [[t.step for t in found], [t.logging_point for t in found]]
        columns.append([t.checkpoint for t in found])
        step, log, save = (statistics.median(column) for column in columns)
        print(f"{name:<20} {step:>10.2f} {log:>20.1f} {save:>16.1f}")
    mean = statistics.fmean(ratios)
    print(f"ratio of step times {mean:.4f}, 95 % confidence {low:.4f} to {high:.4f}")
    print(json.dumps({"ratios": ratios, "mean": mean, "interval": [low, high]}))


if __name__ == "__main__":
    main()
