from __future__ import annotations

import collections
import itertools

import pytest
import torch
from torch import Tensor

from gan_core.data.midi import encode_chord
from gan_core.metrics import melody

C = encode_chord(0, False)
A_MINOR = encode_chord(9, True)
# A bar of 8: C for 4, D for 2, E for 1, D for 1. Another: A for 8.
BARS = torch.tensor([[60, 60, 60, 60, 62, 62, 64, 62], [69] * 8])
SILENT = torch.full((2, 8), melody.SILENCE)
CHORDS = torch.tensor([C, A_MINOR])


def random_bars(count: int = 40, steps: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(50, 56, (count, steps), generator=generator)


def notes(bar: list[int]) -> list[tuple[int, int]]:
    """(pitch, length) of every note, by the definition."""
    return [(pitch, len(list(group))) for pitch, group in itertools.groupby(bar)]


def histogram(values: list[int], places: range) -> list[float]:
    counts = collections.Counter(values)
    return [counts[place] / len(values) for place in places]


def test_notes_of_a_bar_by_hand() -> None:
    assert melody.note_lengths(BARS).tolist() == [4, 2, 1, 1, 8]
    assert melody.lengths(BARS).tolist() == [2 / 5, 1 / 5, 0, 1 / 5, 0, 0, 0, 1 / 5]
    # C, D, E, D over C major, A over A minor.
    assert melody.pitch_classes(BARS).tolist() == pytest.approx(
        [1 / 5, 0, 2 / 5, 0, 1 / 5, 0, 0, 0, 0, 1 / 5, 0, 0]
    )
    assert melody.degrees(BARS, CHORDS).tolist() == pytest.approx(
        [2 / 5, 0, 2 / 5, 0, 1 / 5, 0, 0, 0, 0, 0, 0, 0]
    )
    assert melody.chord_share(BARS, CHORDS) == pytest.approx(3 / 5)


def test_the_third_of_a_minor_chord_is_minor() -> None:
    thirds = torch.tensor([[60], [61], [64], [76], [67], [66]])
    in_a_minor = [melody.chord_share(t[None], CHORDS[1:]) for t in thirds]
    in_c = [melody.chord_share(t[None], CHORDS[:1]) for t in thirds]
    assert in_a_minor == [1, 0, 1, 1, 0, 0]
    assert in_c == [1, 0, 1, 1, 1, 0]


def test_intervals_by_hand_with_and_without_a_bar_before() -> None:
    steps = dict.fromkeys(range(-12, 13), 0.0)
    within = torch.tensor([*(steps | {2: 2 / 3, -2: 1 / 3}).values()], dtype=torch.float64)
    torch.testing.assert_close(melody.intervals(BARS, SILENT), within)
    before = torch.stack((SILENT[0], BARS[0]))  # from D up to A
    following = steps | {2: 2 / 4, -2: 1 / 4, 7: 1 / 4}
    found = melody.intervals(BARS, before)
    torch.testing.assert_close(found, torch.tensor([*following.values()], dtype=torch.float64))
    wide = torch.tensor([[40, 80], [80, 40]])
    found = melody.intervals(wide, SILENT[:, :2])
    assert (found[0].item(), found[-1].item()) == (0.5, 0.5)


def test_a_pitch_held_over_the_bar_line_is_no_step() -> None:
    again = torch.full((1, 8), 62)
    assert melody.intervals(again, BARS[:1]).tolist()[melody.WIDEST] == 1.0


def test_histograms_are_what_the_definitions_say() -> None:
    bars = random_bars()
    found = [notes(bar) for bar in bars.tolist()]
    every = list(itertools.chain(*found))
    roots = torch.arange(len(bars)) % 12
    chords = torch.stack([torch.tensor(encode_chord(int(r), False)) for r in roots])
    classes = [(p - int(r)) % 12 for bar, r in zip(found, roots, strict=True) for p, _ in bar]
    line = [int(bars[i - 1, -1]) if i else melody.SILENCE for i in range(len(bars))]
    steps = [
        b - a
        for before, bar in zip(line, found, strict=True)
        for a, b in itertools.pairwise([before, *(p for p, _ in bar)])
        if a != melody.SILENCE
    ]
    previous = torch.cat((SILENT[:1].repeat(1, 2), bars[:-1]))
    for histogram_found, expected in (
        (melody.lengths(bars), histogram([n for _, n in every], range(1, 17))),
        (melody.pitch_classes(bars), histogram([p % 12 for p, _ in every], range(12))),
        (melody.degrees(bars, chords), histogram(classes, range(12))),
        (melody.intervals(bars, previous), histogram(steps, range(-12, 13))),
    ):
        assert histogram_found.tolist() == pytest.approx(expected, abs=1e-12)
        assert histogram_found.sum().item() == pytest.approx(1)


def test_distance_is_total_variation() -> None:
    one, other = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    assert melody.distance(one, one) == 0
    assert melody.distance(one, other) == 0.5
    assert melody.distance(one[[0, 2, 2]] * 2, one[[2, 2, 0]] * 2) == 1


def test_unique_share_is_of_the_first_thousand() -> None:
    bars = random_bars(1500)
    assert melody.unique_share(bars) == 1
    bars[:500] = bars[0]
    assert melody.unique_share(bars) == pytest.approx(501 / 1000)
    assert melody.unique_share(bars[:10]) == pytest.approx(1 / 10)


def test_shuffled_notes_are_the_same_notes_in_another_order() -> None:
    bars = random_bars()
    generator = torch.Generator().manual_seed(0)
    shuffled = melody.shuffle_notes(bars, generator)
    assert shuffled.shape == bars.shape
    assert torch.equal(shuffled.flatten().bincount(), bars.flatten().bincount())
    assert not torch.equal(shuffled, bars)
    other = melody.shuffle_notes(bars, generator)
    assert not torch.equal(shuffled, other)
    # Whole notes move: a melody of long notes has no short ones but where bars cut them.
    long = torch.tensor([[60] * 16, [62] * 16, [64] * 16])
    assert sorted(map(tuple, melody.shuffle_notes(long, generator).tolist())) == sorted(
        map(tuple, long.tolist())
    )


def test_figures_of_a_melody_against_itself_are_perfect() -> None:
    made = melody.Melody(BARS, SILENT, CHORDS)
    figures = melody.melody_figures(made, made)
    assert figures["chord_share"] == figures["chord_share_real"] == pytest.approx(3 / 5)
    assert figures["unique_share"] == figures["unique_share_real"] == 1
    distances = {n: v for n, v in figures.items() if n.endswith("distance")}
    assert set(distances.values()) == {0.0}
    assert len(distances) == 5
    up = melody.Melody(BARS + 1, SILENT, CHORDS)
    moved = melody.melody_figures(up, made)
    assert (moved["interval_distance"], moved["length_distance"]) == (0, 0)
    assert moved["pitch_class_distance"] == pytest.approx(1)
    assert moved["degree_distance"] == pytest.approx(1)
    assert moved["melody_distance"] == pytest.approx(0.5)
