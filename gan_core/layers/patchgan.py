"""PatchGAN: a discriminator that judges every patch of a picture (Isola et al. 2016)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from gan_core.layers.init import normal_weights

_KERNEL = 4


def map_size(layers: int, size: int) -> int:
    """Logits a side of the map for pictures of ``size`` pixels a side; below 1 there is none."""
    return size if layers == 0 else size // 2**layers - 2


class PatchDiscriminator(nn.Module):
    """Pictures (N, C, S, S) to logits of patches (N, 1, M, M), with M by :func:`map_size`.

    ``layers`` convolutions of stride 2 begin with ``width`` channels, doubled in each further one
    up to eightfold, then one of stride 1 and the logits; kernels of 4, LeakyReLU of 0.2. All but
    the first and the last normalise each picture by its own statistics: ``affine`` says whether a
    gain and a bias follow there (then the convolution before needs no bias). No ``layers`` are the
    PixelGAN, of 1 x 1 convolutions.
    """

    def __init__(
        self, channels: int, *, width: int = 64, layers: int = 3, affine: bool = True
    ) -> None:
        super().__init__()
        kernel = _KERNEL if layers else 1
        strides = [2] * layers + [1] if layers else [1, 1]
        widths = [channels, *(width * min(2**i, 8) for i in range(len(strides)))]
        modules: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            first = depth == 0
            modules.append(
                nn.Conv2d(
                    inputs, outputs, kernel, strides[depth], kernel // 4, bias=first or not affine
                )
            )
            if not first:
                modules.append(nn.InstanceNorm2d(outputs, affine=affine))
            modules.append(nn.LeakyReLU(0.2))
        modules.append(nn.Conv2d(widths[-1], 1, kernel, 1, kernel // 4))
        self.layers = nn.Sequential(*modules)
        normal_weights(self, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)
