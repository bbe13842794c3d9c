"""Unrolled steps of a discriminator, against the derivative by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gan_core.variants.unrolling import unrolled, with_weights


class Pair(nn.Module):
    """Generator theta against discriminator psi: V = psi theta - psi^2 / 2, D maximises it."""

    def __init__(self, theta: float, psi: float) -> None:
        super().__init__()
        self.generator = nn.Linear(1, 1, bias=False)
        self.discriminator = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.generator.weight.fill_(theta)
            self.discriminator.weight.fill_(psi)

    def value(self) -> Tensor:
        theta = self.generator(torch.ones(1, 1))
        answer = self.discriminator(theta)
        psi = self.discriminator(torch.ones(1, 1))
        return (answer - psi.square() / 2).sum()


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_the_generators_gradient_goes_through_every_step(steps: int) -> None:
    theta, psi, rate = 0.7, -0.3, 0.2
    pair = Pair(theta, psi)
    pair.discriminator.requires_grad_(False)  # as in the generator's turn
    ahead = unrolled(pair, "discriminator", lambda v: -v.value(), steps, rate)
    ahead.value().backward()
    # psi_k = (1 - h)^k psi + (1 - (1 - h)^k) theta: each step goes the share h towards theta.
    left = (1 - rate) ** steps
    last = left * psi + (1 - left) * theta
    assert ahead.discriminator(torch.ones(1, 1)).item() == pytest.approx(last, abs=1e-6)
    # dV/dtheta = psi_k + (theta - psi_k) dpsi_k/dtheta
    expected = last + (theta - last) * (1 - left)
    assert pair.generator.weight.grad is not None
    assert pair.generator.weight.grad.item() == pytest.approx(expected, abs=1e-6)


def test_nothing_of_the_discriminator_is_changed() -> None:
    torch.manual_seed(0)
    pair = Pair(0.5, 0.5)
    pair.discriminator = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    pair.train()
    before = {n: t.clone() for n, t in pair.discriminator.state_dict().items()}
    inputs = torch.randn(6, 1)
    ahead = unrolled(
        pair, "discriminator", lambda v: v.discriminator(inputs).square().mean(), 3, 0.1
    )
    changed = ahead.discriminator(inputs)
    assert not torch.equal(changed, pair.discriminator(inputs))
    fresh = pair.discriminator.state_dict()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in before.items():
        if not name.endswith(statistics):  # the comparison above was a training pass
            assert torch.equal(fresh[name], value), name
    assert all(p.grad is None for p in pair.discriminator.parameters())
    assert fresh["1.num_batches_tracked"].item() == 1
    assert list(ahead.discriminator.parameters()) == []
    assert with_weights(pair, "discriminator", before).generator is pair.generator
