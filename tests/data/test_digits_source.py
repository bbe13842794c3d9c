from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gan_core.data import check_examples, load_examples

SIZES = {"train": 1257, "validation": 180, "test": 360}


def rows(split: str) -> list[tuple[int, ...]]:
    examples = load_examples("digits", None, split)
    pixels = examples.tensors["image"].flatten(1).tolist()
    return [
        (*p, label) for p, label in zip(pixels, examples.tensors["label"].tolist(), strict=True)
    ]


@pytest.mark.parametrize("split", SIZES)
def test_a_split_has_its_size_and_passes_every_check(split):
    examples = load_examples("digits", None, split)
    assert examples.tensors["image"].shape == (SIZES[split], 1, 8, 8)
    assert examples.tensors["image"].dtype == torch.uint8
    assert examples.spec.class_names == tuple("0123456789")
    check_examples(examples, batch_size=100)


def test_the_three_splits_together_are_the_whole_set_rounded_to_bytes():
    values, labels = load_digits(return_X_y=True)
    whole = [
        (*[round(int(v) * 255 / 16) for v in row], int(label))
        for row, label in zip(values, labels, strict=True)
    ]
    assert sorted(rows("train") + rows("validation") + rows("test")) == sorted(whole)


def test_the_darkest_and_brightest_values_are_black_and_white():
    image = load_examples("digits", None, "train").tensors["image"]
    assert image.min() == 0
    assert image.max() == 255
    assert len(image.unique()) == 17


@pytest.mark.parametrize("split", SIZES)
def test_every_split_has_the_classes_in_their_proportions(split):
    _, labels = load_digits(return_X_y=True)
    expected = np.bincount(labels) * SIZES[split] / len(labels)
    found = torch.bincount(load_examples("digits", None, split).tensors["label"]).numpy()
    assert np.abs(found - expected).max() <= 1


def test_the_split_never_moves():
    found = {s: load_examples("digits", None, s).fingerprint for s in SIZES}
    assert found == {
        "train": "c7f4e26488d13ceb",
        "validation": "da408c0ddf137d34",
        "test": "04af08f73d0ece6f",
    }


def test_classes_do_not_come_in_turn():
    labels = load_examples("digits", None, "test").tensors["label"]
    assert labels[:20].unique().numel() > 2
    assert not torch.equal(labels, labels.sort().values)


def test_scikit_learn_itself_is_asked_where_its_file_lies_elsewhere(monkeypatch):
    before = load_examples("digits", None, "test").fingerprint
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load_examples("digits", None, "test").fingerprint == before


def test_its_package_is_not_imported_for_its_file():
    code = (
        "import sys; from gan_core.data import load_examples as load; load('digits', None, 'test');"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
