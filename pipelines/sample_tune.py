"""A tune from the generator of a run: bar after bar along its chords, as MIDI and as a picture."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.sample_options import refuse_others

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.data.midi_files import Note
    from gan_core.release import ReleasedGenerator
    from pipelines.sample import SampleOptions

_BARS_IN_LINE = 8
_CHORD_REGISTER = 48  # chords sound from the C below middle C on


def write_tune(
    generator: ReleasedGenerator, options: SampleOptions, out: Path
) -> tuple[Path, Path]:
    """Write ``--n`` bars as ``out`` with the ending .mid, and their piano roll with .png.

    Returns both paths; raises ``UserError`` for options that a melody has no use for.
    """
    from gan_core.data.midi_files import write_midi
    from gan_core.piano_roll import piano_roll
    from gan_core.pictures import save_png

    refuse_others(options, "chords", with_="a generator of melodies")
    chords = chords_of_tune(generator, options)
    bars = tune(generator, chords, options.seed)
    metre = generator.info["config"].get("data_options", {}).get("metre", "4/4")
    file = write_midi(
        out.with_suffix(".mid"), [melody_notes(bars), chord_notes(chords, bars)], metre
    )
    lines = [
        (
            f"bar {first + 1}",
            bars[first : first + _BARS_IN_LINE],
            chords[first : first + _BARS_IN_LINE],
        )
        for first in range(0, len(bars), _BARS_IN_LINE)
    ]
    return file, save_png(piano_roll(lines), out.with_suffix(".png"))


def chords_of_tune(generator: ReleasedGenerator, options: SampleOptions) -> Tensor:
    """The chord of every bar (n, 13): those that the user gives, else a held-out tune's."""
    import torch

    from gan_core.data.midi import encode_chord, parse_chord

    if options.chords is None:
        known = generator.examples["chord"].cpu()
    else:
        words = [word.strip() for word in options.chords.split(",")]
        known = torch.tensor([encode_chord(*parse_chord(word)) for word in words])
    return known[torch.arange(options.n) % len(known)]


def tune(generator: ReleasedGenerator, chords: Tensor, seed: int | None) -> Tensor:
    """The pitches (n, T) of one tune along ``chords`` (n, 13)."""
    import torch

    from gan_core.variants.midinet import compose

    def generate(index: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        return generator.generate(index, seed=seed, conditions=conditions)

    first = torch.arange(len(chords)) == 0
    return compose(generate, chords, first, generator.spec.target_shape[-1])


def melody_notes(bars: Tensor) -> list[Note]:
    """The notes of bars (n, T), struck anew at every bar."""
    from gan_core.data.midi_files import Note

    notes, now = [], 0
    for bar in bars.tolist():
        for pitch, steps in itertools.groupby(bar):
            length = len(list(steps))
            notes.append(Note(now, now + length, pitch))
            now += length
    return notes


def chord_notes(chords: Tensor, bars: Tensor) -> list[Note]:
    """The triads of ``chords`` (n, 13), each for the length of its bar."""
    from gan_core.data.midi_files import Note

    steps, notes = bars.shape[1], []
    for number, chord in enumerate(chords):
        root = _CHORD_REGISTER + int(chord[:12].argmax())
        third = 3 if chord[12] > 0.5 else 4
        for pitch in (root, root + third, root + 7):
            notes.append(Note(number * steps, (number + 1) * steps, pitch))
    return notes
