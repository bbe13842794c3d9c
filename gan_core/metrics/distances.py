"""FID, KID and Inception Score of features, defined as by torchmetrics, which computes two."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan_core.metrics.numerics import private_randomness

SUBSETS = 100
SUBSET_SIZE = 1_000
SPLITS = 10
_CHUNK = 10_000
_ROWS = 250
"""Rows of the kernel of all pairs that are held at once."""


class _Given(nn.Identity):
    """Stands where torchmetrics wants a network: the features are given already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


@contextmanager
def _quietly(seed: int = 0) -> Iterator[None]:
    """torchmetrics draws from the global generator and warns of the memory that it takes."""
    with private_randomness(seed), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


class RealMoments:
    """Mean and covariance of the real features (N, d), and what is needed of them each time.

    FID (Heusel et al. 2017, arXiv:1706.08500), in float64, of a Gaussian fitted to either side:
    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With S1 = R R^T the eigenvalues of S1 S2 are those
    of R^T S2 R, which is symmetric: torchmetrics, which asks for those of the product and sums over
    the real side each time, takes five times as long.
    """

    def __init__(self, real: Tensor) -> None:
        self.mean, covariance = _moments(real)
        self.trace = covariance.trace()
        values, vectors = torch.linalg.eigh(covariance)
        self.root = vectors * values.clamp_min(0).sqrt()

    def frechet_distance(self, fake: Tensor) -> float:
        """FID of ``fake`` (M, d). Biased in N and M, and singular below d of either: compare at
        equal numbers only.
        """
        mean, covariance = _moments(fake)
        squares = torch.linalg.eigvalsh(self.root.T @ covariance @ self.root)
        apart = (mean - self.mean).square().sum()
        return float(
            apart + self.trace + covariance.trace() - 2 * squares.clamp_min(0).sqrt().sum()
        )


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of (N, d), summed up in float64 where these are, then on the
    CPU: the eigenvalue problems are small, and LAPACK is quicker.
    """
    mean = features.mean(0, dtype=torch.float64)
    scatter = mean.new_zeros(len(mean), len(mean))
    for chunk in features.split(_CHUNK):
        centred = chunk.double() - mean
        scatter.addmm_(centred.T, centred)
    return mean.cpu(), scatter.cpu() / (len(features) - 1)


def kernel_subset_size(real: int, fake: int) -> int:
    """How many of each side a subset of :func:`kernel_distance` holds: 1,000, or all there are."""
    return min(SUBSET_SIZE, real, fake)


def kernel_distance(real: Tensor, fake: Tensor, subsets: int = SUBSETS, seed: int = 0) -> float:
    """KID (Binkowski et al. 2018, arXiv:1801.01401) of features (N, d) and (M, d), in float64.

    The unbiased MMD^2 of the kernel (x.y / d + 1)^3, averaged over random subsets of 1,000 (of
    the smaller side's number, where that is less). The subsets depend on ``seed`` alone.

    A hundred subsets of 1,000 look at most pairs of a few thousand examples dozens of times, for
    seconds on a CPU. Where all pairs are less than half of the subsets', the kernel of each is
    computed once, and the subsets sum over what they hold of it: the figure is the same.
    """
    size = kernel_subset_size(len(real), len(fake))
    if size == len(real) == len(fake):
        subsets = 1  # they are all the same
    pairs = len(real) ** 2 + len(fake) ** 2 + len(real) * len(fake)
    way = _of_all_pairs if 2 * pairs < 3 * subsets * size**2 else _subset_by_subset
    with _quietly(seed):
        return way(real.double(), fake.double(), subsets, size)


def _subset_by_subset(real: Tensor, fake: Tensor, subsets: int, size: int) -> float:
    """KID by torchmetrics."""
    from torchmetrics.image.kid import KernelInceptionDistance

    metric = KernelInceptionDistance(
        _Given(real.shape[1]), subsets=subsets, subset_size=size, sync_on_compute=False
    ).to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute()[0])


def _of_all_pairs(real: Tensor, fake: Tensor, subsets: int, size: int) -> float:
    """The same, from the kernel of all pairs and which examples the subsets hold."""
    held = [torch.zeros(subsets, len(side), dtype=real.dtype) for side in (real, fake)]
    for number in range(subsets):  # drawn in torchmetrics' order
        for members in held:
            members[number, torch.randperm(members.shape[1])[:size]] = 1
    of_real, of_fake = (members.to(real.device) for members in held)
    alike = _kernel_sum(real, real, of_real, of_real) - _diagonal_sum(real, of_real)
    alike += _kernel_sum(fake, fake, of_fake, of_fake) - _diagonal_sum(fake, of_fake)
    between = _kernel_sum(real, fake, of_real, of_fake)
    return float((alike / (size * (size - 1)) - 2 * between / size**2) / subsets)


def _kernel_sum(first: Tensor, second: Tensor, of_first: Tensor, of_second: Tensor) -> Tensor:
    """The sum over subsets of the kernels of all pairs of their members in ``first``, ``second``.

    Features (N, d) and (M, d); members (subsets, N) and (subsets, M), 1 for those held, else 0.
    """
    total = first.new_zeros(())
    for rows, members in zip(first.split(_ROWS), of_first.split(_ROWS, dim=1), strict=True):
        kernel = (rows @ second.T / second.shape[1] + 1).pow_(3)
        total += ((members @ kernel) * of_second).sum()
    return total


def _diagonal_sum(features: Tensor, members: Tensor) -> Tensor:
    """The sum over subsets of the kernel of each member with itself."""
    return (members @ (features.square().mean(dim=1) + 1).pow(3)).sum()


def score_splits(samples: int, splits: int = SPLITS) -> int:
    """How many parts :func:`inception_score` makes of so many samples.

    They are of equal size but for the last, so that there may be fewer than ``splits``.
    """
    size = -(-samples // splits)
    return -(-samples // size)


def inception_score(logits: Tensor, splits: int = SPLITS, seed: int = 0) -> float:
    """exp E KL(p(y|x) || p(y)) of logits (N, K), averaged over splits (Salimans et al. 2016).

    arXiv:1606.03498, section 4. There are :func:`score_splits`. Lower with fewer samples a split:
    compare at equal numbers only.
    """
    from torchmetrics.image.inception import InceptionScore

    with _quietly(seed):
        metric = InceptionScore(
            _Given(logits.shape[1]), splits=min(splits, len(logits)), sync_on_compute=False
        ).to(logits.device)
        # In float64 a probability of e^-700 is not zero yet, whose logarithm would be infinite.
        metric.update(logits.double())
        return float(metric.compute()[0])
