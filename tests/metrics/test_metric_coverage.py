"""Modes counted against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from gan_core.data.mixtures import MIXTURES
from gan_core.metrics import coverage


def test_modes_are_the_classes_with_at_least_one_sample():
    predicted = torch.tensor([0, 0, 3, 3, 3, 4])
    figures = coverage.mode_figures(predicted, torch.full((6,), 1 / 6))
    assert figures["modes_covered"] == 3


def test_mode_kl_agrees_with_scipy():
    predicted = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    balance = torch.tensor([0.2, 0.3, 0.4, 0.1], dtype=torch.float64)
    expected = scipy.stats.entropy([0.5, 0.3, 0.2, 0.0], balance.numpy())
    assert coverage.mode_figures(predicted, balance)["mode_kl"] == pytest.approx(expected)


def test_mode_kl_of_the_real_balance_is_zero_and_of_one_class_the_log_of_their_number():
    balance = coverage.class_shares(torch.arange(10).repeat(7), 10)
    assert coverage.mode_figures(torch.arange(10), balance)["mode_kl"] == pytest.approx(
        0, abs=1e-12
    )
    collapsed = coverage.mode_figures(torch.zeros(50, dtype=torch.int64), balance)
    assert collapsed["mode_kl"] == pytest.approx(math.log(10))


def test_class_accuracy_is_the_share_of_agreement():
    asked = torch.tensor([0, 1, 2, 3])
    assert coverage.class_accuracy(torch.tensor([0, 1, 2, 0]), asked) == 0.75


@pytest.mark.parametrize(("name", "modes"), [("ring", 8), ("grid", 25)])
def test_a_perfect_sampler_scores_what_the_normal_distribution_says(name, modes):
    mixture = MIXTURES[name]
    random = np.random.default_rng(0)
    count = 100_000
    centres = mixture.modes.double().numpy()[random.integers(modes, size=count)]
    points = torch.from_numpy(centres + mixture.sigma * random.standard_normal((count, 2)))
    figures = coverage.mixture_figures(points, mixture.modes, mixture.sigma)
    share = 1 - math.exp(-4.5)
    assert figures["modes_covered"] == modes
    assert figures["high_quality_share"] == pytest.approx(share, abs=0.0015)
    assert figures["smallest_mode_share"] == pytest.approx(share / modes, rel=0.1)
    # Half of r^2 is exponential, cut off at 4.5.
    spread = math.sqrt(1 - 4.5 * math.exp(-4.5) / share)
    assert figures["mode_spread"] == pytest.approx(spread, abs=0.005)


def test_the_spread_of_modes_is_that_of_good_points_about_their_own_means():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    random = np.random.default_rng(1)
    inner = [random.uniform(-0.2, 0.2, (n, 2)) for n in (5, 9, 1)]
    points = np.concatenate([m + p for m, p in zip(modes.numpy(), inner, strict=True)])
    points = torch.from_numpy(np.concatenate([points, [[5.0, 5.0], [0.0, 0.31]]]))
    # The pooled variance of the two modes that have one, by the book.
    pooled = (4 * inner[0].var(0, ddof=1) + 8 * inner[1].var(0, ddof=1)).mean() / 12
    figures = coverage.mixture_figures(points, modes, 0.1)
    assert figures["mode_spread"] == pytest.approx(math.sqrt(pooled) / 0.1, rel=1e-9)
    shifted = coverage.mixture_figures(modes.repeat(4, 1) + 0.1, modes, 0.1)
    assert shifted["mode_spread"] == pytest.approx(0, abs=1e-6)
    assert "mode_spread" not in coverage.mixture_figures(modes, modes, 0.1)


def test_three_sigma_is_the_edge_of_high_quality():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    points = torch.tensor([[0.299, 0.0], [0.0, -0.301], [9.9, 0.0], [5.0, 0.0]])
    figures = coverage.mixture_figures(points, modes, 0.1)
    assert figures == {
        "modes_covered": 2,
        "high_quality_share": 0.5,
        "smallest_mode_share": 0.25,
        "least_mode_ratio": 0.5,  # three points lie nearest to the first mode
        "mode_kl": pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
    }
    lost = coverage.mixture_figures(points[:2], modes, 0.1)
    assert lost["modes_covered"] == 1
    assert lost["smallest_mode_share"] == 0
