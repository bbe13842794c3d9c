"""Each rank's share of the samples, made in windows of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gan_core.data.examples import to_pixels, to_unit_range
from gan_core.engine.world import World

Generate = Callable[[Tensor], Tensor]
"""From sample indices (n,), int64 on the world's device, to targets (n, ...) at native size."""


def windows(world: World, count: int, batch_size: int) -> Iterator[tuple[slice, slice]]:
    """This rank's share of 0..count: a window of indices, and which part of it is new.

    All windows are equally long, min(batch_size, count), whatever the share: a compiled or
    captured network meets one shape, and a sample's value does not depend on how many ranks
    there are. The last window of a share reaches back over, or beyond, what is needed.

    Raises ``ValueError`` for fewer things than ranks.
    """
    if count < world.size:
        raise ValueError(f"{count} samples cannot be shared by {world.size} ranks")
    share, length = world.slice_of(count), min(batch_size, count)
    for start in range(share.start, share.stop, length):
        stop = min(start + length, share.stop)
        first = min(start, count - length)
        yield slice(first, first + length), slice(start - first, stop - first)


@torch.no_grad()
def generated(
    generate: Generate, world: World, count: int, batch_size: int, shape: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's samples, a window at a time, float32, and which of them (n,) are finite.

    What is not finite comes as zeros. Raises ``ValueError`` for targets of another shape.
    """
    for window, new in windows(world, count, batch_size):
        index = torch.arange(window.start, window.stop, device=world.device)
        targets = generate(index).detach()
        if tuple(targets.shape) != (len(index), *shape):
            raise ValueError(
                f"samples have the shape {tuple(targets.shape)}, not {(len(index), *shape)}"
            )
        targets = targets[new].to(world.device, torch.float32)
        finite = targets.isfinite().flatten(1).all(1)
        yield targets.nan_to_num(0.0, 0.0, 0.0), finite


def quantised(images: Tensor) -> Tensor:
    """Images in [-1, 1] as an 8-bit file would keep them, as the real ones were kept."""
    return to_unit_range(to_pixels(images))
