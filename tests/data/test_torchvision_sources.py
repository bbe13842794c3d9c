"""torchvision's own readers on tiny files in the layouts of the real sets."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat

from gan_core import UserError
from gan_core.data import check_examples, load_examples

CLASSES = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch):
    """The tiny files cannot have the real files' checksums; that they exist is still checked."""
    for module in ("cifar", "svhn", "stl10"):
        monkeypatch.setattr(
            getattr(torchvision.datasets, module),
            "check_integrity",
            lambda path, md5=None: Path(path).is_file(),
        )


def write_pickle(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def cifar_pixels(start: int, count: int) -> np.ndarray:
    """(count, 3072): the red plane of picture i is i, the green 100 + i, the blue 200."""
    planes = [np.arange(start, start + count), 100 + np.arange(start, start + count)]
    rows = [np.repeat(p[:, None], 1024, axis=1) for p in (*planes, np.full(count, 200))]
    return np.concatenate(rows, axis=1).astype(np.uint8)


def write_cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for i in range(5):
        labels = [(4 * i + j) % 10 for j in range(4)]
        batch = {"data": cifar_pixels(4 * i, 4), "labels": labels}
        write_pickle(folder / f"data_batch_{i + 1}", batch)
    write_pickle(folder / "test_batch", {"data": cifar_pixels(50, 6), "labels": [3] * 6})
    write_pickle(folder / "batches.meta", {"label_names": CLASSES})


def write_svhn(root: Path) -> None:
    for part, count in (("train", 20), ("test", 6)):
        pictures = np.zeros((32, 32, 3, count), np.uint8)
        pictures[..., 0, :] = np.arange(count)
        labels = (np.arange(count) % 10 + 1)[:, None]  # the digit 0 has the label 10
        savemat(root / f"{part}_32x32.mat", {"X": pictures, "y": labels})


def write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part, count in (("train", 20), ("test", 6), ("unlabeled", 1)):
        pictures = np.zeros((count, 3, 96, 96), np.uint8)
        pictures[:, 0] = np.arange(count)[:, None, None]
        pictures.tofile(folder / f"{part}_X.bin")
        (np.arange(count) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(CLASSES))


def refusal(source: str, root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_examples(source, root, "train", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cifar10_has_its_planes_in_place_and_its_last_tenth_for_validation(tmp_path):
    write_cifar10(tmp_path)
    train = load_examples("cifar10", tmp_path, "train")
    validation = load_examples("cifar10", tmp_path, "validation")
    test = load_examples("cifar10", tmp_path, "test")
    assert train.tensors["image"][:, 0, 5, 7].tolist() == list(range(18))
    assert train.tensors["image"][7, :, 31, 0].tolist() == [7, 107, 200]
    assert validation.tensors["image"][:, 0, 0, 0].tolist() == [18, 19]
    assert validation.tensors["label"].tolist() == [8, 9]
    assert test.tensors["image"][:, 0, 0, 0].tolist() == list(range(50, 56))
    assert train.spec.class_names == tuple(CLASSES)
    check_examples(train, batch_size=18)


def test_the_folder_inside_the_archive_may_be_given(tmp_path):
    write_cifar10(tmp_path)
    assert len(load_examples("cifar10", tmp_path / "cifar-10-batches-py", "train")) == 18


def test_cifar100_is_read_with_its_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    names = [f"class {i}" for i in range(100)]
    batch = {"data": cifar_pixels(0, 20), "fine_labels": list(range(80, 100))}
    write_pickle(folder / "train", batch)
    write_pickle(folder / "test", batch)
    write_pickle(folder / "meta", {"fine_label_names": names})
    validation = load_examples("cifar100", tmp_path, "validation")
    assert validation.tensors["label"].tolist() == [98, 99]
    assert validation.spec.classes == 100
    assert validation.spec.class_names[98] == "class 98"


@pytest.mark.parametrize(
    ("source", "writer", "side"), [("svhn", write_svhn, 32), ("stl10", write_stl10, 96)]
)
def test_svhn_and_stl10_are_read_with_labels_from_zero(tmp_path, source, writer, side):
    writer(tmp_path)
    train = load_examples(source, tmp_path, "train")
    whole = load_examples(source, tmp_path, "train+validation")
    assert whole.tensors["image"].shape == (20, 3, side, side)
    assert whole.tensors["image"].dtype == torch.uint8
    assert train.tensors["image"][:, 0, 3, 4].tolist() == list(range(18))
    first = 1 if source == "svhn" else 0
    assert whole.tensors["label"].tolist() == [(i + first) % 10 for i in range(20)]
    assert len(load_examples(source, tmp_path, "test")) == 6
    check_examples(train, batch_size=18)


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "train_32x32.mat"),
        ("stl10", "stl10_binary"),
    ],
)
def test_missing_files_are_named_with_the_place_to_put_them(tmp_path, source, needed):
    message = refusal(source, tmp_path)
    assert message.startswith(f"no {needed}")
    assert str(tmp_path) in message


def test_a_missing_batch_file_is_called_incomplete(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert "incomplete or damaged: unpack cifar-10-python.tar.gz" in refusal("cifar10", tmp_path)


def test_class_folders_of_pictures_are_pointed_to_the_folder_source(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    message = refusal("cifar10", tmp_path)
    assert f"--data folder --data-root {tmp_path}" in message


def test_a_torchvision_download_without_network_says_where_to_put_the_archive(
    tmp_path, monkeypatch
):
    def unreachable(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", unreachable)
    message = refusal("cifar10", tmp_path, download=True)
    assert f"put cifar-10-python.tar.gz into {tmp_path}" in message
