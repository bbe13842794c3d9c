"""How well the diagnosis finds failures that are known to be there, and leaves healthy runs alone.

    python -m benchmarks.planted_failures --mnist FOLDER --fashion-mnist FOLDER --out FOLDER

plays the cases (3 to 15 s of one core each) that OUT does not hold yet, and prints the table.
``--minutes 5`` stops early; the next call goes on. ``--table`` only prints, by replaying the
journals under the thresholds of today.

Truth is by construction. Generators that know examples by heart: few of them, or none of some
classes (mode collapse), the training examples (overfitting), thousands of unseen ones, a little
paler or noisier than they are (healthy). A discriminator that is trained far ahead under the
minimax loss (vanishing gradient); learning rates far beyond stability, and Dirac-GAN
(non-convergence); a discriminator with few training examples against a perfect generator
(overfitting). Healthy are also games on the ring, convolutional ones and Dirac-GAN, each with the
R1 penalty that makes it converge.
The cases of part ``set`` were looked at when the thresholds were chosen, those of ``proof`` only
to count. A failure counts as found, or as a false alarm, where it was confirmed at the run's end.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import benchmarks.planted_games  # noqa: F401  (registers what is played)
from benchmarks.arguments import names_among
from benchmarks.planted_table import report
from gan_core.config import make_config, write_config
from gan_core.data.examples import to_unit_range
from gan_core.data.loading import concatenate
from gan_core.diagnostics.diagnosis import FAILURES
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code
from gan_core.observers import FolderObserver
from gan_core.preparing import build_variant
from gan_core.run import Run
from gan_core.splits import load_split

PLUGIN = "benchmarks.planted_games"
SMALL: dict[str, dict[str, Any]] = {
    "gan": {"hidden": 128, "maxout_units": 48, "maxout_pieces": 3, "latent": 32},
    "dcgan": {"image_size": 16, "width": 8, "kernel": 4, "latent": 32},
}
ADAM = {"optimizer": "adam", "lr_g": 5e-4, "lr_d": 5e-4, "lr_decay": 1.0}


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: what it plays, and which failures are known to be in it, or not to be.

    ``learns``: how many training examples the game sees (``None``: all). ``remembers``: what a
    ``planted-memory`` generator makes, and ``classes``: of the first of so many classes alone.
    """

    name: str
    data: str
    variant: str
    options: dict[str, Any]
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    part: str = "set"
    learns: int | None = None
    remembers: Literal["unseen", "training"] = "unseen"
    count: int | None = None
    classes: int | None = None
    steps: int = 300


HEALTHY = frozenset(FAILURES)
_DATA = ("digits", "mnist-part", "fashion-part")
_MEMORY = "planted-memory"
_PLAIN = {"dropout": 0.0, "dropout_input": 0.0, "prior": "gaussian", **ADAM}


def _healthy() -> Iterator[Case]:
    flavours: list[tuple[str, dict[str, Any]]] = [
        ("plain", {}),
        ("noisy", {"jitter": 0.1}),
        ("hinge", {"loss": "hinge", "jitter": 0.03}),
        ("pale", {"contrast": 0.85}),
        ("wasserstein", {"loss": "wasserstein"}),
        ("minimax", {"loss": "minimax", "jitter": 0.03}),
    ]
    for number, data in enumerate(_DATA * 6):  # a perfect generator, a little off
        kind, changes = flavours[number // 3]
        options = {**_PLAIN, "r1": 0.0 if kind == "wasserstein" else 1.0, "seed": number, **changes}
        yield Case(f"unseen-{kind}-{data}", data, _MEMORY, options, absent=HEALTHY)
    for number in range(8):
        points = {"r1": 0.1 * (1 + number % 2), "seed": number, "k": 1 + number % 2}
        yield Case(f"ring-{number}", "ring", "gan", points, absent=HEALTHY, steps=1200)
    for number in range(6):
        data = _DATA[number % 3]
        games = {"lr_g": 2e-3, "lr_d": 2e-3, "r1": 2.0, "ema": 0.98, "seed": number}
        # Whether it makes every class is not known by construction, and so not counted.
        absent = HEALTHY - {"mode_collapse"}
        yield Case(f"dcgan-{data}-{number}", data, "dcgan", games, absent=absent, steps=800)
    for number in range(6):
        options = {"r1": 1.0 + number, "lr_g": 0.01, "lr_d": 0.01, "latent": 2, "seed": number}
        options |= {"prior": "gaussian", "beta1": 0.0}
        yield Case(f"dirac-r1-{number}", "dirac", "dirac", options, absent=HEALTHY, steps=600)
    for number, data in enumerate(_DATA * 2):  # all that there is, but poorly made
        poor = {"contrast": 0.7, "jitter": 0.15} if number < len(_DATA) else {"jitter": 0.25}
        options = {**_PLAIN, "r1": 1.0, "seed": number, **poor}
        yield Case(f"unseen-poor-{number}", data, _MEMORY, options, absent=HEALTHY)


def _collapse() -> Iterator[Case]:
    present = frozenset({"mode_collapse"})
    absent = frozenset({"non_convergence"})
    for number in range(10):
        options = {**_PLAIN, "r1": 1.0, "jitter": 0.02 * (number % 2), "seed": number}
        copies = (1, 2, 5, 10, 20, 30, 50, 80, 15, 40)[number]
        data = _DATA[number % 3]
        yield Case(f"copies-{copies}", data, _MEMORY, options, present, absent, count=copies)
    for number in range(10):
        options = {**_PLAIN, "r1": 1.0, "jitter": 0.02 * (number % 2), "seed": number}
        made = (1, 2, 3, 5, 7, 9, 4, 6, 8, 9)[number]
        data = _DATA[number % 3]
        name = f"dropped-{10 - made}-of-10-{number}"
        yield Case(name, data, _MEMORY, options, present, absent, classes=made)


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
        yield Case(f"ahead-{number}", data, "gan", options, present, steps=150)


def _unstable() -> Iterator[Case]:
    present = frozenset({"non_convergence"})
    for number in range(10):
        data = (*_DATA, "ring")[number % 4]
        rate = (0.3, 1.0, 0.1, 3.0, 0.05)[number % 5]
        options: dict[str, Any] = {"optimizer": "adam", "lr_g": rate, "lr_d": rate}
        options |= {"lr_decay": 1.0, "seed": number}
        if number % 3 == 2:
            options |= {"optimizer": "sgd", "lr_g": 100 * rate, "lr_d": 100 * rate}
        yield Case(f"unstable-{number}", data, "gan", options, present)
    for number in range(8):
        rate = (0.03, 0.05, 0.02, 0.15, 0.07, 0.05, 0.02, 0.2)[number]
        loss = ("non-saturating", "minimax", "wasserstein", "non-saturating")[number % 4]
        options = {"latent": 2, "lr_g": rate, "lr_d": rate, "loss": loss, "seed": number}
        options |= {"prior": "gaussian", "beta1": 0.0, "gradient_penalty": 0.0}
        absent = frozenset({"mode_collapse", "overfitting"})
        yield Case(f"dirac-{number}", "dirac", "dirac", options, present, absent, steps=700)


def _overfitting() -> Iterator[Case]:
    present, still = frozenset({"overfitting"}), frozenset({"non_convergence"})
    for number in range(6):
        options = {**_PLAIN, "k": 3, "seed": number, "lr_d": 1e-3}
        few = (100, 200, 50, 150, 300, 80)[number]
        data = _DATA[number % 3]
        yield Case(f"few-{few}", data, _MEMORY, options, present, still, learns=few)
    for number in range(6):
        options = {**_PLAIN, "r1": 1.0, "jitter": 0.02 * (number % 2), "seed": number}
        data = _DATA[number % 3]
        name = f"training-{number}"
        yield Case(name, data, _MEMORY, options, present, still, remembers="training")


def cases() -> list[Case]:
    """All cases; of each family every second is for setting thresholds, the others are proof."""
    families = [
        [_assigned(case, number) for number, case in enumerate(family)]
        for family in (_healthy(), _collapse(), _vanishing(), _unstable(), _overfitting())
    ]
    in_turn = itertools.zip_longest(*families)  # so that the first minutes see a bit of all
    return [case for row in in_turn for case in row if case is not None]


def _assigned(case: Case, number: int) -> Case:
    """``case`` in the part that its place in its family gives it; proof has seeds of its own."""
    part = ("set", "proof", "proof", "set")[number % 4]
    seed = case.options["seed"] + (2000 if part == "proof" else 0)
    return dataclasses.replace(case, part=part, options={**case.options, "seed": seed})


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
            "log_every": max(5, case.steps // 20),
            "evaluate_every": case.steps // 2,
            "checkpoint_every": 0,
            "samples": 400,
            "steps": case.steps,
            "batch_size": 64,
            **options,
        }
    )


def memories(case: Case, run: Run) -> Tensor:
    """What a planted generator makes: examples that the game never sees, or those that it does."""
    known = run.train
    if case.remembers == "unseen":
        splits = [load_split(run.config, split) for split in ("validation", "test")]
        known = concatenate(splits[0], splits[1], "test")
    chosen = torch.arange(len(known))
    if case.classes is not None:
        chosen = chosen[known.tensors["label"] < case.classes]
    if case.count is not None:
        chosen = chosen[torch.arange(case.count) * len(chosen) // case.count]
    return to_unit_range(known.tensors[known.spec.target][chosen])


def play(case: Case, roots: dict[str, str | None], out: Path) -> None:
    """Play ``case`` into its folder below ``out``."""
    config = configuration(case, roots, out)
    config.folder.mkdir(parents=True, exist_ok=True)
    write_config(config, config.folder / "config.yaml")
    world = World()
    run = Run(config, world, FolderObserver(config.folder, world))
    if case.learns is not None:  # the game sees a part; figures are against the whole
        part = run.train.select(torch.arange(case.learns))
        run.game = Game(
            build_variant(config, part),
            part,
            run.game.held_out,
            batch_size=config.game.batch_size,
            seed=config.seed,
            world=world,
        )
    if case.variant == _MEMORY:
        run.game.variant.generator.remember(memories(case, run))  # type: ignore[operator,union-attr]
    began = time.perf_counter()
    run.play()
    done = {"seconds": time.perf_counter() - began, "steps": case.steps}
    (config.folder / "done.json").write_text(json.dumps(done))


def played(out: Path, roots: dict[str, str | None]) -> str:
    """How many cases ``out`` holds, and what the others need."""
    every = cases()
    left = [case for case in every if not (out / case.name / "done.json").exists()]
    told = [f"{len(every) - len(left)} of {len(every)} played"]
    for data, word in (("mnist-part", "--mnist"), ("fashion-part", "--fashion-mnist")):
        count = sum(case.data == data for case in left)
        if count and roots[data] is None:
            told.append(f"{count} need {word}")
            left = [case for case in left if case.data != data]
    if left:
        told.append(f"{len(left)} to play: call again, without --only or --data")
    return "; ".join(told)


def main() -> None:
    """Play what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist")
    parser.add_argument("--fashion-mnist")
    parser.add_argument("--out", default="runs/planted")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no further case after so many"
    )
    parser.add_argument("--only", default="", help="cases whose name begins so")
    sources = sorted({case.data for case in cases()})
    parser.add_argument(
        "--data",
        type=names_among("source", sources),
        default=",".join(sources),
        help=f"cases on these sources, with commas: of {', '.join(sources)}",
    )
    parser.add_argument("--backwards", action="store_true", help="begin with the last case")
    parser.add_argument("--table", action="store_true")
    parser.add_argument(
        "--parts",
        type=names_among("part", ("set", "proof")),
        default="set,proof",
        help="which parts the table shows",
    )
    arguments = parser.parse_args()
    if not any(case.name.startswith(arguments.only) for case in cases()):
        parser.error(f"no case's name begins with '{arguments.only}': leave --only out to see all")
    roots = {"mnist-part": arguments.mnist, "fashion-part": arguments.fashion_mnist}
    for folder in () if arguments.table else filter(None, roots.values()):
        if not Path(folder).is_dir():
            raise UserError(f"no folder {folder}: give an existing one")
    out, began = Path(arguments.out), time.monotonic()
    order = cases()[::-1] if arguments.backwards else cases()
    for case in [] if arguments.table else order:
        if (out / case.name / "done.json").exists() or not case.name.startswith(arguments.only):
            continue
        if time.monotonic() - began > 60 * arguments.minutes:
            print("time is up")
            break
        if case.data not in arguments.data.split(","):
            continue
        if case.data in roots and roots[case.data] is None:
            continue
        started = time.monotonic()
        play(case, roots, out)
        print(f"{case.name}: {time.monotonic() - started:.0f} s", flush=True)
    print(played(out, roots))
    print(report(cases(), out, arguments.parts.split(",")))


if __name__ == "__main__":
    sys.exit(exit_code(main))
