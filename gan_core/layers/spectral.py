"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957, section 2.1 and algorithm 1).

Layers whose weight is divided by an estimate of its largest singular value: ``weight``, a matrix
(outputs, all the rest), by sigma = u^T W v. ``u`` is a buffer that lives on from one forward pass
to the next; a training pass does one step of the power method on it. Neither u nor v carries a
gradient, so that of sigma with respect to W is u v^T.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-12


@torch.library.custom_op("gan::kept", mutates_args=())
def _kept(values: Tensor) -> Tensor:
    """A copy of ``values`` that compiled code cannot make again, and so keeps.

    Compiled code makes again in the backward pass what is cheap, for layers of few outputs v from
    u: by then u has moved on, and the gradient is silently another one (seen with torch 2.14).
    """
    return values.clone()


@_kept.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


class _SpectralNorm(nn.Module):
    """What the layers below share; comes before the plain layer among their bases.

    Not torch's ``parametrizations.spectral_norm``: that evaluates with a u and v from before the
    last update, and takes longer.
    """

    weight: Tensor
    u: Tensor

    def _begin(self) -> None:
        self.register_buffer("u", F.normalize(torch.randn(len(self.weight)), dim=0))

    def normalised_weight(self) -> Tensor:
        """The weight over its estimated spectral norm; in training mode ``u`` moves on.

        In evaluation mode the step of the power method is made, but not kept.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            matrix = self.weight.flatten(1)
            with torch.no_grad():
                before = _kept(self.u) if torch.compiler.is_compiling() else self.u
                v = F.normalize(matrix.t() @ before, dim=0, eps=_EPSILON)
            product = matrix @ v
            u = F.normalize(product.detach(), dim=0, eps=_EPSILON)
            if self.training:
                with torch.no_grad():
                    self.u.copy_(u)
            return self.weight / torch.dot(u, product).clamp_min(_EPSILON)


class SpectralConv2d(_SpectralNorm, nn.Conv2d):
    """A spectrally normalised ``nn.Conv2d``: (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__(inputs, outputs, kernel, stride, padding)
        self._begin()

    def forward(self, values: Tensor) -> Tensor:
        return self._conv_forward(values, self.normalised_weight(), self.bias)


class SpectralLinear(_SpectralNorm, nn.Linear):
    """A spectrally normalised ``nn.Linear``: (N, inputs) to (N, outputs)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self._begin()

    def forward(self, values: Tensor) -> Tensor:
        return F.linear(values, self.normalised_weight(), self.bias)
