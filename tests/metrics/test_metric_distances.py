"""FID, KID and Inception Score against closed forms, scipy and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from gan_core.metrics import distances


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    return distances.RealMoments(real).frechet_distance(fake)


def kernel_distance(
    real: torch.Tensor, fake: torch.Tensor, subsets: int = distances.SUBSETS, seed: int = 0
) -> float:
    return distances.RealKernel(real, subsets, seed).distance(fake)


def whitened(count: int, dimension: int, seed: int) -> torch.Tensor:
    """Points (count, dimension), float64, whose sample mean is 0 and sample covariance is I."""
    points = torch.randn(
        count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    points -= points.mean(0)
    cholesky = torch.linalg.cholesky(points.T @ points / (count - 1))
    return torch.linalg.solve_triangular(cholesky, points.T, upper=False).T


def test_fid_of_equal_covariances_is_the_squared_distance_of_the_means():
    shift = torch.tensor([3.0, -1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    real, fake = whitened(300, 5, 0), whitened(200, 5, 1) + shift
    assert frechet_distance(real, fake) == pytest.approx(shift.square().sum().item(), abs=1e-9)


def test_fid_of_diagonal_covariances_is_the_squared_distance_of_the_deviations():
    scales = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    real, fake = whitened(300, 3, 0), whitened(300, 3, 1) * scales
    assert frechet_distance(real, fake) == pytest.approx(
        (scales - 1).square().sum().item(), abs=1e-9
    )


def test_fid_agrees_with_the_matrix_square_root_of_scipy():
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(8, 8, generator=generator)
    real = torch.randn(500, 8, generator=generator) @ mixing + 5
    fake = torch.randn(400, 8, generator=generator).abs()
    first, second = real.double().numpy(), fake.double().numpy()
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(
        c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real
    )
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("real", "fake"), [(300, 200), (40, 30), (300, 2), (2, 300), (300, 30_000)]
)
def test_fid_is_that_of_torchmetrics(real: int, fake: int) -> None:
    """With fewer examples than dimensions, and more than are summed at a time, as well."""
    generator = torch.Generator().manual_seed(real + fake)
    mixing = torch.randn(64, 64, generator=generator)
    first = (torch.randn(real, 64, generator=generator) @ mixing).relu() + 100
    second = (torch.randn(fake, 64, generator=generator) @ mixing).abs() + 101
    metric = FrechetInceptionDistance(distances._Given(64))
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    assert frechet_distance(first, second) == pytest.approx(metric.compute().item(), rel=1e-6)


def brute_force_kid(real: np.ndarray, fake: np.ndarray) -> float:
    """The unbiased MMD^2 of equal numbers, pair by pair."""
    count, dimension = real.shape

    def mean(left: np.ndarray, right: np.ndarray, all_pairs: bool) -> float:
        values = [
            (math.fsum(a * b) / dimension + 1) ** 3
            for i, a in enumerate(left)
            for j, b in enumerate(right)
            if all_pairs or i != j
        ]
        return math.fsum(values) / len(values)

    assert len(fake) == count
    return mean(real, real, False) + mean(fake, fake, False) - 2 * mean(real, fake, True)


def test_kid_of_one_subset_is_the_unbiased_mmd():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(30, 6, generator=generator)
    fake = torch.randn(30, 6, generator=generator) + 0.5
    expected = brute_force_kid(real.double().numpy(), fake.double().numpy())
    assert kernel_distance(real, fake) == pytest.approx(expected, rel=1e-10)


def test_kid_of_random_subsets_tends_to_the_mmd_of_all():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(40, 6, generator=generator)
    fake = torch.randn(60, 6, generator=generator) + 1
    values = [kernel_distance(real, fake, seed=s) for s in range(4)]
    halves = [
        brute_force_kid(real.double().numpy(), fake[s : s + 40].double().numpy()) for s in (0, 20)
    ]
    assert min(halves) * 0.8 < np.mean(values) < max(halves) * 1.2
    assert kernel_distance(real, fake, seed=1) == values[1]
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ("real", "fake", "subsets"),
    [
        (1_100, 1_300, 4),
        (2_100, 1_500, 4),
        (4_000, 1_001, 2),
        (90, 60, 3),
        (60, 90, 3),
        (50, 50, 3),
    ],
)
def test_kid_is_that_of_torchmetrics(real: int, fake: int, subsets: int) -> None:
    """By all pairs of either side or by the members of the subsets, whichever are less; again."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(real, 7, generator=generator)
    second = torch.randn(fake, 7, generator=generator) + 0.3
    size = min(1_000, real, fake)
    metric = KernelInceptionDistance(distances._Given(7), subsets=subsets, subset_size=size)
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    torch.manual_seed(5)
    expected = metric.compute()[0].item()
    kernel = distances.RealKernel(first, subsets, seed=5)
    assert kernel.distance(second) == pytest.approx(expected, rel=1e-9)
    shifted = kernel.distance(second + 0.1)
    assert shifted > kernel.distance(second)
    assert kernel.distance(second) == pytest.approx(expected, rel=1e-9)
    assert kernel.distance(second[:-1]) == kernel_distance(first, second[:-1], subsets, 5)


def test_kid_looks_at_no_more_pairs_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = distances._kernel

    def counted(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        seen.append(len(first) * len(second))
        return plain(first, second)

    monkeypatch.setattr(distances, "_kernel", counted)
    kernel = distances.RealKernel(torch.zeros(8_000, 1))
    for of_real in (100 * 1_000**2, 0):  # once
        seen.clear()
        kernel.distance(torch.zeros(2_000, 1))
        assert sum(seen) == of_real + 8_000 * 2_000 + 2_000**2
    kernel.distance(torch.zeros(7_100, 1))
    assert sum(seen[-300:]) == 3 * 100 * 1_000**2


def test_kid_subsets_hold_a_thousand_or_all_there_are():
    assert distances.kernel_subset_size(5_000, 2_000) == 1_000
    assert distances.kernel_subset_size(5_000, 300) == 300


@pytest.mark.parametrize("classes", [2, 10])
def test_inception_score_of_certain_and_balanced_predictions_is_the_number_of_classes(classes):
    logits = 300 * torch.eye(classes).repeat(5, 1)
    assert distances.inception_score(logits, splits=1) == pytest.approx(classes, rel=1e-12)


def test_inception_score_of_one_prediction_for_all_is_one():
    logits = torch.tensor([2.0, -1.0, 0.3]).repeat(40, 1)
    assert distances.inception_score(logits) == pytest.approx(1, abs=1e-12)


def test_inception_score_of_certain_predictions_of_one_class_is_a_number():
    logits = torch.tensor([300.0, 0.0, -300.0]).repeat(40, 1)
    assert distances.inception_score(logits) == pytest.approx(1, abs=1e-12)


def test_inception_score_agrees_with_its_definition():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3
    p = torch.softmax(logits.double(), 1).numpy()
    expected = math.exp(np.mean((p * np.log(p / p.mean(0))).sum(1)))
    assert distances.inception_score(logits, splits=1) == pytest.approx(expected, rel=1e-10)


def test_distances_leave_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    frechet_distance(features, features + 1)
    kernel_distance(features, features[:15])
    distances.inception_score(features)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("samples", [1, 7, 10, 12, 21, 95, 2000])
def test_the_splits_that_are_told_are_those_that_are_made(samples):
    made = torch.zeros(samples, 3).chunk(distances.SPLITS)  # as torchmetrics cuts them
    assert distances.score_splits(samples) == len(made)
