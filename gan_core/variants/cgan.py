"""CGAN: conditional generative adversarial nets (Mirza and Osindero 2014, arXiv:1411.1784).

The MNIST experiment of section 4.1. The label enters both networks as a one-hot vector. In the
generator noise and label have hidden layers of their own (200 and 1000) that are joined in a
layer of 1200; in the discriminator picture and label have maxout layers of their own (240 and
50 units of 5 pieces), joined in one of 240 units of 4 pieces. Noise from the unit hypercube;
dropout of half of the hidden units in both; batches of 100; the rate falls by 1.00004 an update.

The paper leaves open how weights begin: here as in Goodfellow's code for the same data. With these
the label, one input beside a hundred bright pixels, at first hardly moves the discriminator:
``init_label`` makes its weights larger, and ``wrong_label`` makes the discriminator need it.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import DataSpec
from gan_core.layers.init import uniform_weights
from gan_core.layers.labels import class_weights
from gan_core.layers.maxout import Maxout
from gan_core.layers.pixels import PixelOutput, to_flat_pixels
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.adversarial import default
from gan_core.variants.matching import MatchingAware, MatchingOptions
from gan_core.variants.perceptron import PerceptronOptions, PerceptronVariant

INITIAL_WEIGHTS = 0.005
"""The bound of the discriminator's uniform initial weights in ``mnist.yaml``."""


@dataclasses.dataclass(frozen=True)
class CGANOptions(MatchingOptions, PerceptronOptions):
    """The options of ``cgan``."""

    lr_decay: float = default("lr_decay", 1.00004, PerceptronOptions)
    hidden_latent: int = option(200, "generator's units for the noise", minimum=1)
    hidden_label: int = option(1000, "generator's units for the label", minimum=1)
    hidden: int = option(1200, "generator's units for both together", minimum=1)
    maxout_units: int = option(
        240, "discriminator's maxout units for the picture, and for both together", minimum=1
    )
    maxout_label: int = option(50, "discriminator's maxout units for the label", minimum=1)
    init_label: float = option(
        INITIAL_WEIGHTS,
        "bound of the discriminator's uniform initial weights for the label; 0.005 is that of "
        "all its other weights",
        above=0,
    )
    dropout_g: float = option(
        0.5, "share of the generator's hidden units dropped", kind="schedule", minimum=0, below=1
    )
    dropout_d: float = option(
        0.5,
        "share of the discriminator's hidden units dropped",
        kind="schedule",
        minimum=0,
        below=1,
    )


class Generator(nn.Module):
    """Latent (N, latent) and labels (N,) to pictures in [-1, 1]."""

    def __init__(self, options: CGANOptions, data: DataSpec) -> None:
        super().__init__()
        self.classes = data.classes
        self.from_latent = nn.Linear(options.latent, options.hidden_latent)
        self.from_label = nn.Linear(data.classes, options.hidden_label)
        self.joint = nn.Linear(options.hidden_latent + options.hidden_label, options.hidden)
        self.dropout = nn.Dropout(options.dropout_g)
        self.output = PixelOutput(options.hidden, data.target_shape)
        uniform_weights(self, 0.05)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        one_hot = class_weights(label, self.classes, latent)
        parts = torch.cat((self.from_latent(latent), self.from_label(one_hot)), dim=1)
        joint = F.relu(self.joint(self.dropout(F.relu(parts))))
        return self.output(self.dropout(joint))


class Discriminator(nn.Module):
    """Pictures in [-1, 1] and labels (N,) to logits (N, 1)."""

    def __init__(self, options: CGANOptions, data: DataSpec) -> None:
        super().__init__()
        self.classes = data.classes
        pixels, units = math.prod(data.target_shape), options.maxout_units
        self.from_image = Maxout(pixels, units, pieces=5)
        self.from_label = Maxout(data.classes, options.maxout_label, pieces=5)
        self.joint = Maxout(units + options.maxout_label, units, pieces=4)
        self.dropout = nn.Dropout(options.dropout_d)
        self.output = nn.Linear(units, 1)
        uniform_weights(self, INITIAL_WEIGHTS)
        with torch.no_grad():
            self.from_label.linear.weight *= options.init_label / INITIAL_WEIGHTS

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        one_hot = class_weights(label, self.classes, image)
        parts = (self.from_image(to_flat_pixels(image)), self.from_label(one_hot))
        joint = self.joint(self.dropout(torch.cat(parts, dim=1)))
        return self.output(self.dropout(joint))


@register("cgan")
class CGAN(MatchingAware, PerceptronVariant):
    """The conditional GAN."""

    summary = "conditional: the label as a one-hot vector in both networks"
    paper = "Mirza and Osindero 2014, arXiv:1411.1784"
    needs = frozenset({"label"})
    Options = CGANOptions
    uniform_bounds = (0.0, 1.0)

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Generator(self.recipe, data)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        return Discriminator(self.recipe, data)
