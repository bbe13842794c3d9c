from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from gan_core import UserError
from gan_core.data import check_examples, load_examples
from gan_core.data.listing import draw_splits, list_pictures, place_of


def save(path: Path, colour: object = 128, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def fill(folder: Path, count: int, first: int = 0, **options) -> None:
    for i in range(count):
        save(folder / f"{first + i:03}.png", first + i, **options)


def load_all(root: Path, **options) -> None:
    for split in ("train", "validation", "test"):
        load_examples("folder", root, split, **options)


def refusal(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_all(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values(root: Path, split: str, **options) -> list[int]:
    return load_examples("folder", root, split, **options).tensors["image"][:, 0, 0, 0].tolist()


def test_a_flat_folder_is_divided_without_loss_and_has_no_labels(tmp_path):
    fill(tmp_path, 40)
    parts = {s: values(tmp_path, s) for s in ("train", "validation", "test")}
    assert sorted(itertools.chain(*parts.values())) == list(range(40))
    assert all(parts.values())
    examples = load_examples("folder", tmp_path, "train")
    assert set(examples.tensors) == {"image"}
    assert examples.spec.classes == 0
    check_examples(examples, batch_size=8)


def test_class_folders_are_labelled_in_the_order_of_their_names(tmp_path):
    fill(tmp_path / "dog", 20, first=100)
    fill(tmp_path / "cat", 20, first=0)
    fill(tmp_path / "emu" / "deeper" / "still", 20, first=200)
    examples = load_examples("folder", tmp_path, "train+validation")
    assert examples.spec.class_names == ("cat", "dog", "emu")
    shade = examples.tensors["image"][:, 0, 0, 0].long()
    assert torch.equal(examples.tensors["label"], shade // 100)
    check_examples(examples, batch_size=8)


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "validation", "test"),
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "VAL", "Test"),
    ],
)
def test_split_folders_are_taken_as_they_are(tmp_path, folders):
    for first, name in zip((0, 50, 100), folders, strict=True):
        fill(tmp_path / name / "a", 3, first)
        fill(tmp_path / name / "b", 3, first + 10)
    assert values(tmp_path, "train") == [0, 1, 2, 10, 11, 12]
    assert values(tmp_path, "validation") == [50, 51, 52, 60, 61, 62]
    assert values(tmp_path, "test") == [100, 101, 102, 110, 111, 112]
    assert load_examples("folder", tmp_path, "test").tensors["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_missing_validation_folder_is_drawn_from_train_and_leaves_test_alone(tmp_path):
    fill(tmp_path / "train" / "a", 60)
    fill(tmp_path / "test" / "a", 4, first=100)
    train, validation = values(tmp_path, "train"), values(tmp_path, "validation")
    assert sorted(train + validation) == list(range(60))
    assert 1 <= len(validation) < 20
    assert values(tmp_path, "test") == [100, 101, 102, 103]


def test_split_folders_without_classes_carry_no_labels(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 3)
    assert set(load_examples("folder", tmp_path, "train").tensors) == {"image"}


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "bus", 20)
    assert load_examples("folder", tmp_path, "train").spec.class_names == ("bus", "train")


@pytest.mark.parametrize(
    "folders",
    [
        ("Training/cat", "Training/dog", "Testing/cat", "Testing/dog"),
        ("train/cat", "dev/cat"),
        ("train2017", "val2017"),
        ("training_set", "test_set"),
        ("train", "eval", "unlabelled"),
    ],
)
def test_what_looks_like_splits_by_other_names_is_not_taken_for_classes(tmp_path, folders):
    for folder in folders:
        fill(tmp_path / folder, 5)
    message = refusal(tmp_path)
    assert "which look like splits: name them train, validation and test; or if they" in message
    for folder in folders:
        (tmp_path / "again" / "train" / folder).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder).rename(tmp_path / "again" / "train" / folder)
    names = load_examples("folder", tmp_path / "again", "train").spec.class_names
    assert set(names) == {folder.partition("/")[0] for folder in folders}


@pytest.mark.parametrize(
    "classes",
    [
        ("train", "training"),  # nothing to test on
        ("test tube", "train station"),
        ("steam train", "valid"),
        ("train/steam", "evaluation/form"),  # kinds of each
    ],
)
def test_classes_may_be_called_a_little_like_splits(tmp_path, classes):
    for folder in classes:
        fill(tmp_path / folder, 5)
    names = sorted(folder.partition("/")[0] for folder in classes)
    assert load_examples("folder", tmp_path, "train").spec.class_names == tuple(names)


def test_about_a_tenth_goes_to_each_drawn_split():
    drawn = list(draw_splits([f"{i}.png" for i in range(10_000)], ["validation", "test"]).values())
    assert abs(drawn.count("validation") - 1000) < 4 * 30  # 4 standard deviations
    assert abs(drawn.count("test") - 1000) < 4 * 30


def test_a_picture_keeps_its_split_when_others_are_added():
    names = [f"{i}.png" for i in range(200)]
    few = draw_splits(names[:100], ["validation", "test"])
    many = draw_splits(names, ["validation", "test"])
    assert {name: many[name] for name in few} == few


@pytest.mark.parametrize("count", [3, 4, 7])
def test_three_pictures_of_a_class_are_enough_for_every_split(count):
    for series in range(50):
        names = [f"{series}/{i}.png" for i in range(count)]
        assert set(draw_splits(names, ["validation", "test"]).values()) == {
            "train",
            "validation",
            "test",
        }


def test_a_class_of_one_or_two_pictures_has_one_to_train_on():
    for series, missing in itertools.product(range(300), (["validation"], ["validation", "test"])):
        one, two = sorted((f"{series}/{i}.png" for i in range(2)), key=place_of)
        assert draw_splits([one], missing) == {one: "train"}
        drawn = draw_splits([one, two], missing)
        assert "train" in drawn.values()
        if place_of(one) < 0.1 <= place_of(two) < 0.2 and len(missing) == 2:
            assert drawn == {one: "validation", two: "train"}
        elif place_of(two) < 0.1:
            assert drawn == {one: "train", two: "validation"}, "as it was always divided"
    assert draw_splits([], ["validation"]) == {}


def test_two_pictures_are_too_few_to_divide(tmp_path):
    fill(tmp_path, 2)
    assert "too few pictures for a test split: add some, or folders train and test" in refusal(
        tmp_path
    )


def test_of_a_divided_folder_the_part_is_named_that_holds_too_few(tmp_path):
    fill(tmp_path / "train", 2)
    told = refusal(tmp_path)
    assert told == (
        f"{tmp_path / 'train'} holds too few pictures for a test split: add some, or a folder of "
        "test beside it"
    )


def test_hidden_files_are_passed_over_and_other_files_are_counted_in_the_log(tmp_path, caplog):
    fill(tmp_path, 10)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "._000.png").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "LICENSE.txt").write_text("free")
    with caplog.at_level(logging.WARNING):
        assert len(load_examples("folder", tmp_path, "train+validation")) < 10
        load_examples("folder", tmp_path, "test")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"a file in {tmp_path} is ignored")
    assert told.endswith("LICENSE.txt")


def test_photographs_scans_and_pages_are_pictures_by_whatever_name(tmp_path):
    for split in ("train", "validation", "test"):
        save(tmp_path / split / "1.TIF", 40)
        page, after = Image.new("L", (8, 8), 80), Image.new("L", (8, 8), 255)
        page.save(tmp_path / split / "2.tiff", save_all=True, append_images=[after])
        save(tmp_path / split / "3.jfif", 120)
        scan = np.full((8, 8), 160 * 257, np.uint16)
        Image.fromarray(scan).save(tmp_path / split / "4.tif", compression="tiff_deflate")
        if features.check("avif"):
            Image.new("L", (8, 8), 200).save(tmp_path / split / "5.avif", quality=100)
    found = values(tmp_path, "train")
    assert found[:4] == [40, 80, 120, 160]
    assert found[4:] in ([], [pytest.approx(200, abs=2)])
    assert len(found) == 4 + features.check("avif")


def test_pictures_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a/2.png", "a/10.png", "c/1.png"):
        save(tmp_path / "train" / "class" / name)
    save(tmp_path / "test" / "class" / "1.png")
    save(tmp_path / "val" / "class" / "1.png")
    names = [picture.name for picture in list_pictures(tmp_path).splits["train"]]
    ends = ("a/10.png", "a/2.png", "b.png", "c/1.png")
    assert names == [f"train/class/{end}" for end in ends]


def test_a_link_back_to_its_own_folder_does_not_loop(tmp_path):
    fill(tmp_path / "a", 5)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert sum(map(len, list_pictures(tmp_path).splits.values())) == 5


@pytest.mark.parametrize("inner", ["", "train"])
def test_a_link_up_brings_no_pictures_of_other_classes_or_splits(tmp_path, inner):
    fill(tmp_path / inner / "a", 5)
    fill(tmp_path / inner / "b", 7)
    if inner:
        fill(tmp_path / "test" / "a", 3)
    (tmp_path / inner / "a" / "up").symlink_to(tmp_path)
    splits = list_pictures(tmp_path).splits
    labels = [picture.label for split in splits.values() for picture in split]
    assert (labels.count(0), labels.count(1)) == (8 if inner else 5, 7)


def test_a_missing_folder_a_file_and_an_empty_folder_are_refused(tmp_path):
    assert "no folder" in refusal(tmp_path / "nowhere")
    assert "is a file" in refusal(save(tmp_path / "picture.png"))
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / "empty")
    assert message.startswith("no pictures (png, jpg")
    assert str(tmp_path / "empty") in message


def test_a_class_folder_without_pictures_is_named(tmp_path):
    fill(tmp_path / "cat", 5)
    (tmp_path / "dog").mkdir()
    assert f"class folder {tmp_path / 'dog'} holds no pictures" in refusal(tmp_path)


def test_pictures_beside_class_folders_are_refused(tmp_path):
    fill(tmp_path / "cat", 5)
    save(tmp_path / "stray.png")
    assert "holds both pictures (stray.png, ...) and folders (cat, ...)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a", "test/b"], "holds class folder 'b'"),
        (["train/a", "test/a", "extra"], "and also 'extra'"),
        (["test/a"], "but no folder 'train'"),
        (["train/a", "val/a", "validation/a"], "holds both 'val' and 'validation'"),
        (["Train/a", "train/a", "test/a"], "holds both 'Train' and 'train'"),
        (["train/a", "test"], "holds pictures without class folders"),
    ],
)
def test_an_ambiguous_layout_is_refused(tmp_path, folders, message):
    for folder in folders:
        fill(tmp_path / folder, 5)
    assert message in refusal(tmp_path)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    fill(tmp_path, 20)
    (tmp_path / "005.png").write_text("not a picture")
    message = refusal(tmp_path)
    assert f"{tmp_path / '005.png'} is no readable picture" in message
    assert "--on-bad-file skip" in message


def test_a_truncated_picture_is_named(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    for kind in ("jpg", "png"):
        folder = tmp_path / kind
        folder.mkdir()
        for i in range(12):
            Image.fromarray(noise).save(folder / f"{i:02}.{kind}")
        broken = folder / f"00.{kind}"
        broken.write_bytes(broken.read_bytes()[:3000])
        assert f"{broken} is no readable picture" in refusal(folder)


def test_bad_pictures_are_skipped_counted_and_logged_where_asked(tmp_path, caplog):
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name, 10)
        fill(tmp_path / "validation" / name, 2)
        fill(tmp_path / "test" / name, 2)
    (tmp_path / "train" / "cat" / "000.png").write_text("no")
    (tmp_path / "train" / "dog" / "004.png").write_text("no")
    save(tmp_path / "train" / "dog" / "005.png", 5, size=(7, 7))
    with caplog.at_level(logging.WARNING):
        examples = load_examples("folder", tmp_path, "train", on_bad_file="skip", image_size=8)
    assert "skipped 3 of 20 pictures" in caplog.text
    assert "--on-bad-file" not in caplog.text, "it is what the user has just given"
    assert "000.png" in caplog.text
    shades = examples.tensors["image"][:, 0, 0, 0].tolist()
    assert shades == [*range(1, 10), 0, 1, 2, 3, 6, 7, 8, 9]
    assert examples.tensors["label"].tolist() == [0] * 9 + [1] * 8


def test_only_bad_pictures_are_refused_even_where_skipping_is_asked(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_text("no")
    assert "none of 5 files" in refusal(tmp_path, on_bad_file="skip")
    assert "none of" in refusal(tmp_path, on_bad_file="skip", image_size=4)


def test_different_sizes_ask_for_an_image_size(tmp_path):
    fill(tmp_path, 12)
    odd = save(tmp_path / "003.png", size=(9, 8))
    message = refusal(tmp_path)
    assert f"{odd} has 9 x 8 pixels where others have 8 x 8: pass --image-size" in message
    assert load_examples("folder", tmp_path, "train", image_size=8).spec.target_shape == (1, 8, 8)


def test_pictures_of_one_rectangular_size_stay_as_they_are(tmp_path):
    fill(tmp_path, 12, size=(6, 4))
    assert load_examples("folder", tmp_path, "train").tensors["image"].shape[1:] == (1, 4, 6)


def test_a_picture_smaller_than_the_image_size_is_named_and_never_enlarged_unasked(tmp_path):
    fill(tmp_path, 12, size=(20, 20))
    small = save(tmp_path / "004.png", size=(20, 15))
    message = refusal(tmp_path, image_size=16)
    assert f"{small} has 20 x 15 pixels, smaller than --image-size 16" in message
    load_all(tmp_path, image_size=16, allow_upscale=True)
    examples = load_examples("folder", tmp_path, "train", image_size=16, allow_upscale=True)
    assert examples.spec.target_shape == (1, 16, 16)


def test_one_colour_picture_in_any_split_makes_all_of_them_colour(tmp_path):
    fill(tmp_path / "train", 12)
    fill(tmp_path / "test", 3)
    assert load_examples("folder", tmp_path, "train").spec.target_shape == (1, 8, 8)
    save(tmp_path / "test" / "002.png", (255, 0, 0), mode="RGB")
    train = load_examples("folder", tmp_path, "train").tensors["image"]
    assert train.shape[1:] == (3, 8, 8)
    assert torch.equal(train[:, 0], train[:, 2])
    red = load_examples("folder", tmp_path, "test").tensors["image"][2]
    assert red[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_number_of_channels_can_be_chosen(tmp_path, channels):
    fill(tmp_path, 6)
    save(tmp_path / "green.png", (0, 255, 0), mode="RGB")
    examples = load_examples("folder", tmp_path, "train", channels=channels)
    assert examples.spec.target_shape == (channels, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "--channels must be 1 (gray) or 3 (colour), not 2"),
        ({"image_size": 0}, "--image-size must be at least 1"),
        ({"image_size": "big"}, "--image-size must be a whole number"),
        ({"on_bad_file": "skp"}, "unknown --on-bad-file 'skp': did you mean 'skip'?"),
        ({"imagesize": 4}, "unknown option of data source 'folder' 'imagesize'"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(tmp_path, options, message):
    fill(tmp_path, 6)
    assert message in refusal(tmp_path, **options)


@pytest.mark.parametrize("name", ["loop", "loop.png"])
def test_a_link_to_itself_is_no_folder_and_no_picture(tmp_path, name):
    fill(tmp_path, 40)
    (tmp_path / name).symlink_to(tmp_path / name)
    if name.endswith(".png"):
        assert "loop.png is no readable picture" in refusal(tmp_path)
    found = [values(tmp_path, s, on_bad_file="skip") for s in ("train", "validation", "test")]
    assert sum(map(len, found)) == 40
