"""Spectral normalisation against singular value decompositions and torch's own."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_core.layers.spectral import SpectralConv2d, SpectralLinear

LAYERS = {
    "linear": (lambda: SpectralLinear(7, 5), (3, 7)),
    "wide": (lambda: SpectralLinear(4, 9, bias=False), (3, 4)),
    "convolution": (lambda: SpectralConv2d(3, 6, 3, 2, 1), (2, 3, 8, 8)),
    "1x1": (lambda: SpectralConv2d(4, 3, 1), (2, 4, 5, 5)),
}
every_layer = pytest.mark.parametrize("name", list(LAYERS))


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    make, shape = LAYERS[name]
    return make().double(), torch.randn(shape, dtype=torch.float64)


def largest_singular_value(weight: Tensor) -> float:
    return torch.linalg.svdvals(weight.detach().flatten(1))[0].item()


@every_layer
def test_after_many_passes_the_largest_singular_value_is_one(name: str) -> None:
    layer, values = made(name)
    for _ in range(300):
        layer(values)
    weight = layer.normalised_weight()
    assert largest_singular_value(weight) == pytest.approx(1, abs=1e-9)
    assert largest_singular_value(layer.weight) != pytest.approx(1, abs=0.05)


@every_layer
def test_a_training_pass_makes_one_step_of_the_power_method_and_an_evaluation_none(
    name: str,
) -> None:
    layer, values = made(name)
    matrix, u = layer.weight.detach().flatten(1), layer.u.clone()
    v = F.normalize(matrix.t() @ u, dim=0)
    layer.eval()(values)
    assert torch.equal(layer.u, u)
    layer.train()(values)
    torch.testing.assert_close(layer.u, F.normalize(matrix @ v, dim=0))
    assert layer.u.norm().item() == pytest.approx(1)


@every_layer
def test_the_gradient_takes_u_and_v_for_constants(name: str) -> None:
    layer, values = made(name)
    layer(values).square().sum().backward()
    # The same with sigma = u^T W v written out, for the u and v of that pass.
    other, _ = made(name)
    matrix = other.weight.flatten(1)
    v = F.normalize(matrix.detach().t() @ other.u, dim=0)
    u = F.normalize(matrix.detach() @ v, dim=0)
    weight = other.weight / (u @ matrix @ v)
    plain = F.linear if weight.dim() == 2 else layer_call(layer)
    plain(values, weight, other.bias).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, other.weight.grad)


def layer_call(layer: nn.Module):  # type: ignore[no-untyped-def]
    return lambda x, w, b: F.conv2d(x, w, b, layer.stride, layer.padding)


def test_training_is_that_of_torchs_own_parametrisation() -> None:
    ours, values = made("convolution")
    theirs = nn.Conv2d(3, 6, 3, 2, 1).double()
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "u"})
    theirs = spectral_norm(theirs)
    theirs.parametrizations.weight[0]._u.copy_(ours.u)
    # Theirs begins with v, ours with u; after a pass each has made one step of both.
    norm = theirs.parametrizations.weight[0]
    norm._v.copy_(F.normalize(ours.weight.detach().flatten(1).t() @ ours.u, dim=0))
    target = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    pairs = []
    for layer in (ours, theirs):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        losses = []
        for _ in range(200):
            loss = (layer(values) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        pairs.append(losses)
    # The order of the two products in a step differs, so early losses do; not what is learned.
    assert pairs[0][-1] == pytest.approx(pairs[1][-1], rel=1e-3)


def test_two_passes_before_a_backward_pass_are_allowed() -> None:
    layer, values = made("linear")
    (layer(values).sum() + layer(values).square().sum()).backward()
    assert torch.isfinite(layer.weight.grad).all()


def test_a_copy_and_a_saved_state_go_on_as_the_original_does() -> None:
    layer, values = made("linear")
    layer(values)
    twin = copy.deepcopy(layer)
    stranger = SpectralLinear(7, 5).double()
    stranger.load_state_dict(layer.state_dict())
    expected = [layer(values) for _ in range(3)]
    for other in (twin, stranger):
        assert all(torch.equal(other(values), e) for e in expected)
    assert sorted(layer.state_dict()) == ["bias", "u", "weight"]


def test_the_second_derivative_is_right() -> None:
    layer, values = made("linear")
    layer.eval()

    def penalty(weight: Tensor) -> Tensor:
        x = values.clone().requires_grad_()
        out = torch.func.functional_call(layer, {"weight": weight}, (x,))
        (gradient,) = torch.autograd.grad(torch.tanh(out).sum(), x, create_graph=True)
        return gradient.square().sum()

    weight = layer.weight.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(penalty(weight), weight)
    direction = torch.randn_like(weight)
    # v is taken for a constant, so the difference must not move it: along u v^T and beside it.
    matrix = weight.detach()
    v = F.normalize(matrix.t() @ layer.u, dim=0)
    direction -= layer.u[:, None] * (layer.u @ direction)[None, :]
    step = 1e-6
    ahead, behind = (penalty(matrix + s * direction) for s in (step, -step))
    assert v.norm().item() == pytest.approx(1)
    expected = ((ahead - behind) / (2 * step)).item()
    assert (slope * direction).sum().item() == pytest.approx(expected, rel=1e-5)


def test_autocast_does_not_round_the_norm() -> None:
    layer = SpectralLinear(64, 64)
    twin = copy.deepcopy(layer)
    expected = layer.normalised_weight()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(twin.normalised_weight(), expected)
    assert math.isclose(largest_singular_value(expected), 1, rel_tol=0.5)


@pytest.mark.parametrize("outputs", [1, 2, 16])
def test_compiled_layers_have_the_same_gradient_after_u_has_moved_on(outputs: int) -> None:
    # Of few outputs v is cheap to make again in the backward pass, from what u has become.
    torch.manual_seed(5)
    network = nn.Sequential(SpectralLinear(24, 6), nn.Tanh(), SpectralLinear(6, outputs)).double()
    compiled = copy.deepcopy(network)
    compiled.compile(dynamic=False)
    real, fake = torch.randn(2, 4, 24, dtype=torch.float64)
    for net in (network, compiled):
        (net(real).square().mean() - net(fake).square().mean()).backward()
    for one, other in zip(network.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(compiled[2].u, network[2].u)
