from __future__ import annotations

import gzip
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from gan_core import UserError
from gan_core.data import check_examples, load_examples
from gan_core.data.idx import FashionMNIST, read_idx

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(path: Path, content: bytes, zipped: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(path.name + ".gz") if zipped else path
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def pictures(count: int, rows: int = 2, columns: int = 3) -> np.ndarray:
    return (np.arange(count * rows * columns) % 251).reshape(count, rows, columns)


def write_set(folder: Path, train: int = 30, test: int = 10, zipped: bool = False) -> None:
    for part, count in (("train", train), ("t10k", test)):
        images, labels = FILES[part]
        write(folder / images, idx_bytes(pictures(count)), zipped)
        write(folder / labels, idx_bytes(np.arange(count) % 10), zipped)


def refusal(root: Path | None, split: str = "train", source: str = "mnist", **options) -> str:
    with pytest.raises(UserError) as caught:
        load_examples(source, root, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_plain_and_gzipped(tmp_path, zipped):
    write_set(tmp_path, zipped=zipped)
    train = load_examples("mnist", tmp_path, "train")
    validation = load_examples("mnist", tmp_path, "validation")
    test = load_examples("mnist", tmp_path, "test")
    whole = torch.from_numpy(pictures(30)).to(torch.uint8).unsqueeze(1)
    assert torch.equal(train.tensors["image"], whole[:25])
    assert torch.equal(validation.tensors["image"], whole[25:])
    assert validation.tensors["label"].tolist() == [5, 6, 7, 8, 9]
    assert torch.equal(test.tensors["image"], whole[:10])
    assert train.spec.target_shape == (1, 2, 3)
    check_examples(train, batch_size=25)


def test_zeros_behind_what_is_gzipped_are_padding(tmp_path):
    content = idx_bytes(pictures(4))
    halves = gzip.compress(content[:50]) + b"\0" * 7 + gzip.compress(content[50:])
    (tmp_path / "padded.gz").write_bytes(halves + b"\0" * 512)
    assert np.array_equal(read_idx(tmp_path / "padded.gz", 3), pictures(4))


def test_of_the_full_training_file_the_last_ten_thousand_are_validation(tmp_path):
    images, labels = FILES["train"]
    write(tmp_path / images, idx_bytes(pictures(60_000, 1, 1)))
    write(tmp_path / labels, idx_bytes(np.arange(60_000) % 10))
    train = load_examples("mnist", tmp_path, "train").tensors["image"].flatten()
    validation = load_examples("mnist", tmp_path, "validation").tensors["image"].flatten()
    assert torch.equal(train, (torch.arange(50_000) % 251).to(torch.uint8))
    assert torch.equal(validation, (torch.arange(50_000, 60_000) % 251).to(torch.uint8))


@pytest.mark.parametrize("below", [".", "raw", "MNIST/raw"])
def test_files_are_found_in_the_usual_folders(tmp_path, below):
    write_set(tmp_path / below)
    assert len(load_examples("mnist", tmp_path, "test")) == 10


def test_names_with_a_dot_are_found(tmp_path):
    write_set(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load_examples("mnist", tmp_path, "train")) == 25


def test_mnist_does_not_take_the_pictures_of_fashion_mnist(tmp_path):
    write_set(tmp_path / "FashionMNIST" / "raw")
    assert len(load_examples("fashion-mnist", tmp_path, "test")) == 10
    assert "put the four IDX files of MNIST" in refusal(tmp_path)


def test_fashion_mnist_is_taken_from_the_system_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "system_folder", tmp_path)
    assert "dataset-fashion-mnist" in refusal(None, source="fashion-mnist")
    write_set(tmp_path, zipped=True)
    examples = load_examples("fashion-mnist", None, "train")
    assert len(examples) == 25
    assert examples.spec.class_names[9] == "ankle boot"


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_file_is_refused_with_both_byte_counts(tmp_path, zipped):
    write_set(tmp_path)
    images = idx_bytes(pictures(30))
    (tmp_path / FILES["train"][0]).unlink()
    path = write(tmp_path / FILES["train"][0], images[:-7], zipped)
    message = refusal(tmp_path)
    assert str(path) in message
    assert f"expected {16 + 30 * 6} bytes" in message
    assert f"found {16 + 30 * 6 - 7}" in message


def test_a_gzip_file_cut_short_is_refused_with_the_bytes_that_could_be_had(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (24, 20, 20))
    packed = gzip.compress(idx_bytes(noise))
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"cut\.gz is truncated: expected 9616 bytes") as caught:
        read_idx(path, 3)
    found = int(str(caught.value).split("found ")[1].split(";")[0])
    assert 0 < found < 9616


def test_a_file_shorter_than_a_header_is_refused(tmp_path):
    path = write(tmp_path / "short", b"\0\0\x08")
    with pytest.raises(UserError, match="header has 16 bytes, the file holds 3"):
        read_idx(path, 3)


def test_a_file_that_is_too_long_is_refused(tmp_path):
    path = write(tmp_path / "long", idx_bytes(pictures(4)) + b"x")
    with pytest.raises(UserError, match=r"longer than its header says: expected 40 .* found 41"):
        read_idx(path, 3)


@pytest.mark.parametrize("start", [b"\x89PNG", b"\0\0\x0d\x03", b"\0\0\x08\x01", b"\0\1\x08\x03"])
def test_a_foreign_header_is_refused(tmp_path, start):
    path = write(tmp_path / "foreign", start + idx_bytes(pictures(4))[4:])
    with pytest.raises(UserError, match=f"foreign is no IDX .*{start.hex()}, not 00000803"):
        read_idx(path, 3)


def test_a_gz_file_that_a_browser_has_unpacked_is_read(tmp_path):
    path = write(tmp_path / "images.gz", idx_bytes(pictures(4)))
    assert np.array_equal(read_idx(path, 3), pictures(4))


def test_a_damaged_gz_file_is_refused(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(pictures(4))))
    packed[-8] ^= 255  # of its checksum
    path = write(tmp_path / "images.gz", bytes(packed))
    with pytest.raises(UserError, match=r"cannot read .*images\.gz: .*incorrect data check"):
        read_idx(path, 3)


def test_different_numbers_of_pictures_and_labels_are_refused(tmp_path):
    write_set(tmp_path)
    write(tmp_path / FILES["train"][1], idx_bytes(np.zeros(29)))
    message = refusal(tmp_path)
    assert "30 pictures" in message
    assert "29 labels" in message
    assert FILES["train"][1] in message


def test_a_label_out_of_range_is_refused_with_its_position(tmp_path):
    write_set(tmp_path)
    labels = np.arange(30) % 10
    labels[17] = 10
    write(tmp_path / FILES["train"][1], idx_bytes(labels))
    message = refusal(tmp_path)
    assert f"{FILES['train'][1]}: label 10 at position 17 is out of range 0..9" in message


@pytest.mark.parametrize("missing", FILES["t10k"])
def test_a_missing_file_is_named(tmp_path, missing):
    write_set(tmp_path)
    (tmp_path / missing).unlink()
    message = refusal(tmp_path, "test")
    assert missing in message
    assert str(tmp_path) in message


def test_nothing_is_downloaded_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *a, **k: pytest.fail("downloads"))
    assert "--download" in refusal(tmp_path)


def test_a_download_without_network_says_where_to_put_the_files(tmp_path, monkeypatch):
    def unreachable(root, download):
        raise URLError("no\nroute")

    monkeypatch.setattr(torchvision.datasets, "MNIST", unreachable)
    message = refusal(tmp_path, download=True)
    assert "no route" in message
    assert f"into {tmp_path}" in message


def test_what_was_downloaded_is_read(tmp_path, monkeypatch):
    def fetch(root, download):
        write_set(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    assert len(load_examples("mnist", tmp_path / "new", "train", download=True)) == 25
