"""How different samples are from each other, and whether they are training examples again."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_core.metrics.bins import Bins, count_bins
from gan_core.metrics.manifold import spread
from gan_core.metrics.numerics import exact_float32, squared_distances

LIMIT = 2_000
"""At most this many samples are compared with each other."""
NEAR = 0.01
"""The share of real examples that lie nearer to another than the distance called "near"."""
SAME = 0.0005
"""Of the mean distance between two real examples: what lies nearer than that is the same example
twice. Ten times as much lies between different ones where a classifier of two classes has learned
to see little else."""

_PAIRS_AT_ONCE = 2**26  # distances, 256 MiB


def vendi_score(features: Tensor) -> float:
    """exp of the entropy of the eigenvalues of K / n, K the cosine similarities of (N, d).

    The effective number of different things: 1 for identical ones, N for orthogonal ones (Friedman
    and Dieng 2022, arXiv:2210.02410). A row of zeros is like nothing, itself included:
    its eigenvalue is 0, and the score of zeros alone is 1.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    # The eigenvalues of X X^T and of X^T X are the same but for zeros: the smaller one is quicker.
    gram = unit @ unit.t() if len(unit) <= unit.shape[1] else unit.t() @ unit
    values = torch.linalg.eigvalsh(gram.cpu() / len(unit)).clamp_min(0)
    return float(torch.exp(-torch.special.xlogy(values, values).sum()))


def distances_of_pairs(features: Tensor) -> Tensor:
    """The Euclidean distances (N (N - 1) / 2,) between any two different rows of (N, d)."""
    return torch.nn.functional.pdist(features.double())


def birthday_support(distances: Tensor, near: float) -> float:
    """How many different things a generator makes, from how often two of N samples are the same.

    ``distances`` are those of the N samples' pairs; two nearer than ``near`` are the same. In a
    uniform support of n, a pair is the same with probability 1/n, so n is about the number of pairs
    over those that are the same (Arora and Zhang 2017, arXiv:1706.08224: collisions become likely
    at N = sqrt(n)). Without any the answer is the number of pairs, and means: at least.
    """
    return len(distances) / max(1, int((distances <= near).sum()))


def _ratio(distance: float, real: float) -> float:
    """The distance of samples over that of real examples; 1 where there is none in either."""
    return 1.0 if distance == real else distance / max(real, 1e-12)


def _nearest(points: Tensor, others: Tensor, own: Tensor | None = None) -> Tensor:
    """The distance (M,), float64, of ``points`` (M, d) to the nearest of ``others`` (N, d).

    ``own``: the places (M,) of the points among the others, which do not count. Which is nearest
    is found by a product in float32, to about 0.001 of the distances at large; how near it is, by
    the difference.
    """
    rows = max(1, _PAIRS_AT_ONCE // len(others))
    parts = []
    for places in torch.arange(len(points), device=points.device).split(rows):
        part = points[places]
        with exact_float32():
            distances = squared_distances(part, others)
        if own is not None:
            distances.scatter_(1, own.to(distances.device)[places, None], torch.inf)
        found = others[distances.argmin(1)].double()
        parts.append(torch.linalg.vector_norm(part.double() - found, dim=1))
    return torch.cat(parts)


class RealDiversity:
    """What samples are compared with: the features ``real`` (N, d) of the training examples.

    ``samples``: how many there will be, where that is known (``None``: many).
    """

    def __init__(self, real: Tensor, samples: int | None = None) -> None:
        self.centre = real.mean(0)
        self._real = real - self.centre
        index = self._chosen(len(real))
        chosen = self._real[index]
        self.bins = Bins(real, count_bins(len(real), samples))
        self._vendi: dict[int, float] = {}
        self.distance = float(distances_of_pairs(chosen).mean())
        self.near_each_other = self._near(_nearest(chosen, chosen, torch.arange(len(chosen))))
        self.near_training = self._near(_nearest(chosen, self._real, index))

    def _chosen(self, count: int) -> Tensor:
        return spread(count, LIMIT).to(self._real.device)

    def _near(self, nearest: Tensor) -> float:
        """The distance called near, of those of examples (N,) to the nearest other one.

        Examples that the data hold twice do not count: a hundredth of them would make it 0, and
        nothing would be near to anything.
        """
        same = SAME * self.distance
        different = nearest[nearest > same]
        return float(different.quantile(NEAR)) if len(different) else same

    def _vendi_ratio(self, centred: Tensor) -> float:
        """The score of samples (M, d) over that of real examples, of as many of the one as of the
        other: the score of few hundred things in a thousand dimensions grows with their number.
        """
        count = min(len(centred), len(self._real), LIMIT)
        if count not in self._vendi:
            chosen = spread(len(self._real), count).to(self._real.device)
            self._vendi[count] = vendi_score(self._real[chosen])
        chosen = spread(len(centred), count).to(centred.device)
        return vendi_score(centred[chosen]) / self._vendi[count]

    @torch.no_grad()
    def _of_bins(self, fake: Tensor) -> dict[str, float]:
        if len(self.bins.centres) == 1:
            return {}
        found = self.bins.compare(fake)
        return {"ndb": found.ndb, "bin_divergence": found.jensen_shannon}

    def figures(self, fake: Tensor) -> dict[str, float]:
        """Figures of features ``fake`` (M, d); every ratio is 1 for samples like the real ones.

        - ``ndb``, ``bin_divergence``: see :class:`gan_core.metrics.bins.BinFigures`; about 0.05 and
          a little more than 0 for such samples
        - ``vendi_ratio``, ``distance_ratio``: :func:`vendi_score` (of features with the real mean
          taken off; of as many samples as real examples) and the mean distance of two samples over
          those of real examples
        - ``birthday_support``: :func:`birthday_support`, "near" being nearer than 99 % of the real
          examples are to another
        - ``copied_share``: the samples nearer to a training example than 99 % of these are to
          another: 0.01 for new ones, 1 for copies

        Real examples that are there twice are left out of these 99 %. Of so few examples or samples
        that one bin holds them all there is no ``ndb`` and ``bin_divergence``: they would be 0.
        """
        centred = (fake - self.centre)[self._chosen(len(fake))]
        nearest = _nearest(centred, self._real)
        distances = distances_of_pairs(centred)
        return {
            **self._of_bins(fake),
            "vendi_ratio": self._vendi_ratio(centred),
            "distance_ratio": _ratio(float(distances.mean()), self.distance),
            "birthday_support": birthday_support(distances, self.near_each_other),
            "copied_share": (nearest <= self.near_training).double().mean().item(),
        }
