"""Pictures of melodies: piano rolls with chords, one line of bars above another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_core.data.midi import chord_name

_STEP, _PITCH = 6, 5  # pixels of a sixteenth and of a semitone
_MARGIN, _HEAD = 8, 34  # pixels around, and above each line for its title and chords
_LINE, _BAR, _TONE, _TEXT = (205, 205, 205), (120, 120, 120), (255, 236, 196), (40, 40, 40)
_IN_CHORD, _OUTSIDE = (31, 99, 180), (200, 90, 40)


def piano_roll(lines: Sequence[tuple[str, Tensor, Tensor]]) -> Tensor:
    """Lines of bars as one picture: time to the right, pitch upwards.

    Each line is a title, pitches (N, T) int64 and chords (N, 13), all of one T; a line of fewer
    bars ends earlier. The tones of a bar's chord are shaded over its length; notes in the chord
    are blue, others orange. Returns uint8 (3, H, W).
    """
    from PIL import Image, ImageDraw

    length = max(len(pitches) for _, pitches, _ in lines) * lines[0][1].shape[1] * _STEP
    sounding = torch.cat([pitches.flatten() for _, pitches, _ in lines])
    low, high = int(sounding.min()) - 2, int(sounding.max()) + 2
    height = (high - low + 1) * _PITCH
    size = (length + 2 * _MARGIN, len(lines) * (height + _HEAD) + _MARGIN)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for number, (title, pitches, chords) in enumerate(lines):
        top = number * (height + _HEAD) + _HEAD
        pen.text((_MARGIN, top - _HEAD + 4), title, fill=_TEXT)
        right, bottom = _MARGIN + pitches.numel() * _STEP, top + height
        pen.rectangle((_MARGIN, top, right, bottom), outline=_BAR)
        for bar in range(len(pitches)):
            left = _MARGIN + bar * pitches.shape[1] * _STEP
            name = chord_name(int(chords[bar, :12].argmax()), bool(chords[bar, 12] > 0.5))
            pen.text((left + 3, top - 14), name, fill=_TEXT)
            _draw_bar(pen, pitches[bar].tolist(), chords[bar], (left, top), (low, high))
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.reshape(size[1], size[0], 3).permute(2, 0, 1).contiguous()


def _draw_bar(
    pen: object,
    pitches: list[int],
    chord: Tensor,
    corner: tuple[int, int],
    bounds: tuple[int, int],
) -> None:
    """A bar whose upper left corner is ``corner``, of pitches within ``bounds``."""
    (left, top), (low, high) = corner, bounds
    root, width = int(chord[:12].argmax()), len(pitches) * _STEP
    tones = {root, (root + (3 if chord[12] > 0.5 else 4)) % 12, (root + 7) % 12}
    box = pen.rectangle  # type: ignore[attr-defined]
    for pitch in range(low, high + 1):
        row = top + (high - pitch) * _PITCH
        if pitch % 12 in tones:
            box((left, row, left + width - 1, row + _PITCH - 1), fill=_TONE)
    box((left, top, left, top + (high - low + 1) * _PITCH), fill=_BAR)
    starts = [i for i, pitch in enumerate(pitches) if i == 0 or pitch != pitches[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(pitches)], strict=True):
        row = top + (high - pitches[start]) * _PITCH
        colour = _IN_CHORD if pitches[start] % 12 in tones else _OUTSIDE
        box((left + start * _STEP, row, left + end * _STEP - 2, row + _PITCH - 1), fill=colour)
