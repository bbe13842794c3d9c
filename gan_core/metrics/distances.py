"""FID, KID and Inception Score of features, as torchmetrics defines them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan_core.metrics.given import check_features
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
    check_features(features)
    mean = features.mean(0, dtype=torch.float64)
    scatter = mean.new_zeros(len(mean), len(mean))
    for chunk in features.split(_CHUNK):
        centred = chunk.double() - mean
        scatter.addmm_(centred.T, centred)
    return mean.cpu(), scatter.cpu() / (len(features) - 1)


def kernel_subset_size(real: int, fake: int) -> int:
    """How many of each side a subset of :class:`RealKernel` holds: 1,000, or all there are."""
    return min(SUBSET_SIZE, real, fake)


class RealKernel:
    """KID (Binkowski et al. 2018, arXiv:1801.01401) against the real features (N, d), in float64.

    The unbiased MMD^2 of the kernel (x.y / d + 1)^3, averaged over ``subsets`` random ones of 1,000
    (of the smaller side's number, where that is less), which are torchmetrics' for ``seed``. That
    takes three times as long or more: what the subsets hold of the real side is the same each time,
    and they look at most pairs of few examples dozens of times.
    """

    def __init__(self, real: Tensor, subsets: int = SUBSETS, seed: int = 0) -> None:
        check_features(real)
        self._real, self._subsets, self._seed = real, subsets, seed
        self._drawn: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.no_grad()
    def distance(self, fake: Tensor) -> float:
        """KID of ``fake`` (M, d)."""
        check_features(fake)
        of_real, of_fake, alike = self._draw(len(fake))
        subsets, size = of_real.shape
        alike = alike + _sum_of_others(fake, of_fake)
        between = _sum_of_pairs(self._real, fake, of_real, of_fake)
        return float((alike / (size * (size - 1)) - 2 * between / size**2) / subsets)

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Who is in the subsets (subsets, size), of the real side and of ``count`` fakes; and the
        sum over subsets of the kernels of two different real members.
        """
        if count not in self._drawn:
            real, size = len(self._real), kernel_subset_size(len(self._real), count)
            subsets = 1 if size == real == count else self._subsets  # they are all the same
            with private_randomness(self._seed):
                drawn = [  # in torchmetrics' order
                    torch.randperm(side)[:size] for _ in range(subsets) for side in (real, count)
                ]
            members = torch.stack(drawn).to(self._real.device)
            of_real, of_fake = members[::2], members[1::2]
            self._drawn[count] = of_real, of_fake, _sum_of_others(self._real, of_real)
        return self._drawn[count]


def _sum_of_pairs(first: Tensor, second: Tensor, of_first: Tensor, of_second: Tensor) -> Tensor:
    """The sum over subsets of the kernels of all pairs of their members in ``first``, ``second``.

    Features (N, d) and (M, d); members (subsets, size) are their places. Where all pairs are less
    than half of the subsets', the kernel of each is computed once.
    """
    total = torch.zeros((), dtype=torch.float64, device=first.device)
    if 2 * len(first) * len(second) >= of_first.numel() * of_second.shape[1]:
        for mine, theirs in zip(of_first, of_second, strict=True):
            total += _kernel(first[mine], second[theirs]).sum()
        return total
    second, held = second.double(), _held(of_second, len(second))
    for rows, of_rows in zip(
        first.split(_ROWS), _held(of_first, len(first)).split(_ROWS, dim=1), strict=True
    ):
        total += ((of_rows @ _kernel(rows, second)) * held).sum()
    return total


def _sum_of_others(features: Tensor, members: Tensor) -> Tensor:
    """The same of pairs of two different members of ``features``."""
    own = (features.double().square().mean(dim=1) + 1).pow(3)
    return _sum_of_pairs(features, features, members, members) - own[members].sum()


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first.double() @ second.double().T / first.shape[1] + 1).pow_(3)


def _held(members: Tensor, count: int) -> Tensor:
    """1 for each subset's members, else 0: (subsets, count)."""
    return torch.zeros(len(members), count, dtype=torch.float64, device=members.device).scatter_(
        1, members, 1
    )


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
