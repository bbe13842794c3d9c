"""How well the diagnosis finds failures that are known to be there, and leaves healthy runs alone.

    python -m benchmarks.planted_failures --mnist FOLDER --fashion-mnist FOLDER --out FOLDER

plays the cases (10 to 30 s each on one core) that OUT does not hold yet, and prints the table.
``--minutes 5`` stops early; the next call goes on. ``--table`` only prints, by replaying the
journals under the thresholds of today.

Truth is by construction: a generator that can only copy few examples; a game that never sees some
classes, judged against all of them; a discriminator that is trained far ahead under the minimax
loss; learning rates far beyond stability; Dirac-GAN; a discriminator with few training examples.
Healthy are games with a recipe that is known to work, easy and hard, with other losses and seeds.
The cases of part ``set`` were looked at when the thresholds were chosen, those of ``proof`` only
to count. A failure counts as found, or as a false alarm, where it was confirmed at the run's end.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmarks.planted_games  # noqa: F401  (registers what is played)
from benchmarks.planted_table import report
from gan_core.config import make_config, write_config
from gan_core.diagnostics.diagnosis import FAILURES
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.run import FolderObserver, Run, build_variant

PLUGIN = "benchmarks.planted_games"
SMALL: dict[str, dict[str, Any]] = {
    "gan": {"hidden": 128, "maxout_units": 48, "maxout_pieces": 3, "latent": 32},
    "dcgan": {"image_size": 16, "width": 8, "kernel": 4, "latent": 32},
}
ADAM = {"optimizer": "adam", "lr_g": 5e-4, "lr_d": 5e-4, "lr_decay": 1.0}
CALM = {**ADAM, "r1": 1.0, "ema": 0.99, "dropout": 0.0, "dropout_input": 0.0, "prior": "gaussian"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: what it plays, and which failures are known to be in it, or not to be.

    ``classes``: the game sees only the first of so many; ``examples``: only so many of them.
    """

    name: str
    data: str
    variant: str
    options: dict[str, Any]
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    part: str = "set"
    classes: int | None = None
    examples: int | None = None
    steps: int = 700


HEALTHY = frozenset(FAILURES)
_DATA = ("digits", "mnist-part", "fashion-part")


def _healthy() -> Iterator[Case]:
    losses = ("non-saturating", "hinge", "least-squares", "wasserstein")
    for number, data in enumerate(_DATA * 4):
        loss = losses[number % 4]
        penalty = {} if loss != "wasserstein" else {"r1": 0.0}
        options = {**CALM, "loss": loss, **penalty}
        yield Case(f"healthy-gan-{data}-{loss}", data, "gan", options, absent=HEALTHY, steps=900)
    for number, data in enumerate(_DATA * 2):
        seeded = {"lr_g": 1e-3, "lr_d": 1e-3, "r1": 2.0, "ema": 0.99, "seed": number}
        yield Case(f"healthy-dcgan-{data}-{number}", data, "dcgan", seeded, absent=HEALTHY)
    for number in range(8):
        points = {"r1": 0.1 * (1 + number % 2), "seed": number, "k": 1 + number % 2}
        steps = 1500
        yield Case(f"healthy-ring-{number}", "ring", "gan", points, absent=HEALTHY, steps=steps)
    for number in range(6):  # hard: few, slow or noisy, but sound
        hard: dict[str, Any] = [
            {**CALM, "lr_g": 1e-4, "lr_d": 4e-4},
            {**CALM, "k": 3},
            {**CALM, "latent": 8},
            {**CALM, "beta1": 0.0},
            {**CALM, "dropout": 0.3, "dropout_input": 0.1},
            {**CALM, "r1": 10.0},
        ][number]
        data = _DATA[number % 3]
        options = {**hard, "seed": 50 + number}
        yield Case(f"healthy-hard-{number}", data, "gan", options, absent=HEALTHY, steps=900)
    for number in range(4):
        options = {"r1": 1.0 + number, "lr_g": 0.01, "lr_d": 0.01, "latent": 2, "seed": number}
        optimiser = {"prior": "gaussian", "beta1": 0.0}
        case = {**options, **optimiser}
        yield Case(f"healthy-dirac-{number}", "dirac", "dirac", case, absent=HEALTHY)


def _collapse() -> Iterator[Case]:
    present, absent = frozenset({"mode_collapse"}), frozenset({"vanishing_gradient"})
    for number in range(10):
        copies = (1, 2, 5, 10, 20, 30, 50, 10, 5, 20)[number]
        data = _DATA[number % 3]
        options = {**ADAM, "copies": copies, "jitter": 0.02 * (number % 2), "seed": number}
        options |= {"dropout": 0.0, "dropout_input": 0.0, "r1": 1.0, "prior": "gaussian"}
        yield Case(f"copies-{number}", data, "planted-copies", options, present, absent, steps=600)
    for number in range(10):
        seen = (1, 2, 3, 5, 7, 2, 4, 6, 5, 8)[number]
        data = _DATA[number % 3]
        options = {**CALM, "seed": number}
        yield Case(
            f"dropped-{number}", data, "gan", options, present, absent, classes=seen, steps=900
        )


def _vanishing() -> Iterator[Case]:
    present = frozenset({"vanishing_gradient"})
    for number in range(12):
        data = _DATA[number % 3]
        plain = {"dropout": 0.0, "dropout_input": 0.0, "optimizer": "adam", "lr_decay": 1.0}
        ahead = [
            {"k": 10, "lr_d": 1e-3, "lr_g": 1e-5},
            {"k": 5, "lr_d": 2e-3, "lr_g": 2e-5},
            {"k": 15, "lr_d": 5e-4, "lr_g": 1e-6},
            {"k": 8, "lr_d": 1e-3, "lr_g": 1e-4, "beta1": 0.0},
        ][number % 4]
        options = {**plain, **ahead, "loss": "minimax", "seed": number}
        yield Case(f"ahead-{number}", data, "gan", options, present, steps=400)


def _unstable() -> Iterator[Case]:
    present = frozenset({"non_convergence"})
    for number in range(10):
        data = ("digits", "mnist-part", "fashion-part", "ring")[number % 4]
        rate = (0.3, 1.0, 0.1, 3.0, 0.05)[number % 5]
        options: dict[str, Any] = {"optimizer": "adam", "lr_g": rate, "lr_d": rate}
        options |= {"lr_decay": 1.0, "seed": number}
        if number % 3 == 2:
            options |= {"optimizer": "sgd", "lr_g": 100 * rate, "lr_d": 100 * rate}
        yield Case(f"unstable-{number}", data, "gan", options, present, steps=800)
    for number in range(8):
        rate = (0.01, 0.05, 0.02, 0.1)[number % 4]
        loss = ("non-saturating", "minimax", "wasserstein", "non-saturating")[number % 4]
        options = {"latent": 2, "lr_g": rate, "lr_d": rate, "loss": loss, "seed": number}
        options |= {"prior": "gaussian", "beta1": 0.0, "gradient_penalty": 0.0}
        absent = frozenset({"mode_collapse", "overfitting"})
        yield Case(f"dirac-{number}", "dirac", "dirac", options, present, absent)


def _overfitting() -> Iterator[Case]:
    present = frozenset({"overfitting"})
    for number in range(10):
        data = _DATA[number % 3]
        options = {**ADAM, "dropout": 0.0, "dropout_input": 0.0, "k": 2, "seed": number}
        few = (100, 200, 50, 150, 300)[number % 5]
        yield Case(f"few-{number}", data, "gan", options, present, examples=few, steps=1000)


def cases() -> list[Case]:
    """All cases; of each family every second is for setting thresholds, the others are proof."""
    families = []
    for family in (_healthy(), _collapse(), _vanishing(), _unstable(), _overfitting()):
        parts = ("set", "proof", "proof", "set")
        families.append([dataclasses.replace(c, part=parts[n % 4]) for n, c in enumerate(family)])
    in_turn = itertools.zip_longest(*families)  # so that the first minutes see a bit of all
    return [case for row in in_turn for case in row if case is not None]


def configuration(case: Case, roots: dict[str, str | None], out: Path) -> Any:
    """The run of ``case`` as a configuration."""
    size = SMALL["dcgan" if case.variant == "dcgan" else "gan"]
    if case.variant == "dirac" or case.data == "ring":
        size = {}
    options = {**size, **case.options}
    return make_config(
        {
            "variant": case.variant,
            "data": case.data,
            "data_root": roots.get(case.data),
            "plugins": (PLUGIN,),
            "storage": str(out),
            "name": case.name,
            "workers": 0,
            "device": "cpu",
            "log_every": max(10, case.steps // 40),
            "evaluate_every": case.steps // 3,
            "checkpoint_every": 0,
            "samples": 400,
            "steps": case.steps,
            "batch_size": 64,
            **options,
        }
    )


def play(case: Case, roots: dict[str, str | None], out: Path) -> None:
    """Play ``case`` into its folder below ``out``."""
    config = configuration(case, roots, out)
    config.folder.mkdir(parents=True, exist_ok=True)
    write_config(config, config.folder / "config.yaml")
    world = World()
    run = Run(config, world, FolderObserver(config.folder, world))
    if case.classes is not None or case.examples is not None:
        # The game sees a part; figures are against the whole.
        labels = run.train.tensors["label"]
        chosen = labels >= 0 if case.classes is None else labels < case.classes
        part = run.train.select(chosen.nonzero().flatten()[: case.examples])
        run.game = Game(
            build_variant(config, part),
            part,
            run.game.held_out,
            batch_size=config.game.batch_size,
            seed=config.seed,
            world=world,
        )
    began = time.perf_counter()
    run.play()
    done = {"seconds": time.perf_counter() - began, "steps": case.steps}
    (config.folder / "done.json").write_text(json.dumps(done))


def main() -> None:
    """Play what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist")
    parser.add_argument("--fashion-mnist")
    parser.add_argument("--out", default="runs/planted")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--backwards", action="store_true", help="begin with the last case")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--parts", default="set,proof", help="which parts the table shows")
    arguments = parser.parse_args()
    roots = {"mnist-part": arguments.mnist, "fashion-part": arguments.fashion_mnist}
    out, began = Path(arguments.out), time.monotonic()
    missing = False
    order = cases()[::-1] if arguments.backwards else cases()
    for case in [] if arguments.table else order:
        if (out / case.name / "done.json").exists() or not case.name.startswith(arguments.only):
            continue
        if time.monotonic() - began > 60 * arguments.minutes:
            print("time is up: call again for the rest")
            missing = True
            break
        if case.data in roots and roots[case.data] is None:
            continue
        started = time.monotonic()
        play(case, roots, out)
        print(f"{case.name}: {time.monotonic() - started:.0f} s", flush=True)
    if not missing:
        print("all played")
    print(report(cases(), out, arguments.parts.split(",")))


if __name__ == "__main__":
    main()
