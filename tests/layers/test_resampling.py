"""Convolutions that change the resolution in one pass are the two passes that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.layers.resampling import (
    EnlargingConv2d,
    convolution_halved,
    enlarged_convolution,
)
from gan_core.layers.spectral import SpectralConv2d


def convolution(spectral: bool) -> nn.Conv2d:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 5, 3, 1, 1) if spectral else nn.Conv2d(3, 5, 3, padding=1)
    return layer.double().eval()  # in evaluation the spectral vector stays where it is


def gradients(made: Tensor, values: Tensor, layer: nn.Conv2d) -> tuple[Tensor, ...]:
    """Of a function of ``made`` that is not linear, twice: as a penalty on gradients has it."""
    total = made.square().mean()
    (slope,) = torch.autograd.grad(total, values, create_graph=True)
    return torch.autograd.grad(total + slope.square().sum(), [values, *layer.parameters()])


@pytest.mark.parametrize("spectral", [False, True])
def test_enlarging_and_a_convolution_in_one_pass(spectral: bool) -> None:
    layer = convolution(spectral)
    values = torch.randn(2, 3, 4, 7, dtype=torch.float64, requires_grad=True)
    twice = layer(F.interpolate(values, scale_factor=2, mode="nearest"))
    once = enlarged_convolution(values, layer)
    torch.testing.assert_close(once, twice, rtol=0, atol=1e-12)
    found, wanted = (gradients(made, values, layer) for made in (once, twice))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spectral", [False, True])
def test_a_convolution_and_averaging_in_one_pass(spectral: bool) -> None:
    layer = convolution(spectral)
    values = torch.randn(2, 3, 6, 10, dtype=torch.float64, requires_grad=True)
    twice = F.avg_pool2d(layer(values), 2)
    once = convolution_halved(values, layer)
    torch.testing.assert_close(once, twice, rtol=0, atol=1e-12)
    found, wanted = (gradients(made, values, layer) for made in (once, twice))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("resample", [enlarged_convolution, convolution_halved])
def test_a_training_pass_moves_the_spectral_vector_once(resample: object) -> None:
    layer = convolution(spectral=True).train()
    assert isinstance(layer, SpectralConv2d)
    before, values = layer.u.clone(), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    resample(values, layer)  # type: ignore[operator]
    moved = layer.u.clone()
    layer.u.copy_(before)
    layer(values)
    assert not torch.equal(moved, before)
    assert torch.equal(layer.u, moved)


def test_the_enlarging_layer_is_a_convolution_after_enlarging() -> None:
    torch.manual_seed(0)
    layer, values = EnlargingConv2d(2, 3).double(), torch.randn(2, 2, 5, 4, dtype=torch.float64)
    plain = nn.Conv2d(2, 3, 3, padding=1).double()
    plain.load_state_dict(layer.state_dict())
    twice = plain(F.interpolate(values, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(layer(values), twice, rtol=0, atol=1e-12)
