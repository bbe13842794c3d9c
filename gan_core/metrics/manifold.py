"""Precision, recall, density, coverage: fidelity and diversity by nearest neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from gan_core.metrics.given import check_features
from gan_core.metrics.numerics import exact_float32, squared_distances

PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
LIMIT = 10_000
"""At most this many of either side are compared."""
_TILE = 1 << 22  # distances in memory at once


def spread(count: int, limit: int = LIMIT) -> Tensor:
    """At most ``limit`` positions (int64), evenly spread over 0..count, so over sorted classes.

    Each is drawn in a stretch of its own, always alike: every tenth example, say, may be all of
    one kind, as where ten kinds take turns.
    """
    kept = min(count, limit)
    bounds = torch.arange(kept + 1) * count // kept
    places = torch.rand(kept, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return bounds[:-1] + (places * bounds.diff()).long()


def _rows(columns: int) -> int:
    return max(1, _TILE // max(1, columns))


@torch.no_grad()
def squared_radii(points: Tensor, neighbours: Sequence[int]) -> list[Tensor]:
    """Each point's squared distance (N,) to its k-th nearest other point, for every k given.

    Points (N, d). With N <= k the farthest other point stands in for the k-th.
    """
    ranks = [min(k, len(points) - 1) for k in neighbours]
    centred = points - points.mean(0)
    radii = torch.empty(len(points), len(ranks), device=points.device, dtype=points.dtype)
    with exact_float32():
        for index in torch.arange(len(points), device=points.device).split(_rows(len(points))):
            distances = squared_distances(centred[index], centred)
            distances[torch.arange(len(index), device=points.device), index] = 0  # not rounded
            nearest = distances.topk(max(ranks) + 1, largest=False, sorted=True).values
            radii[index] = nearest[:, ranks]  # position 0 is the point itself
    return list(radii.unbind(1))


@torch.no_grad()
def neighbour_search(points: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions (int64) and distances (M, k) of the nearest ``others`` (N, d) to ``points`` (M, d).

    Nearest first; k is ``count``, or N if that is less.
    """
    centre = others.mean(0)
    points, others = points - centre, others - centre
    found = []
    with exact_float32():
        for rows in points.split(_rows(len(others))):
            distances = squared_distances(rows, others)
            found.append(distances.topk(min(count, len(others)), largest=False, sorted=True))
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]).sqrt()


@dataclasses.dataclass(frozen=True)
class ManifoldFigures:
    """Precision, recall, density, coverage; and which real points (N,) the fakes' balls hold."""

    precision: float
    recall: float
    density: float
    coverage: float
    recalled: Tensor


class RealManifold:
    """The balls around the real features (N, d), measured once and compared with many fakes.

    Precision and recall: Kynkaanniemi et al. 2019 (arXiv:1904.06991), k = 3. Density and
    coverage: Naeem et al. 2020 (arXiv:2002.09797), k = 5. Identical distributions score density
    1 and coverage about 1 - (N / (N + M))^5, with N real and M fake points: 0.97 with as many of
    both, 0.60 with 2,000 fakes of 10,000. Their precision and recall depend on the data, too.
    """

    def __init__(self, features: Tensor) -> None:
        check_features(features)
        self.centre = features.mean(0)
        self.features = features - self.centre
        self.radii, self.wide_radii = squared_radii(
            self.features, (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS)
        )

    @torch.no_grad()
    def compare(self, fake: Tensor) -> ManifoldFigures:
        """The figures of fake features (M, d); memory is bounded whatever N and M are."""
        check_features(fake)
        fake = fake - self.centre
        (fake_radii,) = squared_radii(fake, (PRECISION_NEIGHBOURS,))
        count, samples = len(self.features), len(fake)
        precise = torch.zeros(samples, dtype=torch.bool, device=fake.device)
        recalled = torch.zeros(count, dtype=torch.bool, device=fake.device)
        covered = torch.zeros_like(recalled)
        inside = torch.zeros((), dtype=torch.int64, device=fake.device)
        with exact_float32():
            for start in range(0, count, _rows(samples)):
                rows = slice(start, start + _rows(samples))
                distances = squared_distances(self.features[rows], fake)
                precise |= (distances <= self.radii[rows, None]).any(0)
                recalled[rows] = (distances <= fake_radii).any(1)
                within = (distances < self.wide_radii[rows, None]).sum(1)
                covered[rows] = within > 0
                inside += within.sum()
        return ManifoldFigures(
            precision=precise.double().mean().item(),
            recall=recalled.double().mean().item(),
            density=inside.item() / (DENSITY_NEIGHBOURS * samples),
            coverage=covered.double().mean().item(),
            recalled=recalled,
        )


def mean_by_class(recalled: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The share (K,) of the ``recalled`` (N,) in each class; NaN for a class without examples."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    hits = torch.bincount(labels.cpu(), weights=recalled.cpu().double(), minlength=classes)
    return hits / counts


def class_recall(
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    classes: int,
) -> Tensor:
    """Recall (K,) of each class by the fakes that were asked for that class; k = 3.

    Real features (N, d) with labels (N,), fake ones (M, d) with the labels asked for (M,). A class
    without real examples is NaN, one without fakes 0. For a generator that takes no class, pass
    :attr:`ManifoldFigures.recalled` to :func:`mean_by_class`: there any fake may recall.
    """
    figures = torch.full((classes,), torch.nan, dtype=torch.float64)
    for label in range(classes):
        ours, theirs = real[real_labels == label], fake[fake_labels == label]
        if len(ours):
            figures[label] = _recall(ours, theirs) if len(theirs) else 0.0
    return figures


@torch.no_grad()
def _recall(real: Tensor, fake: Tensor) -> float:
    centre = real.mean(0)
    real, fake = real - centre, fake - centre
    (radii,) = squared_radii(fake, (PRECISION_NEIGHBOURS,))
    with exact_float32():
        parts = [
            (squared_distances(rows, fake) <= radii).any(1) for rows in real.split(_rows(len(fake)))
        ]
    return torch.cat(parts).double().mean().item()
