"""Initial weights as the papers state them. Each draws from torch's global generator."""

from __future__ import annotations

from torch import nn

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_NORMALISING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)


def uniform_weights(network: nn.Module, bound: float) -> None:
    """Weights U(-bound, bound), biases 0: pylearn2's ``irange``."""
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def normal_weights(network: nn.Module, std: float = 0.02) -> None:
    """Weights N(0, std^2); gains of normalisation N(1, std^2); biases 0.

    Radford et al. 2015, section 4; the gains as in the authors' code.
    """
    for module in network.modules():
        if not isinstance(module, (*_WEIGHTED, *_NORMALISING)):
            continue
        if module.weight is not None:
            mean = 1.0 if isinstance(module, _NORMALISING) else 0.0
            nn.init.normal_(module.weight, mean, std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def glorot_weights(network: nn.Module, gain: float = 1.0) -> None:
    """Weights U(-b, b) with b = gain sqrt(6 / (fan in + fan out)), biases 0.

    Glorot and Bengio 2010, equation 16.
    """
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.xavier_uniform_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def orthogonal_weights(network: nn.Module) -> None:
    """Weights with orthonormal rows, or columns, as a matrix (outputs, all the rest); biases 0.

    Saxe et al. 2014, arXiv:1312.6120.
    """
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
