"""Sample grids and scatter plots, pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.errors import UserError
from gan_core.pictures import (
    enlargement,
    image_grid,
    sample_picture,
    save_png,
    scatter,
)

GAP = 2


def test_every_tile_of_a_grid_holds_its_image_and_the_rest_is_white() -> None:
    images = torch.randint(0, 255, (5, 3, 4, 6), dtype=torch.uint8)
    grid = image_grid(images, columns=3, enlarge=2)
    assert grid.dtype == torch.uint8
    assert grid.shape == (3, 2 * (8 + GAP) + GAP, 3 * (12 + GAP) + GAP)
    rest = torch.ones(grid.shape[1:], dtype=torch.bool)
    for place, image in enumerate(images):
        top = GAP + (place // 3) * (8 + GAP)
        left = GAP + (place % 3) * (12 + GAP)
        tile = grid[:, top : top + 8, left : left + 12]
        expected = np.kron(image.numpy(), np.ones((1, 2, 2), dtype=np.uint8))
        assert np.array_equal(tile.numpy(), expected)
        rest[top : top + 8, left : left + 12] = False
    assert (grid[:, rest] == 255).all()


def test_the_ends_of_the_range_become_black_and_white() -> None:
    images = torch.stack([torch.full((1, 1, 1), v) for v in (-1.0, 0.0, 1.0, 3.0)])
    grid = image_grid(images, columns=4, enlarge=1)
    assert grid[0, GAP, [GAP + i * (1 + GAP) for i in range(4)]].tolist() == [0, 128, 255, 255]


def test_tiny_pictures_are_enlarged_until_they_can_be_read_and_large_ones_are_not() -> None:
    assert [enlargement(n, n) for n in (8, 28, 32, 64, 128)] == [8, 2, 2, 1, 1]
    assert image_grid(torch.zeros(1, 1, 8, 8)).shape == (1, 64 + 2 * GAP, 64 + 2 * GAP)


def test_a_grid_is_as_square_as_possible_and_never_wider_than_its_images() -> None:
    tile = 64 + GAP
    assert image_grid(torch.zeros(10, 1, 8, 8)).shape == (1, 3 * tile + GAP, 4 * tile + GAP)
    assert image_grid(torch.zeros(2, 1, 8, 8), columns=8).shape == (1, tile + GAP, 2 * tile + GAP)


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (4, 2, 8, 8), (4, 8, 8)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a grid needs images"):
        image_grid(torch.zeros(shape))


def _coloured(picture: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """Rows and columns (N, 2) of the pixels of that colour, without the legend."""
    match = (picture == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(dim=0)
    match[:60, :170] = False
    return match.nonzero()


def test_points_stand_where_their_coordinates_say() -> None:
    angles = torch.arange(8) * (2 * math.pi / 8)
    real = torch.stack([angles.cos(), angles.sin()], dim=1)
    picture = scatter(torch.tensor([[1.0, 0.0], [0.0, -1.0]]), real)
    assert picture.shape == (3, 512, 512)
    blue = _coloured(picture, (31, 99, 180)).float()
    right, below = blue[blue[:, 1] > 400].mean(dim=0), blue[blue[:, 0] > 400].mean(dim=0)
    # The frame's half side is 0.55 times the extent of 2.
    edge = 255.5 + 255 / 1.1
    assert right.tolist() == pytest.approx([255.5, edge], abs=2.5)
    assert below.tolist() == pytest.approx([edge, 255.5], abs=2.5)


def test_of_points_of_more_numbers_the_first_two_are_drawn() -> None:
    real, made = torch.rand(50, 5, dtype=torch.float64), torch.rand(20, 5, dtype=torch.float64)
    flat = scatter(made[:, :2].float(), real[:, :2].float())
    assert torch.equal(scatter(made, real), flat)
    alone = scatter(made)
    grey = torch.tensor((170, 170, 170), dtype=torch.uint8)[:, None, None]
    inside = (alone == grey).all(dim=0)[1:-1, 1:-1]
    assert not inside.any()  # no real ones: the frame alone is grey


def test_points_outside_the_frame_or_not_finite_are_red_on_its_edge() -> None:
    real = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    wild = torch.tensor([[50.0, 0.0], [float("nan"), 0.0]])
    red = _coloured(scatter(wild, real), (200, 30, 30))
    assert len(red) > 0
    assert (red[:, 1] >= 508).all()
    assert len(_coloured(scatter(torch.zeros(3, 2), real), (200, 30, 30))) == 0


def test_the_kind_of_picture_follows_from_the_target() -> None:
    points = DataSpec({"point": TensorSpec((2,))}, target="point")
    images = DataSpec({"image": TensorSpec((1, 8, 8), -1, 1)})
    assert sample_picture(torch.rand(4, 2), points).shape == (3, 512, 512)
    grid = sample_picture(torch.rand(4, 1, 8, 8), images, columns=4)
    assert torch.equal(grid, image_grid(torch.zeros(4, 1, 8, 8), columns=4)) is False
    assert grid.shape == (1, 64 + 2 * GAP, 4 * (64 + GAP) + GAP)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_picture_reads_back_as_it_was(tmp_path: Path, channels: int) -> None:
    picture = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    path = save_png(picture, tmp_path / "new" / "grid.png")
    back = np.asarray(Image.open(path))
    expected = picture.permute(1, 2, 0).numpy()
    assert np.array_equal(back, expected[:, :, 0] if channels == 1 else expected)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*grid\.png"):
        save_png(torch.zeros(1, 2, 2, dtype=torch.uint8), tmp_path / "file" / "grid.png")
