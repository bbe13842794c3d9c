"""How fast a system trains here: a textbook loop, and each way that the engine can play.

    python -m benchmarks.speed --variant dcgan --data mnist --data-root FOLDER --width 32
    python -m benchmarks.speed --variant sngan --ways textbook,eager,graph+bf16+channels-last
    python -m benchmarks.speed --variant srgan --stage adversarial --content pixels --data hires ...
    python -m benchmarks.speed --cost --picture cost.png
    python -m benchmarks.speed --cost batch_size=16,64,256 width=16,32 --ways eager,compile
    python -m benchmarks.speed --workers 2
    python -m benchmarks.speed --games 8 --variant dcgan --image-size 32 --batch-size 64
    python -m benchmarks.speed --kernels 20 --variant sngan --ways graph+tf32,compiled-graph+tf32

The first three print the ladder: the textbook loop (`benchmarks/textbook_loop.py`), then the
engine. A way is a mode (eager, compile, graph, compiled-graph), with tf32 or bf16 and channels-last
joined by `+`. The textbook makes new fakes for G, as algorithm 1 of Goodfellow et al. 2014 and the
engine do; `textbook+same-fakes` lets G learn from those that D has just seen, as most tutorials'
code does, which saves a pass through G. One that cannot be played, or whose turns cannot be
recorded, is left out and told. Ways alternate in rounds, for the machine may be busy with other
things; times are medians of rounds, after a warm-up, which is told apart. On a CPU each way has a
process of its own, which keeps freed memory as the engine does, or gives it back as a textbook's
would. The ceiling is the rate of a large matrix product in the way's precision, measured in the
same rounds; the floor is the arithmetic of an iteration of the textbook loop (products and
convolutions, forward and backward) at that rate. The engine makes do with less arithmetic, so it
could get below; its share of the ceiling is of what it does itself.

Memory: on a GPU what a way has reserved, networks and all; on a CPU what an iteration needs beyond
what lies there before it (networks, optimisers, data), the peak by torch's profiler, after the
rounds. Of systems with several stages the first is played, or the one of `--stage`.

`--cost` plays with one option changed at a time (default: batch size, image size and k) and says
by which power of it the time grows. `--workers N` compares N data-parallel workers with a thread
each with one process of N threads (on GPUs: N with one); the global batch is the same. Let the
machine be idle for that: threads wait for the slowest of them in every operation.

`--games N` lets the same N games (of seeds of their own) play one after another, each alone, and
together in one process, taking turns, and says whether together they train bit for bit as alone.

`--kernels N` says what an iteration's time goes to in each way, by torch's profiler: kinds of
kernels (on a CPU: of operations), and the N that take longest.

Other words are options of the variant; the others are its paper's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import positive
from benchmarks.speed_apart import made
from benchmarks.speed_cost import AXES, measure_cost, read_axes
from benchmarks.speed_floor import Ceiling
from benchmarks.speed_games import AS_CHOSEN, compare_games
from benchmarks.speed_kernels import profile_kernels
from benchmarks.speed_ways import Setting, Timed, Way, alternate
from benchmarks.speed_workers import compare_workers
from gan_core.data.loading import source_options_class
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code
from gan_core.variant import VARIANTS, list_variants
from pipelines.command_line import add_fields, checked_options

ON_CPU = (
    "textbook,eager,eager+channels-last,eager+bf16+channels-last,compile,compile+channels-last,"
    "compile+bf16+channels-last"
)
ON_CUDA = (
    "textbook,eager,eager+tf32,eager+bf16+channels-last,compile+tf32,graph,graph+tf32,"
    "graph+bf16+channels-last,compiled-graph+bf16+channels-last"
)
MEMORY = {"peak_bytes": "memory, MiB", "iteration_bytes": "an iteration's memory, MiB"}
"""Figures of memory, and what the table calls them: all of a GPU's, or an iteration's of a CPU."""


def ladder(setting: Setting, ways: Sequence[Way], rounds: int, seconds: float) -> dict[str, Any]:
    """The ways' figures, best read by :func:`table`."""
    with made({str(way): (setting, way) for way in ways}) as loops:
        if not loops:
            raise UserError("none of these ways can be played")
        precisions = dict.fromkeys(t.way.multiplies_in(setting.device) for t in loops)
        ceilings = {name: Ceiling(name, setting.device) for name in precisions}

        def look() -> None:
            for ceiling in ceilings.values():
                ceiling.look()

        alternate(loops, rounds, seconds, look)
        for timed in loops:
            timed.look_at_memory()
        arithmetic = count_operations(loops)
    rates = {name: ceiling.rate for name, ceiling in ceilings.items()}
    first = next((t for t in loops if t.name == "textbook"), loops[0])
    return {
        "setting": setting.describe(),
        "machine": setting.machine(),
        "flops": arithmetic,
        "ceilings": rates,
        "ratios_to": first.name,
        "rows": [row(timed, first, arithmetic, rates) for timed in loops],
    }


def count_operations(loops: Sequence[Timed]) -> dict[str, int]:
    """Floating-point operations of an iteration of the textbook and of the engine, where played.

    All the engine's ways do the same ones; they are counted where Python plays them.
    """
    modes = {"textbook": "textbook", "eager": "engine"}
    plain = [t for t in loops if t.way.mode in modes and not t.way.same_fakes]
    played = {modes[t.way.mode]: t for t in reversed(plain)}
    return {name: timed.operations() for name, timed in sorted(played.items(), reverse=True)}


def row(
    timed: Timed, first: Timed, arithmetic: Mapping[str, int], rates: Mapping[str, float]
) -> dict[str, Any]:
    """One way's figures: operations and their rates make the shares, ratios are to ``first``."""
    textbook = arithmetic.get("textbook")
    own = textbook if timed.way.mode == "textbook" else arithmetic.get("engine")
    own = None if timed.way.same_fakes else own  # a forward pass less, which is not counted
    possible = rates[timed.way.multiplies_in(timed.setting.device)] * timed.milliseconds / 1000
    pairs = zip(first.rounds, timed.rounds, strict=True)
    return {
        "way": timed.name,
        "milliseconds": timed.milliseconds,
        "rounds": timed.rounds,
        "images_per_second": 1000 * timed.images / timed.milliseconds,
        "ratio": statistics.median(before / now for before, now in pairs),
        "share_of_floor": None if textbook is None else textbook / possible,
        "share_of_ceiling": None if own is None else own / possible,
        "peak_bytes": timed.memory or None,
        "iteration_bytes": timed.needed,
        "warm_up_seconds": timed.warm_up,
    }


def table(found: dict[str, Any]) -> str:
    """The ladder in Markdown, under what it was measured on."""
    counted = ", ".join(f"{name} {n / 1e9:,.4g}" for name, n in found["flops"].items())
    rates = ", ".join(f"{name} {r / 1e12:.3g}" for name, r in found["ceilings"].items())
    kind = "peak_bytes" if found["rows"][0]["peak_bytes"] is not None else "iteration_bytes"
    lines = [
        f"{found['setting']}; {found['machine']}",
        f"GFLOP an iteration: {counted or 'not counted'}; ceiling, TFLOP/s: {rates}",
        "",
        f"| way | ms an iteration | real images/s | times {found['ratios_to']} | "
        f"of the floor | of the ceiling | warm-up, s | {MEMORY[kind]} |",
        "|---|" + "---:|" * 7,
    ]
    for r in found["rows"]:
        shares = (r["share_of_floor"], r["share_of_ceiling"])
        cells = [r["way"], f"{r['milliseconds']:.2f}", f"{r['images_per_second']:,.0f}"]
        cells += [f"{r['ratio']:.2f}", *("" if s is None else f"{s:.1%}" for s in shares)]
        cells += [f"{r['warm_up_seconds']:.1f}", f"{(r[kind] or 0) / 2**20:,.4g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    """What the user gave; ``options`` are the variant's, ``data_options`` the source's."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--variant", default="dcgan", choices=list_variants())
    first.add_argument("--data", default="digits")
    chosen = first.parse_known_args(words)[0]
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speed",
        usage="python -m benchmarks.speed [--variant VARIANT] [OPTIONS]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[first],
        allow_abbrev=False,
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--data-root")
    parser.add_argument("--stage", help="the variant's stage that is played; not given: the first")
    parser.add_argument("--loaders", type=int, help="processes of the textbook's DataLoader")
    parser.add_argument("--ways", help="with commas; with --cost and --workers: eager")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way in a round")
    parser.add_argument("--threads", type=positive, help="of this process, on a CPU")
    parser.add_argument("--cost", nargs="*", metavar="OPTION=A,B", help="the time against these")
    parser.add_argument("--picture", type=Path, help="of the cost: a PNG or SVG file")
    parser.add_argument("--workers", type=positive, help="compare so many workers with one")
    parser.add_argument(
        "--games", type=positive, help="compare so many games together with each alone"
    )
    parser.add_argument("--kernels", type=int, help="print so many of those that take longest")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    kind, source = VARIANTS[chosen.variant].Options, source_options_class(chosen.data)
    names = [field.name for field in dataclasses.fields(kind) if field.name != "steps"]
    add_fields(parser.add_argument_group(f"options of {chosen.variant}"), kind, names, "option_")
    of_source = [field.name for field in dataclasses.fields(source)]
    own = [name for name in of_source if name not in names]  # the others are for both
    add_fields(parser.add_argument_group(f"options of {chosen.data}"), source, own, "option_")
    found = parser.parse_args(words)
    given = {name: getattr(found, f"option_{name}") for name in (*names, *own)}
    given = {name: value for name, value in given.items() if value is not None}
    found.options = _checked(kind, names, given)
    found.data_options = _checked(source, of_source, given)
    return found


def _checked(kind: type, names: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options ``given`` that are among ``names``, as ``kind`` has them."""
    checked: Any = checked_options(kind, given)
    return {name: getattr(checked, name) for name in names if name in given}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the table that was asked for; its figures."""
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = Setting(
        arguments.variant,
        arguments.options,
        arguments.data,
        arguments.data_root,
        device,
        stage=arguments.stage,
        data_options=arguments.data_options,
        loaders=arguments.loaders,
    )
    setting.check()
    ways = [Way.read(text) for text in (arguments.ways or _default(arguments, device)).split(",")]
    rounds, seconds = arguments.rounds, arguments.seconds
    if arguments.games is not None:
        return compare_games(setting, ways[0], arguments.games, rounds, seconds)
    if arguments.workers is not None:
        return compare_workers(setting, ways[0], arguments.workers, rounds, seconds)
    if arguments.kernels is not None:
        return profile_kernels(setting, ways, arguments.kernels)
    if arguments.cost is not None:
        axes = read_axes(arguments.cost) or AXES
        return measure_cost(
            setting, ways, axes, rounds=rounds, seconds=seconds, picture=arguments.picture
        )
    found = ladder(setting, ways, rounds, seconds)
    print(table(found))
    return found


def _default(arguments: argparse.Namespace, device: str) -> str:
    """The ways that are played where the user names none."""
    if arguments.games is not None or arguments.kernels is not None:
        return AS_CHOSEN[device]
    if arguments.cost is not None or arguments.workers is not None:
        return "eager"
    return ON_CUDA if device == "cuda" else ON_CPU


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    arguments = arguments_of(sys.argv[1:] if words is None else words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    found = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
