"""What Ray Train and MLflow cost: the same run by Ray and by torchrun, both alive, in turns.

    python -m benchmarks.overhead [--workers 1] [--starts 8 --turns 4]

Both play the same loop under DistributedDataParallel (gloo on a CPU, NCCL on GPUs) with the same
logging and checkpoints; the first run is started by Ray Train and tracked in MLflow, the second
by torchrun with neither. Whole runs one after the other scatter by a tenth on a shared machine, so
both live at once and take turns of some seconds: while one plays, every process of the other is
stopped (SIGSTOP). In a turn each plays the same 500 iterations, ten logging points and in
every second turn a checkpoint; who plays first changes from turn to turn. Times are between
logging points, everything that happens there included. The interval of a turn's beginning is left
out, as the stop is in it. Starts of the pair differ too, by more than turns within one do: with
``--starts`` the pair is started so many times, the second contender first in every other, and the
interval is over starts.

Other words are options of the run; without any it is that of `make demo` but for its penalty.
Every worker computes with one thread. Ray, the driver and MLflow are processes too: with as many
workers as cores they take what they need from the workers, with a core to spare they need not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from scipy import stats

from benchmarks.arguments import positive
from gan_core import journal
from gan_core.exit_codes import exit_code

DEMO = ["--image-size", "16", "--width", "32", "--kernel", "4", "--batch-size", "64"]
RAY, TORCHRUN = "Ray Train + MLflow", "torchrun"
TURN = 500
"""Iterations of a turn."""
FIRST = 750
"""Iterations before the first turn, for the machine to settle."""
CHECKPOINT_EVERY, LOG_EVERY = 1000, 50
"""The defaults of ``train``. Turns end in the middle between two checkpoints, so that a checkpoint
is never at a turn's edge."""


class Turn(NamedTuple):
    """Milliseconds: an iteration, everything included; a logging point; each checkpoint."""

    iteration: float
    logging_point: float
    checkpoints: list[float]


class Contender:
    """A run in processes of its own, which can be stopped and goes on later."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        run = name.split(maxsplit=1)[0].lower()
        self._journal, self._log = folder / run / journal.FILE, folder / f"{run}.log"
        self._offset = 0
        self._points: dict[int, tuple[float, float]] = {}  # step: time, and on the training clock
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        }
        with self._log.open("w") as output:
            self._process = psutil.Popen(
                [*command, "--name", run],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def play_to(self, step: int) -> None:
        """Wait until the run has logged ``step``. Raises ``SystemExit`` where it has ended."""
        while max(self._points, default=-1) < step:
            if self._process.poll() is not None:
                said = self._log.read_text()[-3000:]
                raise SystemExit(f"the run by {self.name} has ended; its output:\n{said}")
            time.sleep(0.005)
            for event, offset in journal.read(self._journal, self._offset):
                self._offset = offset
                if event["kind"] == "metrics" and "seconds" in event["values"]:
                    self._points[event["step"]] = event["time"], event["values"]["seconds"]

    def turn(self, begin: int, end: int) -> Turn:
        """Play from ``begin`` to ``end``; what that took, but for the first interval."""
        self._signal(psutil.Process.resume)
        self.play_to(end)
        self.stop()
        first = begin + LOG_EVERY
        iteration = (self._points[end][0] - self._points[first][0]) / (end - first)
        pauses = {step: self._pause(step) for step in range(first, end, LOG_EVERY)}
        saved = [p for step, p in pauses.items() if step % CHECKPOINT_EVERY == 0]
        plain = statistics.fmean(p for step, p in pauses.items() if step % CHECKPOINT_EVERY)
        return Turn(1000 * iteration, 1000 * plain, [1000 * (p - plain) for p in saved])

    def _pause(self, step: int) -> float:
        """Seconds for which the training clock stood at ``step``: logging, and saving if it did."""
        (began, played), (ended, end_played) = self._points[step], self._points[step + LOG_EVERY]
        return (ended - began) - (end_played - played)

    def stop(self) -> None:
        """Let every process of the run stand still."""
        self._signal(psutil.Process.suspend)

    def end(self) -> None:
        """End every process of the run."""
        self._signal(psutil.Process.kill)

    def _signal(self, action: Callable[[psutil.Process], None]) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [self._process, *self._process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    action(process)


def commands(arguments: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """The two ways to start the same run, of more iterations than there are turns for."""
    common = [
        # The caller's words first, so that they cannot change what turns are counted by.
        *("train", arguments.variant, *arguments.options),
        *("--data", "digits", "--evaluate-every", "0"),
        *("--steps", str(FIRST + TURN * (arguments.turns + 10))),
        *("--log-every", str(LOG_EVERY), "--checkpoint-every", str(CHECKPOINT_EVERY)),
        *("--extractor", "none", "--storage", str(folder)),
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    workers = str(arguments.workers)
    torchrun += ["--nproc-per-node", workers, "-m", "pipelines"]
    return {
        RAY: [sys.executable, "-m", "pipelines", *common, "--workers", workers],
        TORCHRUN: [*torchrun, *common, "--workers", "0"],
    }


@contextlib.contextmanager
def contenders(
    arguments: argparse.Namespace, folder: Path, start: int
) -> Iterator[list[Contender]]:
    """Both runs, brought to the first turn one after the other and stopped there; then ended."""
    started: list[Contender] = []
    order = list(commands(arguments, folder).items())
    try:
        for name, command in order if start % 2 == 0 else order[::-1]:
            started.append(Contender(name, command, folder))
            started[-1].play_to(FIRST)
            started[-1].stop()
        yield started
    finally:
        for contender in started:
            contender.end()


def interval(ratios: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap confidence interval of the mean of ``ratios``."""
    generator = random.Random(0)
    means = sorted(statistics.fmean(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return means[draws // 40], means[-draws // 40]


def main() -> None:
    """Let the two take turns, and print the ratio with its confidence interval."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="dcgan", help="what is trained")
    parser.add_argument("--workers", type=positive, default=2, help="workers of each run")
    parser.add_argument("--turns", type=int, default=24, help="turns of each run, at least 2")
    parser.add_argument("--starts", type=positive, default=1, help="how often the pair is started")
    arguments, options = parser.parse_known_args()
    if arguments.starts < 1:
        parser.error("--starts must be at least 1")
    if arguments.turns < 2:
        parser.error("--turns must be at least 2: one with a checkpoint, one without")
    arguments.options = options or DEMO
    starts = []
    for start in range(arguments.starts):
        starts.append(play(arguments, start))
        if arguments.starts > 1:
            ratio = statistics.fmean(ratios(starts[-1]))
            print(f"start {start + 1} of {arguments.starts}: ratio {ratio:.4f}\n", flush=True)
    report(starts)


def play(arguments: argparse.Namespace, start: int) -> dict[str, list[Turn]]:
    """The turns of one start of the pair, by contender."""
    turns: dict[str, list[Turn]] = {RAY: [], TORCHRUN: []}
    with (
        tempfile.TemporaryDirectory(prefix="gan-overhead-", ignore_cleanup_errors=True) as scratch,
        contenders(arguments, Path(scratch), start) as both,
    ):
        for number in range(arguments.turns):
            begin = FIRST + TURN * number
            for contender in both if number % 2 == 0 else both[::-1]:
                turns[contender.name].append(contender.turn(begin, begin + TURN))
            said = ", ".join(f"{name} {t[-1].iteration:.2f} ms" for name, t in turns.items())
            print(f"turn {number + 1:2}, to iteration {begin + TURN}: {said}", flush=True)
    return turns


def ratios(turns: dict[str, list[Turn]]) -> list[float]:
    """Ray's time over torchrun's, of each pair of turns, one with a checkpoint and one without."""
    pairs = {
        name: [a.iteration + b.iteration for a, b in zip(found[::2], found[1::2], strict=False)]
        for name, found in turns.items()
    }
    return [a / b for a, b in zip(pairs[RAY], pairs[TORCHRUN], strict=True)]


def interval_over_starts(means: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval, by Student's t, of the mean of starts' ratios."""
    middle, error = statistics.fmean(means), float(stats.sem(means))
    low, high = stats.t.interval(0.95, len(means) - 1, loc=middle, scale=error)
    return float(low), float(high)


def report(starts: Sequence[dict[str, list[Turn]]]) -> None:
    """The ratio of the turns' times in words, and the same as JSON.

    The interval is over the starts, or of one start over its turns. The median of all ratios is
    told beside their mean, which a neighbour's load in a single turn can move.
    """
    each = [ratios(turns) for turns in starts]
    found_ratios = [ratio for of_start in each for ratio in of_start]
    means = [statistics.fmean(of_start) for of_start in each]
    low, high = interval_over_starts(means) if len(means) > 1 else interval(found_ratios)
    mean, median = statistics.fmean(means), statistics.median(found_ratios)
    turns = {name: [t for start in starts for t in start[name]] for name in starts[0]}
    print(f"\n{'medians':<20} {'ms an iteration':>16} {'a logging point':>16} {'a checkpoint':>13}")
    for name, found in turns.items():
        iteration = statistics.median(t.iteration for t in found)
        point = statistics.median(t.logging_point for t in found)
        checkpoint = statistics.median(ms for t in found for ms in t.checkpoints)
        print(f"{name:<20} {iteration:>16.2f} {point:>16.1f} {checkpoint:>13.1f}")
    over = f"over {len(means)} starts" if len(means) > 1 else "within this start"
    print(f"ratio {mean:.4f}, 95 % confidence {over} {low:.4f} to {high:.4f}; median {median:.4f}")
    print(json.dumps({"ratios": each, "mean": mean, "median": median, "interval": [low, high]}))


if __name__ == "__main__":
    sys.exit(exit_code(main))
