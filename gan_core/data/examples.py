"""What data is inside the program: named tensors and a specification of each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Split = Literal["train", "validation", "test", "train+validation"]
Batch = dict[str, Tensor]
"""A batch: named tensors whose first dimension is the batch."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One example's tensor as the networks see it.

    ``shape`` is without the batch dimension. ``low`` and ``high`` bound the values (pictures:
    -1 and 1; ``None``: unbounded). ``classes`` is set for labels: integers in [0, classes).
    Tensors of one ``series`` belong together, example by example; another series has a length and
    an order of its own (the second domain of unpaired pictures).
    """

    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    classes: int | None = None
    series: str = ""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a source offers to a variant.

    ``target`` names the tensor that a generator learns to make ("image", "point", ...).
    """

    tensors: Mapping[str, TensorSpec]
    target: str = "image"
    class_names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes of ``label``, 0 where there are no labels."""
        label = self.tensors.get("label")
        return 0 if label is None else int(label.classes or 0)

    @property
    def labelled(self) -> bool:
        """Whether labels tell examples apart: one class of all of them says nothing."""
        return self.classes > 1

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of one example of the target, such as (channels, height, width)."""
        return self.tensors[self.target].shape

    @property
    def pictures(self) -> bool:
        """Whether the target is a picture (channels, rows, columns), which extractors can see."""
        return self.target == "image" and len(self.target_shape) == 3

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "tensors": {name: dataclasses.asdict(spec) for name, spec in self.tensors.items()},
            "target": self.target,
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """The inverse of :meth:`to_dict`."""
        tensors = {
            name: TensorSpec(**{**spec, "shape": tuple(spec["shape"])})
            for name, spec in values["tensors"].items()
        }
        return cls(tensors, values["target"], tuple(values["class_names"]))


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split of a source, whole, in memory.

    Pictures are stored as uint8 (N, C, H, W) and become floats in [-1, 1] only when a batch is
    made; labels are int64 (N,); points are float32 (N, D). ``spec`` speaks of the floats.
    """

    tensors: Mapping[str, Tensor]
    spec: DataSpec
    source: str
    split: Split = "train"

    def __len__(self) -> int:
        return len(self.tensors[self.spec.target])

    @property
    def shortest(self) -> int:
        """How many examples there are of each series, however many others have."""
        return min(map(len, self.tensors.values()))

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on every value: the key of what is cached.

        They are computed once, so nothing must change ``tensors`` afterwards.
        """
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name].contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().data)  # no copy: it may be large
        return digest.hexdigest()[:16]

    @property
    def told(self) -> str:
        """Split, source and content for a protocol: one source's name may stand for many folders'
        pictures, and for other sizes of them.
        """
        return f"{self.split} of {self.source} (data {self.fingerprint[:8]})"

    def select(self, index: Tensor) -> Examples:
        """The examples at the positions ``index`` (int64, (M,)); other series stay whole."""
        own = self.spec.tensors[self.spec.target].series
        chosen = {
            name: tensor[index] if self.spec.tensors[name].series == own else tensor
            for name, tensor in self.tensors.items()
        }
        return dataclasses.replace(self, tensors=chosen)


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 pixels in 0..255 as float32 in [-1, 1]."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def to_pixels(images: Tensor) -> Tensor:
    """Floats in [-1, 1] as uint8 pixels in 0..255, rounded to the nearest."""
    return images.detach().float().clamp(-1, 1).add(1).mul_(127.5).round_().to(torch.uint8)
