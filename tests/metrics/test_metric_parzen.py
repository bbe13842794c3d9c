"""Parzen log-likelihood against brute force and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity

from gan_core.data.examples import DataSpec, Examples, TensorSpec, to_unit_range
from gan_core.engine.world import World
from gan_core.metrics import parzen


def pictures(count: int, seed: int) -> Examples:
    shape = (1, 4, 4)
    pixels = torch.randint(
        0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    spec = DataSpec({"image": TensorSpec(shape, -1, 1)})
    return Examples({"image": pixels}, spec, "noise", "validation")


@pytest.mark.parametrize("tile", [1 << 22, 100])
def test_log_likelihood_equals_brute_force(monkeypatch, tile):
    monkeypatch.setattr(parzen, "_TILE", tile)
    random = np.random.default_rng(0)
    examples, samples = random.random((17, 12)), random.random((23, 12))
    sigmas = (0.1, 0.35, 1.0)
    ours = parzen.log_likelihoods(torch.tensor(examples), torch.tensor(samples), sigmas)
    for row, sigma in enumerate(sigmas):
        squares = ((examples[:, None] - samples[None]) ** 2).sum(2)
        density = np.exp(-squares / (2 * sigma**2)).mean(1) / (sigma * math.sqrt(2 * math.pi)) ** 12
        np.testing.assert_allclose(ours[row].numpy(), np.log(density), rtol=1e-10)
        tree = KernelDensity(bandwidth=sigma, rtol=1e-12).fit(samples)
        np.testing.assert_allclose(ours[row].numpy(), tree.score_samples(examples), rtol=1e-8)


def test_float32_pictures_near_their_samples_lose_no_precision():
    examples = torch.rand(5, 784, generator=torch.Generator().manual_seed(0))
    ours = parzen.log_likelihoods(examples, examples + 1e-4, (0.1,))
    squares = (examples.double()[:, None] - (examples + 1e-4).double()[None]).square().sum(2)
    constant = 784 * math.log(0.1 * math.sqrt(2 * math.pi))
    expected = torch.logsumexp(squares / -0.02, 1) - math.log(5) - constant
    torch.testing.assert_close(ours[0], expected, rtol=0, atol=1e-9)


def test_a_far_example_has_a_finite_log_likelihood():
    far = parzen.log_likelihoods(torch.ones(1, 784), torch.zeros(3, 784), (0.1,))
    expected = -784 / 0.02 - 784 * math.log(0.1 * math.sqrt(2 * math.pi))
    assert far.item() == pytest.approx(expected)


def test_the_protocol_chooses_sigma_on_validation_and_reports_the_test_set():
    assert pytest.approx(np.logspace(-1, 0, 10)) == parzen.SIGMAS
    validation, test, source = pictures(1100, 0), pictures(50, 1), pictures(40, 2)
    images = to_unit_range(source.tensors["image"])
    figures = parzen.parzen_figures(
        lambda index: images[index],
        validation=validation,
        test=test,
        world=World(),
        samples=40,
        batch_size=16,
    )
    samples = source.tensors["image"].flatten(1).numpy() / 255
    tuning = validation.tensors["image"].flatten(1).numpy()[:1000] / 255
    scores = [
        KernelDensity(bandwidth=s, rtol=1e-12).fit(samples).score_samples(tuning).mean()
        for s in np.logspace(-1, 0, 10)
    ]
    best = np.logspace(-1, 0, 10)[np.argmax(scores)]
    judged = KernelDensity(bandwidth=best, rtol=1e-12).fit(samples)
    values = judged.score_samples(test.tensors["image"].flatten(1).numpy() / 255)
    assert figures["parzen_sigma"] == pytest.approx(best)
    assert figures["parzen_validation"] == pytest.approx(max(scores), rel=1e-6)
    assert figures["parzen_log_likelihood"] == pytest.approx(values.mean(), rel=1e-6)
    assert figures["parzen_standard_error"] == pytest.approx(
        values.std(ddof=1) / math.sqrt(50), rel=1e-5
    )


def test_the_protocol_names_the_pictures_that_were_scored():
    one, two, tuned = pictures(50, 1), pictures(50, 2), pictures(50, 0)
    lines = [parzen.parzen_protocol(tuned, test) for test in (one, one, two, None)]
    assert lines[0] == lines[1] != lines[2]
    assert f"50 images of validation of noise (data {one.fingerprint[:8]})" in lines[0]
    assert "no test images" in lines[3]


def test_samples_that_are_not_finite_give_nan_and_a_warning(caplog):
    figures = parzen.parzen_figures(
        lambda index: torch.full((len(index), 1, 4, 4), math.nan),
        validation=pictures(20, 0),
        test=None,
        world=World(),
        samples=10,
    )
    assert set(figures) == {"parzen_validation", "parzen_sigma"}
    assert all(math.isnan(v) for v in figures.values())
    assert "10 of 10 samples are not finite" in caplog.text
