"""What the remedies against mode collapse are worth on the mixtures of the literature.

    python -m benchmarks.remedies --out FOLDER [--mnist FOLDER] [--device cuda]

plays ``gan`` on the ring (8 modes) and the grid (25 modes), and, where MNIST is given, ``dcgan`` on
stacked MNIST (1,000 modes), three seeds each, plain and with remedies, and prints a table beside
the published figures. A run is an ordinary run of ``train``, of as many iterations with as without;
its figures are those of the last step, by PacGAN's protocol: 2,500 points, or 26,000 pictures read
by a classifier. What OUT holds is not played again, and a run that was interrupted goes on from its
last checkpoint; ``--minutes`` begins no further run after so many.
``--set steps=50000`` and the like change all runs (give them an OUT of their own).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.arguments import names_among
from benchmarks.kept import check_run
from benchmarks.settings import read_settings
from gan_core.config import RunConfig, make_config, write_config
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.observers import FolderObserver
from gan_core.preparing import check_data
from gan_core.run import play

SEEDS = (0, 1, 2)
POINTS: dict[str, Any] = {"variant": "gan", "samples": 2500}
GAMES: dict[str, dict[str, Any]] = {
    "ring": {**POINTS, "steps": 16_000},
    "grid": {**POINTS, "steps": 30_000},
    "stacked-mnist": {
        # Networks of 16 pixels are a layer less deep and come to a stand at a KL of 0.10.
        "variant": "dcgan", "samples": 26_000, "steps": 12_000, "image_size": 32, "width": 32,
        "kernel": 4, "batch_size": 64, "precision": "bf16",
    },
}  # fmt: skip
STEADY = {"beta2": 0.99, "ema": 0.999, "lr_decay_to": 0.02, "prior": "gaussian"}
POINTS_STEADY = {**STEADY, "batch_size": 256, "lr_d": 2e-3, "lr_g": 2e-3}
PICTURES_STEADY = {"beta2": 0.99, "ema": 0.999, "lr_decay_to": 0.02, "lr_d": 2e-3, "lr_g": 2e-3}
R3GAN = {"loss": "relativistic", "r1": 0.02, "r2": 0.02, "beta1": 0.0}
# Layers as PacGAN's (four and three), fewer units. Fewer numbers of noise make each batch cheaper.
# Noise of half the modes' distance already hides the modes; it is gone after a third of the steps,
# because what lies between the modes only goes while D sees samples as they are.
DEEP = {
    **POINTS_STEADY, "layers_g": 4, "layers_d": 3, "latent": 8, "instance_noise": 1.0,
    "instance_noise_until": 0.35,
}  # fmt: skip
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "ring": {
        "plain": {},
        "--packing 2": {"packing": 2},
        "steady, no remedy": POINTS_STEADY,
        "steady, --instance-noise 0.3": {**POINTS_STEADY, "instance_noise": 0.3},
        "steady, R3GAN": {**POINTS_STEADY, **R3GAN},
        "deep, --instance-noise 0.3": {**DEEP, "instance_noise": 0.3},
    },
    "grid": {
        "plain": {},
        "--packing 2": {"packing": 2},
        "steady, no remedy": POINTS_STEADY,
        "deep, --instance-noise 1": DEEP,
    },
    "stacked-mnist": {
        "plain": {},
        "--packing 2": {"packing": 2},
        "steady, --r1 0.1": {**PICTURES_STEADY, "r1": 0.1, "penalty_stride": 4},
    },
}
"""Recipes by source. *Steady* is what lets any of them settle: rates that fall to 2 %, an average
of the weights, a Gaussian prior; instance noise falls to nothing over half of the steps. *Deep* has
more layers as well."""
PUBLISHED = {
    "ring": "of 8: GAN 6.3 at 98.2 %, PacGAN2 7.9 at 95.6 % (PacGAN); Unrolled 7.6 at 35.6 %",
    "grid": "of 25: GAN 17.3 at 94.8 %, PacGAN2 23.8 at 91.3 % (PacGAN); Unrolled 23.6 at 16 %",
    "stacked-mnist": "of 1,000, KL: DCGAN 99, 3.40; PacDCGAN2 1000, 0.06 (PacGAN)",
}
SECOND = {"ring": "high_quality_share", "grid": "high_quality_share", "stacked-mnist": "mode_kl"}
"""The figure beside the modes."""


def run_name(data: str, recipe: str, seed: int) -> str:
    """The folder of a run."""
    plain = "".join(c if c.isalnum() else "-" for c in recipe).strip("-")
    return f"{data}-{plain}-{seed}"


def config_of(data: str, recipe: str, seed: int, arguments: argparse.Namespace) -> RunConfig:
    """The configuration of a run."""
    values: dict[str, Any] = {
        "data": data, "data_root": arguments.mnist if data == "stacked-mnist" else None,
        "storage": str(arguments.out), "workers": 0, "device": arguments.device,
        "name": run_name(data, recipe, seed), "seed": seed,
        **GAMES[data], **RECIPES[data][recipe],
    }  # fmt: skip
    extra = read_settings(arguments.set)
    steps = make_config({**values, **extra}).options["steps"]
    looks = {
        # Reading 26,000 pictures takes minutes.
        "evaluate_every": steps // (2 if data == "stacked-mnist" else 4),
        "log_every": max(50, steps // 100),
        "checkpoint_every": steps // 20,
    }
    return make_config({**values, **looks, **extra})


def play_one(config: RunConfig) -> None:
    """Play a run that is not there yet, or what is missing of it."""
    config.folder.mkdir(parents=True, exist_ok=True)
    write_config(config, config.folder / "config.yaml")
    world = World.current(None if config.device == "auto" else config.device)
    observer = FolderObserver(config.folder, world)
    summary = play(config, world, observer, find_checkpoint(config.folder))
    if summary["status"] == "finished":
        (config.folder / "summary.json").write_text(json.dumps(summary, default=str))


def row(data: str, recipe: str, out: Path) -> str | None:
    """The table's row of a recipe: mean and each seed's figures; ``None`` where none was played."""
    found: list[Mapping[str, Any]] = []
    for seed in SEEDS:
        path = out / run_name(data, recipe, seed) / "summary.json"
        if path.exists():
            found.append(json.loads(path.read_text()))
    if not found:
        return None
    modes = [s["figures"]["modes_covered"] for s in found]
    second = [s["figures"][SECOND[data]] for s in found]
    seconds = statistics.fmean(s["seconds"] for s in found)
    each = ", ".join(f"{m:.0f}, {_said(data, v)}" for m, v in zip(modes, second, strict=True))
    mean = f"{statistics.fmean(modes):.1f}, {_said(data, statistics.fmean(second))}"
    return f"| {data} | {recipe} | {mean} | {each} | {found[0]['step']} | {seconds:.0f} s |"


def _said(data: str, second: float) -> str:
    return f"KL {second:.3f}" if SECOND[data] == "mode_kl" else f"{100 * second:.1f} %"


def main() -> None:
    """Play what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/remedies")
    parser.add_argument("--mnist", help="folder with MNIST: stacked-mnist is played too")
    parser.add_argument(
        "--data",
        type=names_among("source", GAMES),
        default=",".join(GAMES),
        help="sources, with commas",
    )
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--recipes", default="", help="only those whose name holds this")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--set", nargs="*", help="other options, as name=value")
    arguments = parser.parse_args()
    out, began = Path(arguments.out), time.monotonic()
    sources = [d for d in arguments.data.split(",") if d != "stacked-mnist" or arguments.mnist]
    if not sources:
        parser.error("--data stacked-mnist needs --mnist: the folder with MNIST")
    wanted = [
        (data, recipe, config_of(data, recipe, seed, arguments))
        for seed in arguments.seeds
        for data in sources
        for recipe in RECIPES[data]
        if arguments.recipes in recipe
    ]
    for _, _, config in wanted:
        check_run(config)
    for data in sources:
        check_data(config_of(data, next(iter(RECIPES[data])), SEEDS[0], arguments))
    for data, recipe, config in wanted:
        late = time.monotonic() - began > 60 * arguments.minutes
        if late or (config.folder / "summary.json").exists():
            continue
        play_one(config)
        print(row(data, recipe, out) or f"{data}, {recipe}: stopped", flush=True)
    print("| data | recipe | modes, and high quality or KL | each seed | steps | training |")
    print("|---|---|---|---|---|---|")
    rows = [row(data, recipe, out) for data in GAMES for recipe in RECIPES[data]]
    print("\n".join(line for line in rows if line))
    for data, text in PUBLISHED.items():
        print(f"{data}, published, {text}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
