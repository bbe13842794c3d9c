r"""Line art to colour and back: Pix2Pix against the same U-Net without a game, and CycleGAN.

    python -m benchmarks.translation --data-root FOLDER \
        --extractor-weights mobilenet_v2-b0353104.pth

``FOLDER`` holds two folders of pictures with the same names, ``--black`` (line art) and
``--color``. Trained are, one after another and at 64 pixels: ``l1``, the U-Net from line art to
colour on the absolute difference alone; ``pix2pix``, the same with its discriminator; both from
colour to line art (``l1-lines``, ``pix2pix-lines``); ``cyclegan``, on disjoint halves of the
pictures, so that what is held out has a truth that no training picture shows. Each has the
steps that RECIPES says; a run that was interrupted (or that ``--minutes`` ends) goes
on when the command is given again. Then the last generators meet the test split once: absolute
difference and SSIM against the truth, kid and fid by MobileNetV2, each beside the identity map.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kept import SUFFIX, check_run
from benchmarks.settings import read_settings
from benchmarks.stopping import UntilDeadline, stoppable
from gan_core.config import RunConfig, make_config
from gan_core.data.examples import Batch, Examples
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.sampling import Sampler
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.metrics.evaluation import Evaluator
from gan_core.metrics.extractors import create_extractor
from gan_core.metrics.held_out import held_out_figures
from gan_core.pictures import save_png
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.run import Run
from gan_core.splits import load_split
from gan_core.variants.cyclegan import CycleGAN
from gan_core.variants.translation import side_by_side

_SMALL: dict[str, Any] = {
    "image_size": 64,
    "width": 16,
    "width_d": 16,
    # Line art is the coloured picture without its colours: a generator that says what is added
    # begins with every line in its place, and is no tanh away from pure white.
    "residual": True,
    # A crop would enlarge what is trained on and not what is held out.
    "enlarged": 64,
    # Rates that fall and an average settle what a game leaves swinging.
    "constant": 0.5,
}
_PAIRS = {
    **_SMALL,
    "variant": "pix2pix",
    "batch_size": 8,
    "patch_layers": 2,
    # Dropout's masks of 2, 4 and 8 pixels a side are seen as blotches.
    "dropout": 0.0,
    "lr_g": 8e-4,
    "lr_d": 8e-4,
    "ema": 0.995,
    "steps": 600,
}
_ALONE = {"adversarial": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "l1": {**_PAIRS, **_ALONE},
    "pix2pix": _PAIRS,
    "l1-lines": {**_PAIRS, **_ALONE},
    "pix2pix-lines": _PAIRS,
    "cyclegan": {
        **_SMALL,
        "variant": "cyclegan",
        # Residual blocks lose thin lines in their bottleneck: after 300 steps more and more of
        # them were missing.
        "network": "unet",
        "patch_layers": 2,
        "batch_size": 4,
        "lr_g": 1e-3,
        "lr_d": 4e-4,
        # A tenth of the paper's: line art cannot keep colours, so that they cannot come back.
        "cycle": 1.0,
        "identity": 0.0,
        "ema": 0.99,
        "steps": 600,
    },
}
_TO_LINES = ("l1-lines", "pix2pix-lines", "cyclegan")
_COLUMNS = ("l1", "ssim", "kid_mobilenet_v2", "fid_mobilenet_v2", "cycle_l1")
_SHOWN = 8


def config_of(name: str, arguments: argparse.Namespace) -> RunConfig:
    """The configuration of one run of this benchmark."""
    extra = read_settings(arguments.set)
    folders = [arguments.black, arguments.color]
    if name in _TO_LINES:
        folders.reverse()
    source = {"image_size": 64, "input_folder": folders[0], "target_folder": folders[1]}
    unpaired = RECIPES[name]["variant"] == "cyclegan"
    if unpaired:
        source["truth"] = True
    return make_config(
        {
            "data": "unpaired" if unpaired else "pairs",
            "data_root": str(arguments.data_root),
            "data_options": source,
            "workers": 0,
            "device": arguments.device,
            "log_every": 100,
            "evaluate_every": 0,
            "checkpoint_every": 100,
            "extractor": "none",
            "storage": str(arguments.out),
            "name": f"{name}{arguments.suffix}",
            "seed": arguments.seed,
            **RECIPES[name],
            **extra,
        }
    )


def train(config: RunConfig, deadline: float) -> bool:
    """Train from the last checkpoint on, if there is one; whether the run is finished."""
    world = World.current(None if config.device == "auto" else config.device)
    run = Run(config, world, UntilDeadline(config.folder, world, deadline))
    with stoppable(config):
        return bool(run.play(find_checkpoint(config.folder))["status"] == "finished")


class Judge:
    """Figures of generators, and of the identity map, on the test split."""

    def __init__(self, weights: Path | None, cache: Path, world: World) -> None:
        self.world, self.cache = world, cache
        self.extractor = create_extractor("mobilenet_v2", world=world, weights=weights)
        self.evaluators: dict[str, Evaluator] = {}
        self.identity: dict[str, dict[str, float]] = {}

    def open(self, config: RunConfig) -> None:
        """Look at the test split of the data of ``config``."""
        self.test = load_split(config, "test")
        self.folders = {
            "input": config.data_options["input_folder"],
            "image": config.data_options["target_folder"],
        }

    def _distances(self, target: str, images: Tensor) -> dict[str, float]:
        """kid and fid of ``images`` against the real ones called ``target``."""
        folder = self.folders[target]
        if folder not in self.evaluators:
            tensors = {**self.test.tensors, "image": self.test.tensors[target]}
            self.evaluators[folder] = Evaluator(
                reference=Examples(tensors, self.test.spec, self.test.source, "test"),
                extractors=[self.extractor],
                samples=len(self.test),
                world=self.world,
                cache=self.cache,
            )
        figures = self.evaluators[folder](lambda index: images[index]).figures
        return {name: value for name, value in figures.items() if name in _COLUMNS}

    def seen(self, generator: ReleasedGenerator) -> Batch:
        """The test split as the networks of ``generator`` see it."""
        stored = generator.stage.view.prepare(self.test).tensors
        return generator.stage.view.present(
            {name: values.to(self.world.device) for name, values in stored.items()}
        )

    def rows(self, name: str, generator: ReleasedGenerator) -> dict[str, dict[str, float]]:
        """The figures of ``generator`` and of the identity map, in all its directions."""
        seen = self.seen(generator)
        variant, stage = generator.variant, generator.stage.name
        seed = generator.info["config"]["seed"]
        sampler = Sampler(variant, stage, seed, self.world.device, {"input": seen["input"]})
        own = held_out_figures(sampler, seen, len(self.test), self.world)
        made = sampler(torch.arange(len(self.test)))["image"]
        rows = self._direction(name, "image", own, "", made=made, given=seen["input"])
        if isinstance(variant, CycleGAN):
            back = variant.back(seen["image"])
            rows |= self._direction(name, "input", own, "_inverse", made=back, given=seen["image"])
        return rows

    def _direction(
        self,
        name: str,
        target: str,
        own: dict[str, float],
        suffix: str,
        *,
        made: Tensor,
        given: Tensor,
    ) -> dict[str, dict[str, float]]:
        folder = self.folders[target]
        if folder not in self.identity:
            self.identity[folder] = self._distances(target, given)
        return {
            f"identity to {folder}": _chosen(own, f"{suffix}_input") | self.identity[folder],
            f"{name} to {folder}": _chosen(own, suffix) | self._distances(target, made),
        }

    def picture(self, generator: ReleasedGenerator) -> Tensor:
        """Input, translation and truth of some test pictures; both ways where there are two."""
        seen = self.seen(generator)
        step = len(self.test) // _SHOWN
        chosen = torch.arange(_SHOWN) * step
        part = {name: values[chosen] for name, values in seen.items()}
        made = generator.generate(chosen, conditions={"input": part["input"]})
        columns = [part["input"], made, part["image"]]
        if isinstance(generator.variant, CycleGAN):
            columns += [part["image"], generator.variant.back(part["image"]), part["input"]]
        return side_by_side(columns)


def _chosen(figures: dict[str, float], suffix: str) -> dict[str, float]:
    """The figures with ``suffix``, under their plain names."""
    names = ("l1", "ssim", "cycle_l1")
    return {name: figures[name + suffix] for name in names if name + suffix in figures}


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table of the figures."""
    lines = ["| | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[c]:.4f}" if c in row else "" for c in _COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train what is not yet trained, judge all, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the two folders")
    parser.add_argument("--black", default="black", help="the folder of line art")
    parser.add_argument("--color", default="color", help="the folder of coloured pictures")
    parser.add_argument(
        "--extractor-weights", type=Path, help="MobileNetV2's file (default: torch's cache)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/translation"))
    parser.add_argument("--runs", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so many")
    parser.add_argument("--set", nargs="*", help="other options, as name=value")
    parser.add_argument("--suffix", default="", help="for the names of the runs")
    arguments = parser.parse_args()
    deadline = time.time() + 60 * arguments.minutes
    configs = {name: config_of(name, arguments) for name in arguments.runs}
    for config in configs.values():
        check_run(config, SUFFIX)
    world = World.current(None if arguments.device == "auto" else arguments.device)
    # Before what takes long.
    judge = Judge(arguments.extractor_weights, arguments.out / "cache", world)
    for config in configs.values():
        if not train(config, deadline):
            sys.exit(f"{config.name} is not finished: give the command again to go on")
    rows: dict[str, dict[str, float]] = {}
    for name, config in configs.items():
        judge.open(config)
        last = find_checkpoint(config.folder)
        assert last is not None, "a finished run has a checkpoint"
        generator = load_generator(last, world.device)
        rows |= judge.rows(name, generator)
        save_png(judge.picture(generator), arguments.out / f"{config.name}.png")
    print(table(rows))
    (arguments.out / "table.md").write_text(table(rows) + "\n")
    (arguments.out / "table.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
