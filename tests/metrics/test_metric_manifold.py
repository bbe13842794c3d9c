"""Precision, recall, density and coverage against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gan_core.metrics import manifold


def brute_force(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    def pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.sqrt(((left[:, None] - right[None]) ** 2).sum(2))

    def radii(points: np.ndarray, k: int) -> np.ndarray:
        return np.sort(pairs(points, points), axis=1)[:, k]  # column 0 is the point itself

    between = pairs(real, fake)
    wide = radii(real, 5)
    return {
        "precision": (between <= radii(real, 3)[:, None]).any(0).mean(),
        "recall": (between <= radii(fake, 3)[None]).any(1).mean(),
        "density": (between < wide[:, None]).sum() / (5 * len(fake)),
        "coverage": (between.min(1) < wide).mean(),
    }


def normal(count: int, dimension: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tile", [1 << 22, 700])
def test_figures_equal_brute_force_whatever_the_chunks(monkeypatch, tile):
    monkeypatch.setattr(manifold, "_TILE", tile)
    real, fake = normal(150, 5, 0) + 20, normal(120, 5, 1) * 0.7 + 20.4
    result = manifold.RealManifold(real).compare(fake)
    expected = brute_force(real.double().numpy(), fake.double().numpy())
    for name, value in expected.items():
        assert value > 0.05, "the case must be able to tell"
        assert abs(value - 1) > 0.01, "the case must be able to tell"
        assert getattr(result, name) == pytest.approx(value, abs=1e-12), name
    assert result.recalled.double().mean().item() == pytest.approx(result.recall)


def test_identical_distributions_score_as_the_paper_derives():
    result = manifold.RealManifold(normal(4000, 8, 0)).compare(normal(4000, 8, 1))
    assert result.density == pytest.approx(1, abs=0.03)
    assert result.coverage == pytest.approx(1 - 2**-5, abs=0.01)


def test_of_fewer_samples_than_examples_coverage_is_what_the_docstring_says():
    result = manifold.RealManifold(normal(4000, 8, 0)).compare(normal(800, 8, 1))
    assert result.density == pytest.approx(1, abs=0.05)
    assert result.coverage == pytest.approx(1 - (4000 / 4800) ** 5, abs=0.02)


def test_a_collapsed_generator_is_precise_and_recalls_nothing():
    real = normal(200, 4, 0)
    result = manifold.RealManifold(real).compare(real[:1].repeat(50, 1))
    assert result.precision == 1
    assert result.recall <= 2 / 200
    assert result.coverage < 0.1


def test_figures_far_from_the_origin_do_not_cancel():
    # The shift is exact in float32; without centring, squares of 1e4 would swallow distances.
    real, fake = (normal(100, 3, s).mul(256).round() / 256 for s in (0, 1))
    near = manifold.RealManifold(real).compare(fake)
    far = manifold.RealManifold(real + 2**13).compare(fake + 2**13)
    assert far.density == pytest.approx(near.density, abs=0.01)
    near_radii, far_radii = (manifold.squared_radii(p, (3,))[0] for p in (fake, fake + 2**13))
    torch.testing.assert_close(far_radii, near_radii, rtol=1e-3, atol=1e-5)


def test_radii_of_few_points_reach_the_farthest():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    (radii,) = manifold.squared_radii(points, (5,))
    assert radii.tolist() == pytest.approx([9, 4, 9])


def test_positions_spread_over_sorted_examples():
    assert manifold.spread(7, 10).tolist() == list(range(7))
    chosen = manifold.spread(10_000, 1_000)
    assert torch.equal(chosen, manifold.spread(10_000, 1_000))
    assert (chosen // 10).tolist() == list(range(1_000))  # as many of each stretch


def test_positions_spread_over_kinds_that_take_turns():
    kinds = torch.bincount(manifold.spread(20_000, 2_000) % 10, minlength=10)
    assert kinds.min() > 150  # 200 expected, standard deviation 13
    kinds = torch.bincount(manifold.spread(15_001, 10_000) % 2, minlength=2)
    assert kinds.min() > 4_700


def test_recall_by_class_is_the_mean_of_its_examples():
    recalled = torch.tensor([True, False, True, True])
    shares = manifold.mean_by_class(recalled, torch.tensor([0, 0, 2, 2]), 4)
    assert shares[[0, 2]].tolist() == [0.5, 1.0]
    assert shares[[1, 3]].isnan().all()


def test_conditional_recall_takes_only_the_fakes_of_the_class():
    real = torch.cat([normal(60, 3, 0), normal(60, 3, 1) + 9])
    labels = torch.tensor([0] * 60 + [1] * 60)
    fake = torch.cat([normal(60, 3, 2), normal(60, 3, 3) + 9])
    right = manifold.class_recall(real, labels, fake, labels, 3)
    swapped = manifold.class_recall(real, labels, fake, 1 - labels, 3)
    ours = brute_force(real[:60].double().numpy(), fake[:60].double().numpy())
    assert right[0].item() == pytest.approx(ours["recall"], abs=1e-12)
    assert right[1] > 0.7
    assert swapped[:2].tolist() == [0, 0]
    assert right[2].isnan()
    missing = manifold.class_recall(real, labels, fake[:60], labels[:60], 2)
    assert missing[1] == 0
