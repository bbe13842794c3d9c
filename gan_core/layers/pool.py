"""A pool of generated pictures: a discriminator learns from past ones too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Up to ``size`` pictures of ``shape`` (Shrivastava et al. 2017; Zhu et al. 2017, section 4).

    A picture is returned and kept until the pool is full. After that, one in two is exchanged for
    a picture drawn from the pool, and the other returned as it came. Pictures of a batch come one
    after another. Everything happens on the device, without a word to the host.

    The pictures are buffers outside the state that ranks share: every rank keeps and saves its own.
    """

    images: Tensor
    seen: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size
        # One row more than pictures: what is overwritten within its own batch goes there.
        self.register_buffer("images", torch.zeros(size + 1, *shape), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def exchange(self, images: Tensor, noise: Tensor) -> Tensor:
        """Pictures (N, *shape) for ``images``; ``noise`` (N, 2) uniform in (0, 1).

        The first number decides whether a picture is exchanged (below 1/2), the second for which.
        """
        if self.size == 0:
            return images
        order = torch.arange(len(images), device=images.device)
        place = self.seen + order
        fresh = place < self.size
        drawn = (noise[:, 1] * self.size).long().clamp_max(self.size - 1)
        slot = torch.where(fresh, place, drawn)
        enters = fresh | (noise[:, 0] < 0.5)
        # Who else of this batch enters the same slot: the last one before, and whether one after.
        same = (slot[:, None] == slot[None, :]) & enters[None, :]
        before = torch.where(same & (order[None, :] < order[:, None]), order[None, :], -1).amax(1)
        stays = enters & ~(same & (order[None, :] > order[:, None])).any(1)
        older = torch.where(
            _as_flags(before >= 0, images), images[before.clamp_min(0)], self.images[slot]
        )
        returned = torch.where(_as_flags(enters & ~fresh, images), older, images)
        self.images[torch.where(stays, slot, self.size)] = images
        self.seen += len(images)
        return returned

    @torch.no_grad()
    def deal_out(self, pools: Sequence[tuple[Tensor, Tensor]], rank: int, size: int) -> None:
        """Fill this pool, of rank ``rank`` of ``size``, from the ``pools`` of ranks of any number.

        ``pools``: the buffers ``images`` and ``seen`` of each old rank. Their pictures are dealt
        out in turns, the first of each old pool first; what a smaller number of pools cannot hold
        is left out, evenly, and a pool that gets too few goes on filling.
        """
        held = [min(int(seen), self.size) for _, seen in pools]
        dealt = [
            images[slot]
            for slot in range(self.size)
            for (images, _), count in zip(pools, held, strict=True)
            if slot < count
        ]
        mine = dealt[rank::size][: self.size]
        for slot, image in enumerate(mine):
            self.images[slot] = image
        self.seen.fill_(len(mine))


def _as_flags(flags: Tensor, images: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, ...), one for each picture."""
    return flags.reshape(-1, *[1] * (images.dim() - 1))
