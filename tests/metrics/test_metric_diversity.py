"""Exact facts of the metrics of diversity, and of their figures on samples of known kinds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from gan_core.metrics import bins, diversity, similarity
from gan_core.metrics.bins import BINS, Bins, compare_counts, count_bins
from gan_core.metrics.coverage import mixture_figures, mode_figures
from gan_core.metrics.diversity import (
    NEAR,
    RealDiversity,
    birthday_support,
    distances_of_pairs,
    vendi_score,
)


def gaussian(count: int, dimensions: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


# -- Vendi score -----------------------------------------------------------------------------------


def test_vendi_of_identical_things_is_one_and_of_orthogonal_ones_their_number() -> None:
    assert vendi_score(torch.ones(7, 3) * 0.4) == pytest.approx(1.0, abs=1e-9)
    for count in (1, 5, 12):
        assert vendi_score(3 * torch.eye(12)[:count]) == pytest.approx(count, rel=1e-9)
    assert vendi_score(torch.eye(4).repeat(9, 1)) == pytest.approx(4, rel=1e-9)


@pytest.mark.parametrize(("count", "dimensions"), [(9, 30), (30, 9)])
def test_vendi_is_the_entropy_of_the_similarities_eigenvalues(count: int, dimensions: int) -> None:
    rows = gaussian(count, dimensions).double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / count)
    values = values[values > 1e-12]
    expected = math.exp(-(values * np.log(values)).sum())
    assert vendi_score(torch.from_numpy(rows)) == pytest.approx(expected, rel=1e-8)


# -- birthday paradox ------------------------------------------------------------------------------


def test_the_birthday_estimate_on_a_uniform_discrete_support() -> None:
    generator = torch.Generator().manual_seed(0)
    support = gaussian(500)
    estimates = [
        birthday_support(
            distances_of_pairs(support[torch.randint(500, (300,), generator=generator)]), near=1e-3
        )
        for _ in range(60)
    ]
    # 1 / estimate is unbiased for 1 / 500: with 44,850 pairs a draw its relative error is 1.4 %.
    assert 1 / np.mean([1 / e for e in estimates]) == pytest.approx(500, rel=0.06)


def test_without_a_collision_the_estimate_is_the_number_of_pairs() -> None:
    assert birthday_support(distances_of_pairs(gaussian(40)), near=1e-6) == 40 * 39 / 2
    assert birthday_support(distances_of_pairs(torch.ones(40, 2)), near=1e-6) == 1.0


# -- NDB -------------------------------------------------------------------------------------------


def test_train_against_train_differs_in_a_twentieth_of_the_bins() -> None:
    shares = [
        Bins(gaussian(4000, seed=2 * s)).compare(gaussian(4000, seed=2 * s + 1)).ndb
        for s in range(6)
    ]
    # 600 tests at 5 %: 30 expected, standard deviation 5.3.
    assert 0.02 < np.mean(shares) < 0.08


@pytest.mark.parametrize(("count", "dimensions"), [(300, 1280), (1257, 64), (2000, 1280)])
def test_no_more_bins_differ_in_many_dimensions_or_of_few_examples(
    count: int, dimensions: int
) -> None:
    real, fake = gaussian(count, dimensions), gaussian(2000, dimensions, seed=1)
    assert Bins(real).compare(fake).ndb < 0.1


def test_the_pooled_two_proportion_test_of_each_bin() -> None:
    # z of 60 of 1,000 against 40 of 1,000 is 2.05, of 58 against 40 it is 1.86.
    first, second = torch.tensor([60.0, 940.0]), torch.tensor([40.0, 960.0])
    assert compare_counts(first, second).ndb == 1.0
    assert compare_counts(torch.tensor([58.0, 942.0]), second).ndb == 0.0
    three = compare_counts(torch.tensor([60.0, 40.0, 900.0]), torch.tensor([40.0, 40.0, 920.0]))
    assert three.ndb == pytest.approx(1 / 3)


def test_the_divergence_of_equal_and_of_disjoint_shares() -> None:
    assert compare_counts(torch.tensor([3.0, 1.0]), torch.tensor([6.0, 2.0])).jensen_shannon == 0
    apart = compare_counts(torch.tensor([5.0, 0.0]), torch.tensor([0.0, 9.0]))
    assert apart.jensen_shannon == pytest.approx(math.log(2))
    assert apart.ndb == 1.0


def test_a_dropped_half_of_the_data_shows_in_most_bins() -> None:
    real = gaussian(4000)
    half = gaussian(8000, seed=1)
    half = half[half[:, 0] > 0]
    assert Bins(real).compare(half).ndb > 0.5


def test_the_divergence_of_equal_distributions_is_what_the_docstring_says() -> None:
    found = [
        Bins(gaussian(4000, seed=2 * s)).compare(gaussian(3000, seed=2 * s + 1)).jensen_shannon
        for s in range(4)
    ]
    assert np.mean(found) == pytest.approx(99 * (1 / 2000 + 1 / 3000) / 8, rel=0.15)


def test_small_data_have_fewer_bins() -> None:
    assert (count_bins(5), count_bins(400), count_bins(50_000)) == (1, 20, BINS)
    assert len(Bins(gaussian(400)).centres) == 20


def test_few_samples_have_fewer_bins_in_which_a_collapse_is_seen() -> None:
    assert [count_bins(1257, n) for n in (5, 64, 600, 2000)] == [1, 6, 60, 62]
    real, collapsed = gaussian(1257), gaussian(64, seed=1) * 0.01
    assert RealDiversity(real).figures(collapsed)["ndb"] < 0.1  # one or two in most bins
    assert RealDiversity(real, samples=64).figures(collapsed)["ndb"] > 0.5
    alike = RealDiversity(real, samples=64).figures(gaussian(64, seed=2))
    assert alike["ndb"] < 0.2


def test_no_example_both_finds_a_bin_and_is_counted_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [int(Bins(gaussian(n, 2)).counts.sum()) for n in (2, 401)] == [1, 200]
    monkeypatch.setattr("gan_core.metrics.bins.SEEKERS", 30)
    counted: list[Tensor] = []
    monkeypatch.setattr(Bins, "_count", lambda _, points: counted.append(points))
    real = torch.arange(100.0)[:, None]
    bins = Bins(real, bins=1)
    sought = (bins.centres + bins.centre).item() * 30
    assert len(set(counted[0].flatten().tolist())) == 70
    assert sought + counted[0].sum().item() == pytest.approx(real.sum().item())


def test_data_whose_kinds_take_turns_are_like_others() -> None:
    def kinds(label: Tensor, seed: int) -> Tensor:
        return gaussian(len(label), seed=seed) + 3 * label[:, None]

    generator = torch.Generator().manual_seed(2)
    real = kinds(torch.arange(2000) % 2, 0)
    fake = kinds(torch.randint(2, (2000,), generator=generator), 1)
    assert Bins(real).compare(fake).ndb < 0.15  # by every other one 0.64


# -- all figures together --------------------------------------------------------------------------


def test_the_distances_of_pairs_are_scipys() -> None:
    rows = gaussian(40)
    expected = torch.from_numpy(pdist(rows.double().numpy()))
    torch.testing.assert_close(distances_of_pairs(rows), expected, rtol=1e-9, atol=0)


def test_the_distances_of_samples_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = RealDiversity(gaussian(80)), gaussian(50)
    distances = pdist((made - real.centre).double().numpy())
    measured, own = [], torch.nn.functional.pdist
    monkeypatch.setattr(
        torch.nn.functional, "pdist", lambda rows: measured.append(len(rows)) or own(rows)
    )
    found = real.figures(made)
    assert measured == [50]
    assert found["distance_ratio"] == pytest.approx(distances.mean() / real.distance)
    near = (distances <= real.near_each_other).sum()
    assert found["birthday_support"] == len(distances) / max(1, near)


@pytest.mark.parametrize("pairs", [1, 700, 2**26])
def test_the_nearest_are_found_a_few_rows_at_a_time(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "_PAIRS_AT_ONCE", pairs)
    points, others = gaussian(41), gaussian(90, seed=1)
    expected = torch.from_numpy(cdist(points.double(), others.double()).min(1))
    torch.testing.assert_close(diversity._nearest(points, others), expected)
    among = cdist(others[20:60].double(), others.double())
    among[np.arange(40), np.arange(20, 60)] = np.inf
    found = diversity._nearest(others[20:60], others, torch.arange(20, 60))
    torch.testing.assert_close(found, torch.from_numpy(among.min(1)))


def test_sums_of_bins_by_a_product_are_those_by_adding(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnAGPU:
        """What is asked of a tensor, which says that it is on a GPU."""

        device = torch.device("cuda")

        def __init__(self, points: Tensor) -> None:
            self.shape, self.new_zeros, self.split = points.shape, points.new_zeros, points.split

    monkeypatch.setattr(bins, "_AT_ONCE", 17)
    points, owner = gaussian(60, 5), torch.arange(60) * 7 % 6
    owner[owner == 4] = 3  # one bin is empty
    added = bins._sums(points, owner, 6)
    multiplied = bins._sums(OnAGPU(points), owner, 6)  # type: ignore[arg-type]
    torch.testing.assert_close(multiplied, added)
    assert not added[4].any()


def test_one_bin_that_holds_all_tells_nothing() -> None:
    for real, fake in ((39, 100), (100, 19)):
        assert "ndb" not in RealDiversity(gaussian(real), fake).figures(gaussian(fake) + 100)
    found = RealDiversity(gaussian(40), 20).figures(gaussian(20) + 100)
    assert found["bin_divergence"] > 0


def test_samples_that_differ_as_little_as_real_ones_have_a_ratio_of_one() -> None:
    same = torch.ones(50, 3)
    assert RealDiversity(same).figures(same)["distance_ratio"] == 1
    assert RealDiversity(same).figures(gaussian(50, 3))["distance_ratio"] > 1e6


def test_samples_like_the_real_ones_have_figures_of_one() -> None:
    found = RealDiversity(gaussian(3000, 4)).figures(gaussian(2000, 4, seed=1))
    assert found["ndb"] < 0.15
    assert found["bin_divergence"] < 0.02
    assert found["vendi_ratio"] == pytest.approx(1, abs=0.02)
    assert found["distance_ratio"] == pytest.approx(1, abs=0.03)
    assert found["copied_share"] == pytest.approx(NEAR, abs=0.01)


@pytest.mark.parametrize(("real", "fake"), [(100, 600), (600, 100), (300, 300)])
def test_the_vendi_ratio_is_one_whatever_the_numbers(real: int, fake: int) -> None:
    spectrum = torch.arange(1, 257) ** -0.5
    reference = RealDiversity(gaussian(real, 256) * spectrum)
    found = reference.figures(gaussian(fake, 256, seed=1) * spectrum)
    assert found["vendi_ratio"] == pytest.approx(1, abs=0.1)  # of all of them 0.6 and 1.6


def test_copies_of_few_training_examples_are_seen_as_such() -> None:
    real = gaussian(3000)
    copies = real[:20][torch.randint(20, (1500,), generator=torch.Generator().manual_seed(3))]
    found = RealDiversity(real).figures(copies)
    assert found["copied_share"] == 1.0
    assert found["birthday_support"] == pytest.approx(20, rel=0.1)
    assert found["ndb"] > 0.7
    assert found["vendi_ratio"] < 1


def test_what_is_near_is_what_brute_force_finds() -> None:
    real = gaussian(300, 3)
    distances = cdist(real.double().numpy(), real.double().numpy())
    np.fill_diagonal(distances, np.inf)
    near = np.quantile(distances.min(1), NEAR)
    reference = RealDiversity(real)
    assert reference.near_training == pytest.approx(near, rel=1e-4)
    fake = gaussian(200, 3, seed=1)
    nearest = cdist(fake.double().numpy(), real.double().numpy()).min(1)
    assert reference.figures(fake)["copied_share"] == pytest.approx((nearest < near).mean())


@pytest.mark.parametrize("noise", [0.0, 1e-4])
@pytest.mark.parametrize("twice", [30, 100, 500])
def test_pictures_that_the_data_hold_twice_hide_no_copies(twice: int, noise: float) -> None:
    real = gaussian(1000, 64)
    real = torch.cat((real, real[:twice] + noise * gaussian(twice, 64, seed=7)))
    reference, plain = RealDiversity(real), RealDiversity(real[:1000])
    assert reference.near_training == pytest.approx(plain.near_training, rel=0.02)
    assert reference.near_each_other == pytest.approx(plain.near_each_other, rel=0.02)
    copies = real[:10][torch.randint(10, (400,), generator=torch.Generator().manual_seed(3))]
    found = reference.figures(copies)
    assert found["copied_share"] == 1.0
    assert found["birthday_support"] == pytest.approx(10, rel=0.1)
    assert reference.figures(gaussian(400, 64, seed=1))["copied_share"] < 0.05


def test_new_samples_are_no_copies_where_classes_lie_far_from_each_other() -> None:
    def kinds(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        far = 300.0 * torch.randint(2, (count, 1), generator=generator)
        return torch.cat((far, gaussian(count, 5, seed=seed)), 1)

    reference = RealDiversity(kinds(4000, 0))
    assert reference.figures(kinds(2000, 1))["copied_share"] < 0.02  # 0.01 expected
    assert reference.figures(kinds(4000, 0)[:2000])["copied_share"] == 1.0


def test_a_picture_that_the_data_repeat_is_counted_as_often_as_it_is_made() -> None:
    def data(count: int, seed: int) -> Tensor:
        return gaussian(count, 64, seed=seed).index_fill_(0, torch.arange(count // 10), 3.0)

    found = RealDiversity(data(1000, 0)).figures(data(1000, 1))
    assert found["birthday_support"] == pytest.approx(100, rel=0.02)  # 1 / 0.1^2
    assert found["copied_share"] == pytest.approx(0.11, abs=0.01)


def test_copies_are_seen_in_data_that_hold_everything_twice() -> None:
    real = gaussian(500, 16).repeat(2, 1)
    assert RealDiversity(real).figures(real[::3])["copied_share"] == 1.0
    assert RealDiversity(real).figures(gaussian(400, 16, seed=1))["copied_share"] == 0.0
    assert RealDiversity(torch.ones(50, 4)).figures(torch.ones(20, 4))["copied_share"] == 1.0


# -- MS-SSIM within classes ------------------------------------------------------------------------


def images(count: int, size: int = 16) -> Tensor:
    return gaussian(count, size * size).reshape(count, 1, size, size).clamp(-1, 1)


def test_equal_pictures_are_fully_similar_and_only_pairs_of_a_class_count() -> None:
    one, other = images(2)
    same = torch.stack([one] * 4 + [other] * 4)
    labels = torch.tensor([0] * 4 + [1] * 4)
    assert similarity.similarity_within_classes(same, labels) == pytest.approx(1.0)
    assert similarity.similarity_within_classes(same, 1 - labels) == pytest.approx(1.0)
    mixed = similarity.similarity_within_classes(same, labels.roll(2))
    assert mixed < 0.9
    assert math.isnan(similarity.similarity_within_classes(same[:2], torch.tensor([0, 1])))


@pytest.mark.parametrize("size", [8, 16, 28, 32, 64, 200])
def test_every_size_has_scales(size: int) -> None:
    window, weights = similarity.scales(size)
    assert sum(weights) == pytest.approx(1)
    assert size // 2 ** (len(weights) - 1) >= window
    pictures = images(2, size)
    assert similarity.ms_ssim(pictures, pictures) == pytest.approx(1.0)
    assert similarity.ms_ssim(pictures, pictures.flip(0)) < 0.5
    assert (size == 200) == (len(weights) == 5)


def test_no_size_has_more_scales_than_torchmetrics_accepts() -> None:
    for size in range(4, 201):
        window, weights = similarity.scales(size)
        assert size // max(1, len(weights) - 1) ** 2 > window - 1, size
        assert size >= 2 ** len(weights), size
    for size in (4, 13, 14, 21, 22, 43, 44, 87, 88, 98, 99, 175, 176):
        pictures = images(2, size)
        assert similarity.ms_ssim(pictures, pictures) == pytest.approx(1.0), size


# -- what the others promise -----------------------------------------------------------------------


def test_the_least_mode_ratio_is_that_of_the_rarest_class() -> None:
    balance = torch.tensor([0.5, 0.3, 0.2, 0.0])
    predicted = torch.tensor([0] * 50 + [1] * 45 + [2] * 5)
    assert mode_figures(predicted, balance)["least_mode_ratio"] == pytest.approx(0.05 / 0.2)
    assert mode_figures(predicted[:50], balance)["least_mode_ratio"] == 0


def test_points_belong_to_their_nearest_mode_whatever_their_quality() -> None:
    modes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    points = torch.tensor([[0.1, 0.0]] * 6 + [[0.9, 0.1]] * 4)
    found = mixture_figures(points, modes, 0.01)
    assert found["modes_covered"] == 0
    assert found["least_mode_ratio"] == 0
    expected = 0.6 * math.log(0.6 * 4) + 0.4 * math.log(0.4 * 4)
    assert found["mode_kl"] == pytest.approx(expected)


def test_vendi_of_zeros_is_one() -> None:
    assert vendi_score(torch.zeros(5, 3)) == 1.0
