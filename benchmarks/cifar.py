"""CIFAR-10 on one GPU: how good each system is after a given time of training.

    python -m benchmarks.cifar --data-root FOLDER --extractor-weights mobilenet_v2-b0353104.pth

FOLDER holds ``train/CLASS/*`` and ``test/CLASS/*`` (or, with ``--data cifar10``, the set as its
authors publish it). Every system is trained on all 50,000 pictures, for each seed, and its
generator is kept after 120, 240, 440 and 1,200 seconds of training: those spent on compiling
and capturing count, loading and evaluating do not. The recipes are the papers', with an average of
weights, and with rates that fall to nothing over the time: how many iterations fit into it is found
by a game of a few seconds, which count too. Each is judged by 50,000 samples against the training
pictures in the features of MobileNetV2, and by a classifier trained on them, which also says how
many of a conditional generator's pictures are of the class that was asked for.

``--minutes`` ends a call in time; the same command then goes on, exactly, where it was. It prints
the table of what there is, and draws the curves into ``OUT/curves.png``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.budget import Session, judged, kept_figures, kept_folder
from benchmarks.kept import SUFFIX, check_run
from benchmarks.pace import kept_plan, make_plan, with_steps
from benchmarks.settings import read_settings
from gan_core.config import RunConfig, make_config
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.metrics.extractors import create_extractor
from gan_core.metrics.names import ending_of
from gan_core.pictures import image_grid, save_png
from gan_core.release import load_generator

METRIC = "fid_mobilenet_v2"
COLUMNS = (
    "fid",
    METRIC,
    "kid_mobilenet_v2",
    "precision_mobilenet_v2",
    "recall_mobilenet_v2",
    "fid_classifier",
    "class_accuracy",
)
COMMON = {"lr_decay_to": 0.0, "ema": 0.999}
AUGMENTED = {"diffaug": "color,translation,cutout,flip", "ema": 0.9995}
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sngan": ("sngan", {}),
    "sngan by class": ("sngan", {"conditional": True}),
    "sagan": ("sagan", {"batch_size": 128}),
    "biggan": ("biggan", AUGMENTED | {"batch_size": 64}),
    "acgan": ("acgan", {}),
    "dcgan": ("dcgan", {}),
}
"""Name in the table: variant, and options that differ from its paper's."""


def config_of(name: str, seed: int, arguments: argparse.Namespace) -> RunConfig:
    """The configuration of one system with one seed; its steps may not be known yet."""
    variant, options = SYSTEMS[name]
    config = make_config(
        {
            "variant": variant,
            "data": arguments.data,
            "data_root": str(arguments.data_root),
            "train_split": "train+validation",
            "workers": 0,
            "device": arguments.device,
            "engine": arguments.engine or ("compiled-graph" if _on_cuda(arguments) else "auto"),
            "precision": arguments.precision or ("bf16" if _on_cuda(arguments) else "auto"),
            "extractor": "none",
            "log_every": arguments.log_every,
            "evaluate_every": 0,
            "checkpoint_every": 0,
            "storage": str(arguments.out),
            "cache": str(arguments.out / "cache"),
            "name": f"{name.replace(' ', '-')}{arguments.suffix}-{seed}",
            "seed": seed,
            **COMMON,
            **options,
            **read_settings(arguments.set),
        }
    )
    plan = None if _has_steps(arguments) else kept_plan(config, max(arguments.seconds), SUFFIX)
    return config if plan is None else with_steps(config, plan.steps)


def _has_steps(arguments: argparse.Namespace) -> bool:
    return "steps" in read_settings(arguments.set)


def _world(arguments: argparse.Namespace) -> World:
    return World.current(None if arguments.device == "auto" else arguments.device)


def _on_cuda(arguments: argparse.Namespace) -> bool:
    return _world(arguments).device.type == "cuda"


def run(config: RunConfig, arguments: argparse.Namespace) -> bool:
    """Train and judge at all times; whether everything was done before the deadline."""
    world, spent = _world(arguments), 0.0
    if not _has_steps(arguments):
        seconds = max(arguments.seconds)
        plan = kept_plan(config, seconds, SUFFIX)
        plan = plan or make_plan(config, world, seconds, arguments.deadline)
        if plan is None:
            return False
        config, spent = with_steps(config, plan.steps), plan.spent
    session = Session(config, world, arguments.deadline, spent)
    for seconds in sorted(arguments.seconds):
        if session.until(seconds) is None:
            return False
        judge(config, seconds, arguments)
    return True


def judge(config: RunConfig, seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of the generator that was kept at ``seconds``, and a picture of its samples."""
    kept = kept_folder(config, seconds)
    device = str(_world(arguments).device)
    if not (kept / "samples.png").exists():
        images = load_generator(kept, device).generate(torch.arange(100), native=True)
        save_png(image_grid(images.cpu(), columns=10), kept / "samples.png")
    return judged(
        kept,
        arguments.extractors,
        arguments.samples,
        cache=arguments.out / "cache",
        device=device,
        weights=arguments.extractor_weights,
    )


def judged_already(config: RunConfig, arguments: argparse.Namespace) -> bool:
    """Whether the run has its figures at all times; ``UserError`` if they are of other options."""
    check_run(config, SUFFIX)
    found = [
        kept_figures(kept_folder(config, seconds), arguments.extractors, arguments.samples)
        for seconds in arguments.seconds
    ]
    return None not in found


def check_weights(arguments: argparse.Namespace) -> None:
    """Find the weights of the pretrained extractors, before what takes long."""
    for number, name in enumerate(arguments.extractors):
        if name in ("mobilenet_v2", "inception"):
            given = None if number else arguments.extractor_weights  # as `judged` gives them
            create_extractor(name, world=World(), weights=None if given is None else Path(given))


def results(out: Path) -> dict[str, dict[float, dict[str, Any]]]:
    """All that was judged so far: run, seconds, figures."""
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for file in sorted(out.glob("*/kept/*/figures.json")):
        seconds, run_name = float(file.parent.name), file.parts[-4]
        found.setdefault(run_name, {})[seconds] = json.loads(file.read_text())
    return found


def table(found: dict[str, dict[float, dict[str, Any]]]) -> str:
    """A Markdown table of what was judged: those of :data:`COLUMNS` that any run has."""
    rows = [row for points in found.values() for row in points.values()]
    known = {name for row in rows for name in row["figures"]}
    own = [name for name in COLUMNS if name in known]
    columns = ["run", "seconds", "steps", "images/s", *own]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, points in found.items():
        for seconds, row in sorted(points.items()):
            figures = row["figures"]
            cells = [f"{figures[c]:.4g}" if c in figures else "" for c in own]
            told = [name, f"{seconds:g}", f"{row['step']:,}", f"{row['images_per_second']:,.0f}"]
            lines.append("| " + " | ".join([*told, *cells]) + " |")
    return "\n".join(lines)


def draw_curves(
    found: dict[str, dict[float, dict[str, Any]]], path: Path, metric: str = METRIC
) -> None:
    """The metric of every run over its training time, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in found.items():
        known = [
            (s, p["figures"][metric]) for s, p in sorted(points.items()) if metric in p["figures"]
        ]
        if known:
            axes.plot(*zip(*known, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel=metric)
    times = sorted({s for points in found.values() for s in points})
    axes.set_xticks(times, [f"{s:g}" for s in times])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Train and judge what is not done yet, print the table, draw the curves."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cifar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="folder", choices=("folder", "cifar10"))
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--extractor-weights", help="file with MobileNetV2's weights")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"))
    parser.add_argument(
        "--systems",
        nargs="+",
        default=list(SYSTEMS),
        choices=list(SYSTEMS),
        metavar="NAME",
        help=f"of {', '.join(SYSTEMS)}",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", nargs="+", type=float, default=[120, 240, 440, 1200])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--extractors", nargs="+", default=["mobilenet_v2", "classifier"])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", help="as for a run (default: on a GPU compiled-graph)")
    parser.add_argument("--precision", help="as for a run (default: on a GPU bf16)")
    parser.add_argument("--log-every", type=int, default=50, help="iterations; how exact a stop is")
    parser.add_argument("--set", nargs="*", default=[], help="other options, as name=value")
    parser.add_argument("--suffix", default="", help="for the names of the runs")
    arguments = parser.parse_args()
    arguments.deadline = time.time() + 60 * arguments.minutes
    wanted = [
        config_of(name, seed, arguments) for name in arguments.systems for seed in arguments.seeds
    ]
    ready = [judged_already(config, arguments) for config in wanted]
    if not all(ready):
        check_weights(arguments)
    done = all(run(config, arguments) for config in wanted)
    found = results(arguments.out)
    print(table(found))
    if found:
        draw_curves(found, arguments.out / "curves.png", f"fid{ending_of(arguments.extractors[0])}")
    if not done:
        print("not everything is done: give the command again to go on")


if __name__ == "__main__":
    sys.exit(exit_code(main))
