"""NDB: in how many regions of the data a generator puts too many or too few samples."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_core.metrics.given import check_features
from gan_core.metrics.numerics import exact_float32, squared_distances

BINS = 100
"""Bins of the method's own experiments; fewer where less than 10 examples would find one each, or
less than 10 of either side be counted in it: by one or two hardly any difference is told."""
SEEKERS = 10_000
"""The most examples by which the bins' centres are found."""
CRITICAL = 1.959964
"""The two-sided 5 % point of the normal distribution."""
_ROUNDS = 20
_FEWEST = 10
_AT_ONCE = 10_000  # points


@dataclasses.dataclass(frozen=True)
class BinFigures:
    """``ndb``: the share of bins with statistically different proportions, about 0.05 for equal
    distributions; ``jensen_shannon``: the divergence between the proportions, in nats, which chance
    makes about (K - 1) (1 / N + 1 / M) / 8 for equal ones, of N and M counted in K bins."""

    ndb: float
    jensen_shannon: float


def count_bins(real: int, samples: int | None = None) -> int:
    """How many bins there are of ``real`` examples, of which a half at least is put into them, to
    be compared with so many ``samples`` (``None``: with many).
    """
    fewest = real // 2 if samples is None else min(real // 2, samples)
    return max(1, min(BINS, fewest // _FEWEST))


class Bins:
    """Regions of the nearest of ``bins`` centres, found by k-means in a part of ``real`` (N, d).

    The others are counted: centres lie nearer to the examples that they are the means of than to
    any others. In many dimensions, or of few examples, those would fall into other bins than new
    ones of the same distribution do, and most bins would differ. The part is a half, but
    :data:`SEEKERS` at most, drawn at random: every other example may be all of one kind, as where
    two views of each thing take turns.
    """

    def __init__(self, real: Tensor, bins: int | None = None, seed: int = 0) -> None:
        check_features(real)
        self.centre = real.mean(0)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(real), generator=generator).to(real.device)
        seeking = min(SEEKERS, -(-len(real) // 2))
        bins = count_bins(len(real)) if bins is None else bins
        self.centres = _k_means(real[order[:seeking]] - self.centre, bins)
        self.counts = self._count(real[order[seeking:]])

    def _count(self, points: Tensor) -> Tensor:
        nearest = _nearest(points - self.centre, self.centres)
        return torch.bincount(nearest, minlength=len(self.centres)).double().cpu()

    def compare(self, fake: Tensor) -> BinFigures:
        """How ``fake`` (M, d) falls into the bins, against the real points.

        A pooled two-proportion z-test a bin at 5 % (Richardson and Weiss 2018, arXiv:1805.12462,
        section 3).
        """
        check_features(fake, 1)
        return compare_counts(self.counts, self._count(fake))


def compare_counts(first: Tensor, second: Tensor) -> BinFigures:
    """The figures of two histograms (K,) of counts over the same bins."""
    total_1, total_2 = first.sum(), second.sum()
    share_1, share_2 = first / total_1, second / total_2
    pooled = (first + second) / (total_1 + total_2)
    error = (pooled * (1 - pooled) * (1 / total_1 + 1 / total_2)).sqrt()
    different = (share_1 - share_2).abs() > CRITICAL * error
    middle = (share_1 + share_2) / 2
    divergence = sum(
        torch.special.xlogy(share, share / middle.clamp_min(1e-300)).sum() / 2
        for share in (share_1, share_2)
    )
    return BinFigures(different.double().mean().item(), max(0.0, float(divergence)))


@torch.no_grad()
def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    with exact_float32():
        parts = [squared_distances(p, centres).argmin(1) for p in points.split(_AT_ONCE)]
    return torch.cat(parts)


def _sums(points: Tensor, owner: Tensor, bins: int) -> Tensor:
    """The sum (K, d) of the points (N, d) of each bin, of which ``owner`` (N,) is the number.

    On a GPU adding to places is in no order of its own, and the figure would not repeat itself: a
    product is.
    """
    sums = points.new_zeros(bins, points.shape[1])
    if points.device.type != "cuda":
        return sums.index_add_(0, owner, points)
    with exact_float32():
        for part, own in zip(points.split(_AT_ONCE), owner.split(_AT_ONCE), strict=True):
            sums += F.one_hot(own, bins).to(part.dtype).t() @ part
    return sums


@torch.no_grad()
def _k_means(points: Tensor, bins: int) -> Tensor:
    """Lloyd's algorithm from the first of the points (N, d), in no order; the centres (K, d)."""
    centres = points[:bins].clone()
    for _ in range(_ROUNDS):
        owner = _nearest(points, centres)
        counts = torch.bincount(owner, minlength=bins)
        sums = _sums(points, owner, bins)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
    return centres
