"""The U-Net that translates pictures (Isola et al. 2016, section 3.2.1 and 6.1.1)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from gan_core.layers.dropout import scales
from gan_core.layers.init import normal_weights

_DROPPED = 3  # the first layers of the decoder, which have dropout


class UNet(nn.Module):
    """Pictures (N, inputs, S, S) to pictures (N, outputs, S, S) in [-1, 1]; S a power of two.

    The encoder halves the picture until one pixel is left (8 times for 256, in "U-Net-256"), with
    ``width`` channels first, doubled in each layer up to eightfold; the decoder mirrors it and
    sees the encoder's layer of its size beside its own. Each picture is normalised by its own
    statistics, which is batch normalisation of a batch of one: not in the first layer, not in the
    innermost and not at the output.

    The first three layers of the decoder have dropout of ``rate``; its masks are made from
    ``words``, int64 (N, W) by :data:`gan_core.layers.dropout.BITS`, of which :attr:`dropped_units`
    need W = :func:`~gan_core.layers.dropout.words_for` of them. There is nothing that differs
    between training and evaluation.

    A ``residual`` one (of as many ``inputs`` as ``outputs``) says what is added to the picture,
    which is then cut to [-1, 1] (Kupyn et al. 2018, arXiv:1711.07064).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        width: int = 64,
        rate: float = 0.5,
        residual: bool = False,
    ) -> None:
        super().__init__()
        depth = int(math.log2(size))
        if 2**depth != size or depth < 2:
            raise ValueError(f"a U-Net needs a power of two from 4 on, not {size}")
        widths = [width * min(2**level, 8) for level in range(depth)]
        self.rate, self.residual = rate, residual
        self.down = nn.ModuleList([nn.Conv2d(inputs, width, 4, 2, 1, bias=False)])
        for level, (wide, deep) in enumerate(itertools.pairwise(widths), start=1):
            layers = [nn.LeakyReLU(0.2), nn.Conv2d(wide, deep, 4, 2, 1, bias=False)]
            if level < depth - 1:
                layers.append(nn.InstanceNorm2d(deep, affine=True))
            self.down.append(nn.Sequential(*layers))
        self.up = nn.ModuleList()
        for level in range(depth - 1, 0, -1):
            own = widths[level] if level == depth - 1 else 2 * widths[level]
            self.up.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(own, widths[level - 1], 4, 2, 1, bias=False),
                    nn.InstanceNorm2d(widths[level - 1], affine=True),
                )
            )
        last = nn.ConvTranspose2d(2 * width, outputs, 4, 2, 1)
        self.output = nn.Sequential(nn.ReLU(), last, *([] if residual else [nn.Tanh()]))
        dropped = [(widths[depth - 2 - i], 2 ** (i + 1)) for i in range(min(_DROPPED, depth - 1))]
        self._dropped = [(channels, side, side) for channels, side in dropped]
        normal_weights(self, 0.02)

    @property
    def dropped_units(self) -> int:
        """How many units of a picture dropout decides about; 0 without dropout."""
        return sum(math.prod(shape) for shape in self._dropped) if self.rate > 0 else 0

    def forward(self, image: Tensor, words: Tensor | None = None) -> Tensor:
        layer, skips = image, []
        for down in self.down:
            layer = down(layer)
            skips.append(layer)
        skips.pop()
        masks = self._masks(words)
        for place, up in enumerate(self.up):
            layer = up(layer)
            if place < len(masks):
                layer = layer * masks[place]
            layer = torch.cat((layer, skips.pop()), dim=1)
        made = self.output(layer).to(image.dtype)  # a picture is float32, also under autocast
        return (image + made).clamp(-1, 1) if self.residual else made

    def _masks(self, words: Tensor | None) -> list[Tensor]:
        """The factors of each layer that has dropout; none where there is no dropout."""
        if self.dropped_units == 0:
            return []
        if words is None:
            raise ValueError("a U-Net with dropout needs the words that its masks are made from")
        parts = scales(words, self.dropped_units, self.rate).split(
            [math.prod(shape) for shape in self._dropped], dim=1
        )
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._dropped, strict=True)]
