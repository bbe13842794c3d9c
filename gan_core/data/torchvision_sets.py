"""CIFAR-10 and other sets that torchvision knows how to read and download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from gan_core.data.examples import Examples, Split
from gan_core.data.sources import PublishedSource, picture_spec, register
from gan_core.errors import UserError

_DIGITS = tuple(str(digit) for digit in range(10))


class TorchvisionSource(PublishedSource):
    """A set read by ``torchvision.datasets``, from the files as their authors publish them.

    The last tenth of the training part is validation, the rest train; the test part is test.
    """

    name: ClassVar[str]
    dataset: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """What must be in ``root``."""
    archive: ClassVar[str]
    """What the authors publish, unpacked into ``root``."""
    class_names: ClassVar[tuple[str, ...]] = _DIGITS

    def _root(self) -> Path:
        if self.root is None:
            raise UserError(f"--data {self.name} needs --data-root: the folder of {self.archive}")
        # The folder inside the archive, instead of the one around it, is an easy slip.
        return self.root.parent if self.root.name in self.files else self.root

    def _problem(self, root: Path, reason: Exception) -> UserError:
        """The error for what torchvision could not read or fetch."""
        text = " ".join(str(reason).split())
        if self.download:
            return UserError(
                f"cannot download {self.dataset} ({text}): without a network, "
                f"put {self.archive} into {root}"
            )
        if any((root / name).exists() for name in self.files):
            return UserError(
                f"the {self.dataset} files in {root} are incomplete or damaged: "
                f"unpack {self.archive} there again"
            )
        if any(path.is_dir() for path in (root / "train").glob("*")):
            return UserError(
                f"{root} holds pictures in class folders, not {' and '.join(self.files)}: "
                f"load it with --data folder --data-root {root}"
            )
        return UserError(
            f"no {' and '.join(self.files)} in {root}: unpack {self.archive} there, "
            "or pass --download"
        )

    def open(self, root: Path, part: str) -> Any:
        """torchvision's data set of ``part``, "train" or "test"."""
        from torchvision import datasets

        kind = getattr(datasets, self.dataset)
        return kind(str(root), train=part == "train", download=self.download)

    def arrays(self, dataset: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Pictures (N, C, H, W) and labels (N,) of torchvision's ``dataset``."""
        pictures = np.ascontiguousarray(np.transpose(dataset.data, (0, 3, 1, 2)))
        return pictures, np.asarray(dataset.targets, np.int64)

    def load(self, split: Split) -> Examples:
        root = self._root()
        try:
            dataset = self.open(root, "test" if split == "test" else "train")
        except (OSError, RuntimeError, EOFError, KeyError, ValueError) as reason:
            raise self._problem(root, reason) from None
        images, labels = self.arrays(dataset)
        if split != "test":
            first = len(images) - max(1, len(images) // 10)
            part = slice(first, None) if split == "validation" else slice(first)
            images, labels = images[part], labels[part]
        tensors = {"image": torch.from_numpy(images), "label": torch.from_numpy(labels)}
        shape = (images.shape[1], images.shape[2], images.shape[3])
        names = tuple(getattr(dataset, "classes", None) or self.class_names)
        return Examples(tensors, picture_spec(shape, names), self.name, split)


@register("cifar10")
class CIFAR10(TorchvisionSource):
    """Small photographs (Krizhevsky 2009): 45,000 / 5,000 / 10,000, 32 x 32, 10 classes."""

    summary: ClassVar[str] = "60,000 small photographs 32x32, 10 classes (torchvision)"
    name: ClassVar[str] = "cifar10"
    dataset: ClassVar[str] = "CIFAR10"
    files: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py",)
    archive: ClassVar[str] = "cifar-10-python.tar.gz"


@register("cifar100")
class CIFAR100(TorchvisionSource):
    """Small photographs (Krizhevsky 2009): 45,000 / 5,000 / 10,000, 32 x 32, 100 classes."""

    summary: ClassVar[str] = "60,000 small photographs 32x32, 100 classes (torchvision)"
    name: ClassVar[str] = "cifar100"
    dataset: ClassVar[str] = "CIFAR100"
    files: ClassVar[tuple[str, ...]] = ("cifar-100-python",)
    archive: ClassVar[str] = "cifar-100-python.tar.gz"


class _BySplit(TorchvisionSource):
    """The sets whose torchvision class has ``split``, ``data`` (N, C, H, W) and ``labels``."""

    def open(self, root: Path, part: str) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.dataset)(str(root), split=part, download=self.download)

    def arrays(self, dataset: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        return np.ascontiguousarray(dataset.data), np.asarray(dataset.labels, np.int64)


@register("svhn")
class SVHN(_BySplit):
    """House numbers (Netzer et al. 2011): 65,932 / 7,325 / 26,032, 32 x 32, 10 classes."""

    summary: ClassVar[str] = "99,289 house numbers 32x32 in colour, 10 classes (torchvision)"
    name: ClassVar[str] = "svhn"
    dataset: ClassVar[str] = "SVHN"
    files: ClassVar[tuple[str, ...]] = ("train_32x32.mat", "test_32x32.mat")
    archive: ClassVar[str] = "train_32x32.mat and test_32x32.mat"


@register("stl10")
class STL10(_BySplit):
    """Photographs (Coates et al. 2011): 4,500 / 500 / 8,000 with labels, 96 x 96, 10 classes."""

    summary: ClassVar[str] = "13,000 labelled photographs 96x96, 10 classes (torchvision)"
    name: ClassVar[str] = "stl10"
    dataset: ClassVar[str] = "STL10"
    files: ClassVar[tuple[str, ...]] = ("stl10_binary",)
    archive: ClassVar[str] = "stl10_binary.tar.gz"
