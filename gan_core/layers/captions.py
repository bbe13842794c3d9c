"""Several captions a picture: which make its text, and which belong to another picture."""

from __future__ import annotations

from torch import Tensor


def chosen_captions(numbers: Tensor, count: int, fewer: bool) -> Tensor:
    """Which captions make a text: bool (N, K), at least one in each row.

    ``numbers`` (N, K + 1) in (0, 1): the captions with the ``count`` smallest of the first K are
    taken, or with ``fewer`` one to ``count`` of them, by the last number.
    """
    order, last = numbers[:, :-1], numbers[:, -1:]
    count = min(count, order.shape[1])
    ranks = order.argsort(dim=1).argsort(dim=1)
    return ranks < ((last * count).floor() + 1 if fewer else count)


def mean_caption(captions: Tensor, chosen: Tensor) -> Tensor:
    """The mean (N, d) of those of the ``captions`` (N, K, d) that are ``chosen`` (N, K)."""
    weights = chosen.to(captions.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (captions * weights[:, :, None]).sum(dim=1)


def belongs(captions: Tensor, chosen: Tensor, own: Tensor) -> Tensor:
    """Whether all ``chosen`` (N, K) ``captions`` (N, K, d) are among ``own`` (N, L, d): (N,)."""
    known = (captions[:, :, None] == own[:, None]).all(dim=-1).any(dim=-1)
    return (known | ~chosen).all(dim=1)
