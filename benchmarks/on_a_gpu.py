r"""All that only a GPU can show of this project, by one command that fits a short loan of one.

    python -m benchmarks.on_a_gpu --out FOLDER --data-root CIFAR --minutes 9 \
      --extractor-weights mobilenet_v2-b0353104.pth

plays, what matters most first: the tests that need a GPU; the ladders of `benchmarks.speed` for
`sngan`, `dcgan` and `biggan`; eight games together; evaluations of 50,000 samples; what the time of
`sngan` goes to; short ladders of the other systems that learn from such pictures. Each is a process
of its own, whose output is kept in FOLDER/NAME.log and whose figures are in FOLDER/NAME.json; one
that fails or takes too long ends alone. The same command given again goes on with what is not done.
The table at the end holds what was found against what is asked for on an H100 or H200.

`benchmarks.cifar`, which trains for hours, is a command of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed_ways import machine
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code

Found = Mapping[str, Any]
"""The figures of a command, as it has written them."""
TESTS = (
    "tests/engine/test_capture.py",
    "tests/engine/test_taking_turns.py",
    "tests/variants/test_captured.py",
    "tests/variants/test_engine_modes.py",
)
PROCESSES = ("-n", "8")
"""Of pytest: the tests wait for compilers and for kernels to be loaded."""
BEST = "compiled-graph+bf16+channels-last"
LADDER = f"textbook,eager+tf32,graph+tf32,graph+bf16+channels-last,{BEST}"
SHORT = f"textbook,graph+tf32,{BEST}"
SNGAN = "--image-size 32 --batch-size 64 --batch-scale-g 1 --k 5"
FEWEST_SECONDS = 20
"""A command is not begun with less time than that."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What is ``asked`` for, in words; ``look`` says what was found, and whether that is enough."""

    asked: str
    look: Callable[[Found], tuple[str, bool]]


@dataclasses.dataclass(frozen=True)
class Task:
    """``python -m`` and ``words``: the command; ``seconds``: the longest that it may take.

    ``takes``: the options of this program that it is given too, where they were given.
    """

    words: tuple[str, ...]
    seconds: int
    checks: tuple[Check, ...] = ()
    takes: tuple[str, ...] = ("data", "data_root")


def _fastest(rows: Sequence[Found]) -> Found:
    return max(rows, key=lambda row: row["images_per_second"])


def rate(least: float, way: str = "") -> Check:
    """Real images a second of ``way``, else of the fastest."""

    def look(found: Found) -> tuple[str, bool]:
        rows = [row for row in found["rows"] if way in ("", row["way"])]
        if not rows:
            return "not played", False
        row = _fastest(rows)
        seen = row["images_per_second"]
        return f"{seen:,.0f} ({row['way']}, {row['ratio']:.1f} x)", seen >= least

    return Check(f"{way or 'the fastest way'}: at least {least:,.0f} real images/s", look)


def ratio(least: float) -> Check:
    """How many times as fast as the textbook's loop the engine's fastest way is."""

    def look(found: Found) -> tuple[str, bool]:
        rows = [row for row in found["rows"] if not row["way"].startswith("textbook")]
        if found["ratios_to"] != "textbook" or not rows:
            return "not played", False
        row = _fastest(rows)
        told = f"{row['ratio']:.1f} ({row['way']}, {row['images_per_second']:,.0f} images/s)"
        return told, row["ratio"] >= least

    return Check(f"{least:g} times the textbook's loop", look)


def _together(found: Found) -> tuple[str, bool]:
    times, same = found["rows"][1]["ratio"], found["same"]
    told = f"{times:.2f}, {sum(same)} of {len(same)} the same bits"
    return told, times >= 2 and all(same)


def _evaluated(found: Found) -> tuple[str, bool]:
    return f"{found['total']:.1f} s", found["total"] <= 10


def _ladder(variant: str, seconds: int, *checks: Check, ways: str = LADDER, more: str = "") -> Task:
    words = f"benchmarks.speed --variant {variant} --device cuda --ways {ways} {more}"
    return Task(tuple(words.split()), seconds, checks)


def _short(variant: str, more: str = "") -> Task:
    return _ladder(variant, 120, ratio(1), ways=SHORT, more=f"--rounds 3 --seconds 1 {more}")


TASKS: dict[str, Task] = {
    "tests": Task(
        ("pytest", *TESTS, *PROCESSES),
        300,
        (Check("pass", lambda found: (found["told"], True)),),
        (),
    ),
    "sngan": _ladder(
        "sngan",
        240,
        rate(24_000),
        rate(1_200, "textbook"),  # else it is a straw man
        more=f"{SNGAN} --rounds 4",
    ),
    "dcgan": _ladder(
        "dcgan",
        180,
        rate(45_000),
        more="--image-size 32 --batch-size 64 --width 64 --kernel 4 --rounds 4",
    ),
    "games": Task(
        (
            *("benchmarks.speed", "--games", "8", "--variant", "dcgan", "--image-size", "32"),
            *("--batch-size", "64", "--width", "64", "--kernel", "4", "--device", "cuda"),
            *("--rounds", "6", "--seconds", "2"),
        ),
        150,
        (Check("twice as fast together, and the same bits", _together),),
    ),
    "evaluation": Task(
        ("benchmarks.evaluation", "--variant", "sngan", "--samples", "50000", "--device", "cuda"),
        150,
        (Check("at most 10 s after the first", _evaluated),),
        ("data", "data_root", "extractor_weights"),
    ),
    "biggan": _ladder("biggan", 300, ratio(10), more="--image-size 32 --batch-size 64 --rounds 4"),
    "kernels": _ladder("sngan", 120, ways=BEST, more=f"--kernels 40 {SNGAN}"),
    "sagan": _short("sagan", "--image-size 32 --batch-size 64"),
    "acgan": _short("acgan", "--image-size 32"),
    "gan": _short("gan"),
    "cgan": _short("cgan"),
    "lapgan": _short("lapgan", "--stage level_0"),
}
"""By the name of the files that they write."""


def is_done(name: str, out: Path) -> bool:
    """Whether the figures of the task are there."""
    return (out / f"{name}.json").exists()


def command_of(name: str, arguments: argparse.Namespace) -> list[str]:
    """The whole command of a task, with what this program was given for it."""
    task = TASKS[name]
    words = [sys.executable, "-m", *task.words]
    for option in task.takes:
        value = getattr(arguments, option)
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    if "extractor_weights" in task.takes and arguments.extractor_weights is not None:
        words += ["--extractor", "mobilenet_v2"]
    if task.words[0] != "pytest":
        words += ["--json", str(arguments.out / f"{name}.json")]
    return words


def play(name: str, command: list[str], out: Path, seconds: float) -> str:
    """Run the command of the task ``name`` for at most ``seconds``; how it ended, in words."""
    log = out / f"{name}.log"
    begun = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {seconds:.0f} s ({log})"
        finally:  # compilers and loaders of data are its group
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text().strip().splitlines()
    last = lines[-1] if lines else ""
    if code:
        return f"failed: {last} ({log})"
    if TASKS[name].words[0] == "pytest":
        (out / f"{name}.json").write_text(json.dumps({"told": last}))
    return f"done in {time.monotonic() - begun:.0f} s"


def table(names: Sequence[str], ended: Mapping[str, str], out: Path) -> str:
    """What was asked and what was found, in Markdown; how it ``ended``, where nothing was."""
    lines = ["| | asked | found | |", "|---|---|---|---|"]
    for name in names:
        for check in TASKS[name].checks:
            told, verdict = ended.get(name, "not played"), ""
            if is_done(name, out):
                told, good = check.look(json.loads((out / f"{name}.json").read_text()))
                verdict = "yes" if good else "NO"
            lines.append(f"| {name} | {check.asked} | {told} | {verdict} |")
    return "\n".join(lines)


def arguments_of(words: Sequence[str] | None) -> argparse.Namespace:
    """What the user gave."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.on_a_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/on_a_gpu"), help="a folder (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing later")
    parser.add_argument(
        "--only", nargs="+", choices=list(TASKS), metavar="NAME", help=f"of {', '.join(TASKS)}"
    )
    parser.add_argument("--data", default="folder", help="a source of labelled pictures of 32 px")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--extractor-weights", type=Path, help="MobileNetV2's, for evaluations")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Play what is not done, print the table; 1 if anything is left."""
    arguments = arguments_of(words)
    if not torch.cuda.is_available():
        raise UserError("this machine has no CUDA device, which all of this is about")
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.only or list(TASKS)
    deadline = time.monotonic() + 60 * arguments.minutes
    ended: dict[str, str] = {}
    for name in names:
        left = deadline - time.monotonic()
        if is_done(name, arguments.out) or left < FEWEST_SECONDS:
            continue
        seconds = min(left, TASKS[name].seconds)
        print(f"{name}: for {seconds:.0f} s at most", file=sys.stderr, flush=True)
        ended[name] = play(name, command_of(name, arguments), arguments.out, seconds)
        print(f"{name}: {ended[name]}", file=sys.stderr, flush=True)
    print(f"{machine('cuda')}\n")
    print(table(names, ended, arguments.out))
    left_over = [name for name in names if not is_done(name, arguments.out)]
    if left_over:
        print(f"\nnot done: {', '.join(left_over)}; the same command goes on with these")
    return 1 if left_over else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
