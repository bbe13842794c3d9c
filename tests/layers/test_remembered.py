"""Feature matching with a memory, against its closed form and an independent average."""

from __future__ import annotations

import pytest
import torch

from gan_core.layers.remembered import DECAY, RememberedMatching


def test_the_distance_is_that_of_the_averaged_means() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 30, 6, 4, generator=generator, dtype=torch.float64)
    layer = RememberedMatching(4)
    expected = torch.zeros(4, dtype=torch.float64)
    for n in range(30):
        part = fake[n].float().requires_grad_()
        found = layer(real[n].float(), part)
        expected = DECAY * expected + (1 - DECAY) * (fake[n].mean(0) - real[n].mean(0))
        assert found.item() == pytest.approx(0.5 * expected.square().sum().item(), rel=1e-4)
        found.backward()
        assert part.grad is not None
        # Every example's share of the mean, along what is remembered.
        torch.testing.assert_close(part.grad.double(), expected.expand(6, 4) / 6)


def test_a_lasting_difference_is_seen_whole_and_chance_hardly() -> None:
    generator = torch.Generator().manual_seed(1)
    layer = RememberedMatching(1)
    for _ in range(2000):
        real, fake = torch.randn(2, 16, 1, generator=generator)
        layer(real, fake + 0.5)
    # Of the scatter of one batch's difference, sqrt(2 / 16), the memory leaves a 14th.
    chance = (2 / 16 * (1 - DECAY) / (1 + DECAY)) ** 0.5
    assert layer.difference.item() == pytest.approx(0.5, abs=4 * chance)
    assert chance < 0.026


def test_real_features_have_no_gradient_and_the_memory_is_state() -> None:
    layer = RememberedMatching(3)
    real, fake = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    layer(real, fake).backward()
    assert real.grad is None
    assert torch.allclose(layer.state_dict()["difference"], torch.full((3,), DECAY - 1))


def test_the_parts_of_an_update_together_forget_as_much_as_one() -> None:
    whole, parted = RememberedMatching(2), RememberedMatching(2, parts=4)
    real, fake = torch.zeros(8, 2), torch.ones(8, 2)
    for _ in range(20):
        whole(real, fake)
        for part in fake.chunk(4):
            parted(real[:2], part)
    torch.testing.assert_close(parted.difference, whole.difference, rtol=1e-4, atol=1e-6)
