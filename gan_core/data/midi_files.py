"""MIDI files: the notes in them, measured in sixteenths, and files written from such notes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan_core.errors import UserError

SIXTEENTHS = 4
"""Sixteenth notes in a beat, a quarter note."""
_DRUMS = 9
"""The channel (from 0) of General MIDI whose notes are drums, not pitches."""
_TICKS = 480  # a beat, in files that are written
_REMEMBERED = 8192  # files: a run loads its data more than once


class Note(NamedTuple):
    """A note that sounds from ``start`` to ``end`` (sixteenths from the beginning)."""

    start: float
    end: float
    pitch: int


@dataclasses.dataclass(frozen=True)
class Score:
    """A file's tracks that have notes (drums are none), each sorted by time, and the metres ("4/4")
    it is in. The one track of a file of format 0 counts as one for each channel, in their order.
    """

    tracks: tuple[tuple[Note, ...], ...]
    metres: frozenset[str]
    by_channel: bool = dataclasses.field(default=False, compare=False)
    """Whether the tracks are the channels of the one track of a file of format 0."""

    @property
    def first(self) -> tuple[Note, ...]:
        """The first track as it is in the file: in format 0 the notes of all channels."""
        if self.by_channel:
            return tuple(sorted(note for track in self.tracks for note in track))
        return self.tracks[0]


class UnreadableMidi(ValueError):
    """The file is no MIDI file, or a damaged one; the message says how."""


def read_midi(path: Path) -> Score:
    """The notes of the file ``path``; raises :class:`UnreadableMidi`.

    A file that states no metre is in 4/4, as the standard has it.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UnreadableMidi(error.strerror or str(error)) from None
    return _read(str(path), state.st_mtime_ns, state.st_size)


@functools.lru_cache(_REMEMBERED)
def _read(path: str, changed: int, size: int) -> Score:
    import mido

    try:
        file = mido.MidiFile(path)
    except EOFError:
        raise UnreadableMidi("it is cut off") from None
    except Exception as error:  # whatever damaged bytes lead the parser to
        raise UnreadableMidi(str(error) or type(error).__name__) from None
    if file.ticks_per_beat <= 0:
        raise UnreadableMidi("its time is in seconds, not in beats")
    messages = [message for track in file.tracks for message in track]
    metres = {f"{m.numerator}/{m.denominator}" for m in messages if m.type == "time_signature"}
    by_channel = file.type == 0
    parts = _channels(messages) if by_channel else file.tracks
    tracks = [_notes(part, SIXTEENTHS / file.ticks_per_beat) for part in parts]
    heard = tuple(track for track in tracks if track)
    return Score(heard, frozenset(metres or {"4/4"}), by_channel)


def _channels(track: Sequence[Any]) -> list[list[Any]]:
    """The messages of each channel of a track, with the time since the one before of its own."""
    parts: dict[int, list[Any]] = {}
    heard: dict[int, int] = {}
    now = 0
    for message in track:
        now += message.time
        if not message.is_meta and hasattr(message, "channel"):
            channel = message.channel
            parts.setdefault(channel, []).append(message.copy(time=now - heard.get(channel, 0)))
            heard[channel] = now
    return [parts[channel] for channel in sorted(parts)]


def _notes(track: Sequence[Any], step: float) -> tuple[Note, ...]:
    """The notes of a track; one struck again while it sounds ends there."""
    notes: list[Note] = []
    sounding: dict[tuple[int, int], int] = {}
    now = 0
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == _DRUMS:
            continue
        key = (message.channel, message.note)
        begun = sounding.pop(key, None)
        if begun is not None and now > begun:
            notes.append(Note(begun * step, now * step, message.note))
        if message.type == "note_on" and message.velocity > 0:
            sounding[key] = now
    return tuple(sorted(notes))


def write_midi(
    path: Path, tracks: Sequence[Sequence[Note]], metre: str = "4/4", beats_per_minute: float = 120
) -> Path:
    """Write ``tracks`` as a MIDI file of format 1, a channel each; missing folders are made.

    Raises ``UserError`` where ``path`` cannot be written.
    """
    import mido

    numerator, denominator = map(int, metre.split("/"))
    file = mido.MidiFile(ticks_per_beat=_TICKS)
    for number, notes in enumerate(tracks):
        track, channel = file.add_track(), number + (number >= _DRUMS)
        if number == 0:
            track.append(
                mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)
            )
            track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute)))
        now = 0
        for tick, kind, pitch in _events(notes):
            velocity = 90 if number == 0 else 60  # the melody before what accompanies it
            track.append(
                mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now)
            )
            now = tick
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.save(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}): choose another place") from None
    return path


def _events(notes: Sequence[Note]) -> list[tuple[int, str, int]]:
    """Ticks, kinds and pitches of the messages; at the same tick notes end before others begin."""
    scale = _TICKS / SIXTEENTHS
    ends = [(round(note.end * scale), "note_off", note.pitch) for note in notes]
    return sorted(ends + [(round(note.start * scale), "note_on", note.pitch) for note in notes])
