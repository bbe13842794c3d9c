"""How a stage wants to see the data: size and padding once at load, floats a batch at a time."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_core.data.examples import Batch, DataSpec, Examples, to_unit_range
from gan_core.errors import UserError

_PADDING_SHARE = 8  # a frame of up to an eighth of the size; what needs more is enlarged


@dataclasses.dataclass(frozen=True)
class View:
    """Data as it comes: nothing is resized; uint8 pictures become floats in [-1, 1]."""

    def through(self, spec: DataSpec) -> DataSpec:
        """What ``spec`` becomes."""
        return spec

    def prepare(self, examples: Examples) -> Examples:
        """The whole split, once, before training."""
        return examples

    def present(self, stored: Batch) -> Batch:
        """Stored tensors of one batch, on their device, as the networks see them."""
        return {n: to_unit_range(t) if t.dtype == torch.uint8 else t for n, t in stored.items()}

    def restore(self, target: Tensor, native: tuple[int, ...]) -> Tensor:
        """Targets (N, ...) at the source's own size, so that figures of all variants compare."""
        return target

    def describe(self, native: tuple[int, ...]) -> str:
        """How :meth:`restore` resizes, for the protocol of a figure."""
        return "none"


@dataclasses.dataclass(frozen=True)
class SquareView(View):
    """Pictures of ``size`` x ``size`` pixels.

    A picture that lacks at most an eighth of the size (MNIST's 28 of 32) is padded with its
    darkest value; other sizes are resized with antialiasing (digits' 8 are enlarged to 32).
    ``also`` names further tensors of pictures that are seen like the target. ``UserError`` for
    pictures of other sizes that are no pixels (uint8).
    """

    size: int = 32
    also: tuple[str, ...] = ()

    def _pads(self, native: tuple[int, ...]) -> bool:
        rows, columns = native[-2:]
        return all(0 <= self.size - n <= self.size // _PADDING_SHARE for n in (rows, columns))

    def _margins(self, native: tuple[int, ...]) -> tuple[int, int]:
        return (self.size - native[-2]) // 2, (self.size - native[-1]) // 2

    def through(self, spec: DataSpec) -> DataSpec:
        seen = {
            name: dataclasses.replace(
                spec.tensors[name], shape=(spec.tensors[name].shape[0], self.size, self.size)
            )
            for name in (spec.target, *self.also)
            if name in spec.tensors  # a variant says better what lacks
        }
        return dataclasses.replace(spec, tensors={**spec.tensors, **seen})

    def prepare(self, examples: Examples) -> Examples:
        seen = {
            name: self._square(examples.tensors[name])
            for name in (examples.spec.target, *self.also)
        }
        return dataclasses.replace(
            examples, tensors={**examples.tensors, **seen}, spec=self.through(examples.spec)
        )

    def _square(self, images: Tensor) -> Tensor:
        if tuple(images.shape[-2:]) == (self.size, self.size):
            return images
        if images.dtype != torch.uint8:  # floats would be rounded to two values, or framed in grey
            raise UserError(
                f"pictures of {images.dtype} cannot be made {self.size} x {self.size}: give pixels "
                "of 0..255 as torch.uint8"
            )
        return self._pad(images) if self._pads(images.shape) else self._resize(images)

    def _pad(self, images: Tensor) -> Tensor:
        top, left = self._margins(images.shape)
        bottom, right = self.size - images.shape[-2] - top, self.size - images.shape[-1] - left
        return F.pad(images, (left, right, top, bottom), value=0)

    def _resize(self, images: Tensor) -> Tensor:
        chunks = [_resized(c.float(), self.size, self.size) for c in images.split(4096)]
        return torch.cat([c.round_().clamp_(0, 255).to(torch.uint8) for c in chunks])

    def restore(self, target: Tensor, native: tuple[int, ...]) -> Tensor:
        rows, columns = native[-2:]
        if tuple(target.shape[-2:]) == (rows, columns):
            return target
        if self._pads(native):
            top, left = self._margins(native)
            return target[..., top : top + rows, left : left + columns]
        # A picture that was enlarged is sampled where its pixels were: blurring it against
        # aliasing would be a difference from the real ones that no generator could avoid.
        enlarged = rows < self.size and columns < self.size
        return _resized(target, rows, columns, antialias=not enlarged).clamp(-1, 1)

    def describe(self, native: tuple[int, ...]) -> str:
        if tuple(native[-2:]) == (self.size, self.size):
            return "none"
        how = "cropped" if self._pads(native) else "bicubic"
        return f"{self.size} px to {native[-2]} x {native[-1]}, {how}"


def _resized(images: Tensor, rows: int, columns: int, antialias: bool = True) -> Tensor:
    return F.interpolate(
        images, size=(rows, columns), mode="bicubic", antialias=antialias, align_corners=False
    )
