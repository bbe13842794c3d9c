"""Classes as the networks take them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def class_weights(label: Tensor, classes: int, like: Tensor) -> Tensor:
    """One-hot vectors (N, classes), of the type of ``like``, of the labels, int64 (N,).

    Mixtures of classes, floats (N, classes), are given back as they are: so every conditional
    generator can be asked for what lies between two classes.
    """
    if label.is_floating_point():
        return label.to(like.dtype)
    return F.one_hot(label, classes).to(like.dtype)
