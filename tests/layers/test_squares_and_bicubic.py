"""Random squares, the eight ways a square lies, and bicubic resizing, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.data.examples import to_pixels, to_unit_range
from gan_core.layers import bicubic
from gan_core.layers.crops import crops, turned


def test_crops_are_slices_at_the_places_given() -> None:
    images = torch.arange(5 * 3 * 9 * 11).reshape(5, 3, 9, 11)
    places = torch.tensor([[0.0, 0.0], [0.999, 0.999], [1.0, 1.0], [0.5, 0.26], [0.34, 0.74]])
    found = crops(images, places, 7)
    # 3 rows and 5 columns are free to begin at.
    corners = [(0, 0), (2, 4), (2, 4), (1, 1), (1, 3)]
    for picture, square, (top, left) in zip(images, found, corners, strict=True):
        assert torch.equal(square, picture[:, top : top + 7, left : left + 7])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crops_round_as_a_product_of_tensors_does(dtype: torch.dtype) -> None:
    """Bit for bit: runs that were saved go on with the crops that they began with."""
    rows, columns, size = 83, 101, 48
    pixels = torch.arange(rows * columns).reshape(1, 1, rows, columns)
    edges = torch.cartesian_prod(torch.arange(37) / 36, torch.arange(55) / 54).to(dtype)
    places = torch.cat([edges, torch.rand(5_000, 2, dtype=dtype), torch.full((1, 2), 0.9999999)])
    free = torch.tensor([rows - size + 1, columns - size + 1], dtype=dtype)
    corner = torch.minimum((places * free).long(), (free - 1).long())
    found = crops(pixels.expand(len(places), -1, -1, -1), places, size)[:, 0, 0, 0]
    assert torch.equal(found, corner[:, 0] * columns + corner[:, 1])


def test_every_place_for_a_crop_is_equally_likely() -> None:
    images = torch.arange(12.0).reshape(1, 1, 3, 4).expand(12_000, -1, -1, -1)
    places = torch.rand(12_000, 2, generator=torch.Generator().manual_seed(0))
    found = crops(images, places, 1).flatten().long().bincount(minlength=12)
    assert found.min() > 850  # 1,000 expected each, standard deviation 30
    assert found.max() < 1_150


def test_a_picture_smaller_than_the_square_has_no_crop() -> None:
    with pytest.raises(ValueError, match="5 x 9 have no square of 6"):
        crops(torch.zeros(1, 1, 5, 9), torch.zeros(1, 2), 6)


def test_a_square_lies_in_eight_ways() -> None:
    square = torch.arange(9).reshape(1, 1, 3, 3)
    found = turned(square.expand(8, -1, -1, -1), torch.arange(8))[:, 0].numpy()
    one = square[0, 0].numpy()
    group = {np.rot90(s, k).tobytes() for s in (one, one.T) for k in range(4)}
    assert {picture.tobytes() for picture in found} == group
    assert len(group) == 8
    assert np.array_equal(found[0], one)
    assert np.array_equal(found[1], one[:, ::-1])
    assert np.array_equal(found[4], one.T)


def smooth_picture(rows: int, columns: int) -> np.ndarray:
    """A picture with edges and gradients, uint8 (rows, columns, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (rows // 8, columns // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((columns, rows), Image.Resampling.BILINEAR))


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return to_unit_range(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])


def test_bicubic_is_pillows() -> None:
    picture = smooth_picture(64, 96)
    small = Image.fromarray(picture).resize((24, 16), Image.Resampling.BICUBIC)
    found = to_pixels(bicubic.reduced(as_tensor(picture), 4))[0].permute(1, 2, 0).numpy()
    # Pillow rounds to 8 bits after each of the two directions.
    assert np.abs(found.astype(int) - np.asarray(small)).max() <= 1
    large = small.resize((96, 64), Image.Resampling.BICUBIC)
    found = to_pixels(bicubic.enlarged(as_tensor(np.asarray(small)), 4))[0].permute(1, 2, 0)
    assert np.abs(found.numpy().astype(int) - np.asarray(large)).max() <= 1


def test_a_reduced_picture_is_one_of_8_bits_in_range() -> None:
    high = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    low = bicubic.reduced(high, 4)
    assert torch.allclose(to_unit_range(to_pixels(low)), low, atol=1e-6)
    assert low.abs().max() <= 1
    with pytest.raises(ValueError, match="cannot be reduced 4 times"):
        bicubic.reduced(high[..., :15], 4)


def test_pictures_of_16_bits_are_enlarged_in_32() -> None:
    images = as_tensor(smooth_picture(16, 24))
    found = bicubic.enlarged(images.bfloat16(), 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, bicubic.enlarged(images.bfloat16().float(), 2))
    assert bicubic.enlarged(images.double(), 2).dtype == torch.float64
