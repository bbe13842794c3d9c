"""Which modes of the data a generator reaches: classes of pictures, Gaussians of a mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGH_QUALITY = 3.0
"""How many sigma from its mode a sample of a mixture may lie (PacGAN's protocol)."""


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """The share (K,), float64, of each class among labels (N,) in [0, K)."""
    return torch.bincount(labels.cpu(), minlength=classes).double() / len(labels)


def mode_figures(predicted: Tensor, balance: Tensor) -> dict[str, float]:
    """``modes_covered``, ``mode_kl``, ``least_mode_ratio`` of classes (N,) that a classifier saw.

    ``modes_covered`` counts the classes with at least one sample, ``mode_kl`` is KL(generated
    class shares || ``balance``) in nats, ``balance`` (K,) the class shares of the real data:
    infinite if a class appears that the real data have not. A perfect generator's KL is about
    (K - 1) / 2N. (Metz et al. 2017, arXiv:1611.02163, section 3.3; Lin et al. 2018.)
    ``least_mode_ratio``: the lowest share of a class over its real share, 1 at best.
    """
    return balance_figures(class_shares(predicted, len(balance)), balance.cpu().double())


def balance_figures(shares: Tensor, real: Tensor) -> dict[str, float]:
    """The figures of :func:`mode_figures`, of the shares (K,) of each mode among the samples."""
    present = shares > 0
    divergence = (shares[present] * (shares[present] / real[present]).log()).sum()
    return {
        "modes_covered": float(present.sum()),
        "mode_kl": max(0.0, float(divergence)),  # rounding may leave -1e-17
        "least_mode_ratio": float((shares / real)[real > 0].min()),
    }


def class_accuracy(predicted: Tensor, asked: Tensor) -> float:
    """The share of samples that a classifier sees as the class that the generator was asked for."""
    if predicted.shape != asked.shape:
        raise ValueError(f"classes {tuple(predicted.shape)} are compared with {tuple(asked.shape)}")
    return (predicted.cpu() == asked.cpu()).double().mean().item()


def mixture_figures(points: Tensor, modes: Tensor, sigma: float) -> dict[str, float]:
    """Modes found, by the protocol of PacGAN (Lin et al. 2018, arXiv:1712.04086, section 4.1).

    Points (N, D), modes (K, D), ``sigma`` the standard deviation of each. A point is of high
    quality within 3 sigma of its nearest mode; a mode is found with one such point.
    ``high_quality_share``: a perfect sampler in two dimensions scores 1 - e^-4.5 = 98.89 %.
    ``smallest_mode_share``: the high-quality points of the rarest mode, as a share of all points;
    a perfect sampler of a balanced mixture scores 98.89 % / K of many points, less of few, of which
    one mode has the fewest by chance (2,500 of 25 modes: 3.2 % instead of 4.0). ``mode_kl`` and
    ``least_mode_ratio`` are of the shares of points nearest to each mode, of whatever quality.
    ``mode_spread``: the standard deviation of the high-quality points of a mode about their own
    mean, over ``sigma``: 0.974 for a perfect sampler in two dimensions (the tails are cut off), 0
    for one that makes a point a mode. There is none where no mode has two such points.
    """
    modes = torch.as_tensor(modes, dtype=torch.float64).to(points.device)
    # Differences, not a matrix product: a narrow mode far from the origin would cancel.
    distances = torch.cdist(
        points.double(), modes, compute_mode="donot_use_mm_for_euclid_dist"
    ).div_(sigma)
    nearest, owner = distances.min(1)
    near = nearest < HIGH_QUALITY
    hits = torch.bincount(owner[near], minlength=len(modes))
    uniform = torch.full((len(modes),), 1 / len(modes), dtype=torch.float64)
    return balance_figures(class_shares(owner, len(modes)), uniform) | {
        "modes_covered": float((hits > 0).sum()),
        "high_quality_share": hits.sum().item() / len(points),
        "smallest_mode_share": hits.min().item() / len(points),
        **_spread(points[near].double() / sigma, owner[near], hits),
    }


def _spread(points: Tensor, owner: Tensor, counts: Tensor) -> dict[str, float]:
    """``mode_spread``, of points (N, D) that belong to the modes ``owner`` (N,)."""
    freedom = (counts - 1).clamp_min(0).sum().item()
    if freedom == 0:
        return {}
    means = points.new_zeros(len(counts), points.shape[1]).index_add_(0, owner, points)
    means /= counts[:, None].clamp_min(1)
    squares = (points - means[owner]).square().sum().item()
    return {"mode_spread": math.sqrt(squares / (freedom * points.shape[1]))}
