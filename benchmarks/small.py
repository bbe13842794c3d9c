"""Every system of one generator and one discriminator, small, for three minutes on a processor.

    python -m benchmarks.small --data fashion-mnist --data-root FOLDER_WITH_THE_FOUR_FILES

trains each for ``--seconds`` (180) of training time on one thread, and measures the Frechet
distance in the classifier's features after 5 seconds and at the end: it must fall to less than a
third. Networks are narrow and most for 16 pixels, as a processor wants them (real pictures made
that small and restored score 3.9); all else that differs from the papers stands in ``SYSTEMS``.
Run again, it goes on where it was; ``--only`` trains some of the systems.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.budget import Session, judged, kept_figures, kept_folder
from benchmarks.kept import check_run
from gan_core.config import RunConfig, make_config
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.pictures import image_grid, save_png
from gan_core.release import load_generator

FIRST = 5.0
"""Seconds of training after which the figure is first measured."""
EXTRACTORS = ["classifier"]
SMALL = {"image_size": 16, "batch_size": 32}
RESNET = SMALL | {"width_g": 16, "width_d": 16, "k": 1, "batch_scale_g": 1}
FAST = {"lr_d": 1e-3, "lr_g": 1e-3}
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dcgan": ("dcgan", SMALL | {"width": 16, "lr_d": 5e-4, "lr_g": 5e-4}),
    "acgan": ("acgan", SMALL | FAST | {"width_g": 16, "width_d": 8, "dropout": 0.0}),
    "sngan": ("sngan", RESNET | FAST | {"image_size": 32}),
    "sngan, plain": ("sngan", RESNET | FAST | {"architecture": "cnn", "width_d": 8}),
    "sngan, by class": ("sngan", RESNET | FAST | {"conditional": True}),
    "sagan": ("sagan", RESNET | {"lr_d": 1e-3, "lr_g": 5e-4}),
    "biggan": ("biggan", RESNET | FAST | {"image_size": 32}),
}
"""Name in the table: variant and options. Learning rates suit few iterations."""
COMMON = {"steps": 1_000_000, "lr_decay_to": 1.0, "ema": 0.99}


def config_of(name: str, arguments: argparse.Namespace, log_every: int) -> RunConfig:
    """The configuration of one system; ``log_every`` says how exact a stop is."""
    variant, options = SYSTEMS[name]
    return make_config(
        {
            "variant": variant,
            "data": arguments.data,
            "data_root": str(arguments.data_root),
            "workers": 0,
            "device": "cpu",
            "extractor": "none",
            "log_every": log_every,
            "evaluate_every": 0,
            "checkpoint_every": 0,
            "storage": str(arguments.out),
            "name": name.replace(", ", "-").replace(" ", "-"),
            "seed": arguments.seed,
            **COMMON,
            **options,
        }
    )


def check_kept(name: str, arguments: argparse.Namespace) -> None:
    """``UserError`` if what is kept of one system is not what is asked for."""
    config = config_of(name, arguments, 2)
    check_run(config)
    for seconds in (FIRST, arguments.seconds):
        kept_figures(kept_folder(config, seconds), EXTRACTORS, arguments.samples)


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Figures after the first seconds and at the end; ``None`` if the deadline came first."""
    found = []
    for seconds, log_every in ((FIRST, 2), (arguments.seconds, 50)):
        config = config_of(name, arguments, log_every)
        kept = Session(config, World(), arguments.deadline).until(seconds)
        if kept is None:
            return None
        cache = arguments.out / "cache"
        found.append(judged(kept, EXTRACTORS, arguments.samples, cache=cache, device="cpu"))
    generator = load_generator(kept_folder(config, arguments.seconds))
    images = generator.generate(torch.arange(80), native=True)
    save_png(image_grid(images, columns=10), config.folder / "samples.png")
    return found


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table."""
    metric = "fid_classifier"
    lines = [
        f"| system | steps | {metric} at {FIRST:g} s | at the end | falls to | class accuracy |"
    ]
    lines.append("|---" * 6 + "|")
    for name, (first, last) in rows.items():
        before, after = first["figures"][metric], last["figures"][metric]
        accuracy = last["figures"].get("class_accuracy")
        told = "" if accuracy is None else f"{accuracy:.3f}"
        lines.append(
            f"| `{name}` | {last['step']:,} | {before:.3g} | {after:.3g} | {after / before:.2f} | "
            f"{told} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train, judge, print the table; the exit code is 1 if a figure does not fall by two thirds."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.small",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(SYSTEMS),
        choices=list(SYSTEMS),
        metavar="NAME",
        help=f"of {'; '.join(SYSTEMS)}",
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="of training, for each")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    arguments = parser.parse_args()
    if arguments.seconds <= FIRST:
        parser.error(f"--seconds must be more than {FIRST:g}, when the first look is taken")
    arguments.deadline = time.time() + 60 * arguments.minutes
    torch.set_num_threads(1)
    for name in arguments.only:
        check_kept(name, arguments)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.only:
        found = measure(name, arguments)
        if found is None:
            print(table(rows))
            sys.exit(f"{name} is not done: give the command again to go on")
        rows[name] = found
    print(table(rows))
    ends = {n: last["figures"]["fid_classifier"] for n, (_, last) in rows.items()}
    if any(3 * ends[n] >= first["figures"]["fid_classifier"] for n, (first, _) in rows.items()):
        sys.exit("a figure has not fallen to a third")


if __name__ == "__main__":
    sys.exit(exit_code(main))
