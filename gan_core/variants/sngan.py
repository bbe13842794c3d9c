"""SN-GAN: spectral normalisation (Miyato et al. 2018, arXiv:1802.05957), and the projection
discriminator (Miyato and Koyama 2018, arXiv:1802.05637).

Every layer of the discriminator is divided by its spectral norm, which makes it 1-Lipschitz;
hinge loss; 5 discriminator updates for each of the generator's; batches of 64, the generator's
of 128; Adam at 2e-4 (0, 0.9), falling linearly to 0; real pictures dequantised. The networks are
those of appendix B.4: ``resnet`` (table 4) or ``cnn`` (table 3). With ``--conditional`` the
generator's batch normalisation and the discriminator's projection take the label.

As in the authors' code (github.com/pfnet-research/sngan_projection) weights begin by Glorot's
rule, with a gain of sqrt 2 in the residual convolutions; the discriminator's last layer has no
bias, and only its convolutions have. At 32 pixels: 4,276,739 and 1,053,824 parameters. At 64
pixels all five blocks of the discriminator halve (``snresnet_64.py``), down to maps of 2 pixels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers.init import normal_weights
from gan_core.layers.spectral import SpectralConv2d, SpectralLinear
from gan_core.options import option
from gan_core.priors import Integers
from gan_core.variant import NoiseSpec, register
from gan_core.variants.adversarial import default
from gan_core.variants.resnet import WIDTHS, ResNetOptions, ResNetVariant

CNN_UP, CNN_DOWN = (512, 256, 128, 64), (64, 128, 256, 512)
"""Channels of the convolutional networks, table 3; they begin and end at an eighth of the size."""


@dataclasses.dataclass(frozen=True)
class SNGANOptions(ResNetOptions):
    """The options of ``sngan``."""

    steps: int = default("steps", 50_000)
    loss: str = default("loss", "hinge")
    k: int = default("k", 5)
    beta1: float = default("beta1", 0.0)
    beta2: float = default("beta2", 0.9)
    latent: int = default("latent", 128)
    lr_decay_to: float = default("lr_decay_to", 0.0)
    batch_scale_g: int = default("batch_scale_g", 2)
    architecture: str = option(
        "resnet", "residual networks, or the plain convolutional ones", choices=("resnet", "cnn")
    )
    conditional: bool = option(
        False, "by class: conditional batch normalisation, and the projection discriminator"
    )
    dequantise: bool = option(
        True, "add uniform noise of one grey level to real pictures", kind="schedule"
    )


class ConvolutionalGenerator(nn.Module):
    """Table 3: latent (N, latent) to pictures (N, C, S, S) in [-1, 1]."""

    def __init__(self, options: SNGANOptions, data: DataSpec) -> None:
        super().__init__()
        channels = [c * (options.width_g or CNN_UP[-1]) // CNN_UP[-1] for c in CNN_UP]
        side = options.image_size // 8
        self.shape = (channels[0], side, side)
        self.project = nn.Linear(options.latent, math.prod(self.shape))
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for wide, narrow in itertools.pairwise(channels):
            layers += [
                nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1),
                nn.BatchNorm2d(narrow),
                nn.ReLU(),
            ]
        layers += [nn.Conv2d(channels[-1], data.target_shape[0], 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        normal_weights(self, 0.02)

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(self.project(latent).unflatten(1, self.shape))


class ConvolutionalDiscriminator(nn.Module):
    """Table 3: pictures (N, C, S, S) to logits (N, 1)."""

    def __init__(self, options: SNGANOptions, data: DataSpec) -> None:
        super().__init__()
        wide = [c * (options.width_d or CNN_DOWN[0]) // CNN_DOWN[0] for c in CNN_DOWN]
        layers: list[nn.Module] = []
        inputs = data.target_shape[0]
        for narrow, wider in itertools.pairwise([*wide, 0]):
            layers += [SpectralConv2d(inputs, narrow, 3, 1, 1), nn.LeakyReLU(0.1)]
            inputs = narrow
            if wider:
                layers += [SpectralConv2d(narrow, narrow, 4, 2, 1), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers)
        self.output = SpectralLinear(wide[-1] * (options.image_size // 8) ** 2, 1)
        normal_weights(self, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.layers(image).flatten(1))


def dequantised(images: Tensor, words: Tensor) -> Tensor:
    """Pictures (N, C, H, W) of 256 grey levels, each spread evenly over its share of [-1, 1].

    ``words``: integers (N, H, W) below 2^24, of which every channel takes eight bits; C <= 3.
    As the authors' code does: p / 128 - 1 + U(0, 1/128) for a pixel p of 0..255.
    """
    shifts = torch.arange(0, 8 * images.shape[1], 8, device=words.device)[:, None, None]
    uniform = ((words[:, None] >> shifts & 255).to(images.dtype) + 0.5) / 256
    return images * (255 / 256) + (2 * uniform - 1) / 256


@register("sngan")
class SNGAN(ResNetVariant):
    """The spectrally normalised GAN."""

    summary = "spectral normalisation; residual or plain; by class with --conditional"
    paper = "Miyato et al. 2018, arXiv:1802.05957 and arXiv:1802.05637"
    Options = SNGANOptions
    widths = {**WIDTHS, 64: dataclasses.replace(WIDTHS[64], halvings=5)}  # noqa: RUF012
    wide_d = False
    residual_gain = math.sqrt(2)

    def __init__(self, options: SNGANOptions) -> None:
        super().__init__(options)
        self.conditional = options.conditional

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        if self.options.architecture == "resnet":
            return
        for name in ("conditional", "attention"):
            if getattr(self.options, name):
                raise UserError(f"--{name} is for --architecture resnet")

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        if not self.recipe.dequantise:
            return super().noise(stage)
        words = NoiseSpec(
            "dequantisation",
            self.data.target_shape[1:],
            Integers(1 << 24),
            players=self.real_readers,
        )
        return (*super().noise(stage), words)

    def real_targets(self, batch: Batch) -> Tensor:
        if self.recipe.dequantise:
            image = dequantised(batch[self.target], batch["dequantisation"])
            batch = {**batch, self.target: image}
        return super().real_targets(batch)

    def make_generator(self, data: DataSpec) -> nn.Module:
        if self.recipe.architecture == "cnn":
            return ConvolutionalGenerator(self.recipe, data)
        return super().make_generator(data)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        if self.recipe.architecture == "cnn":
            return ConvolutionalDiscriminator(self.recipe, data)
        return super().make_discriminator(data)
