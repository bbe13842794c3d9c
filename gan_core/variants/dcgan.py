"""DCGAN: deep convolutional GAN (Radford et al. 2015, arXiv:1511.06434).

The rules of section 3 and the training of section 4: strided convolutions instead of pooling,
no hidden fully connected layers, batch normalisation except at the generator's output and the
discriminator's input, ReLU in the generator and tanh at its end, LeakyReLU in the discriminator;
Adam at 2e-4 with beta1 0.5, batches of 128, weights from N(0, 0.02^2), noise from U(-1, 1)^100.

At 64 pixels the paper's generator goes from 4x4x1024 over 512, 256 and 128 channels to the
picture; another size has as many layers more or fewer. ``width`` is the channels of the layer
next to the picture in both networks, doubled in every layer further in. As in the authors' code
(github.com/Newmu/dcgan_code) no layer has a bias. Not as there, the projection of the noise is
normalised a channel, as a convolution is (there each of its units), and weights do not decay (there
by 1e-5): the paper has neither. ``kernel`` 4 and ``width`` 64 give the smaller DCGAN in common use.
"""

from __future__ import annotations

import dataclasses
import itertools

from torch import Tensor, nn

from gan_core.data.examples import DataSpec
from gan_core.data.views import SquareView, View
from gan_core.errors import UserError
from gan_core.layers.init import normal_weights
from gan_core.layers.layout import FlatLinear, to_map
from gan_core.layers.normalisation import normalisation
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.adversarial import AdversarialVariant, NormByPenaltyOptions, default

SIZES = (16, 32, 64)
"""Pixels a side of the pictures that the networks can be built for."""


@dataclasses.dataclass(frozen=True)
class DCGANOptions(NormByPenaltyOptions):
    """The options of ``dcgan``."""

    steps: int = default("steps", 20_000)
    batch_size: int = default("batch_size", 128)
    prior: str = default("prior", "uniform")
    image_size: int = option(32, "pixels a side of the pictures: 16, 32 or 64", minimum=1)
    width: int = option(128, "channels of the layer next to the picture", minimum=1)
    kernel: int = option(
        5, "size of the convolutions: 5 as in the paper, or 4", minimum=4, maximum=5
    )


def widths(options: DCGANOptions) -> list[int]:
    """Channels of the layers from the one next to the picture to the one of 4x4."""
    return [options.width * 2**i for i in range(SIZES.index(options.image_size) + 2)]


class Generator(nn.Module):
    """Latent (N, latent) to pictures (N, C, S, S) in [-1, 1]."""

    def __init__(self, options: DCGANOptions, data: DataSpec) -> None:
        super().__init__()
        outward = widths(options)[::-1]
        self.shape = (outward[0], 4, 4)
        self.project = nn.Linear(options.latent, outward[0] * 16, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(outward[0]), nn.ReLU(inplace=True)]
        for wide, narrow in itertools.pairwise(outward):
            layers += [
                self._enlarge(wide, narrow, options.kernel),
                nn.BatchNorm2d(narrow),
                nn.ReLU(inplace=True),
            ]
        layers += [self._enlarge(outward[-1], data.target_shape[0], options.kernel), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        normal_weights(self, 0.02)

    @staticmethod
    def _enlarge(inputs: int, outputs: int, kernel: int) -> nn.Module:
        return nn.ConvTranspose2d(
            inputs,
            outputs,
            kernel,
            stride=2,
            padding=(kernel - 1) // 2,
            output_padding=kernel % 2,
            bias=False,
        )

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(to_map(self.project(latent), self.shape, self.layers[2]))


class Discriminator(nn.Module):
    """Pictures (N, C, S, S) to logits (N, 1)."""

    def __init__(self, options: DCGANOptions, data: DataSpec) -> None:
        super().__init__()
        channels = [data.target_shape[0], *widths(options)]
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            padding = (options.kernel - 1) // 2
            layers.append(nn.Conv2d(inputs, outputs, options.kernel, 2, padding, bias=False))
            if depth > 0:
                layers += normalisation(options.norm_d or "batch", outputs)
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers)
        self.output = FlatLinear(channels[-1] * 16, 1, bias=False)
        normal_weights(self, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.layers(image))


@register("dcgan")
class DCGAN(AdversarialVariant):
    """The deep convolutional GAN."""

    summary = "convolutional: strided convolutions and batch normalisation, 16, 32 or 64 pixels"
    paper = "Radford et al. 2015, arXiv:1511.06434"
    Options = DCGANOptions

    def check_options(self) -> None:
        super().check_options()
        if self.options.image_size not in SIZES:
            sizes = ", ".join(map(str, SIZES))
            raise UserError(f"--image-size must be one of {sizes}, not {self.options.image_size}")
        self.options.check_normalisation()

    def view(self, spec: DataSpec) -> View:
        return SquareView(self.options.image_size)

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Generator(self.recipe, data)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        return Discriminator(self.recipe, data)
