"""The residual generator that translates pictures (Zhu et al. 2017; Johnson et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_core.layers.init import normal_weights
from gan_core.layers.reflection import ReflectingConv2d


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """With reflections at the borders where it keeps the size, with zeros where it halves it."""
    if stride == 1:
        return ReflectingConv2d(inputs, outputs, kernel)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and what went into them: (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            _convolution(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class ResidualGenerator(nn.Module):
    """Pictures (N, inputs, S, S) to pictures (N, outputs, S, S) in [-1, 1]; S a multiple of 4.

    In the paper's words (Zhu et al. 2017, section 7.2) with a ``width`` of 64: c7s1-64, d128,
    d256, ``blocks`` times R256, u128, u64, c7s1-3; instance normalisation without gain and bias.
    The biases before it change nothing; they are the authors'. ``kernel`` is the size of the first
    and the last convolution, odd. A ``residual`` one (of as many ``inputs`` as ``outputs``) says
    what is added to the picture, which is then cut to [-1, 1] (the global connection of Kupyn et
    al. 2018, arXiv:1711.07064): it begins near the identity map.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        blocks: int = 9,
        kernel: int = 7,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        layers: list[nn.Module] = [_convolution(inputs, width, kernel)]
        layers += [nn.InstanceNorm2d(width), nn.ReLU()]
        for wide in (width, 2 * width):
            layers += [_convolution(wide, 2 * wide, 3, 2), nn.InstanceNorm2d(2 * wide), nn.ReLU()]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for wide in (4 * width, 2 * width):
            layers.append(nn.ConvTranspose2d(wide, wide // 2, 3, 2, 1, output_padding=1))
            layers += [nn.InstanceNorm2d(wide // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _convolution(width, outputs, kernel))
        normal_weights(self, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        made = self.layers(image).to(image.dtype)  # a picture is float32, also under autocast
        return (image + made).clamp(-1, 1) if self.residual else torch.tanh(made)
