"""GAN, CGAN and DCGAN on MNIST: the papers' figures, measured again with what they leave out.

    python -m benchmarks.mnist --data-root FOLDER_WITH_THE_FOUR_FILES

trains every variant with three seeds (all at once on a GPU), keeps generators along the way,
chooses the step (and Parzen's sigma) on validation data, and then uses the test set once. The step
is that of the best validation score; for a conditional system among the steps at which at least
97 % of samples have the class that was asked for. Beside each Parzen log-likelihood stand coverage,
Frechet distance and the worst class's recall of the same generator, and the same figures of 10,000
training images: the Parzen figure alone rewards blur. A run that was interrupted goes on where it
was when the command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kept import SUFFIX, check_run
from benchmarks.settings import read_settings
from benchmarks.stopping import UntilDeadline, stoppable
from gan_core.config import RunConfig, make_config
from gan_core.data.examples import Examples, to_unit_range
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.metrics.evaluation import Evaluator
from gan_core.metrics.extractors import create_extractor
from gan_core.metrics.parzen import parzen_figures
from gan_core.pictures import image_grid, save_png
from gan_core.preparing import check_data
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.run import Run
from gan_core.splits import load_split

SAMPLES = 10_000
RECIPES: dict[str, dict[str, Any]] = {
    # The paper's networks but for a wider discriminator. Its SGD lets the discriminator win
    # within 2,000 updates (docs/results.md): Adam, R1 and less dropout keep the game going.
    "gan": {
        "steps": 80_000,
        "checkpoint_every": 5_000,
        "batch_size": 256,
        "optimizer": "adam",
        "lr_d": 5e-4,
        "lr_g": 5e-4,
        "lr_decay": 1.00003,
        "r1": 0.3,
        "dropout": 0.2,
        "dropout_input": 0.0,
        "maxout_units": 480,
        "ema": 0.9999,
    },
    # The paper's networks. By its SGD and uniform noise all pictures of a class are alike; Adam,
    # R1, Gaussian noise and no dropout bring variety, but then a discriminator that is only shown
    # right labels never looks at them, and the generator makes any digit. Real pictures under
    # wrong labels make it look, from the start if the label's weights are not too small. The budget
    # is that of two CPU cores.
    "cgan": {
        "steps": 2_000,
        "checkpoint_every": 500,
        "optimizer": "adam",
        "lr_d": 2e-3,
        "lr_g": 2e-3,
        "lr_decay": 1.0005,
        "prior": "gaussian",
        "r1": 1.0,
        "dropout_g": 0.0,
        "dropout_d": 0.0,
        "wrong_label": 0.5,
        "init_label": 0.5,
        "ema": 0.998,
    },
    # The paper's networks at a quarter of their width. Many updates do more than wide layers: ten
    # times the paper's rates, which fall to 0, are borne with a short memory of squares and R1
    # beside batch normalisation, of every fourth picture. Sized for an hour of one CPU core.
    "dcgan": {
        "steps": 38_000,
        "checkpoint_every": 2_000,
        "width": 32,
        "kernel": 4,
        "batch_size": 64,
        "precision": "bf16",
        "lr_d": 2e-3,
        "lr_g": 2e-3,
        "lr_decay_to": 0.0,
        "beta2": 0.99,
        "r1": 0.1,
        "penalty_stride": 4,
        "ema": 0.999,
    },
}
CHOSEN_BY = {"gan": "parzen", "cgan": "parzen", "dcgan": "fid_classifier"}
LEAST_CLASS_ACCURACY = 0.97
"""Of the conditional system's steps, those below this on validation samples are passed over."""
COLUMNS = (
    "parzen_log_likelihood",
    "fid_classifier",
    "coverage_classifier",
    "min_class_recall_classifier",
    "modes_covered",
    "mode_kl",
    "class_accuracy",
)


class Keeper(UntilDeadline):
    """Keeps the generators of checkpoints at multiples of ``every`` (0: none) and of the run's
    end, stops at ``deadline``.
    """

    def __init__(self, folder: Path, world: World, deadline: float, every: int = 1) -> None:
        super().__init__(folder, world, deadline)
        self.every = every

    def checkpoint(
        self, step: int, write: Callable[[Path], None], figures: dict[str, float]
    ) -> None:
        super().checkpoint(step, write, figures)
        if self.every and step % self.every == 0:
            self._keep(step)  # a stop saves too, but chance shall not add candidates

    def end(self, step: int, status: str, summary: dict[str, Any]) -> None:
        super().end(step, status, summary)
        if status == "finished":
            self._keep(step)

    def _keep(self, step: int) -> None:
        kept = self.folder / "kept" / f"step_{step:08d}"
        kept.mkdir(parents=True, exist_ok=True)
        for file in (self.folder / "checkpoints" / f"step_{step:08d}").glob("generator.*"):
            (kept / file.name).write_bytes(file.read_bytes())


def config_of(variant: str, seed: int, arguments: argparse.Namespace) -> RunConfig:
    """The configuration of one run of this benchmark."""
    extra = read_settings(arguments.set)
    return make_config(
        {
            "variant": variant,
            "data": "mnist",
            "data_root": str(arguments.data_root),
            "workers": 0,
            "device": arguments.device,
            "log_every": 500,
            "evaluate_every": 0,
            "extractor": "none",
            "storage": str(arguments.out),
            "name": f"{variant}{arguments.suffix}-{seed}",
            "seed": seed,
            **RECIPES[variant],
            **extra,
        }
    )


def train_one(config: RunConfig, deadline: float) -> None:
    """Train until the end or the deadline, from the last checkpoint if there is one."""
    device = None if config.device == "auto" else config.device
    world = World.current(device)
    observer = Keeper(config.folder, world, deadline, config.checkpoint_every)
    with stoppable(config):
        Run(config, world, observer).play(find_checkpoint(config.folder))


def ended(config: RunConfig) -> bool:
    """Whether the run has come to its end, and that is kept."""
    return (config.folder / "kept" / f"step_{config.game.steps:08d}").exists()


def _generate(
    generator: ReleasedGenerator, first: int = 0
) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
    """A function of sample numbers from ``first`` on, and the classes asked for: equally many."""
    if not generator.conditional:
        return lambda index: generator.generate(first + index, native=True), None
    labels = torch.arange(SAMPLES) % generator.spec.classes

    def conditional(index: Tensor) -> Tensor:
        return generator.generate(first + index, labels[index.cpu()], native=True)

    return conditional, labels


def _grid(generator: ReleasedGenerator) -> Tensor:
    """Ten rows of ten samples, where there are classes a row a class."""
    index = torch.arange(100)
    labels = index // 10 % generator.spec.classes if generator.conditional else None
    return image_grid(generator.generate(index, labels, native=True).cpu(), columns=10)


@dataclasses.dataclass(frozen=True)
class Score:
    """A generator on validation data: the higher, the better."""

    value: float
    class_accuracy: float | None = None


def best_step(scores: dict[int, Score]) -> int:
    """The step of the best value among those that obey the classes, else the most obedient one."""

    def rank(step: int) -> tuple[float, float]:
        accuracy = scores[step].class_accuracy
        obedience = 1.0 if accuracy is None else min(accuracy, LEAST_CLASS_ACCURACY)
        return obedience, scores[step].value

    return max(scores, key=rank)


class Judge:
    """Scores generators on the validation split (to choose) or on the test split (once)."""

    def __init__(self, config: RunConfig, world: World) -> None:
        self.world = world
        self.train = load_split(config, "train")
        self.validation, self.test = load_split(config, "validation"), load_split(config, "test")
        cache = config.cache_folder
        self.classifier = create_extractor(
            "classifier", world=world, train=self.train, test=self.test, cache=cache
        )

    def _evaluator(self, reference: Examples, conditional: bool) -> Evaluator:
        return Evaluator(
            reference=reference,
            extractors=[self.classifier],
            samples=SAMPLES,
            world=self.world,
            conditional=conditional,
        )

    def class_accuracy(self, generator: ReleasedGenerator) -> float:
        """Of samples that no figure of the test set is made from."""
        generate, labels = _generate(generator, first=SAMPLES)
        evaluator = Evaluator(
            reference=self.validation,
            extractors=[],
            classifier=self.classifier,
            samples=SAMPLES,
            world=self.world,
            conditional=True,
        )
        return evaluator(generate, labels).figures["class_accuracy"]

    def validation_score(self, generator: ReleasedGenerator, by: str) -> Score:
        """What the step is chosen by."""
        accuracy = self.class_accuracy(generator) if generator.conditional else None
        generate, labels = _generate(generator)
        if by == "parzen":
            found = parzen_figures(
                generate, validation=self.validation, test=None, world=self.world, samples=SAMPLES
            )
            return Score(found["parzen_validation"], accuracy)
        evaluator = self._evaluator(self.validation, labels is not None)
        return Score(-evaluator(generate, labels).figures["fid_classifier"], accuracy)

    def test_figures(
        self, generate: Callable[[Tensor], Tensor], labels: Tensor | None, conditional: bool
    ) -> dict[str, float]:
        """All figures against the test set; ``conditional``: recall by the class asked for."""
        found = parzen_figures(
            generate,
            validation=self.validation,
            test=self.test,
            world=self.world,
            samples=SAMPLES,
        )
        return found | self._evaluator(self.test, conditional)(generate, labels).figures

    def training_images(self) -> dict[str, float]:
        """The figures of the first 10,000 training images, as if they had been generated."""
        images = self.train.tensors["image"]
        labels = self.train.tensors["label"][:SAMPLES]

        def generate(index: Tensor) -> Tensor:
            return to_unit_range(images[index.cpu()]).to(self.world.device)

        return self.test_figures(generate, labels, conditional=False)


def judge_one(config: RunConfig, world: World, judge: Judge) -> dict[str, Any]:
    """Choose the step on validation data, then look at the test set: once."""
    kept = sorted((config.folder / "kept").glob("step_*"))
    result_file = config.folder / "result.json"
    if result_file.exists():
        judged = json.loads(result_file.read_text())
        if kept[-1].name == f"step_{judged['last_step']:08d}":
            return judged
    by = CHOSEN_BY[config.variant]
    scores: dict[int, Score] = {}
    for folder in kept:
        generator = load_generator(folder, world.device)
        scores[generator.info["step"]] = judge.validation_score(generator, by)
    step = best_step(scores)
    generator = load_generator(config.folder / "kept" / f"step_{step:08d}", world.device)
    generate, labels = _generate(generator)
    figures = judge.test_figures(generate, labels, generator.conditional)
    result = {
        "variant": config.variant,
        "seed": config.seed,
        "step": step,
        "last_step": max(scores),
        "chosen_by": by,
        "validation": {s: dataclasses.asdict(score) for s, score in scores.items()},
        "figures": figures,
    }
    save_png(_grid(generator), config.folder / "samples.png")
    result_file.write_text(json.dumps(result, indent=1))
    return result


def run_one(arguments: argparse.Namespace) -> None:
    """One variant, one seed: what the children do."""
    variant, seed = arguments.one.split(":")
    config = config_of(variant, int(seed), arguments)
    train_one(config, arguments.deadline)


def table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    """A Markdown table of the figures."""
    lines = ["| run | step | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, row in rows:
        cells = [f"{row['figures'][c]:.4g}" if c in row["figures"] else "-" for c in COLUMNS]
        lines.append(f"| {name} | {row.get('step', '-')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_of(variant: str, rows: list[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """A row with the means over the seeds of ``variant``."""
    found = [row["figures"] for _, row in rows if row.get("variant") == variant]
    names = [n for n in COLUMNS if all(n in figures for figures in found)]
    means = {n: sum(figures[n] for figures in found) / len(found) for n in names}
    return f"{variant}, mean of {len(found)}", {"figures": means}


def start_children(arguments: argparse.Namespace) -> list[subprocess.Popen[bytes]]:
    """A process for every variant and seed; on the CPU one after another."""
    at_once = torch.cuda.is_available() and arguments.device != "cpu"
    deadline = time.time() + 60 * arguments.minutes
    children = []
    for variant in arguments.variants:
        for seed in arguments.seeds:
            command = [sys.executable, "-m", "benchmarks.mnist", *sys.argv[1:]]
            command += ["--one", f"{variant}:{seed}", "--deadline", str(deadline)]
            threads = {"OMP_NUM_THREADS": "1"} if at_once else {}
            child = subprocess.Popen(command, env={**os.environ, **threads})
            children.append(child)
            if not at_once:
                wait_for([child])
    return children


def wait_for(children: list[subprocess.Popen[bytes]]) -> list[int]:
    """Their exit codes. A Ctrl-C, which they have had too, counts when they have ended by it."""
    try:
        return [child.wait() for child in children]
    except KeyboardInterrupt:
        for child in children:
            child.wait()
        raise


def main() -> None:
    """Train, choose, judge, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of MNIST's files")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist"))
    parser.add_argument("--variants", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so many")
    parser.add_argument("--set", nargs="*", help="other options, as name=value")
    parser.add_argument("--suffix", default="", help="for the names of the runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments)
        return
    for variant in arguments.variants:
        for seed in arguments.seeds:
            check_run(config_of(variant, seed, arguments), SUFFIX)
        check_data(config_of(variant, arguments.seeds[0], arguments))
    if any(wait_for(start_children(arguments))):
        sys.exit("a run failed: see above; give the command again to go on")
    wanted = [config_of(v, seed, arguments) for v in arguments.variants for seed in arguments.seeds]
    if not all(map(ended, wanted)):  # the test split is looked at once
        sys.exit("not finished: give the command again to go on")
    world = World.current(None if arguments.device == "auto" else arguments.device)
    judge = Judge(config_of(arguments.variants[0], 0, arguments), world)
    rows = [(config.name or config.variant, judge_one(config, world, judge)) for config in wanted]
    rows += [mean_of(variant, rows) for variant in arguments.variants]
    rows.append(("10,000 training images", {"figures": judge.training_images()}))
    print(table(rows))
    (arguments.out / "table.md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
