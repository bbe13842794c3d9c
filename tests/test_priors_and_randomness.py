"""The counter-based generator against its published vectors, and the priors made from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from gan_core.priors import PRIORS, Gaussian, Integers, Prior, Uniform, create_prior, draw
from gan_core.randomness import philox, random_words, stream_key, uniforms

FULL = 0xFFFFFFFF
EVERY_PRIOR = [Gaussian(), Uniform(-1.0, 1.0), Uniform(0.0, 1.0), Integers(7)]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((FULL,) * 4, FULL << 32 | FULL, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0 << 32 | 0xA4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(
    counter: tuple[int, int, int, int], key: int, expected: str
) -> None:
    words = philox(tuple(torch.tensor([word]) for word in counter), key)  # type: ignore[arg-type]
    assert " ".join(f"{word.item():08x}" for word in words) == expected


def test_words_are_32_bits_and_as_many_as_asked_rounded_up_to_four() -> None:
    words = random_words(stream_key(3, "x"), torch.arange(50), 5)
    assert words.shape == (50, 8)
    assert words.min() >= 0
    assert words.max() <= FULL
    assert len(words.unique()) == words.numel()


def test_samples_beyond_32_bits_have_numbers_of_their_own() -> None:
    near = random_words(1, torch.tensor([5]), 4)
    far = random_words(1, torch.tensor([5 + 2**32]), 4)
    assert not torch.equal(near, far)


def test_a_streams_key_depends_on_the_seed_and_on_every_name() -> None:
    keys = {
        stream_key(0, "a", "b"),
        stream_key(1, "a", "b"),
        stream_key(0, "ab"),
        stream_key(0, "a", "c"),
        stream_key(0, "b", "a"),
    }
    assert len(keys) == 5
    assert stream_key(0, "a", "b") in keys


@pytest.mark.parametrize("prior", EVERY_PRIOR, ids=str)
def test_a_slice_of_the_samples_equals_the_slice_of_the_whole_bit_for_bit(prior: Prior) -> None:
    whole = draw(prior, 42, torch.arange(1000, 1097), (3, 5))
    for part in (slice(0, 1), slice(0, 48), slice(48, 97), slice(90, 97)):
        assert torch.equal(draw(prior, 42, torch.arange(1000, 1097)[part], (3, 5)), whole[part])


@pytest.mark.parametrize("prior", EVERY_PRIOR, ids=str)
def test_the_order_of_the_samples_does_not_matter(prior: Prior) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    whole = draw(prior, 42, torch.arange(64), (7,))
    assert torch.equal(draw(prior, 42, order, (7,)), whole[order])


@pytest.mark.parametrize(
    ("prior", "distribution"),
    [
        (Gaussian(), stats.norm()),
        (Uniform(-1.0, 1.0), stats.uniform(-1, 2)),
        (Uniform(0.0, 1.0), stats.uniform(0, 1)),
        (Uniform(-(3**0.5), 3**0.5), stats.uniform(-(3**0.5), 2 * 3**0.5)),
    ],
    ids=["normal", "-1 to 1", "0 to 1", "-sqrt 3 to sqrt 3"],
)
def test_priors_have_their_distribution_and_moments(
    prior: Prior, distribution: stats.rv_continuous
) -> None:
    values = draw(prior, stream_key(0, "moments"), torch.arange(20_000), (10,)).double().numpy()
    assert stats.kstest(values[:, 3], distribution.cdf).pvalue > 1e-3
    assert stats.kstest(values[17], distribution.cdf).pvalue > 1e-3
    deviation = distribution.std()
    error = deviation / np.sqrt(values.size)
    assert abs(values.mean() - distribution.mean()) < 4 * error
    assert values.std() == pytest.approx(deviation, rel=0.01)


def test_dimensions_and_samples_are_uncorrelated() -> None:
    values = draw(Gaussian(), 9, torch.arange(20_000), (8,)).double()
    correlations = np.corrcoef(values.T.numpy()) - np.eye(8)
    assert np.abs(correlations).max() < 4.5 / np.sqrt(20_000)
    neighbours = np.corrcoef(values[:-1, 0].numpy(), values[1:, 0].numpy())[0, 1]
    assert abs(neighbours) < 4.5 / np.sqrt(20_000)


def test_noise_is_what_earlier_versions_drew() -> None:
    """A run that goes on, and a generator's samples by number, need the very same."""
    assert stream_key(3, "train", "latent") == 0x1A4DAFC0376014DE
    words = random_words(7, torch.arange(40), 6)
    first, second = ((words.numpy()[:, i::2] + 0.5) / 2**32 for i in (0, 1))
    pairs = np.sqrt(-2 * np.log(first)) * np.exp(2j * np.pi * second)
    expected = np.stack([pairs.real, pairs.imag], axis=2).reshape(40, 8)[:, :6].reshape(40, 2, 3)
    values = draw(Gaussian(), 7, torch.arange(40), (2, 3))
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_extreme_words_give_finite_noise_inside_the_bounds() -> None:
    words = torch.tensor([[0, 0, FULL, FULL], [0, FULL, FULL, 0]])
    assert torch.isfinite(Gaussian().from_words(words)).all()
    inside = uniforms(words)
    assert inside.min() > 0
    assert inside.max() < 1
    integers = Integers(10).from_words(words)
    assert integers.tolist() == [[0, 0, 9, 9], [0, 9, 9, 0]]


def test_integers_are_equally_likely() -> None:
    values = draw(Integers(7), stream_key(1, "integers"), torch.arange(70_000), ())
    counts = torch.bincount(values, minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_the_shape_is_the_samples_and_then_the_shape_asked_for() -> None:
    assert draw(Gaussian(), 0, torch.arange(3), ()).shape == (3,)
    assert draw(Uniform(), 0, torch.arange(3), (2, 5)).shape == (3, 2, 5)
    assert draw(Integers(4), 0, torch.arange(3), (2,)).dtype == torch.int64
    assert draw(Gaussian(), 0, torch.arange(3), (2,)).dtype == torch.float32


def test_priors_are_created_by_name_and_take_their_bounds() -> None:
    assert [type(create_prior(name)) for name in PRIORS] == [Gaussian, Uniform]
    assert create_prior("uniform", 0.0, 3.0) == Uniform(0.0, 3.0)
    values = draw(create_prior("uniform", 2.0, 3.0), 0, torch.arange(1000), (4,))
    assert 2 < values.min() < 2.01
    assert 2.99 < values.max() < 3
    assert create_prior("uniform") == Uniform() == Uniform(-1.0, 1.0)


def test_drawing_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    draw(Gaussian(), 0, torch.arange(10), (3,))
    assert torch.equal(torch.random.get_rng_state(), before)
