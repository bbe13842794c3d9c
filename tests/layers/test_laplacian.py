"""The Laplacian pyramid: exactly invertible, and what its levels are."""

from __future__ import annotations

import pytest
import torch

from gan_core.layers.laplacian import build, collapse, down, reduced, up


def pixels(count: int, channels: int, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, rows, columns), generator=generator).float()


@pytest.mark.parametrize(("rows", "columns", "levels"), [(28, 28, 3), (32, 32, 3), (32, 16, 5)])
def test_a_pyramid_collapses_to_the_picture_it_was_built_from(
    rows: int, columns: int, levels: int
) -> None:
    images = pixels(5, 3, rows, columns)
    pyramid = build(images, levels)
    sides = [(rows >> i, columns >> i) for i in reversed(range(levels))]
    assert [tuple(part.shape[-2:]) for part in pyramid] == sides
    assert torch.equal(collapse(pyramid), images)  # bit for bit
    floats = images / 127.5 - 1
    assert torch.allclose(collapse(build(floats, levels)), floats, atol=1e-6)
    exact = floats.double()
    assert (collapse(build(exact, levels)) - exact).abs().max() < 1e-15


def test_levels_are_means_and_what_smoothing_lacks() -> None:
    images = pixels(2, 1, 8, 4)
    by_hand = images.reshape(2, 1, 4, 2, 2, 2).mean(dim=(3, 5))
    assert torch.equal(down(images), by_hand)
    assert torch.equal(reduced(images, 2), down(by_hand))
    # Along a row, a pixel is three quarters of its own and one of the neighbour's.
    row = torch.tensor([0.0, 16.0, 64.0])
    expected = torch.tensor([0.0, 4.0, 12.0, 28.0, 52.0, 64.0])
    assert torch.equal(up(row.expand(1, 1, 2, 3))[0, 0, 0], expected)
    flat = torch.full((1, 3, 8, 8), 7.0)
    assert all(torch.equal(part, torch.zeros_like(part)) for part in build(flat, 3)[1:])


def test_odd_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="7 x 8 pixels cannot be halved"):
        down(torch.zeros(1, 1, 7, 8))
