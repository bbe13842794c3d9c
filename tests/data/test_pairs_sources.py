"""The sources of translations: pairs in two folders or side by side, and unpaired pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from gan_core import UserError
from gan_core.data import check_examples, load_examples
from gan_core.data.examples import Examples, Split
from gan_core.data.pictures import size_of

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDERS = {"input_folder": "line", "target_folder": "colour"}


def save(path: Path, shade: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)


def two_folders(root: Path, count: int = 40) -> None:
    """Pictures 0..count-1, whose translation is 100 brighter and has another ending."""
    for i in range(count):
        save(root / "line" / f"{i:03}.png", i)
        save(root / "colour" / f"{i:03}.bmp", 100 + i)


def shades(examples: Examples, name: str) -> torch.Tensor:
    return examples.tensors[name][:, 0, 0, 0].long()


def loaded(source: str, root: Path, **options: object) -> dict[Split, Examples]:
    found = {split: load_examples(source, root, split, **options) for split in SPLITS}
    for examples in found.values():
        check_examples(examples, batch_size=1)
    return found


def refusal(source: str, root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        loaded(source, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pairs_of_two_folders_match_by_name_in_every_split(tmp_path: Path) -> None:
    two_folders(tmp_path)
    found = loaded("pairs", tmp_path, **FOLDERS)
    everything = torch.cat([shades(e, "input") for e in found.values()])
    assert sorted(everything.tolist()) == list(range(40))
    for examples in found.values():
        assert torch.equal(shades(examples, "image"), shades(examples, "input") + 100)
        assert {s.series for s in examples.spec.tensors.values()} == {""}
    # The split is a function of the names: more pictures leave the others where they are.
    before = set(shades(found["test"], "input").tolist())
    for i in range(40, 60):
        save(tmp_path / "line" / f"{i:03}.png", i)
        save(tmp_path / "colour" / f"{i:03}.png", 100 + i)
    after = set(shades(loaded("pairs", tmp_path, **FOLDERS)["test"], "input").tolist())
    assert {shade for shade in after if shade < 40} == before


def test_split_folders_of_pairs_are_taken_as_they_are(tmp_path: Path) -> None:
    for first, split in ((0, "train"), (10, "val"), (20, "test")):
        for i in range(first, first + 3):
            save(tmp_path / "line" / split / f"{i}.png", i)
            save(tmp_path / "colour" / split / f"{i}.png", 100 + i)
    found = loaded("pairs", tmp_path, **FOLDERS)
    assert [shades(found[s], "image").tolist() for s in SPLITS] == [
        [100, 101, 102], [110, 111, 112], [120, 121, 122]
    ]  # fmt: skip


@pytest.mark.parametrize(("side", "given"), [("left", 30), ("right", 200)])
def test_side_by_side_pictures_are_cut_in_the_middle(tmp_path: Path, side: str, given: int) -> None:
    for i in range(20):
        pixels = np.full((8, 16), 30, np.uint8)
        pixels[:, 8:] = 200
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    found = loaded("pairs", tmp_path, input_side=side)["train"]
    assert found.tensors["input"].shape[1:] == (1, 8, 8)
    assert (found.tensors["input"] == given).all()
    assert (found.tensors["image"] == 230 - given).all()
    half = loaded("pairs", tmp_path, input_side=side, image_size=4)["train"]
    assert (half.tensors["input"] == given).all()
    assert half.spec.tensors["image"].shape == (1, 4, 4)


def test_a_picture_that_is_no_two_squares_is_refused(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / f"{i}.png", i)
    assert "8 x 8 pixels, which are not two squares side by side" in refusal("pairs", tmp_path)


def test_names_without_a_namesake_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two_folders(tmp_path)
    for name in ("b", "a", "d", "c"):
        save(tmp_path / "line" / f"{name}.png", 1)
    told = refusal("pairs", tmp_path, **FOLDERS)
    assert f"4 pictures have no namesake in {tmp_path / 'colour'}: a, b, c, ... of" in told
    with caplog.at_level(logging.WARNING):
        found = loaded("pairs", tmp_path, **FOLDERS, on_bad_file="skip")
    assert sum(map(len, found.values())) == 40
    assert "4 pictures have no namesake" in caplog.text
    for name in ("b", "a", "d", "c"):
        (tmp_path / "line" / f"{name}.png").unlink()
    (tmp_path / "line" / "007.png").unlink()
    assert f"1 picture has no namesake in {tmp_path / 'line'}: 007 of" in refusal(
        "pairs", tmp_path, **FOLDERS
    )


def test_a_bad_picture_takes_its_partner_with_it(tmp_path: Path) -> None:
    two_folders(tmp_path)
    (tmp_path / "colour" / "005.bmp").write_bytes(b"no picture")
    assert "005.bmp is no readable picture" in refusal("pairs", tmp_path, **FOLDERS)
    found = loaded("pairs", tmp_path, **FOLDERS, on_bad_file="skip")
    assert sum(map(len, found.values())) == 39
    for examples in found.values():
        assert torch.equal(shades(examples, "image"), shades(examples, "input") + 100)


def test_pairs_of_which_one_half_is_always_bad_are_refused(tmp_path: Path) -> None:
    two_folders(tmp_path)
    for place, path in enumerate(sorted((tmp_path / "colour").iterdir())):
        bad = path if place % 2 else next((tmp_path / "line").glob(f"{path.stem}.*"))
        bad.write_bytes(b"no picture")
    told = refusal("pairs", tmp_path, **FOLDERS, on_bad_file="skip")
    assert "pairs in" in told
    assert "can be used" in told


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    two_folders(tmp_path)
    assert "--target-folder is missing" in refusal("pairs", tmp_path, input_folder="line")
    told = refusal("pairs", tmp_path, input_folder="lines", target_folder="colour")
    assert told == f"--input-folder lines: there is no folder {tmp_path / 'lines'}"
    one = {"input_folder": "line", "target_folder": "../" + tmp_path.name + "/line"}
    for source in ("pairs", "unpaired"):
        assert refusal(source, tmp_path, **one).endswith("are one folder: name two")
    save(tmp_path / "line" / "003.jpg", 3)
    assert "have one name but for the ending" in refusal("pairs", tmp_path, **FOLDERS)
    save(tmp_path / "only" / "trainB" / "1.png", 3)
    told = refusal("unpaired", tmp_path / "only")
    assert "there is no folder" in told
    assert "trainA" in told
    assert "--truth needs" in refusal("unpaired", tmp_path, truth=True)


def test_pairs_of_different_sizes_need_a_common_one(tmp_path: Path) -> None:
    two_folders(tmp_path)
    save(tmp_path / "colour" / "004.bmp", 1, (16, 16))
    assert "pass --image-size" in refusal("pairs", tmp_path, **FOLDERS)
    found = loaded("pairs", tmp_path, **FOLDERS, image_size=8)
    assert sum(map(len, found.values())) == 40


def test_unpaired_sets_have_lengths_of_their_own(tmp_path: Path) -> None:
    for i in range(30):
        save(tmp_path / "line" / f"{i}.png", i)
    for i in range(50):
        save(tmp_path / "colour" / f"other{i}.png", 100 + i)
    found = loaded("unpaired", tmp_path, **FOLDERS)
    specs = found["train"].spec.tensors
    assert (specs["image"].series, specs["input"].series) == ("", "input")
    counts = {n: sum(len(e.tensors[n]) for e in found.values()) for n in ("input", "image")}
    assert counts == {"input": 30, "image": 50}
    assert len(found["train"]) == len(found["train"].tensors["image"])
    assert "paired" not in specs


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_the_layout_of_cyclegans_data_sets_is_understood(tmp_path: Path, direction: str) -> None:
    for letter, first in (("A", 0), ("B", 100)):
        for i in range(20):
            save(tmp_path / f"train{letter}" / f"{i}.png", first + i)
        for i in range(3):
            save(tmp_path / f"test{letter}" / f"{i}.png", first + 50 + i)
    found = loaded("unpaired", tmp_path, direction=direction)
    given, made = ("input", "image") if direction == "AtoB" else ("image", "input")
    assert shades(found["test"], given).tolist() == [50, 51, 52]
    assert shades(found["test"], made).tolist() == [150, 151, 152]
    both = torch.cat([shades(found[s], given) for s in ("train", "validation")])
    assert sorted(both.tolist()) == list(range(20))


def test_with_truth_training_pictures_are_disjoint_and_held_out_ones_are_pairs(
    tmp_path: Path,
) -> None:
    two_folders(tmp_path, 60)
    found = loaded("unpaired", tmp_path, **FOLDERS, truth=True)
    train = found["train"]
    given, made = shades(train, "input").tolist(), (shades(train, "image") - 100).tolist()
    assert set(given) & set(made) == set()
    assert min(len(given), len(made)) > 10
    seen = set(given) | set(made)
    assert not train.tensors["paired"].any()
    for split in ("validation", "test"):
        examples = found[split]
        assert torch.equal(shades(examples, "image"), shades(examples, "input") + 100)
        assert examples.tensors["paired"].all()
        assert seen & set(shades(examples, "input").tolist()) == set()
        assert examples.spec == train.spec
    pairs = loaded("pairs", tmp_path, **FOLDERS)
    assert shades(pairs["test"], "input").tolist() == shades(found["test"], "input").tolist()


@pytest.mark.parametrize(("source", "more"), [("pairs", {}), ("unpaired", {"truth": True})])
def test_the_two_of_a_pair_have_one_shape(
    tmp_path: Path, source: str, more: dict[str, bool]
) -> None:
    for i in range(40):
        save(tmp_path / "line" / f"{i:03}.png", i, (36, 24))
        save(tmp_path / "colour" / f"{i:03}.png", i, (25, 17))  # smaller, and rounded
    options = {**FOLDERS, "image_size": 8, **more}
    loaded(source, tmp_path, **options)
    save(tmp_path / "colour" / "007.png", 7, (24, 36))
    told = refusal(source, tmp_path, **options)
    assert "007.png has 36 x 24 pixels and " in told
    assert "007.png 24 x 36, another shape" in told
    (tmp_path / "colour" / "007.png").write_bytes(b"no picture")
    assert "007.png is no readable picture" in refusal(source, tmp_path, **options)
    loaded(source, tmp_path, **options, on_bad_file="skip")


def test_of_many_pairs_some_are_compared_by_their_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_folders(tmp_path)
    looked: list[str] = []

    def size_of(path: str) -> tuple[int, int]:
        looked.append(path)
        return (8, 8)

    monkeypatch.setattr("gan_core.data.pairs.size_of", size_of)
    monkeypatch.setattr("gan_core.data.pairs._COMPARED", 16)
    loaded("pairs", tmp_path, **FOLDERS)
    assert len(looked) == 3 * 2 * 14, "every third of 40, of both folders, once a load"


def test_a_pictures_size_is_that_of_the_upright_one(tmp_path: Path) -> None:
    for ending in ("jpg", "tiff", "png"):
        picture = Image.new("L", (6, 4))
        exif = picture.getexif()
        exif[ExifTags.Base.Orientation] = 6
        picture.save(tmp_path / f"lying.{ending}", exif=exif)
        assert size_of(str(tmp_path / f"lying.{ending}")) == (4, 6)
