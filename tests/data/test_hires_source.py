"""Large pictures of any sizes: tiles, splits, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_core.data.hires import tile_starts, tiles_of
from gan_core.data.loading import check_examples, load_examples
from gan_core.errors import UserError


def picture(path: Path, columns: int, rows: int, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


@pytest.mark.parametrize(("length", "tile"), [(8, 8), (9, 8), (16, 8), (17, 8), (100, 8), (13, 12)])
def test_tiles_cover_a_side_with_as_few_as_can_be(length: int, tile: int) -> None:
    starts = tile_starts(length, tile)
    assert set(range(length)) == {place for s in starts for place in range(s, s + tile)}
    assert len(starts) == -(-length // tile)
    assert all(0 <= start <= length - tile for start in starts)


def test_tiles_are_parts_of_the_picture_row_by_row() -> None:
    whole = np.arange(3 * 10 * 17, dtype=np.uint16).reshape(3, 10, 17)
    tiles = tiles_of(whole, 8)  # type: ignore[arg-type]
    assert tiles.shape == (2 * 3, 3, 8, 8)
    assert np.array_equal(tiles[1], whole[:, :8, 4:12])
    assert np.array_equal(tiles[-1], whole[:, 2:, 9:])


def test_pictures_of_any_sizes_become_tiles_of_one_size(tmp_path: Path) -> None:
    wholes = {n: picture(tmp_path / "train" / f"{n}.png", 20 + n, 16, n) for n in range(3)}
    picture(tmp_path / "test" / "a.png", 16, 16)
    picture(tmp_path / "validation" / "a.png", 33, 48)
    train, test, validation = (
        load_examples("hires", tmp_path, split, tile=16)  # type: ignore[arg-type]
        for split in ("train", "test", "validation")
    )
    check_examples(train, batch_size=6)
    assert [len(e) for e in (train, test, validation)] == [6, 1, 9]
    assert train.spec.target_shape == (3, 16, 16)
    found = train.tensors["image"].numpy()
    assert np.array_equal(found[2], wholes[1][:, :, :16])
    assert np.array_equal(found[3], wholes[1][:, :, 5:21])


def test_a_picture_is_whole_in_one_split(tmp_path: Path) -> None:
    for n in range(30):
        picture(tmp_path / f"{n}.png", 8, 16, n)
    seen = [
        {tile.tobytes() for tile in load_examples("hires", tmp_path, split, tile=8)
         .tensors["image"].numpy()}
        for split in ("train", "validation", "test")
    ]  # fmt: skip
    assert sum(map(len, seen)) == 60
    assert len(seen[0] | seen[1] | seen[2]) == 60
    assert all(len(part) % 2 == 0 for part in seen)


def test_a_picture_smaller_than_a_tile_is_one_clear_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(12):
        picture(tmp_path / f"{n}.png", 20, 16, n)
    picture(tmp_path / "train-small.png", 40, 15)

    def lengths(**options: str) -> list[int]:
        splits = ("train", "validation", "test")
        return [len(load_examples("hires", tmp_path, s, tile=16, **options)) for s in splits]  # type: ignore[arg-type]

    with pytest.raises(UserError, match=r"train-small.png has 40 x 15 pixels, smaller than --tile"):
        lengths()
    with caplog.at_level(logging.WARNING):
        assert sum(lengths(on_bad_file="skip")) == 24
    assert "skipped 1 of" in caplog.text
    assert "--on-bad-file" not in caplog.text, "it is what the user has just given"


def test_wrong_options_are_one_clear_line(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 8)
    with pytest.raises(UserError, match="--tile must be at least 1, not 0"):
        load_examples("hires", tmp_path, "train", tile=0)
    with pytest.raises(UserError, match="--channels must be 1"):
        load_examples("hires", tmp_path, "train", channels=2)
    with pytest.raises(UserError, match="needs --data-root"):
        load_examples("hires", None, "train")
