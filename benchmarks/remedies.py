"""What the remedies against mode collapse are worth on the mixtures of the literature.

    python -m benchmarks.remedies --out FOLDER

plays ``gan`` on the ring (8 modes) and the grid (25 modes), three seeds each, plain and with each
remedy, and prints a table beside the published figures. A run is an ordinary run of ``train``; its
figures are by PacGAN's protocol on 2,500 samples of the last step. What OUT holds is not played
again; ``--minutes`` stops early. Stacked MNIST needs a GPU or hours; its command is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.config import make_config, write_config
from gan_core.engine.world import World
from gan_core.observers import FolderObserver
from gan_core.run import play

SEEDS = (0, 1, 2)
STEADY = {"beta1": 0.0, "beta2": 0.99, "ema": 0.999, "lr_decay_to": 0.02, "prior": "gaussian"}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "--packing 2": {"packing": 2},
    "--minibatch-stddev 4": {"minibatch_stddev": 4},
    "--unrolled 5": {"unrolled": 5},
    "--instance-noise 0.1, falling": {"instance_noise": 0.1, "instance_noise_steps": 4000},
    "--label-smoothing 0.1": {"label_smoothing": 0.1},
    "R3GAN: relativistic, R1 and R2": {
        **STEADY, "loss": "relativistic", "r1": 0.02, "r2": 0.02, "batch_size": 256,
    },
    "R1, averaged, falling rate": {**STEADY, "r1": 0.02, "batch_size": 256},
}  # fmt: skip
PUBLISHED = {
    "ring": "GAN 6.3 at 98.2 %, PacGAN2 7.9 at 95.6 % (PacGAN's paper); Unrolled 7.6 at 35.6 %",
    "grid": "GAN 17.3 at 94.8 %, PacGAN2 23.8 at 91.3 % (PacGAN's paper); Unrolled 23.6 at 16 %",
}
MODES = {"ring": 8, "grid": 25}
STACKED = """\
python -m pipelines train dcgan --data stacked-mnist --data-root MNIST --image-size 32 --width 64 \\
    --batch-size 64 --steps 50000 --samples 26000 --evaluate-every 5000 [--packing 2]"""


def run_name(data: str, recipe: str, seed: int) -> str:
    """The folder of a run."""
    plain = "".join(c if c.isalnum() else "-" for c in recipe).strip("-")
    return f"{data}-{plain}-{seed}"


def play_one(data: str, recipe: str, seed: int, steps: int, out: Path) -> None:
    """Play a run that is not there yet."""
    values: dict[str, Any] = {
        "variant": "gan", "data": data, "storage": str(out), "workers": 0, "device": "cpu",
        "name": run_name(data, recipe, seed), "seed": seed, "steps": steps, "samples": 2500,
        "evaluate_every": steps // 4, "checkpoint_every": 0, "log_every": max(50, steps // 100),
    }  # fmt: skip
    config = make_config({**values, **RECIPES[recipe]})
    config.folder.mkdir(parents=True, exist_ok=True)
    write_config(config, config.folder / "config.yaml")
    summary = play(config, World(), FolderObserver(config.folder, World()))
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
    shares = [100 * s["figures"]["high_quality_share"] for s in found]
    seconds = statistics.fmean(s["seconds"] for s in found)
    each = ", ".join(f"{m:.0f} at {q:.1f}" for m, q in zip(modes, shares, strict=True))
    mean = f"{statistics.fmean(modes):.1f} at {statistics.fmean(shares):.1f} %"
    return f"| {data} | {recipe} | {mean} | {each} | {found[0]['step']} | {seconds:.0f} s |"


def main() -> None:
    """Play what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="runs/remedies")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--recipes", default="", help="only those whose name holds this")
    arguments = parser.parse_args()
    out, began = Path(arguments.out), time.monotonic()
    for seed in SEEDS:
        for recipe in RECIPES:
            for data in MODES:
                done = (out / run_name(data, recipe, seed) / "summary.json").exists()
                late = time.monotonic() - began > 60 * arguments.minutes
                if done or late or arguments.recipes not in recipe:
                    continue
                play_one(data, recipe, seed, arguments.steps, out)
    print("| data | recipe | modes at high quality | each seed | steps | training |")
    print("|---|---|---|---|---|---|")
    rows = [row(data, recipe, out) for data in MODES for recipe in RECIPES]
    print("\n".join(line for line in rows if line))
    for data, text in PUBLISHED.items():
        print(f"{data} of {MODES[data]}: {text}")
    print(f"stacked MNIST:\n{STACKED}")


if __name__ == "__main__":
    main()
