"""What lets a discriminator see several examples at once: packing, and their standard deviation."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from gan_core.data.examples import DataSpec, TensorSpec


def pack(targets: Tensor, count: int) -> Tensor:
    """Targets (N, C, ...) as N // ``count`` packs (N // count, count C, ...) of successive ones.

    PacGAN (Lin et al. 2018, arXiv:1712.04086, section 3): the discriminator decides on packs, whose
    members are all real or all generated. A rest that fills no pack is left out.
    """
    if count == 1:
        return targets
    whole = targets[: len(targets) // count * count]
    return whole.reshape(-1, count * targets.shape[1], *targets.shape[2:])


def unpack(logits: Tensor, count: int, total: int) -> Tensor:
    """Logits (N,) of packs as one for each of ``total`` members; the rest get the last pack's."""
    if count == 1:
        return logits
    each = logits.repeat_interleave(count)
    return torch.cat((each, each[-1:].expand(max(0, total - len(each)))))[:total]


def group_deviation(targets: Tensor, group: int) -> Tensor:
    """The mean over all features of their standard deviation in a group of examples: (N,).

    Groups are of successive examples of ``targets`` (N, ...), so that workers with whole groups
    form those that one worker would; a rest is a smaller group. Progressive GAN (Karras et al.
    2018, arXiv:1710.10196, section 3) has it late in D, for features; here it is of what D is
    given, so that any D can have it.
    """
    parts = []
    flat = targets.flatten(1)
    if flat.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()  # in which 1e-8 is more than nothing
    for members in flat.split(group):
        centred = members - members.mean(0)
        # Within the root, so that the gradient at equal examples is 0 and not infinite.
        deviation = (centred.square().mean(0) + 1e-8).sqrt().mean()
        parts.append(deviation.expand(len(members)))
    return torch.cat(parts).to(targets.dtype)


def with_deviation(targets: Tensor, group: int) -> Tensor:
    """``targets`` (N, C, ...) with :func:`group_deviation` as one more channel; 0: as they are."""
    if group == 0:
        return targets
    deviation = group_deviation(targets, group)
    plane = deviation.reshape(-1, *[1] * (targets.dim() - 1)).expand(-1, 1, *targets.shape[2:])
    return torch.cat((targets, plane), dim=1)


def seen_by_discriminator(data: DataSpec, packing: int, group: int) -> DataSpec:
    """``data`` as D sees it: ``packing`` times the channels, one more for the deviation."""
    old = data.tensors[data.target]
    shape = (packing * old.shape[0] + (group > 0), *old.shape[1:])
    target = TensorSpec(shape, old.low, old.high)
    return dataclasses.replace(data, tensors={**data.tensors, data.target: target})
