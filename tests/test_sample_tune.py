"""Tunes from the generator of a run: ``sample RUN --out tune.mid``."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.config import make_config
from gan_core.data.bars import to_pitches, to_roll
from gan_core.data.midi import SILENCE, encode_chord
from gan_core.data.midi_files import Note, read_midi, write_midi
from gan_core.engine.world import World
from gan_core.observers import FolderObserver
from gan_core.piano_roll import piano_roll
from gan_core.release import load_generator
from gan_core.run import play
from pipelines import __main__ as command
from pipelines.run_folder import write_config

TUNES, BARS = 30, 4


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few iterations, ``song``, on tunes in 6/8."""
    folder = tmp_path_factory.mktemp("tunes")
    for number in range(TUNES):
        melody = [Note(3 * i, 3 * i + 3, 50 + number + i % 5) for i in range(4 * BARS)]
        chords = [Note(12 * i, 12 * i + 12, p + i) for i in range(BARS) for p in (48, 52, 55)]
        write_midi(folder / "midi" / f"{number}.mid", [melody, chords], "6/8")
    config = make_config({
        "variant": "midinet", "data": "midi", "data_root": str(folder / "midi"), "workers": 0,
        "data_options": {"metre": "6/8"}, "storage": str(folder / "runs"), "name": "song",
        "steps": 6, "batch_size": 8, "hidden": 16, "latent": 6, "width_g": 16, "width_d": 4,
        "lr_g": 0.02, "ema": 0.5, "extractor": "none", "evaluate_every": 3,
    })  # fmt: skip
    config.folder.mkdir(parents=True)
    write_config(config, config.folder / "config.yaml")
    summary = play(config, World(), FolderObserver(config.folder, World()))
    assert summary["best"]["metric"] == "melody_distance"
    assert (config.folder / summary["grid"]).exists()
    assert "real bar before" in summary["protocol"]["midinet"]
    return folder / "runs"


def sampled(words: str, storage: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """The MIDI file and the picture that ``sample`` names."""
    line = ["sample", "song", *words.split(), "--storage", str(storage)]
    assert command.main(line) == 0
    file, picture = map(Path, capsys.readouterr().out.split())
    return file, picture


def test_a_tune_is_written_as_midi_and_as_a_picture(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "tune.mid"
    file, picture = sampled(f"--n 6 --chords C,F#m,Bb --out {out}", storage, capsys)
    assert (file, picture) == (out, out.with_suffix(".png"))
    score = read_midi(file)
    assert score.metres == {"6/8"}
    melody, chords = score.tracks
    assert max(note.end for note in melody) == max(note.end for note in chords) == 6 * 12
    assert melody[0].start == 0
    assert all(a.end == b.start for a, b in itertools.pairwise(melody))
    bars = [{n.pitch % 12 for n in chords if n.start == 12 * i} for i in range(6)]
    assert bars == [{0, 4, 7}, {6, 9, 1}, {10, 2, 5}] * 2
    assert np.asarray(Image.open(picture)).shape[2] == 3


def test_every_bar_is_the_generator_s_for_its_chord_and_the_bar_before(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--n 3 --chords C,Am --seed 5 --out {tmp_path / 'a.mid'}"
    melody, _ = read_midi(sampled(words, storage, capsys)[0]).tracks
    generator = load_generator(storage / "song")
    before = torch.full((1, 1, 12), SILENCE)
    expected: list[int] = []
    for number, chord in enumerate([(0, False), (9, True), (0, False)]):
        conditions = {"previous": to_roll(before), "chord": torch.tensor([encode_chord(*chord)])}
        bar = generator.generate(torch.tensor([number]), seed=5, conditions=conditions)
        before = to_pitches(bar)
        expected += before.flatten().tolist()
    found = [int(n.pitch) for n in melody for _ in range(round(n.end - n.start))]
    assert found == expected
    again = sampled(words, storage, capsys)[0].read_bytes()
    assert again == sampled(words, storage, capsys)[0].read_bytes()
    # Two seeds may make the same few notes; five will not.
    seeds = [words.replace("--seed 5", f"--seed {seed}") for seed in range(6, 11)]
    assert {sampled(other, storage, capsys)[0].read_bytes() for other in seeds} != {again}


def test_without_chords_those_of_held_out_tunes_are_taken(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, chords = read_midi(sampled(f"--out {tmp_path / 'a.png'}", storage, capsys)[0]).tracks
    roots = [n.pitch % 12 for n in chords][::3]
    assert roots[:BARS] == [0, 1, 2, 3]
    assert len(roots) == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--chords C,X", "--chords are like C,F#m,Bb, not 'X'"),
        ("--interpolate", "--interpolate does not go with a generator of melodies: leave it out"),
        ("--classes 1", "--classes does not go with a generator of melodies: leave it out"),
        ("--data-root .", "--data-root does not go with a generator of melodies: leave it out"),
        ("--out a.wav", "a.wav must end in .png, or for melodies in .mid"),
    ],
)
def test_what_a_melody_has_no_use_for_is_refused(
    storage: Path, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["sample", "song", *words.split(), "--storage", str(storage)]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_a_tune_that_cannot_be_written_is_one_line(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["sample", "song", "--out", str(tmp_path / "file" / "a.mid")]
    assert command.main([*words, "--storage", str(storage)]) == 2
    assert f"error: cannot write {tmp_path}" in capsys.readouterr().err


def test_a_piano_roll_has_its_notes_in_their_places() -> None:
    bars = torch.tensor([[60] * 8 + [62] * 8, [64] * 16])
    chords = torch.tensor([encode_chord(0, False), encode_chord(0, False)])
    picture = piano_roll([("one", bars, chords), ("two", bars, chords)])
    blue, orange = torch.tensor([31, 99, 180]), torch.tensor([200, 90, 40])
    in_chord, outside = ((picture == c[:, None, None]).all(0) for c in (blue, orange))
    assert picture.shape[2] == 2 * 16 * 6 + 16
    # C and E are in the chord, D is not; each note is 5 rows high and a pixel short of its end.
    assert int(in_chord.sum()) == 2 * 5 * ((48 - 1) + (96 - 1))
    assert int(outside.sum()) == 2 * 5 * (48 - 1)
    rows = in_chord.any(1).nonzero().flatten()[:10]  # of the first line: E above C
    assert rows.tolist() == [*range(int(rows[0]), int(rows[0]) + 5),
                             *range(int(rows[0]) + 20, int(rows[0]) + 25)]  # fmt: skip


def test_a_piano_roll_s_last_line_may_be_shorter(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars, chords = torch.full((3, 16), 60), torch.tensor([encode_chord(0, False)] * 3)
    whole = piano_roll([("a", bars, chords), ("b", bars, chords)])
    cut = piano_roll([("a", bars, chords), ("b", bars[:1], chords[:1])])
    assert cut.shape == whole.shape
    height, end = whole.shape[1] // 2, 8 + 16 * 6  # half the picture is a line
    assert torch.equal(cut[:, :height], whole[:, :height])
    assert torch.equal(cut[:, :, :end], whole[:, :, :end])
    assert bool((cut[:, height + 4 :, end + 1 :] == 255).all())
    _, picture = sampled(f"--n 10 --out {tmp_path / 'a.mid'}", storage, capsys)
    assert Image.open(picture).width == 8 * 12 * 6 + 16
