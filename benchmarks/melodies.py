"""MidiNet on folk tunes: tunes from the chords of held-out tunes, beside these and shuffled notes.

    python -m benchmarks.melodies --data-root NOTTINGHAM/MIDI

trains the recipe ``held``; ``--recipes paper`` trains the paper's losses and rates in narrower
networks instead, ``--recipes paper held`` both. A run that was interrupted (or that ``--minutes``
ends) goes on when the command is given again. The generator then makes a tune for every tune of
the test split, bar after bar from its own bars, along the real chords.

Compared with the test tunes are: these tunes; ``given``, the same generator's bars where each bar
before is the real one; ``training``, the real training tunes, the best that any generator of their
kind could do; and ``shuffled``, the training notes in a random order, under their bars' chords.
A generator passes if its share of notes in the chord is within 0.05 of the test tunes', if its
pitch classes (from C, and from the chord's root), intervals and note lengths are all nearer to
theirs than the shuffled notes' are, and if 900 of its first 1,000 bars are different. Pitch
classes from C say least: notes in any order have the right ones, shuffled ones too.
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

from benchmarks.kept import check_run
from benchmarks.settings import read_settings
from benchmarks.stopping import UntilDeadline, stoppable
from gan_core.config import RunConfig, make_config
from gan_core.data.bars import to_pitches, to_roll
from gan_core.data.examples import Batch, Examples
from gan_core.data.midi import SILENCE, bars_before
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.metrics.melody import Melody, melody_figures, shuffle_notes
from gan_core.piano_roll import piano_roll
from gan_core.pictures import save_png
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.run import Run
from gan_core.splits import load_split
from gan_core.variants.midinet import compose

_NARROW = {"hidden": 256, "width_g": 48}
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {**_NARROW, "steps": 14_000, "evaluate_every": 1500},
    "held": {
        **_NARROW,
        "steps": 4_500,
        "batch_size": 64,
        # Rhythm has scores of its own, and a note's pitch has the gradient of all its steps.
        "output": "held",
        # All keys are one, so there is more to learn each pattern from; which root it is stays in
        # sight, as chords on some roots are likelier to be the tonic than others.
        "keys": "root-shown",
        # The paper's discriminator is lost once pitches compete in the generator: the planes of
        # its chord drown the bar. With the chord as a vector, more features to match, the bar
        # before in sight and one turn each, both learn ten times as fast.
        "chord_d": "vector",
        "features_d": 48,
        "see_previous": True,
        "generator_turns": 1,
        "label_smoothing": 0.0,
        "match_features": 1.0,
        "match_bars": 0.0,
        # A bar shows little of how often each pitch class sounds: without, the generators were off
        # by 0.017 to 0.036 on the training tunes' own chords, with it by 0.018 to 0.021. Twice
        # that brings no more, ten times that spoils intervals.
        "match_tones": 0.4,
        # R1 instead of batch statistics; 0.3 left fewer wrong intervals than 1.
        "norm_d": "layer",
        "r1": 0.3,
        "lr_d": 5e-4,
        "lr_g": 5e-4,
        # Pitch classes sway while rates are high: the generator wanted is the last, at rates of
        # nearly nothing, so none before it is judged.
        "lr_decay_to": 0.02,
        "ema": 0.9995,
        "evaluate_every": 0,
    },
}
BARS = 8
"""Bars of a tune in the picture."""
COMPARED = ("pitch_class_distance", "degree_distance", "interval_distance", "length_distance")
"""The histograms in which a generator must be nearer than shuffled notes."""


def config_of(name: str, arguments: argparse.Namespace) -> RunConfig:
    """The configuration of one of the runs."""
    extra = read_settings(arguments.set)
    return make_config(
        {
            "variant": "midinet",
            "data": "midi",
            "data_root": str(arguments.data_root),
            "data_options": {"on_bad_file": "skip"},
            "workers": 0,
            "device": arguments.device,
            "extractor": "none",
            "log_every": 500,
            "checkpoint_every": 500,
            "storage": str(arguments.out),
            "name": name,
            **RECIPES[name],
            **extra,
        }
    )


def train(config: RunConfig, deadline: float) -> bool:
    """Train until ``deadline`` (as ``time.time()``); whether the run has come to its end."""
    world = World.current(None if config.device == "auto" else config.device)
    run = Run(config, world, UntilDeadline(config.folder, world, deadline))
    with stoppable(config):
        return bool(run.play(find_checkpoint(config.folder))["status"] == "finished")


def real_melody(examples: Examples) -> Melody:
    """The melody of a split."""
    tensors = examples.tensors
    return Melody(tensors["bar"][:, 0], tensors["previous"][:, 0], tensors["chord"])


def first_bars(melody: Melody) -> Tensor:
    """Where tunes begin (N,)."""
    return melody.previous[:, 0] == SILENCE


def composed(generator: ReleasedGenerator, real: Melody) -> Melody:
    """The generator's own tunes along the chords of the real ones."""

    def generate(index: Tensor, conditions: Batch) -> Tensor:
        return generator.generate(index, conditions=conditions)

    first = first_bars(real)
    bars = compose(generate, real.chords, first, real.bars.shape[1])
    return Melody(bars, bars_before(bars, first), real.chords)


def given(generator: ReleasedGenerator, real: Melody) -> Melody:
    """The generator's bars, each made after the real bar before it."""
    conditions = {"previous": to_roll(real.previous)[:, None], "chord": real.chords}
    parts = [
        generator.generate(index, conditions={n: v[index] for n, v in conditions.items()}).cpu()
        for index in torch.arange(len(real.bars)).split(500)
    ]
    return Melody(to_pitches(torch.cat(parts))[:, 0], real.previous, real.chords)


def shuffled(real: Melody) -> Melody:
    """The notes of ``real`` in a random order, in bars under the same chords."""
    bars = shuffle_notes(real.bars, torch.Generator().manual_seed(0))
    return Melody(bars, bars_before(bars, first_bars(real)), real.chords)


def passes(figures: dict[str, float], baseline: dict[str, float]) -> dict[str, bool]:
    """Each thing that a generator must show, and whether ``figures`` show it."""
    apart = abs(figures["chord_share"] - figures["chord_share_real"])
    nearer = {f"{n} below shuffled": figures[n] < baseline[n] for n in COMPARED}
    return {
        "chord share within 0.05 of real": apart <= 0.05,
        **nearer,
        "900 of 1,000 bars unique": figures["unique_share"] >= 0.9,
    }


def as_table(rows: dict[str, dict[str, float]]) -> str:
    """The figures of every row, in Markdown."""
    names = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(n.replace("_", " ") for n in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for row, figures in rows.items():
        lines.append(f"| {row} | " + " | ".join(f"{figures[n]:.3f}" for n in names) + " |")
    return "\n".join(lines)


def picture(made: Melody, real: Melody) -> Tensor:
    """The beginning of a generated tune above the real one whose chords it has."""
    starts = first_bars(real).nonzero().flatten()
    start = int(starts[:-1][torch.diff(starts) >= BARS][0])  # the first that is long enough
    bars = slice(start, start + BARS)
    return piano_roll(
        [
            ("generated (blue: in the chord)", made.bars[bars], made.chords[bars]),
            ("real, a tune of the test split", real.bars[bars], real.chords[bars]),
        ]
    )


def report(arguments: argparse.Namespace) -> None:
    """Measure every generator on the test split; print, and write figures and the picture."""
    config = config_of(arguments.recipes[0], arguments)
    training, real = (real_melody(load_split(config, s)) for s in ("train", "test"))
    rows = {"training": training, "shuffled": shuffled(training)}
    steps = {}
    for name in arguments.recipes:
        generator = load_generator(config_of(name, arguments).folder, "cpu")
        steps[name] = generator.info["step"]
        rows[f"{name}, given"], rows[name] = given(generator, real), composed(generator, real)
    figures = {name: melody_figures(melody, real) for name, melody in rows.items()}
    tunes = int(first_bars(real).sum())
    print(f"{len(real.bars)} bars of {tunes} test tunes; generators of steps {steps}\n")
    print(as_table(figures))
    for name in arguments.recipes:
        shown = passes(figures[name], figures["shuffled"])
        missing = [what for what, holds in shown.items() if not holds]
        print(f"\n{name}: " + ("passes" if not missing else "fails in: " + "; ".join(missing)))
    (arguments.out / "melodies.json").write_text(
        json.dumps({"steps": steps, "figures": figures}, indent=1)
    )
    path = save_png(picture(rows[arguments.recipes[-1]], real), arguments.out / "melodies.png")
    print(f"\n{path}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of MIDI files")
    parser.add_argument("--out", type=Path, default=Path("runs/melodies"), help="where runs go")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after these")
    parser.add_argument("--recipes", nargs="+", default=["held"], choices=list(RECIPES))
    parser.add_argument("--set", nargs="*", help="other options, as name=value")
    arguments = parser.parse_args()
    deadline = time.time() + 60 * arguments.minutes
    configs = [config_of(name, arguments) for name in arguments.recipes]
    for config in configs:
        check_run(config)
    complete = [train(config, deadline) for config in configs]
    if not all(complete):
        sys.exit("not finished: give the command again to go on")
    report(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
