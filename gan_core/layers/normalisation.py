"""Normalisation by its name; batch normalisation under a condition, and without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_core.layers.spectral import SpectralLinear


def normalisation(kind: str, channels: int) -> list[nn.Module]:
    """The layer that normalises (N, ``channels``, H, W): of kind batch, layer, or none at all."""
    if kind == "none":
        return []
    return [nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(1, channels)]


@contextlib.contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within it, passes normalise by their batches and leave the running statistics as they are."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


class ConditionalBatchNorm2d(nn.Module):
    """(N, C, H, W) under conditions (N, ``conditions``), such as one-hot classes, to (N, C, H, W).

    Normalised by the batch, times 1 + W c, plus V c, without biases. For one-hot classes that is
    a gain and a bias for each class (de Vries et al. 2017, arXiv:1707.00683), beginning at 1 and
    0; for embeddings of classes and parts of the noise it is BigGAN's, whose two layers are
    ``spectral`` (Brock et al. 2018, arXiv:1809.11096, appendix B).
    """

    def __init__(self, features: int, conditions: int, *, spectral: bool = False) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(features, affine=False)
        linear = SpectralLinear if spectral else nn.Linear
        self.gain = linear(conditions, features, bias=False)
        self.bias = linear(conditions, features, bias=False)
        self.spectral = spectral
        self.begin()

    def begin(self) -> None:
        """Gains of 1 and biases of 0, where they are not spectral: zeros have no direction."""
        if not self.spectral:
            nn.init.zeros_(self.gain.weight)
            nn.init.zeros_(self.bias.weight)

    def forward(self, values: Tensor, condition: Tensor) -> Tensor:
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return torch.addcmul(bias[:, :, None, None], self.normalise(values), gain[:, :, None, None])
