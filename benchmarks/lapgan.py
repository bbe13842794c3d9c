r"""LAPGAN against a GAN on CIFAR-10, with equal processor time: Frechet distance and Parzen.

    python -m benchmarks.lapgan --data-root CIFAR_AS_FOLDERS \
        --extractor-weights mobilenet_v2-b0353104.pth

trains the levels of a pyramid apart, puts them together, and trains the first GAN with several
settings, each for as long as all levels took. The setting of the GAN is chosen by its Frechet
distance to the validation split; then both are compared with the test split once: the distance of
MobileNetV2 features, and the Parzen log-likelihood. Processor seconds of one thread count, so that
other work on the machine favours nobody; on a GPU give each system a machine of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.kept import check_asked, check_run
from benchmarks.stopping import stoppable
from gan_core.config import RunConfig, make_config
from gan_core.data.examples import Examples
from gan_core.engine.checkpoint import find_checkpoint, read_manifest
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.metrics.evaluation import Evaluator
from gan_core.metrics.extractors import create_extractor
from gan_core.metrics.parzen import parzen_figures, parzen_protocol
from gan_core.observers import FolderObserver
from gan_core.pictures import image_grid, save_png
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.run import Run
from gan_core.splits import load_split
from gan_core.variant import VARIANTS

SAMPLES = 1_000
_SHOWN = 64
SHARES = {"level_0": 0.35, "level_1": 0.25, "level_2": 0.4}
"""How much of the time each level gets."""
LAPGAN: dict[str, Any] = {
    # Narrower than the paper's, with Adam, R1 and an average of weights: minutes on a CPU.
    "optimizer": "adam",
    "lr_d": 5e-4,
    "lr_g": 5e-4,
    "lr_decay": 1.0,
    "width": 16,
    "hidden": 800,
    "hidden_d": 800,
    "dropout": 0.2,
    "r1": 0.3,
    "ema": 0.999,
    "batch_size": 64,
    "steps": 100_000,
}
LEVELS: dict[str, dict[str, Any]] = {
    # A convolution learns from every pixel, so small batches suffice where pictures are large,
    # and leave time for more iterations; networks of so few weights bear twice the rates.
    "level_0": {},
    "level_1": {"batch_size": 32, "ema": 0.995, "lr_d": 1e-3, "lr_g": 1e-3},
    "level_2": {"batch_size": 16, "ema": 0.995, "lr_d": 1e-3, "lr_g": 1e-3},
}
"""What the options of each level differ in."""
_GAN = {"optimizer": "adam", "lr_decay": 1.0, "ema": 0.999, "batch_size": 64, "steps": 100_000}
GANS: dict[str, dict[str, Any]] = {
    "gan, as on MNIST": _GAN
    | {"lr_d": 5e-4, "lr_g": 5e-4, "r1": 0.3, "dropout": 0.2, "dropout_input": 0.0},
    "gan, stronger R1": _GAN
    | {"lr_d": 5e-4, "lr_g": 5e-4, "r1": 3.0, "dropout": 0.2, "dropout_input": 0.0},
    # Three times the iterations of the others in the same time.
    "gan, a third as wide, rates of 2e-3": _GAN
    | {"lr_d": 2e-3, "lr_g": 2e-3, "r1": 0.3, "dropout": 0.2, "dropout_input": 0.0}
    | {"hidden": 400, "maxout_units": 80, "prior": "gaussian"},
}


def seconds_of(folder: Path) -> float:
    """Processor seconds that the run in ``folder`` was trained for."""
    file = folder / "processor_seconds"
    return float(file.read_text()) if file.exists() else 0.0


class Budget(FolderObserver):
    """Stops a run after ``seconds`` of this process, from before too if it is resumed.

    Loading the pictures, which a system of three levels does three times, does not count.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__(folder, World())
        self._file = folder / "processor_seconds"
        self._before = seconds_of(folder)
        self._since, self._seconds = time.process_time(), seconds

    @property
    def used(self) -> float:
        """Processor seconds so far."""
        return self._before + time.process_time() - self._since

    def start(self, step: int, info: dict[str, Any]) -> None:
        super().start(step, info)
        self._since = time.process_time()

    def should_stop(self) -> bool:
        return self.used > self._seconds or super().should_stop()

    def checkpoint(self, step: int, write: Any, figures: dict[str, float]) -> None:
        super().checkpoint(step, write, figures)
        self._file.write_text(str(self.used))


def config_of(variant: str, name: str, values: dict[str, Any], given: Any) -> RunConfig:
    """The configuration of one run."""
    rhythm = {"log_every": 50, "checkpoint_every": 200, "evaluate_every": 0, "extractor": "none"}
    place = {"data": "folder", "data_root": str(given.data_root), "storage": str(given.out)}
    plain = {"variant": variant, "name": name, "workers": 0, "device": "cpu", "seed": given.seed}
    return make_config({**plain, **place, **rhythm, **values})


def train(config: RunConfig, seconds: float) -> None:
    """Train until the processor has spent ``seconds`` on it."""
    observer = Budget(config.folder, seconds)
    if observer.used >= seconds:
        return
    with stoppable(config):
        summary = Run(config, World(), observer).play(find_checkpoint(config.folder))
    if summary["status"] != "finished" and observer.used < seconds:
        sys.exit(f"{config.name} is not finished: give the command again to go on")


def whole_of(given: Any) -> RunConfig:
    """The configuration of the levels put together."""
    return config_of("lapgan", "lapgan", LAPGAN, given)


def levels_of(given: Any) -> dict[str, RunConfig]:
    """The configuration of every level."""
    return {
        stage: config_of("lapgan", f"lapgan-{stage}", LAPGAN | LEVELS[stage] | own, given)
        for stage, own in VARIANTS["lapgan"].parts(whole_of(given).game).items()
    }


def gans_of(given: Any) -> dict[str, RunConfig]:
    """The configuration of every setting of the GAN."""
    return {
        name: config_of("gan", f"gan-{number}", values, given)
        for number, (name, values) in enumerate(GANS.items())
    }


def check_seconds(given: Any) -> None:
    """``UserError`` if what is kept was trained for other seconds, and so not all would be equal.

    Levels that have been put together are not trained further, and nothing is trained less.
    """
    joined = find_checkpoint(whole_of(given).folder) is not None
    runs = [(part, SHARES[stage], joined) for stage, part in levels_of(given).items()]
    runs += [(config, 1.0, False) for config in gans_of(given).values()]
    for config, share, done in runs:
        used, wanted = seconds_of(config.folder), share * given.seconds
        late = 0.2 * wanted + 5  # a stop comes when it is asked for, every few seconds
        if used > wanted + late or (done and used < wanted and not ended(config)):
            check_asked(config.folder, {"seconds": round(used)}, {"seconds": round(wanted)})


def ended(config: RunConfig) -> bool:
    """Whether the run has no iterations left, however much time."""
    last = find_checkpoint(config.folder)
    return last is not None and bool(read_manifest(last)["step"] >= config.game.steps)


def train_lapgan(given: Any) -> Path:
    """The folder of the levels, trained apart and put together."""
    whole = whole_of(given)
    if find_checkpoint(whole.folder) is None:
        folders = {}
        for stage, part in levels_of(given).items():
            train(part, given.seconds * SHARES[stage])
            folders[stage] = part.folder
        Run(whole, World(), FolderObserver(whole.folder, World())).join(folders)
    return whole.folder


def seconds_used(given: Any) -> dict[str, float]:
    """Processor seconds of every system, by its name in the table."""
    used = {name: seconds_of(config.folder) for name, config in gans_of(given).items()}
    return used | {"lapgan": sum(seconds_of(part.folder) for part in levels_of(given).values())}


class Judge:
    """Figures of generators against a split."""

    def __init__(self, config: RunConfig, given: Any) -> None:
        self.world = World()
        self.extractor = create_extractor(
            "mobilenet_v2", world=self.world, weights=given.extractor_weights
        )
        self.cache = config.cache_folder
        self.splits = {name: load_split(config, name) for name in ("validation", "test")}

    def distances(self, generator: ReleasedGenerator, split: str) -> dict[str, float]:
        """Figures by MobileNetV2 against as many real pictures as are generated."""
        whole = self.splits[split]
        reference = whole.select(_spread(whole))
        evaluator = Evaluator(
            reference=reference,
            extractors=[self.extractor],
            samples=SAMPLES,
            world=self.world,
            cache=self.cache,
        )
        return evaluator(lambda index: generator.generate(index, native=True)).figures

    def parzen(self, generator: ReleasedGenerator) -> dict[str, float]:
        """Sigma by the validation split, likelihood of the test split."""
        return parzen_figures(
            lambda index: generator.generate(index, native=True),
            validation=self.splits["validation"],
            test=self.splits["test"],
            world=self.world,
            samples=2 * SAMPLES,
        )


def _spread(examples: Examples) -> torch.Tensor:
    """As many examples as are generated, of all classes alike."""
    return torch.linspace(0, len(examples) - 1, min(SAMPLES, len(examples))).long()


def chain_picture(generator: ReleasedGenerator, rows: int = 8) -> torch.Tensor:
    """Samples coarse to fine: two of each side by side in a row, three sizes each."""
    index = torch.arange(2 * rows)
    chain = generator.variant.chain(generator.noise(index))  # type: ignore[operator]
    side = chain[-1].shape[-1]
    shown = [F.interpolate(part.clamp(-1, 1), size=(side, side)) for part in chain]
    return image_grid(torch.stack(shown, dim=1).flatten(0, 1), columns=2 * len(shown))


def beside(columns: list[torch.Tensor], width: int = 8) -> torch.Tensor:
    """Blocks of ``width`` pictures a row (N, C, S, S each), beside one another."""
    gap = torch.full((3, 1, 12), 255, dtype=torch.uint8)
    grids = [image_grid(images, columns=width) for images in columns]
    parts = [part for grid in grids for part in (grid, gap.expand(-1, grid.shape[1], -1))]
    return torch.cat(parts[:-1], dim=2)


def main() -> None:
    """Train, choose, compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="train/CLASS and test/CLASS")
    parser.add_argument(
        "--extractor-weights", type=Path, required=True, help="torchvision's MobileNetV2"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/lapgan"))
    parser.add_argument("--seconds", type=float, default=180, help="of a processor, a system")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for config in (whole_of(given), *levels_of(given).values(), *gans_of(given).values()):
        check_run(config)
    check_seconds(given)
    judge = Judge(whole_of(given), given)  # before what takes long
    folder = train_lapgan(given)
    folders = {}
    for name, config in gans_of(given).items():
        train(config, given.seconds)
        folders[name] = config.folder
    generators = {name: load_generator(path) for name, path in folders.items()}
    chosen = {
        name: judge.distances(generator, "validation")["fid_mobilenet_v2"]
        for name, generator in generators.items()
    }
    best = min(chosen, key=lambda name: chosen[name])
    rows = {"lapgan": load_generator(folder), best: generators[best]}
    used = seconds_used(given)
    columns = ("seconds", "fid_mobilenet_v2", "kid_mobilenet_v2", "Parzen log-likelihood")
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, generator in rows.items():
        found = judge.distances(generator, "test") | judge.parzen(generator)
        lines.append(
            f"| {name} | {used[name]:.0f} | "
            f"{found['fid_mobilenet_v2']:.2f} | {found['kid_mobilenet_v2']:.4f} | "
            f"{found['parzen_log_likelihood']:.0f} +- {found['parzen_standard_error']:.0f} |"
        )
    told = parzen_protocol(judge.splits["validation"], judge.splits["test"], 2 * SAMPLES)
    lines += ["", f"fid, kid: {SAMPLES} generated against {SAMPLES} test; {told}",
              f"gan chosen by validation fid: {json.dumps(chosen)}"]  # fmt: skip
    print("\n".join(lines))
    (given.out / "table.md").write_text("\n".join(lines) + "\n")
    save_png(chain_picture(rows["lapgan"]), given.out / "chain.png")
    index = torch.arange(_SHOWN)
    test = judge.splits["test"]
    real = test.tensors["image"][_spread(test)][:: SAMPLES // _SHOWN][:_SHOWN]
    made = [generator.generate(index, native=True) for generator in rows.values()]
    save_png(beside([*made, real]), given.out / "samples.png")


if __name__ == "__main__":
    sys.exit(exit_code(main))
