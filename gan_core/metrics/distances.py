"""FID, KID and Inception Score of features, by torchmetrics."""

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


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID (Heusel et al. 2017, arXiv:1706.08500) of features (N, d) and (M, d), in float64.

    Biased in N and M, and singular below d of either: compare at equal numbers only.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    with _quietly():
        # The features are whole already: torchmetrics must not sum them over the ranks again.
        metric = FrechetInceptionDistance(_Given(real.shape[1]), sync_on_compute=False)
        metric.to(real.device)
        for features, is_real in ((real, True), (fake, False)):
            for chunk in features.split(_CHUNK):
                metric.update(chunk.double(), real=is_real)
        return float(metric.cpu().compute())  # a small eigenvalue problem: LAPACK is quicker


def kernel_subset_size(real: int, fake: int) -> int:
    """How many of each side a subset of :func:`kernel_distance` holds: 1,000, or all there are."""
    return min(SUBSET_SIZE, real, fake)


def kernel_distance(real: Tensor, fake: Tensor, subsets: int = SUBSETS, seed: int = 0) -> float:
    """KID (Binkowski et al. 2018, arXiv:1801.01401) of features (N, d) and (M, d), in float64.

    The unbiased MMD^2 of the kernel (x.y / d + 1)^3, averaged over random subsets of 1,000 (of
    the smaller side's number, where that is less). The subsets depend on ``seed`` alone.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = kernel_subset_size(len(real), len(fake))
    if size == len(real) == len(fake):
        subsets = 1  # they are all the same
    with _quietly(seed):
        metric = KernelInceptionDistance(
            _Given(real.shape[1]), subsets=subsets, subset_size=size, sync_on_compute=False
        ).to(real.device)
        metric.update(real.double(), real=True)
        metric.update(fake.double(), real=False)
        return float(metric.compute()[0])


def inception_score(logits: Tensor, splits: int = SPLITS, seed: int = 0) -> float:
    """exp E KL(p(y|x) || p(y)) of logits (N, K), averaged over ``splits`` (Salimans et al. 2016).

    arXiv:1606.03498, section 4. Lower with fewer samples a split: compare at equal numbers only.
    """
    from torchmetrics.image.inception import InceptionScore

    with _quietly(seed):
        metric = InceptionScore(
            _Given(logits.shape[1]), splits=min(splits, len(logits)), sync_on_compute=False
        ).to(logits.device)
        # In float64 a probability of e^-700 is not zero yet, whose logarithm would be infinite.
        metric.update(logits.double())
        return float(metric.compute()[0])
