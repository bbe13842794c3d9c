"""Melodies with chords from MIDI files, in bars of sixteenths."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import logging
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import torch

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.listing import draw_splits
from gan_core.data.midi_files import SIXTEENTHS, Note, Score, UnreadableMidi, read_midi
from gan_core.data.source_options import OnBadFile
from gan_core.data.sources import Source, register
from gan_core.errors import UserError

EXTENSIONS = (".mid", ".midi")
PITCHES = 128
SILENCE = 128
"""Stands for a pitch where there is none: before a tune's first bar."""
CHORD = 13
"""Numbers of a chord: which of 12 roots (C first), and 1 for minor or 0 for major."""
ROOM = 6
"""Semitones that a pitch must keep from either end of MIDI's range, to be transposed by."""

_ROLLED = 0.75
"""Sixteenths within which the notes of a chord begin that is played by hand."""
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar's pitch at every sixteenth, its chord, and whether it follows on the one before."""

    pitches: tuple[int, ...]
    root: int
    minor: bool
    follows: bool


@register("midi")
class Midi(Source):
    """Tunes with chords in MIDI files (mid, midi): the bars of all, tune by tune.

    Layouts: ``root/melody/*`` with ``root/chords/*`` of the same names; or ``root/*``, where a
    file's first track with notes is the melody and the second the chords; drums are passed over. In
    a file of format 0, which has one track, these are the first two channels; of one in ``melody``
    or ``chords`` all channels count.

    A bar is one pitch for every sixteenth: the last that was struck, the highest of several, so
    that pauses are filled as in MidiNet's data (Yang et al. 2017, section 4.1). Its chord is the
    one that sounds longest in it, a major or a minor triad; of tones struck singly, that of all.
    One without its third (a bass alone) is minor where the tune's last chord on that root is.

    Bars of which less than half sounds are left out, and the next one follows on nothing, as the
    first of a tune.

    A bar has as many sixteenths as the metre, 16 in 4/4 and 12 in 6/8. A hash of the file name puts
    about 10 % of the tunes in each of the validation and test splits.
    """

    summary: ClassVar[str] = "melodies with chords in MIDI files, in bars of sixteenths"

    def __init__(
        self,
        root: Path | None = None,
        *,
        on_bad_file: OnBadFile = "error",
        metre: Annotated[str, "tunes in it are read, others counted and left out"] = "4/4",
    ) -> None:
        super().__init__(root, on_bad_file=on_bad_file)
        self.metre, self.steps = metre, sixteenths(metre)

    @functools.cached_property
    def _files(self) -> dict[str, tuple[Path, Path | None]]:
        """Melody and chords (``None``: missing) of each tune by its name; both may be one file."""
        if self.root is None:
            raise UserError("--data midi needs --data-root: the folder of MIDI files")
        melody, chords = self.root / "melody", self.root / "chords"
        if not melody.is_dir():
            return {name: (path, path) for name, path in _listed(self.root).items()}
        if not chords.is_dir():
            raise UserError(f"{self.root} holds melody and no chords beside it: add them")
        known = _listed(chords)
        return {name: (path, known.get(name)) for name, path in _listed(melody).items()}

    def load(self, split: Split) -> Examples:
        drawn = draw_splits(self._files, ["validation", "test"])
        names = [name for name in sorted(self._files) if drawn[name] == split]
        bars = [bar for name in names for bar in self._tune(name, split)]
        self._report(split, len(names))
        if not bars:
            raise UserError(
                f"no tune in {self.metre} with chords among the {len(names)} of the {split} split "
                f"in {self.root}: add some, or choose another --metre"
            )
        return Examples(_tensors(bars), melody_spec(self.steps), "midi", split)

    @functools.cached_property
    def _left_out(self) -> dict[str, list[str]]:
        """Why tunes were left out, with their names."""
        return collections.defaultdict(list)

    def _tune(self, name: str, split: Split) -> list[Bar]:
        """The bars of a tune; none, if it is left out."""
        melody, chords = self._files[name]
        try:
            score = read_midi(melody)
            if score.metres != {self.metre}:
                self._left_out[f"not in {self.metre}"].append(name)
                return []
            return cut_bars(*_voices(score, melody, chords), self.steps)
        except UnreadableMidi as error:
            if self.on_bad_file == "error":
                raise UserError(
                    f"{melody}: {error}; repair or remove it, or --on-bad-file skip"
                ) from None
            self._left_out["that cannot be used"].append(f"{name} ({error})")
            return []

    def _report(self, split: Split, count: int) -> None:
        for why, names in self._left_out.items():
            _tell_once(
                f"{self.root}: left out {len(names)} of {count} tunes of the {split} split "
                f"{why}, such as {names[0]}"
            )
        self._left_out.clear()


def sixteenths(metre: str) -> int:
    """The sixteenths of a bar in ``metre`` ("4/4"); ``UserError`` if it is none."""
    found = re.fullmatch(r"([1-9]\d?)/(1|2|4|8|16)", metre)
    if found is None:
        raise UserError(f"--metre must be like 4/4 or 6/8, not '{metre}'")
    return int(found[1]) * 4 * SIXTEENTHS // int(found[2])


def melody_spec(steps: int) -> DataSpec:
    """Bars of ``steps`` sixteenths as pitches, with the bar before (or silence) and the chord."""
    return DataSpec(
        {
            "bar": TensorSpec((1, steps), classes=PITCHES),
            "previous": TensorSpec((1, steps), classes=PITCHES + 1),
            "chord": TensorSpec((CHORD,), 0.0, 1.0),
        },
        target="bar",
    )


def encode_chord(root: int, minor: bool) -> list[float]:
    """A chord as the networks see it: (12 roots, 1 for minor)."""
    return [float(root == place) for place in range(12)] + [float(minor)]


def chord_name(root: int, minor: bool) -> str:
    """A chord as musicians write it: "C", "F#m"."""
    return _NAMES[root] + "m" * minor


def parse_chord(word: str) -> tuple[int, bool]:
    """Root (0 is C) and whether minor of a chord written like C, F#m or Bb; else ``UserError``."""
    found = re.fullmatch(r"([A-G])([#b]?)(m?)", word)
    if found is None:
        raise UserError(f"--chords are like C,F#m,Bb, not '{word}'")
    letter, accidental, minor = found.groups()
    root = _NAMES.index(letter) + {"#": 1, "b": -1, "": 0}[accidental]
    return root % 12, bool(minor)


def triad(pitches: Iterable[int]) -> tuple[int, bool]:
    """Root (0 is C) and whether minor of the triad that shares most tones with ``pitches``.

    Of equals the one on the lowest pitch, else the lowest root; major before minor.
    """
    sounding = sorted(set(pitches))
    tones, bass = {pitch % 12 for pitch in sounding}, sounding[0] % 12

    def likeness(candidate: tuple[int, bool]) -> tuple[int, bool]:
        root, minor = candidate
        chord = {root, (root + (3 if minor else 4)) % 12, (root + 7) % 12}
        return len(chord & tones), root == bass

    return max(itertools.product(range(12), (False, True)), key=likeness)


def cut_bars(melody: Sequence[Note], chords: Sequence[Note], steps: int) -> list[Bar]:
    """The bars of ``steps`` sixteenths, from the first chord on; see :class:`Midi`."""
    pitches, sounds = _line(melody, steps)
    named = _longest_chords(chords, len(pitches) // steps, steps)
    bars: list[Bar] = []
    before = -1
    for number, chord in enumerate(named):
        places = slice(number * steps, (number + 1) * steps)
        if chord is None or 2 * sum(sounds[places]) < steps:
            continue
        follows = bool(bars) and before == number - 1
        bars.append(Bar(tuple(pitches[places]), *chord, follows))
        before = number
    return bars


def _line(melody: Sequence[Note], steps: int) -> tuple[list[int], list[bool]]:
    """For every sixteenth of whole bars the last pitch struck, and whether it still sounds."""
    struck = sorted(melody, key=lambda note: (note.start, note.pitch))
    starts = {round(note.start): note.pitch for note in struck}  # of several the last one stays
    end = max((round(note.end) for note in melody), default=0)
    length = -(-end // steps) * steps
    sounds = [False] * length
    for note in melody:
        first = round(note.start)
        for place in range(first, min(length, max(first + 1, round(note.end)))):
            sounds[place] = True
    pitches, pitch = [], melody[0].pitch if melody else SILENCE
    for place in range(length):
        pitch = starts.get(place, pitch)
        pitches.append(pitch)
    return pitches, sounds


def _longest_chords(chords: Sequence[Note], bars: int, steps: int) -> list[tuple[int, bool] | None]:
    """For each bar the chord that takes most of its time, a chord lasting until the next.

    ``None`` before the first one.
    """
    groups = _chords_struck(chords, steps)
    shares: list[dict[tuple[int, bool], int]] = [{} for _ in range(bars)]
    ends = [start for start, _ in groups[1:]] + [bars * steps]
    for (start, chord), end in zip(groups, ends, strict=True):
        for number in range(start // steps, bars):
            first, last = max(start, number * steps), min(end, (number + 1) * steps)
            if first >= last:
                break
            shares[number][chord] = shares[number].get(chord, 0) + last - first
    return [max(share, key=share.__getitem__) if share else None for share in shares]


def _chords_struck(chords: Sequence[Note], steps: int) -> list[tuple[int, tuple[int, bool]]]:
    """The sixteenths at which chords begin, in order, with the chords.

    A bar in which tones are only struck one by one has the chord of all that sound in it.
    """
    groups = _struck_together(chords)
    one_by_one = {start // steps for start in groups} - {
        start // steps for start, pitches in groups.items() if len({p % 12 for p in pitches}) > 1
    }
    sounding: dict[int, list[int]] = {number: [] for number in one_by_one}
    for note in chords:
        first = round(note.start)
        last = max(first, round(note.end) - 1)
        for number in one_by_one.intersection(range(first // steps, last // steps + 1)):
            sounding[number].append(note.pitch)
    heard = [sounding.get(start // steps, pitches) for start, pitches in groups.items()]
    return list(zip(groups, _triads(heard), strict=True))


def _triads(heard: Sequence[Sequence[int]]) -> list[tuple[int, bool]]:
    """The triad of each chord of a tune.

    Whether one without its third is minor, as a bass alone, the tune says: the chord last heard on
    its root, else the next; it is major if there is none.
    """
    found = [triad(pitches) for pitches in heard]
    told = [
        not {(root + 3) % 12, (root + 4) % 12}.isdisjoint(pitch % 12 for pitch in pitches)
        for (root, _), pitches in zip(found, heard, strict=True)
    ]
    whole = [chord for chord, has_third in zip(found, told, strict=True) if has_third]
    minor = dict(reversed(whole))  # of each root the first
    for place, (root, _) in enumerate(found):
        if told[place]:
            minor[root] = found[place][1]
        else:
            found[place] = root, minor.get(root, False)
    return found


def _struck_together(chords: Sequence[Note]) -> dict[int, list[int]]:
    """The pitches of each chord by the sixteenth at which it begins, in order: of the notes that
    begin nearest to one, or so shortly after the first that a hand has rolled over them.
    """
    groups: dict[int, list[int]] = {}
    now, begun = -1, -math.inf
    for note in sorted(chords):
        if note.start - begun >= _ROLLED and round(note.start) != now:
            now, begun = round(note.start), note.start
        groups.setdefault(now, []).append(note.pitch)
    return groups


def _voices(
    score: Score, melody: Path, chords: Path | None
) -> tuple[Sequence[Note], Sequence[Note]]:
    """Melody and chords; raises ``UnreadableMidi`` if one is missing or out of range."""
    if not score.tracks:
        raise UnreadableMidi("there are no notes in it")
    together = chords == melody
    tune = score.tracks[0] if together else score.first
    accompaniment = next(iter(score.tracks[1:]), ()) if together else _chords_beside(chords)
    if not accompaniment:
        raise UnreadableMidi("a tune without chords")
    for note in tune:
        if not ROOM <= note.pitch < PITCHES - ROOM:
            raise UnreadableMidi(f"the pitch {note.pitch} is too near the end of MIDI's range")
    return tune, accompaniment


def _chords_beside(path: Path | None) -> Sequence[Note]:
    """The notes of a file beside the melody's; its own name is in what is wrong with it."""
    try:
        score = None if path is None else read_midi(path)
    except UnreadableMidi as error:
        raise UnreadableMidi(f"its chords, {path}, cannot be read ({error})") from None
    return score.first if score and score.tracks else ()


def _tensors(bars: Sequence[Bar]) -> dict[str, torch.Tensor]:
    pitches = torch.tensor([bar.pitches for bar in bars])[:, None]
    first = torch.tensor([not bar.follows for bar in bars])
    chords = torch.tensor([encode_chord(bar.root, bar.minor) for bar in bars])
    return {"bar": pitches, "previous": bars_before(pitches, first), "chord": chords}


def bars_before(pitches: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """For each of the bars ``pitches`` (N, ...) the one before, silence where it is a ``first``."""
    before = torch.roll(pitches, 1, dims=0)
    before[first] = SILENCE
    return before


def _listed(folder: Path) -> dict[str, Path]:
    """The MIDI files in ``folder`` by their tunes' names, sorted.

    Raises ``UserError`` if there is none, or two of a name.
    """
    try:
        visible = (p for p in folder.iterdir() if not p.name.startswith("."))
        files = sorted(p for p in visible if p.suffix.lower() in EXTENSIONS)
    except OSError as problem:
        raise UserError(f"cannot list {folder}: {problem.strerror}") from None
    if not files:
        raise UserError(f"no MIDI files (mid, midi) in {folder}: check --data-root")
    named: dict[str, Path] = {}
    for path in files:
        other = named.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"{folder} holds {other.name} and {path.name}, and a tune goes by its name without "
                "the ending: rename or remove one of them"
            )
    return named


@functools.cache
def _tell_once(text: str) -> None:
    """A warning that is not repeated when a run loads its data again."""
    logger.warning(text)
