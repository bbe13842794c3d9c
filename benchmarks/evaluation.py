r"""How long an evaluation takes: making samples, looking at them, and each family of figures.

    python -m benchmarks.evaluation --variant sngan --data folder --data-root CIFAR \
      --extractor mobilenet_v2 --extractor-weights mobilenet_v2-b0353104.pth

No game is played: an untrained generator of the variant (with its paper's options, but for those of
``--set``) is judged as a run judges it, ``--rounds`` times, by ``--samples`` samples against the
training split. What is made once (the features of the real pictures, and what is known of them) is
told apart, and so is the first evaluation, in which libraries set themselves up. Times are medians
of the others; a part ends when the device has done its work.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from unittest import mock

import torch
from torch import Tensor

from benchmarks.arguments import positive
from benchmarks.settings import read_settings
from benchmarks.speed_ways import machine, wait
from gan_core.config import RunConfig, make_config
from gan_core.engine.game import Game
from gan_core.engine.sampling import Sampler
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code
from gan_core.judging import make_evaluator
from gan_core.metrics import distances, diversity, evaluation, manifold
from gan_core.preparing import build_variant
from gan_core.splits import load_training_data

MAKING, SEEING, OTHER = "making samples", "features", "all else"
FIGURES: dict[str, list[tuple[Any, str]]] = {
    "fid": [(distances.RealMoments, "frechet_distance")],
    "kid": [(distances.RealKernel, "distance")],
    "precision, recall, density, coverage": [
        (manifold.RealManifold, "compare"),
        (manifold, "class_recall"),
    ],
    "ndb, vendi, distance, birthday, copies": [(diversity.RealDiversity, "figures")],
    "ms_ssim": [(evaluation.Evaluator, "_similarity")],
}
"""Families of figures, and the functions that make them."""
P = ParamSpec("P")
T = TypeVar("T")


class Parts:
    """The seconds that the parts of an evaluation take on ``device``, by name."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, work: Callable[P, T]) -> Callable[P, T]:
        """``work``, whose time is added to that of ``part``."""

        @functools.wraps(work)
        def working(*args: P.args, **kwargs: P.kwargs) -> T:
            wait(self._device)
            begun = time.perf_counter()
            result = work(*args, **kwargs)
            wait(self._device)
            spent = time.perf_counter() - begun
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
            return result

        return working


def configuration(arguments: argparse.Namespace, cache: str) -> RunConfig:
    """The run whose evaluations are timed; ``UserError`` for options that it does not have."""
    return make_config(
        {
            "variant": arguments.variant,
            "data": arguments.data,
            "data_root": arguments.data_root,
            "workers": 0,
            "device": arguments.device,
            "extractor": arguments.extractor,
            "extractor_weights": arguments.extractor_weights,
            "samples": arguments.samples,
            "cache": cache,
            **read_settings(arguments.set),
        }
    )


def measure(config: RunConfig, rounds: int) -> dict[str, Any]:
    """Seconds of what is done once, of the first evaluation and of the parts of the others."""
    world = World.current(None if config.device == "auto" else config.device)
    train, held_out = load_training_data(config)
    variant = build_variant(config, train)
    game = Game(variant, train, held_out, batch_size=config.game.batch_size, world=world)
    game.play(1)  # batch statistics and averages of weights are there
    told: list[str] = []
    begun = time.perf_counter()
    evaluator = make_evaluator(
        config,
        train,
        world,
        reference=held_out if variant.asks_held_out else None,
        conditional="label" in variant.conditions(),
        resizer=game.stage.view.describe(train.spec.target_shape),
        say=lambda text, level: told.append(text),
    )
    if not evaluator:
        raise UserError("; ".join(told) or "nothing to measure: give --extractor")
    wait(world.device.type)
    once = time.perf_counter() - begun
    found = [_evaluate(game, evaluator) for _ in range(1 + max(1, rounds))]
    first, later = found[0], found[1:]
    medians = {part: statistics.median(each.get(part, 0.0) for each in later) for part in first}
    return {
        "setting": f"{config.variant} on {config.data}, {evaluator.samples:,} samples against "
        f"{len(evaluator.reference):,}, by {', '.join(evaluator.extractors) or 'the modes'}",
        "machine": machine(world.device.type),
        "once": once,
        "first": sum(first.values()),
        "parts": medians,
        "total": statistics.median(sum(each.values()) for each in later),
    }


def _evaluate(game: Game, evaluator: Any) -> dict[str, float]:
    """The seconds of the parts of one evaluation."""
    device = game.world.device.type
    parts = Parts(device)
    with ExitStack() as stack:
        for part, places in FIGURES.items():
            for owner, name in places:
                timed = parts.timed(part, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, timed))
        for extractor in {id(e): e for e in _extractors(evaluator)}.values():
            seeing = parts.timed(SEEING, extractor.features)
            stack.enter_context(mock.patch.object(extractor, "features", seeing))
        wait(device)
        begun = time.perf_counter()
        sampler = parts.timed(MAKING, game.sampler)()
        make = parts.timed(MAKING, functools.partial(_native, game, sampler))
        asked = sampler.conditions(torch.arange(evaluator.samples))
        evaluator(make, asked.get("label"), asked.get("text"))
        wait(device)
        whole = time.perf_counter() - begun
    return {**parts.seconds, OTHER: whole - sum(parts.seconds.values())}


def _extractors(evaluator: Any) -> list[Any]:
    own = [] if evaluator.classifier is None else [evaluator.classifier]
    return [*evaluator.extractors.values(), *own]


def _native(game: Game, sampler: Sampler, index: Tensor) -> Tensor:
    spec = game.train.spec
    return game.stage.view.restore(sampler(index)[spec.target], spec.target_shape)


def table(found: dict[str, Any]) -> str:
    """The parts in Markdown, under what they are of."""
    lines = [
        f"{found['setting']}; {found['machine']}",
        f"made once: {found['once']:.2f} s; the first evaluation: {found['first']:.2f} s",
        "",
        "| part | s |",
        "|---|---:|",
        *(f"| {part} | {seconds:.2f} |" for part, seconds in found["parts"].items()),
        f"| **an evaluation** | **{found['total']:.2f}** |",
    ]
    return "\n".join(lines)


def arguments_of(words: Sequence[str] | None) -> argparse.Namespace:
    """What the user gave."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variant", default="sngan", help="whose generator (default: sngan)")
    parser.add_argument("--data", default="digits", help="a data source (default: digits)")
    parser.add_argument("--data-root", help="the folder of the source's files")
    parser.add_argument("--extractor", default="auto", help="whose features, as for a run")
    parser.add_argument("--extractor-weights", help="file with the extractor's weights")
    parser.add_argument("--samples", type=int, default=50_000, help="default: 50000")
    parser.add_argument("--rounds", type=positive, default=3, help="evaluations after the first")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--set", nargs="*", default=[], help="options of the run, as name=value")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = arguments_of(None)
    with tempfile.TemporaryDirectory(prefix="gan-evaluation-") as cache:
        found = measure(configuration(arguments, cache), arguments.rounds)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
