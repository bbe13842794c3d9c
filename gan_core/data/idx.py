"""MNIST and its relatives: the IDX format (yann.lecun.com/exdb/mnist), plain or gzipped."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from gan_core.data.examples import Examples, Split
from gan_core.data.sources import PublishedSource, picture_spec, register
from gan_core.errors import UserError

_UNSIGNED_BYTE = 0x08
_VALIDATION = 10_000
_GZIP = b"\x1f\x8b"  # what such a file begins with


def _unpacked(packed: bytes) -> bytes:
    """What the gzip members in ``packed`` hold; of a truncated one what can be had.

    Zeros behind them are padding. Not ``gzip.decompress``, which gives nothing of a truncated file.
    """
    parts = []
    while packed:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(packed))
        packed = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        # Not by the ending: browsers unpack what they fetch and leave the name as it was.
        return _unpacked(content) if content.startswith(_GZIP) else content
    except (OSError, zlib.error) as problem:
        raise UserError(f"cannot read {path}: {problem}; fetch the file again") from None


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes with ``dimensions`` axes in the IDX file ``path``.

    Raises ``UserError``, naming the file, for a foreign header or a wrong number of bytes.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise UserError(
            f"{path} is truncated: an IDX header has {header} bytes, "
            f"the file holds {len(content)}; fetch it again"
        )
    zeros, kind, axes = struct.unpack(">HBB", content[:4])
    if (zeros, kind, axes) != (0, _UNSIGNED_BYTE, dimensions):
        expected = struct.pack(">HBB", 0, _UNSIGNED_BYTE, dimensions).hex()
        raise UserError(
            f"{path} is no IDX file of unsigned bytes with {dimensions} dimensions: "
            f"it begins with {content[:4].hex()}, not {expected}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected_bytes = header + math.prod(shape)
    if len(content) != expected_bytes:
        what = "truncated" if len(content) < expected_bytes else "longer than its header says"
        raise UserError(
            f"{path} is {what}: expected {expected_bytes} bytes for the shape "
            f"{' x '.join(map(str, shape))}, found {len(content)}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


class IdxSource(PublishedSource):
    """Pictures and labels in the four IDX files of MNIST, plain or gzipped.

    They are looked for in ``root``, ``root/raw`` and torchvision's ``root/<dataset>/raw``. The
    splits are Goodfellow's: of the training file the last 10,000 are validation (of a smaller
    file the last sixth), the rest train; the t10k files are test.
    """

    dataset: ClassVar[str]
    class_names: ClassVar[tuple[str, ...]]
    name: ClassVar[str]

    def folders(self) -> Sequence[Path]:
        """Where the files may be, in the order in which they are looked for."""
        if self.root is None:
            return ()
        return (self.root, self.root / "raw", self.root / self.dataset / "raw")

    def missing(self, files: str) -> UserError:
        """The error for files that are nowhere, saying where to put them."""
        where = "--data-root" if self.root is None else str(self.root)
        return UserError(
            f"no {files} (plain or .gz) for {self.name}: put the four IDX files of "
            f"{self.dataset} into {where}, or pass --download"
        )

    def _path(self, part: str, what: str) -> Path:
        for folder in self.folders():
            for name in (f"{part}-{what}-ubyte", f"{part}-{what.replace('-', '.')}-ubyte"):
                for path in (folder / name, folder / f"{name}.gz"):
                    if path.is_file():
                        return path
        raise self.missing(f"{part}-{what}-ubyte")

    def _fetch(self) -> None:
        import torchvision

        if self.root is None:
            raise UserError("--download needs --data-root: the folder to download into")
        try:
            getattr(torchvision.datasets, self.dataset)(str(self.root), download=True)
        except (OSError, RuntimeError) as problem:
            reason = " ".join(str(problem).split())
            raise UserError(
                f"cannot download {self.dataset} ({reason}): without a network, put its four "
                f"IDX files (train-images-idx3-ubyte.gz, ...) into {self.root}"
            ) from None

    def _read(self, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        try:
            paths = self._path(part, "images-idx3"), self._path(part, "labels-idx1")
        except UserError:
            if not self.download:
                raise
            self._fetch()
            paths = self._path(part, "images-idx3"), self._path(part, "labels-idx1")
        images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
        if len(images) != len(labels):
            raise UserError(
                f"{paths[0]} holds {len(images)} pictures but {paths[1]} {len(labels)} labels: "
                "they are not of the same set"
            )
        wrong = np.flatnonzero(labels >= len(self.class_names))
        if len(wrong):
            raise UserError(
                f"{paths[1]}: label {labels[wrong[0]]} at position {wrong[0]} is out of range "
                f"0..{len(self.class_names) - 1}"
            )
        return images, labels

    def load(self, split: Split) -> Examples:
        images, labels = self._read("t10k" if split == "test" else "train")
        if split != "test":
            held_out = min(_VALIDATION, max(1, len(images) // 6))
            first = len(images) - held_out
            part = slice(first, None) if split == "validation" else slice(first)
            images, labels = images[part], labels[part]
        tensors = {
            "image": torch.from_numpy(images).unsqueeze(1),
            "label": torch.from_numpy(labels.astype(np.int64)),
        }
        spec = picture_spec((1, *images.shape[1:]), self.class_names)
        return Examples(tensors, spec, self.name, split)


@register("mnist")
class MNIST(IdxSource):
    """Handwritten digits (LeCun et al. 1998): 50,000 / 10,000 / 10,000, 28 x 28, 10 classes."""

    summary: ClassVar[str] = "handwritten digits 28x28, 10 classes; IDX files, plain or .gz"
    name: ClassVar[str] = "mnist"
    dataset: ClassVar[str] = "MNIST"
    class_names: ClassVar[tuple[str, ...]] = tuple(str(digit) for digit in range(10))


@register("fashion-mnist")
class FashionMNIST(IdxSource):
    """Clothes (Xiao et al. 2017), in the sizes of MNIST.

    Without ``root`` they are taken from the folder of the Debian package.
    """

    summary: ClassVar[str] = "clothes 28x28, 10 classes; IDX files (Debian: dataset-fashion-mnist)"
    needs_root: ClassVar[bool] = False  # a system folder is its default
    system_folder: ClassVar[Path] = Path("/usr/share/datasets/fashion-mnist")
    name: ClassVar[str] = "fashion-mnist"
    dataset: ClassVar[str] = "FashionMNIST"
    class_names: ClassVar[tuple[str, ...]] = (
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )

    def folders(self) -> Sequence[Path]:
        return (self.system_folder,) if self.root is None else super().folders()

    def missing(self, files: str) -> UserError:
        if self.root is not None:
            return super().missing(files)
        return UserError(
            f"no {files}.gz in {self.system_folder}: install the Debian package "
            "dataset-fashion-mnist, or say where its four IDX files are with --data-root"
        )
