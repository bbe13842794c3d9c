"""The 1,797 handwritten digits inside scikit-learn: real data without a download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from gan_core.data.examples import Examples, Split
from gan_core.data.sources import Source, picture_spec, register

_SEED = 1797
_SIZES = {"test": 360, "validation": 180, "train": 1257}  # in the order in which they are cut


def _stratified_order(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """An order of which every piece, cut anywhere, has the classes in their proportions.

    The i-th of a class's n members, shuffled, is placed at (i + 1/2) / n of the whole.
    ``RandomState`` because its stream is frozen for good: the split must never move.
    """
    random = np.random.RandomState(_SEED)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[random.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, place))


def _read_table() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The values 0..16 (1797, 64) and labels (1797,), as scikit-learn's ``load_digits`` has them.

    Its file is read without its package, whose import takes a second of every process's start.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    return values, labels.astype(np.int64)


@register("digits")
class Digits(Source):
    """Handwritten digits, 8 x 8, grayscale, ten classes (UCI ML; ``sklearn.load_digits``).

    The values 0..16 become 0..255. The split is fixed and stratified: 1,257 train,
    180 validation, 360 test.
    """

    summary: ClassVar[str] = "handwritten digits 8x8 inside scikit-learn, 10 classes, no download"
    needs_root: ClassVar[bool] = False

    def load(self, split: Split) -> Examples:
        values, labels = _read_table()
        ends = np.cumsum(list(_SIZES.values()))
        parts = np.split(_stratified_order(labels), ends[:-1])
        # Back in the file's order, so that the classes do not come in turn.
        index = np.sort(dict(zip(_SIZES, parts, strict=True))[split])
        pixels = np.rint(values[index] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        tensors = {"image": torch.from_numpy(pixels), "label": torch.from_numpy(labels[index])}
        names = tuple(str(digit) for digit in range(10))
        return Examples(tensors, picture_spec((1, 8, 8), names), "digits", split)
