"""Adversarial losses and penalties against closed forms and float64 references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy
from torch import Tensor, nn

from gan_core.errors import UserError
from gan_core.losses import LOSSES, gradient_penalty, r1_penalty, smoothed_discriminator


def logits(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def gradient_of(loss: Tensor, of: Tensor) -> np.ndarray:
    (gradient,) = torch.autograd.grad(loss, of, retain_graph=True)
    return gradient.numpy()


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_the_cross_entropy_at_one_half_is_twice_log_two(name: str) -> None:
    loss = LOSSES[name].discriminator(logits(0, 0, 0), logits(0, 0))
    assert loss.item() == pytest.approx(2 * math.log(2), abs=1e-15)


def test_the_generator_at_one_half_loses_log_two_or_gains_it() -> None:
    assert LOSSES["non-saturating"].generator(logits(0)).item() == pytest.approx(math.log(2))
    assert LOSSES["minimax"].generator(logits(0)).item() == pytest.approx(-math.log(2))


def test_the_discriminators_cross_entropy_equals_its_definition() -> None:
    real, fake = logits(-3.0, 0.5, 2.0), logits(-1.0, 4.0)
    expected = (
        -np.log(expit([-3.0, 0.5, 2.0])).mean() - np.log(1 - expit(np.array([-1.0, 4.0]))).mean()
    )
    assert LOSSES["minimax"].discriminator(real, fake).item() == pytest.approx(expected, abs=1e-12)


def test_generator_gradients_are_the_ones_the_paper_argues_with() -> None:
    values = (-6.0, -1.0, 0.0, 2.0)
    fake = logits(*values)
    minimax = gradient_of(4 * LOSSES["minimax"].generator(fake), fake)
    non_saturating = gradient_of(4 * LOSSES["non-saturating"].generator(fake), fake)
    np.testing.assert_allclose(minimax, -expit(values), atol=1e-12)
    np.testing.assert_allclose(non_saturating, -(1 - expit(values)), atol=1e-12)


def test_the_hinge_is_two_at_zero_and_zero_beyond_the_margins() -> None:
    hinge = LOSSES["hinge"]
    assert hinge.discriminator(logits(0, 0), logits(0, 0)).item() == 2
    assert hinge.discriminator(logits(1, 5), logits(-1, -7)).item() == 0
    assert hinge.discriminator(logits(-1.0), logits(2.0)).item() == 5
    assert hinge.generator(logits(3.0, -1.0)).item() == -1


def test_least_squares_values_and_boundary() -> None:
    loss = LOSSES["least-squares"]
    assert loss.discriminator(logits(1, 1), logits(0, 0)).item() == 0
    assert loss.discriminator(logits(3.0), logits(1.0)).item() == 0.5 * 4 + 0.5 * 1
    assert loss.generator(logits(-1.0, 1.0)).item() == 0.5 * (4 + 0) / 2
    assert loss.boundary == 0.5


def test_wasserstein_is_the_difference_of_means() -> None:
    loss = LOSSES["wasserstein"]
    assert loss.discriminator(logits(1.0, 3.0), logits(-2.0)).item() == -4
    assert loss.generator(logits(-2.0, 4.0)).item() == -1


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_finite_for_huge_logits(name: str, dtype: torch.dtype) -> None:
    real = torch.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
    fake = torch.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
    loss = LOSSES[name].discriminator(real, fake) + LOSSES[name].generator(fake, real)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(real.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(fake.grad).all()  # type: ignore[arg-type]


def test_a_confident_discriminator_still_teaches_the_non_saturating_generator() -> None:
    fake = torch.tensor([-1e4], requires_grad=True)
    LOSSES["non-saturating"].generator(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == -1


def test_the_best_discriminator_and_its_value_are_the_theorems() -> None:
    """Goodfellow et al. 2014, proposition 1 and theorem 1, on a discrete distribution."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    loss = LOSSES["minimax"].discriminator
    sure = torch.full((1,), 1e4, dtype=torch.float64)  # costs nothing where it is right

    def expected_loss(a: Tensor) -> Tensor:
        # An expectation is a weighted sum of the losses of single outcomes.
        real = torch.stack([loss(x[None], -sure) for x in a])
        fake = torch.stack([loss(sure, x[None]) for x in a])
        return (p * real).sum() + (q * fake).sum()

    best = torch.logit(p / (p + q)).requires_grad_()
    value = expected_loss(best)
    np.testing.assert_allclose(gradient_of(value, best), 0, atol=1e-15)
    assert min(expected_loss(best + 0.1 * torch.randn_like(best)) - value for _ in range(20)) > 0
    data, model = p.numpy(), q.numpy()
    middle = (data + model) / 2
    jsd = 0.5 * (xlogy(data, data / middle) + xlogy(model, model / middle)).sum()
    assert -value.item() == pytest.approx(-math.log(4) + 2 * jsd, abs=1e-14)


def linear_critic(*weights: float) -> nn.Linear:
    critic = nn.Linear(len(weights), 1).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([weights]))
    return critic


def test_a_linear_critics_penalties_are_functions_of_its_norm() -> None:
    critic = linear_critic(3.0, 0.0, 4.0)
    real = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    fake, mix = torch.randn(7, 3, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    assert gradient_penalty(critic, real, fake, mix).item() == pytest.approx((5 - 1) ** 2)
    assert r1_penalty(critic(real), real).item() == pytest.approx(25 / 2)


def test_penalties_of_a_smooth_critic_equal_their_closed_forms() -> None:
    """D(x) = sum(x^3) has the gradient 3 x^2."""
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(5, 2, 3, dtype=torch.float64, generator=generator).requires_grad_()
    fake = torch.randn(5, 2, 3, dtype=torch.float64, generator=generator)
    mix = torch.rand(5, dtype=torch.float64, generator=generator)

    def cubes(x: Tensor) -> Tensor:
        return x.pow(3).sum((1, 2))

    x = real.detach().numpy()
    between = mix.numpy()[:, None, None] * x + (1 - mix.numpy()[:, None, None]) * fake.numpy()
    norms = np.sqrt(((3 * between**2) ** 2).sum((1, 2)))
    expected = ((norms - 1) ** 2).mean()
    assert gradient_penalty(cubes, real, fake, mix).item() == pytest.approx(expected, rel=1e-12)
    expected = 0.5 * ((3 * x**2) ** 2).sum((1, 2)).mean()
    assert r1_penalty(cubes(real), real).item() == pytest.approx(expected, rel=1e-12)


def test_penalties_give_every_parameter_a_gradient_and_the_right_one() -> None:
    critic = linear_critic(3.0, 4.0)
    real = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    r1_penalty(critic(real), real).backward()
    assert critic.bias.grad is not None
    assert critic.bias.grad.item() == 0
    assert critic.weight.grad is not None
    np.testing.assert_allclose(critic.weight.grad, [[3.0, 4.0]])  # d(1/2 |w|^2) = w
    critic.zero_grad()
    gradient_penalty(critic, real, real, torch.rand(4)).backward()
    assert critic.bias.grad is not None
    np.testing.assert_allclose(critic.weight.grad, [[4.8, 6.4]])  # 2 (|w| - 1) w / |w|


def test_a_flat_critic_has_a_finite_penalty_gradient() -> None:
    critic = linear_critic(0.0, 0.0)
    penalty = gradient_penalty(critic, torch.ones(2, 2).double(), torch.zeros(2, 2), torch.rand(2))
    penalty.backward()
    assert penalty.item() == 1
    assert critic.weight.grad is not None
    assert torch.isfinite(critic.weight.grad).all()


def test_a_flat_critics_penalty_can_be_differentiated_three_times() -> None:
    critic = nn.Sequential(linear_critic(3.0, 4.0), nn.ReLU())
    fake = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(critic, fake.detach(), 1.0 * fake, torch.zeros(2).double())
    assert penalty.item() == pytest.approx((4**2 + 1) / 2)  # a slope of 5, and none
    (slope,) = torch.autograd.grad(penalty, critic[0].weight, create_graph=True)
    (once_more,) = torch.autograd.grad(slope.square().sum(), critic[0].weight, create_graph=True)
    assert slope.isfinite().all()
    assert once_more.isfinite().all()


def test_an_unknown_loss_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'wasserstein'"):
        LOSSES["waserstein"]


def test_the_relativistic_loss_compares_partners() -> None:
    loss = LOSSES["relativistic"]
    real, fake = logits(1.0, -2.0, 0.5), logits(1.0, 3.0, -4.0)
    difference = np.array([0.0, -5.0, 4.5])
    assert loss.discriminator(real, fake).item() == pytest.approx(-np.log(expit(difference)).mean())
    assert loss.generator(fake, real).item() == pytest.approx(-np.log(expit(-difference)).mean())
    assert loss.discriminator(real, real).item() == pytest.approx(math.log(2))
    # What both outputs have in common means nothing.
    assert loss.discriminator(real + 9, fake + 9).item() == pytest.approx(
        loss.discriminator(real, fake).item()
    )
    slopes = gradient_of(3 * loss.generator(fake, real), fake)
    np.testing.assert_allclose(slopes, -expit(difference), atol=1e-12)
    with pytest.raises(ValueError, match="real logits"):
        loss.generator(fake)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_a_smoothed_discriminator_is_best_below_certainty(smoothing: float) -> None:
    real, fake = logits(-3.0, 0.5, 2.0), logits(-1.0, 4.0)
    values = np.array([-3.0, 0.5, 2.0])
    expected = (1 - smoothing) * -np.log(expit(values)) - smoothing * np.log(1 - expit(values))
    expected = expected.mean() - np.log(1 - expit(np.array([-1.0, 4.0]))).mean()
    found = smoothed_discriminator(real, fake, smoothing).item()
    assert found == pytest.approx(expected, abs=1e-12)
    if smoothing:
        # Over real examples alone the best output is that of probability 1 - smoothing.
        best = logits(math.log((1 - smoothing) / smoothing))
        slope = gradient_of(smoothed_discriminator(best, logits(-60.0), smoothing), best)
        assert slope.item() == pytest.approx(0, abs=1e-12)
