"""Figures of melodies in bars of sixteenths: notes in the chord, histograms, repetition.

Bars are pitches (N, T), one for each sixteenth, int64 in 0..127; equal pitches in a row are one
note, and a note that goes on in the next bar counts in both. ``previous`` (N, T) are the bars
before them, 128 where there is none. ``chords`` (N, 13) are 12 roots, C first, and 1 for minor.
All histograms are shares of notes, so they sum to 1.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

SILENCE = 128
WIDEST = 12
"""Semitones; wider intervals are counted with these."""


def note_starts(bars: Tensor) -> Tensor:
    """Where notes begin (N, T), true at the first sixteenth of every bar."""
    changes = bars[:, 1:] != bars[:, :-1]
    return F.pad(changes, (1, 0), value=True)


def note_lengths(bars: Tensor) -> Tensor:
    """The sixteenths of every note, bar after bar (notes,)."""
    starts = note_starts(bars).flatten().nonzero().flatten()
    end = starts.new_full((1,), bars.numel())
    return torch.diff(starts, append=end)


def _degrees(bars: Tensor, chords: Tensor) -> Tensor:
    """Semitones of every note above its chord's root, 0..11 (notes,)."""
    roots = chords[:, :12].argmax(dim=1, keepdim=True)
    return ((bars - roots) % 12)[note_starts(bars)]


def chord_share(bars: Tensor, chords: Tensor) -> float:
    """The share of notes that are in their bar's triad."""
    degrees = _degrees(bars, chords)
    minor = (chords[:, 12:] > 0.5).expand_as(bars)[note_starts(bars)]
    third = torch.where(minor, 3, 4)
    return ((degrees == 0) | (degrees == third) | (degrees == 7)).double().mean().item()


def _shares(values: Tensor, count: int) -> Tensor:
    return torch.bincount(values, minlength=count).double() / max(1, len(values))


def pitch_classes(bars: Tensor) -> Tensor:
    """The histogram (12,) of notes over C, C sharp, ... B."""
    return _shares(bars[note_starts(bars)] % 12, 12)


def degrees(bars: Tensor, chords: Tensor) -> Tensor:
    """The histogram (12,) of notes over semitones above their chord's root, in whatever octave."""
    return _shares(_degrees(bars, chords), 12)


def intervals(bars: Tensor, previous: Tensor) -> Tensor:
    """The histogram (25,) of steps from each note to the next, -12 to 12 semitones.

    The step from the bar before into a bar is among them, where there is one before.
    """
    line = torch.cat((previous[:, -1:], bars), dim=1)
    follows = note_starts(bars) & (line[:, :-1] != SILENCE)
    steps = torch.diff(line, dim=1)[follows]
    return _shares(steps.clamp(-WIDEST, WIDEST) + WIDEST, 2 * WIDEST + 1)


def lengths(bars: Tensor) -> Tensor:
    """The histogram (T,) of notes over 1 to T sixteenths."""
    return _shares(note_lengths(bars) - 1, bars.shape[1])


def distance(first: Tensor, second: Tensor) -> float:
    """Total variation of two histograms, half the sum of absolute differences: 0 to 1."""
    return 0.5 * (first - second).abs().sum().item()


def unique_share(bars: Tensor, count: int = 1000) -> float:
    """The share of different bars among the first ``count``."""
    chosen = bars[:count]
    return len(chosen.unique(dim=0)) / len(chosen)


def shuffle_notes(bars: Tensor, generator: torch.Generator) -> Tensor:
    """All notes of ``bars`` in a random order, each with its length, cut into as many bars.

    What a melody is without any order: the baseline that a generator must beat.
    """
    pitches, durations = bars[note_starts(bars)], note_lengths(bars)
    order = torch.randperm(len(pitches), generator=generator).to(bars.device)
    return pitches[order].repeat_interleave(durations[order]).reshape(bars.shape)


@dataclasses.dataclass(frozen=True)
class Melody:
    """Bars with what was before them and their chords, see above."""

    bars: Tensor
    previous: Tensor
    chords: Tensor


def melody_figures(made: Melody, real: Melody) -> dict[str, float]:
    """Figures of the generated melody ``made``, its histograms compared with those of ``real``.

    ``melody_distance`` is the mean of the four distances.
    """
    distances = {
        "pitch_class_distance": distance(pitch_classes(made.bars), pitch_classes(real.bars)),
        "degree_distance": distance(
            degrees(made.bars, made.chords), degrees(real.bars, real.chords)
        ),
        "interval_distance": distance(
            intervals(made.bars, made.previous), intervals(real.bars, real.previous)
        ),
        "length_distance": distance(lengths(made.bars), lengths(real.bars)),
    }
    return {
        "chord_share": chord_share(made.bars, made.chords),
        "chord_share_real": chord_share(real.bars, real.chords),
        **distances,
        "melody_distance": sum(distances.values()) / len(distances),
        "unique_share": unique_share(made.bars),
        "unique_share_real": unique_share(real.bars),
    }
