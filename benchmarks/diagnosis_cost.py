"""What the diagnosis costs: signals against an iteration, and an evaluation's part of it.

    python -m benchmarks.diagnosis_cost --threads 2

Random pictures of 32 pixels in place of data. Seconds of processor time, so that other load on the
machine does not count; medians of a few repetitions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import gan_core.variants  # noqa: F401  (registers the variants)
from benchmarks.arguments import positive
from gan_core.config import RunConfig
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.diagnostics import dynamics, signals
from gan_core.diagnostics.diagnosis import Diagnosis
from gan_core.diagnostics.findings import Facts
from gan_core.engine.game import Game
from gan_core.exit_codes import exit_code
from gan_core.metrics.diversity import RealDiversity
from gan_core.metrics.similarity import PICTURES, similarity_within_classes
from gan_core.variant import create

CASES: dict[str, tuple[str, tuple[int, int, int], dict[str, Any], int]] = {
    "gan, MNIST's size, batch 100": ("gan", (1, 28, 28), {"optimizer": "adam"}, 100),
    "dcgan, 32 px, width 64, batch 64": ("dcgan", (3, 32, 32), {"width": 64}, 64),
    "dcgan, 32 px, width 64, batch 128": ("dcgan", (3, 32, 32), {"width": 64}, 128),
}


def random_pictures(shape: tuple[int, int, int], count: int = 1000) -> Examples:
    """Pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), generator=generator).to(torch.uint8)
    return Examples({"image": images}, DataSpec({"image": TensorSpec(shape, -1, 1)}), "noise")


def processor_time(work: Callable[[], object], repetitions: int) -> float:
    """The median of the processor seconds that ``work()`` takes, after one call to warm up."""
    work()
    found = []
    for _ in range(repetitions):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return statistics.median(found)


def per_iteration(name: str) -> str:
    """A row of the table: an iteration, a logging point, its share at the default cadence."""
    variant, shape, options, batch_size = CASES[name]
    examples = random_pictures(shape)
    game = Game(
        create(variant, examples.spec, {**options, "batch_size": batch_size}),
        examples,
        examples,
        batch_size=batch_size,
    )
    memory: signals.Memory = {}
    diagnosis = Diagnosis(Facts(steps=1000))

    def look() -> None:
        diagnosis.take(game.step, signals.measure(game, memory))

    iteration = processor_time(game.iterate, 7)
    point = processor_time(look, 5)
    share = point / (RunConfig.log_every * iteration)
    probe = processor_time(lambda: dynamics.measure(game), 1)
    every = RunConfig.evaluate_every
    return (
        f"| {name} | {1000 * iteration:.1f} ms | {1000 * point:.1f} ms | {100 * share:.2f} % "
        f"| {probe:.1f} s | {100 * probe / (every * iteration):.2f} % |"
    )


def evaluation(samples: int = 10_000, real: int = 50_000, features: int = 128) -> str:
    """Seconds that the figures of diversity take beside the others of an evaluation."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(real, features, generator=generator)
    fake = torch.randn(samples, features, generator=generator)
    images = torch.rand(PICTURES, 3, 32, 32, generator=generator) * 2 - 1
    labels = torch.arange(PICTURES) % 10
    began = time.process_time()
    measured = RealDiversity(reference)
    once = time.process_time() - began
    each = processor_time(lambda: measured.figures(fake), 1)
    each += processor_time(lambda: similarity_within_classes(images, labels), 1)
    return f"{samples} samples at 32 px, {real} real: {each:.1f} s an evaluation, {once:.1f} s once"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=positive, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    print("| game | iteration | logging point | its share | probes | their share |")
    print("|---|---|---|---|---|---|")
    for name in CASES:
        print(per_iteration(name), flush=True)
    print(evaluation())


if __name__ == "__main__":
    sys.exit(exit_code(main))
