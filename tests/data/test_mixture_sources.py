from __future__ import annotations

import math

import pytest
import torch

from gan_core.data import MIXTURES, check_examples, grid_modes, load_examples, ring_modes

PERFECT_SHARE = 1 - math.exp(-4.5)  # of a 2-D Gaussian within 3 standard deviations


def nearest(name: str, split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    points = load_examples(name, None, split).tensors["point"]
    distance, index = torch.cdist(points.double(), MIXTURES[name].modes.double()).min(dim=1)
    return distance / MIXTURES[name].sigma, index


def test_the_ring_has_eight_different_modes_at_multiples_of_45_degrees():
    modes = ring_modes().double()
    h = math.sqrt(0.5)
    expected = [(1, 0), (h, h), (0, 1), (-h, h), (-1, 0), (-h, -h), (0, -1), (h, -h)]
    torch.testing.assert_close(modes, torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_the_grid_has_every_pair_of_five_ticks():
    pairs = {(float(x), float(y)) for x, y in grid_modes()}
    assert pairs == {(float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}
    assert len(grid_modes()) == 25


@pytest.mark.parametrize(("name", "sigma"), [("ring", 0.01), ("grid", 0.05)])
def test_the_protocols_standard_deviation(name, sigma):
    assert MIXTURES[name].sigma == sigma


@pytest.mark.parametrize("name", ["ring", "grid"])
@pytest.mark.parametrize(("split", "size"), [("train", 100_000), ("validation", 10_000)])
def test_a_mixture_split_has_its_size_and_passes_every_check(name, split, size):
    examples = load_examples(name, None, split)
    assert examples.tensors["point"].shape == (size, 2)
    assert examples.spec.target == "point"
    assert examples.spec.classes == 0
    check_examples(examples, batch_size=512)


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_the_share_within_three_standard_deviations_is_that_of_a_perfect_generator(name):
    distance, _ = nearest(name)
    standard_error = math.sqrt(PERFECT_SHARE * (1 - PERFECT_SHARE) / 100_000)
    share = (distance < 3).double().mean().item()
    assert abs(share - PERFECT_SHARE) < 4 * standard_error


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_modes_are_equally_likely(name):
    _, index = nearest(name)
    modes = len(MIXTURES[name].modes)
    counts = torch.bincount(index, minlength=modes).double()
    expected = 100_000 / modes
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_squared < modes - 1 + 5 * math.sqrt(2 * (modes - 1))


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_the_points_are_the_same_each_time_and_differ_between_splits(name):
    first = load_examples(name, None, "validation")
    assert first.fingerprint == load_examples(name, None, "validation").fingerprint
    splits = {load_examples(name, None, s).fingerprint for s in ("train", "validation", "test")}
    assert len(splits) == 3


def test_the_points_never_change():
    found = {name: load_examples(name, None, "test").fingerprint for name in MIXTURES}
    assert found == {"ring": "d02e6605064cee60", "grid": "fe592c0cd6b53d48"}
