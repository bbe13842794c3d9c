from __future__ import annotations

import pytest
import torch
from torch import nn

from gan_core.layers.layout import FlatLinear, to_map

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def gradients(layer: nn.Linear, maps: torch.Tensor, flatten: bool) -> list[torch.Tensor]:
    """The output, the gradients of a function of it, and those of their squares' sum."""
    values = maps.detach().requires_grad_()
    made = layer(values.flatten(1) if flatten else values)
    wanted = (values, layer.weight, layer.bias)
    first = torch.autograd.grad(made.pow(3).sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted)
    return [made, *first, *second]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 1, 1), (1, 2, 2)])
def test_a_linear_layer_of_maps_is_that_of_flattened_ones(
    layout: torch.memory_format, shape: tuple[int, int, int]
) -> None:
    layer = FlatLinear(shape[0] * shape[1] * shape[2], 2, dtype=torch.float64)
    plain = nn.Linear(layer.in_features, 2, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    maps = torch.randn(7, *shape, dtype=torch.float64).contiguous(memory_format=layout)
    expected = gradients(plain, maps.contiguous(), flatten=True)
    for found, wanted in zip(gradients(layer, maps, flatten=False), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_maps_lies_as_they_do(layout: torch.memory_format) -> None:
    layer = FlatLinear(3 * 4 * 5, 2)
    maps = torch.randn(7, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(maps).sum(), maps)
    assert gradient.stride() == maps.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_become_maps_in_the_layout_of_the_next_layer(layout: torch.memory_format) -> None:
    first = nn.ConvTranspose2d(3, 4, 4).to(memory_format=layout)
    vectors = torch.randn(7, 60)
    maps = to_map(vectors, (3, 4, 5), first)
    assert maps.is_contiguous(memory_format=layout)
    assert torch.equal(maps, vectors.view(7, 3, 4, 5))
