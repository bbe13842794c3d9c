"""Figures asked for by hand, of what they cannot be made of: a line instead of a good figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_core.data.examples import to_pixels
from gan_core.errors import UserError
from gan_core.layers.minibatch import group_deviation
from gan_core.losses import LOSSES, gradient_penalty
from gan_core.metrics.bins import Bins
from gan_core.metrics.coverage import class_accuracy
from gan_core.metrics.distances import RealKernel, RealMoments
from gan_core.metrics.manifold import RealManifold
from gan_core.metrics.similarity import ms_ssim, similarity_within_classes
from gan_core.metrics.super_resolution import psnr, ssim
from gan_core.metrics.translation import closeness
from gan_core.priors import Gaussian, Uniform, truncated
from gan_core.randomness import random_words

PICTURES = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
FEATURES = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))


def within_classes(one: Tensor, other: Tensor) -> float:
    return similarity_within_classes(torch.cat((one, other)), torch.arange(8) % 2)


@pytest.mark.parametrize("figure", [psnr, ssim, ms_ssim, closeness, within_classes])
def test_pixels_are_no_values(figure: Callable[[Tensor, Tensor], Any]) -> None:
    figure(PICTURES, PICTURES)
    with pytest.raises(UserError, match=r"floats in \[-1, 1\] here, not torch\.uint8: .*to_unit"):
        figure(to_pixels(PICTURES), to_pixels(PICTURES))
    if figure is within_classes:  # which has both in one tensor
        return
    with pytest.raises(UserError, match=r"not torch\.uint8"):
        figure(PICTURES, to_pixels(PICTURES))


FIGURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "fid": lambda real, fake: RealMoments(real).frechet_distance(fake),
    "kid": lambda real, fake: RealKernel(real).distance(fake),
    "precision": lambda real, fake: RealManifold(real).compare(fake),
    "ndb": lambda real, fake: Bins(real).compare(fake),
}


@pytest.mark.parametrize("name", FIGURES)
def test_one_example_and_numbers_that_are_none_have_no_figure(name: str) -> None:
    figure, spoiled = FIGURES[name], FEATURES.clone()
    spoiled[7, 1] = math.nan
    figure(FEATURES, FEATURES + 0.1)
    fewest = 1 if name == "ndb" else 2  # of samples
    for real, fake in ((FEATURES[:1], FEATURES), (FEATURES, FEATURES[: fewest - 1])):
        with pytest.raises(UserError, match=r"features \(N, d\) of . examples or more"):
            figure(real, fake)
    for real, fake in ((spoiled, FEATURES), (FEATURES, spoiled)):
        with pytest.raises(UserError, match="1 of 60 features are not finite"):
            figure(real, fake)


def test_what_would_be_spread_over_every_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="are compared with"):
        class_accuracy(torch.arange(3), torch.arange(3)[:, None])
    real, fake = torch.zeros(4, 1), torch.zeros(4)
    loss = LOSSES["relativistic"]
    for side in (loss.discriminator, loss.generator):
        with pytest.raises(ValueError, match="pairs want equal shapes"):
            side(fake, real)
    with pytest.raises(ValueError, match=r"not torch\.uint8"):
        gradient_penalty(lambda x: x.sum(1), to_pixels(PICTURES), PICTURES, torch.rand(4))


def test_the_number_of_a_sample_is_the_same_in_every_type() -> None:
    index = torch.arange(5)
    for kind in (torch.int32, torch.int16, torch.uint8):
        assert random_words(3, index.to(kind), 7).equal(random_words(3, index, 7))
    for wrong in (index.float(), index[:, None], torch.tensor(3)):
        with pytest.raises(ValueError, match="numbers of samples are whole, in one row"):
            random_words(3, wrong, 7)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_noise_is_truncated_above_nothing(bound: float) -> None:
    for prior in (Gaussian(), Uniform(-1, 1)):
        with pytest.raises(UserError, match="truncated at a number above 0"):
            truncated(prior, bound)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_equal_examples_of_half_precision_have_a_deviation_without_slope(kind: torch.dtype) -> None:
    targets = torch.ones(4, 6, dtype=kind, requires_grad=True)
    found = group_deviation(targets, 4)
    assert found.dtype == kind
    found.sum().backward()
    assert targets.grad is not None
    assert (targets.grad == 0).all()
