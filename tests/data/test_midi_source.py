from __future__ import annotations

import itertools
import logging
from pathlib import Path

import mido
import pytest
import torch

from gan_core import UserError
from gan_core.data import check_examples, load_examples
from gan_core.data.midi import (
    SILENCE,
    chord_name,
    cut_bars,
    encode_chord,
    parse_chord,
    sixteenths,
    triad,
)
from gan_core.data.midi_files import Note, UnreadableMidi, read_midi, write_midi

SPLITS = ("train", "validation", "test")


def notes(*pitches: int, length: float = 4, start: float = 0) -> list[Note]:
    """Notes of one length, one after another."""
    ends = itertools.accumulate([length] * len(pitches), initial=start)
    return [Note(s, e, p) for p, (s, e) in zip(pitches, itertools.pairwise(ends), strict=True)]


def chord(*pitches: int, start: float = 0, end: float = 16) -> list[Note]:
    return [Note(start, end, pitch) for pitch in pitches]


C, A_MINOR = (48, 52, 55), (57, 60, 64)


def tune(path: Path, first: int = 60, metre: str = "4/4", chords: bool = True) -> Path:
    """Two bars: four quarters up from ``first``, then a whole note; over C and A minor."""
    steps = sixteenths(metre)
    melody = [*notes(*range(first, first + 4), length=steps / 4), Note(steps, 2 * steps, first)]
    below = chord(*C, end=steps) + chord(*A_MINOR, start=steps, end=2 * steps)
    return write_midi(path, [melody, below][: 1 + chords], metre)


def fill(root: Path, count: int, **values: object) -> None:
    for number in range(count):
        tune(root / f"tune{number:02}.mid", 30 + number, **values)


def load_all(root: Path, **options: object) -> dict[str, dict[str, torch.Tensor]]:
    return {s: dict(load_examples("midi", root, s, **options).tensors) for s in SPLITS}


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load_all(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- files -----------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tracks = [notes(60, 62, 64, 62, length=2.5), [*chord(*C, end=7), *chord(*A_MINOR, start=7)]]
    score = read_midi(write_midi(tmp_path / "deep" / "a.mid", tracks, "6/8"))
    assert score.metres == {"6/8"}
    assert score.tracks == tuple(tuple(sorted(track)) for track in tracks)


def test_the_first_track_has_the_metre_and_the_tempo_and_is_the_loudest(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "a.mid", [notes(60), chord(*C)], beats_per_minute=90)
    first, second = mido.MidiFile(path).tracks
    kinds = [message.type for message in first if message.is_meta]
    assert kinds == ["time_signature", "set_tempo", "end_of_track"]
    (tempo,) = (mido.tempo2bpm(m.tempo) for m in first if m.type == "set_tempo")
    assert tempo == pytest.approx(90)
    assert [message.type for message in second if message.is_meta] == ["end_of_track"]
    loud, soft = ({m.velocity for m in t if m.type == "note_on"} for t in (first, second))
    assert min(loud) > max(soft)


def test_notes_end_by_a_silent_note_on_or_by_being_struck_again(tmp_path: Path) -> None:
    file = mido.MidiFile(ticks_per_beat=96)
    track = file.add_track()
    for kind, pitch, velocity, wait in (
        ("note_on", 60, 80, 24), ("note_on", 60, 0, 24),  # sixteenth 1 to 2
        ("note_on", 64, 80, 0), ("note_on", 64, 80, 48), ("note_off", 64, 0, 24),
        ("note_off", 60, 0, 24), ("note_on", 67, 80, 0), ("note_off", 67, 0, 0),  # nothing sounds
    ):  # fmt: skip
        track.append(mido.Message(kind, note=pitch, velocity=velocity, time=wait))
    file.save(tmp_path / "a.mid")
    score = read_midi(tmp_path / "a.mid")
    assert score.tracks == ((Note(1, 2, 60), Note(2, 4, 64), Note(4, 5, 64)),)
    assert score.metres == {"4/4"}, "the standard's, where a file says nothing"


def test_the_channels_of_a_file_of_one_track_are_its_tracks(tmp_path: Path) -> None:
    one, two = notes(60, 62, 64, 62, length=2.5), [*chord(*C, end=7), *chord(*A_MINOR, start=7)]
    several = mido.MidiFile(write_midi(tmp_path / "a.mid", [one, two]))
    drums = several.add_track()
    drums.append(mido.Message("note_on", channel=9, note=36, time=100))
    drums.append(mido.Message("note_off", channel=9, note=36, time=500))
    single = mido.MidiFile(type=0, ticks_per_beat=several.ticks_per_beat)
    single.tracks.append(mido.merge_tracks(several.tracks))
    single.save(tmp_path / "b.mid")
    assert len(mido.MidiFile(tmp_path / "b.mid").tracks) == 1
    assert read_midi(tmp_path / "b.mid") == read_midi(tmp_path / "a.mid")
    assert read_midi(tmp_path / "b.mid").tracks == (tuple(one), tuple(sorted(two)))


@pytest.mark.parametrize("content", [b"", b"MThd", b"no music at all", b"MThd\0\0\0\6\0\1\0\1"])
def test_a_file_that_is_no_midi_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(UnreadableMidi):
        read_midi(tmp_path / "a.mid")


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = tune(tmp_path / "a.mid")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableMidi, match="it is cut off"):
        read_midi(path)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    before = read_midi(tune(tmp_path / "a.mid", 60))
    assert read_midi(tune(tmp_path / "a.mid", 61, metre="3/4")) != before


# -- bars ------------------------------------------------------------------------------------------


def test_a_bar_has_the_pitch_of_every_sixteenth() -> None:
    (bar,) = cut_bars(notes(60, 62, 64, 65), chord(*C), 16)
    assert bar.pitches == (60,) * 4 + (62,) * 4 + (64,) * 4 + (65,) * 4
    assert (bar.root, bar.minor, bar.follows) == (0, False, False)


def test_pauses_are_filled_and_of_two_pitches_the_higher_sounds() -> None:
    melody = [Note(4, 6, 60), Note(4, 6, 67), Note(10, 11, 62)]
    (bar,) = cut_bars([*melody, Note(11, 16, 64)], chord(*C), 16)
    assert bar.pitches == (60,) * 4 + (67,) * 6 + (62,) + (64,) * 5


def test_of_pitches_struck_together_the_highest_sounds_however_long_the_others_last() -> None:
    melody = sorted([Note(0, 12, 60), Note(0, 4, 67), Note(0, 8, 64), Note(12, 16, 62)])
    (bar,) = cut_bars(melody, chord(*C), 16)
    assert bar.pitches == (67,) * 12 + (62,) * 4


def test_onsets_go_to_the_nearest_sixteenth() -> None:
    melody = [Note(0, 1.33, 60), Note(1.33, 2.67, 62), Note(2.67, 16, 64)]
    (bar,) = cut_bars(melody, chord(*C), 16)
    assert bar.pitches == (60, 62, 62) + (64,) * 13


def test_a_bar_is_of_the_chord_that_sounds_longest_in_it() -> None:
    chords = [*chord(*C, end=4), *chord(*A_MINOR, start=4), *chord(*C, start=28, end=32)]
    bars = cut_bars(notes(60, 62, 64, 65, length=8), chords, 16)
    assert [(bar.root, bar.minor) for bar in bars] == [(9, True), (9, True)]


def chords_of(chords: list[Note], bars: int = 1) -> list[str]:
    found = cut_bars(notes(*[60] * 4 * bars), sorted(chords), 16)
    return [chord_name(bar.root, bar.minor) for bar in found]


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.45, 0.5, 15.6])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_chord_that_is_played_by_hand_is_one(shift: float, order: tuple[int, ...]) -> None:
    played = [Note(shift + 0.12 * i, 32, A_MINOR[which]) for i, which in enumerate(order)]
    assert chords_of(played, 2)[-1] == "Am"


def test_a_chord_begins_at_the_nearest_sixteenth() -> None:
    early = [Note(start, 40, pitch) for start, pitch in zip((7.6, 7.7, 8.2), A_MINOR, strict=True)]
    assert chords_of([*chord(*C), *early], 2) == ["C", "Am"]
    apart = [
        Note(start, 40, pitch) for start, pitch in zip((0.51, 1.4, 1.49), A_MINOR, strict=True)
    ]
    assert chords_of(apart) == ["Am"], "all three begin nearest to one sixteenth"


def test_tones_struck_one_by_one_are_a_chord_with_all_that_sound_in_their_bar() -> None:
    rising = notes(*A_MINOR, 69, length=4)
    held = [Note(16, 32, 52), *notes(67, 72, 67, length=4, start=20)]  # E below G and C
    assert chords_of([*rising, *held], 3) == ["Am", "C", "C"], "the last lasts"
    octaves = [note for n in rising for note in (n, n._replace(pitch=n.pitch - 12))]
    assert chords_of(octaves) == ["Am"]
    over = [Note(0, 32, 57), *notes(60, 64, length=8), Note(16, 32, 64), Note(24, 32, 60)]
    assert chords_of(over, 2) == ["Am", "Am"], "A sounds on in the second bar"


def test_a_bass_before_its_chord_does_not_change_it() -> None:
    bass = [Note(0, 4, 45), *chord(*A_MINOR, start=4, end=8), Note(8, 12, 52)]
    assert chords_of([*bass, *chord(*A_MINOR, start=12)]) == ["Am"]


LONE_A, LONE_E, A_MAJOR, FIFTH_ON_A = (45,), (40,), (57, 61, 64), (45, 52)


@pytest.mark.parametrize(
    ("struck", "names"),
    [
        ((LONE_A, C), ["A", "C"]),  # nothing says that it is minor
        ((A_MINOR, C, LONE_A), ["Am", "C", "Am"]),
        ((LONE_A, C, A_MINOR, A_MAJOR), ["Am", "C", "Am", "A"]),
        ((A_MINOR, LONE_A, A_MAJOR, LONE_A, LONE_E), ["Am", "Am", "A", "A", "E"]),
        ((A_MINOR, C, FIFTH_ON_A), ["Am", "C", "Am"]),
        ((A_MAJOR, A_MINOR), ["A", "Am"]),
    ],
)
def test_a_chord_without_its_third_is_minor_where_the_tune_says_so(
    struck: tuple[tuple[int, ...], ...], names: list[str]
) -> None:
    chords = [
        n for i, tones in enumerate(struck) for n in chord(*tones, start=16 * i, end=16 * i + 4)
    ]
    bars = cut_bars(notes(*[60] * len(struck), length=16), chords, 16)
    assert [chord_name(bar.root, bar.minor) for bar in bars] == names


def test_bars_before_the_first_chord_and_silent_bars_are_left_out_and_end_what_follows() -> None:
    melody = [*notes(60, 62, 64), *notes(65, 67, length=16, start=12)]  # bars 0 to 2
    melody += notes(70, length=8, start=44) + notes(72, 74, length=16, start=64)  # bars 2, 4, 5
    bars = cut_bars(melody, chord(*C, start=16, end=90), 16)
    assert [(bar.pitches[-1], bar.follows) for bar in bars] == [
        (67, False), (70, True), (72, False), (74, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pitches", "name"),
    [
        ((48, 52, 55), "C"),
        ((57, 60, 64), "Am"),
        ((52, 55, 60), "C"),  # an inversion
        ((50, 54, 57, 60), "D"),  # a seventh
        ((57, 60, 64, 67), "Am"),  # A minor with a seventh, not C with a sixth
        ((48, 52, 55, 57), "C"),
        ((59, 62, 65), "Bm"),  # diminished
        ((54, 58, 61), "F#"),
    ],
)
def test_chords_are_named_as_triads(pitches: tuple[int, ...], name: str) -> None:
    assert chord_name(*triad(pitches)) == name
    assert parse_chord(name) == triad(pitches)


def test_chords_are_read_with_either_accidental() -> None:
    assert parse_chord("C#m") == parse_chord("Dbm") == (1, True)
    assert parse_chord("Cb") == parse_chord("B") == (11, False)
    assert encode_chord(1, True) == [0, 1, *[0] * 10, 1]
    for word in ("", "H", "c", "Cmaj7", "Am "):
        with pytest.raises(UserError, match="--chords are like"):
            parse_chord(word)


def test_metres_in_sixteenths() -> None:
    assert [sixteenths(m) for m in ("4/4", "6/8", "3/4", "2/2", "12/16")] == [16, 12, 12, 16, 12]
    for metre in ("4", "4/3", "0/4", "four/four", "4/4 "):
        with pytest.raises(UserError, match="--metre must be like 4/4 or 6/8"):
            sixteenths(metre)


# -- the source ------------------------------------------------------------------------------------


def test_every_bar_knows_the_one_before_and_a_first_one_knows_silence(tmp_path: Path) -> None:
    fill(tmp_path, 30)
    for tensors in load_all(tmp_path).values():
        bars, previous = tensors["bar"], tensors["previous"]
        assert torch.equal(previous[1::2], bars[::2])
        assert bool((previous[::2] == SILENCE).all())
        assert torch.equal(bars[0, 0], torch.arange(4).repeat_interleave(4) + bars[0, 0, 0])
        assert torch.equal(tensors["chord"][:2], torch.tensor([encode_chord(0, False),
                                                               encode_chord(9, True)]))  # fmt: skip


def test_tunes_are_divided_whole_and_stay_where_they_are(tmp_path: Path) -> None:
    fill(tmp_path, 40)
    (tmp_path / "._tune01.mid").write_bytes(b"what macOS leaves on other disks")
    (tmp_path / "notes.txt").write_text("no music")
    first = {s: t["bar"][::2, 0, 0].tolist() for s, t in load_all(tmp_path).items()}
    assert sorted(itertools.chain(*first.values())) == list(range(30, 70))
    assert all(first.values())
    tune(tmp_path / "another.mid", 100)
    second = {s: t["bar"][::2, 0, 0].tolist() for s, t in load_all(tmp_path).items()}
    assert all(set(first[split]) <= set(second[split]) for split in SPLITS)
    check_examples(load_examples("midi", tmp_path, "train"), batch_size=8)


def test_melody_and_chords_may_be_in_folders_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path / "one", 20)
    for path in (tmp_path / "one").iterdir():
        melody, chords = read_midi(path).tracks
        write_midi(tmp_path / "two" / "melody" / path.name, [melody])
        write_midi(tmp_path / "two" / "chords" / path.name, [chords])
    for split in SPLITS:
        one, two = (load_examples("midi", tmp_path / n, split) for n in ("one", "two"))
        assert one.fingerprint == two.fingerprint


def test_in_a_folder_of_its_own_a_file_of_one_track_counts_with_all_channels(
    tmp_path: Path,
) -> None:
    """So that chords whose bass has a channel of its own are not that bass alone."""
    melody = [notes(60, 62), notes(64, 65, start=8)]
    parts = {"melody": melody, "chords": [chord(A_MINOR[0] - 12), chord(*A_MINOR[1:])]}
    for number in range(20):
        for folder, channels in parts.items():
            path = tmp_path / folder / f"tune{number:02}.mid"
            several = mido.MidiFile(write_midi(path, channels))
            single = mido.MidiFile(type=0, ticks_per_beat=several.ticks_per_beat)
            single.tracks.append(mido.merge_tracks(several.tracks))
            single.save(path)
    for tensors in load_all(tmp_path).values():
        assert tensors["bar"][0, 0, ::4].tolist() == [60, 62, 64, 65]
        assert tensors["chord"][0].tolist() == encode_chord(9, True)


def test_tunes_in_other_metres_are_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, 30)
    tune(tmp_path / "jig.mid", metre="6/8")
    with caplog.at_level(logging.WARNING):
        count = sum(len(t["bar"]) for t in load_all(tmp_path).values())
        load_all(tmp_path)
    assert count == 60
    (line,) = [record.message for record in caplog.records if str(tmp_path) in record.message]
    assert "left out 1 of" in line
    assert "not in 4/4, such as jig" in line


def test_a_bar_of_another_metre_has_its_own_length(tmp_path: Path) -> None:
    fill(tmp_path, 30, metre="6/8")
    examples = load_examples("midi", tmp_path, "train", metre="6/8")
    assert examples.spec.target_shape == (1, 12)
    assert torch.equal(examples.tensors["bar"][1::2, 0, 0], examples.tensors["bar"][::2, 0, 0])


def damaged(root: Path) -> None:
    fill(root, 30)
    (root / "tune07.mid").write_bytes(b"MThd and no more")


def test_a_tune_that_cannot_be_read_is_named_or_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged(tmp_path)
    said = refusal(tmp_path)
    assert said.startswith(str(tmp_path / "tune07.mid"))
    assert said.endswith("repair or remove it, or --on-bad-file skip")
    with caplog.at_level(logging.WARNING):
        found = load_all(tmp_path, on_bad_file="skip")
    assert sum(len(t["bar"]) for t in found.values()) == 58
    assert "left out 1 of" in caplog.text
    assert "that cannot be used, such as tune07 (" in caplog.text


def test_a_tune_without_chords_is_refused_or_skipped(tmp_path: Path) -> None:
    fill(tmp_path / "one", 30)
    tune(tmp_path / "one" / "alone.mid", chords=False)
    assert "alone.mid: a tune without chords; repair" in refusal(tmp_path / "one")
    found = load_all(tmp_path / "one", on_bad_file="skip")
    assert sum(len(t["bar"]) for t in found.values()) == 60
    for name in ("melody", "chords"):
        fill(tmp_path / "two" / name, 20)
    (tmp_path / "two" / "chords" / "tune03.mid").unlink()
    assert "tune03.mid: a tune without chords; repair" in refusal(tmp_path / "two")


def test_a_melody_without_notes_is_not_made_up_for_by_its_chords(tmp_path: Path) -> None:
    for name in ("melody", "chords"):
        fill(tmp_path / name, 20)
    write_midi(tmp_path / "melody" / "tune03.mid", [[]])
    said = f"{tmp_path / 'melody' / 'tune03.mid'}: there are no notes in it; repair"
    assert said in refusal(tmp_path), "beside a file of melody and chords"
    write_midi(tmp_path / "chords" / "tune03.mid", [chord(*C)])
    assert said in refusal(tmp_path)


def test_of_two_files_the_damaged_one_is_named(tmp_path: Path) -> None:
    for name in ("melody", "chords"):
        fill(tmp_path / name, 20)
    path = tmp_path / "chords" / "tune03.mid"
    path.write_bytes(b"no music")
    assert f"tune03.mid: its chords, {path}, cannot be read (" in refusal(tmp_path)


def test_drums_are_neither_melody_nor_chords(tmp_path: Path) -> None:
    file = mido.MidiFile(tune(tmp_path / "plain.mid"))
    beat = [mido.Message("note_on", channel=9, note=38, velocity=80, time=t) for t in (0, 480, 0)]
    file.tracks.insert(1, mido.MidiTrack(beat))
    file.tracks[2][:0] = beat[:1]  # among the chords
    file.save(tmp_path / "drums.mid")
    assert read_midi(tmp_path / "drums.mid") == read_midi(tmp_path / "plain.mid")
    many = write_midi(tmp_path / "many.mid", [notes(60 + i) for i in range(12)])
    assert len(read_midi(many).tracks) == 12


def test_a_pitch_that_cannot_be_transposed_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 30)
    tune(tmp_path / "high.mid", 119)
    assert "the pitch 122 is too near the end of MIDI's range" in refusal(tmp_path)


@pytest.mark.parametrize("folder", ["", "melody", "chords"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, folder: str) -> None:
    for name in ("melody", "chords") if folder else ("",):
        fill(tmp_path / name, 12)
    other = tune(tmp_path / folder / "tune03.midi", 90)
    assert refusal(tmp_path) == (
        f"{other.parent} holds tune03.mid and tune03.midi, and a tune goes by its name without the "
        "ending: rename or remove one of them"
    )


def test_folders_without_use_are_refused_in_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"no MIDI files (mid, midi) in {tmp_path}: check --data-root"
    fill(tmp_path / "tunes", 12)
    assert "no tune in 3/4 with chords among the" in refusal(tmp_path / "tunes", metre="3/4")
    fill(tmp_path / "half" / "melody", 2)
    assert "holds melody and no chords beside it" in refusal(tmp_path / "half")
    with pytest.raises(UserError, match="--data midi needs --data-root"):
        load_examples("midi", None, "train")
