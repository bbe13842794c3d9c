"""AC-GAN: auxiliary classifier GAN (Odena et al. 2016, arXiv:1610.09585).

The generator is given a class beside its noise; the discriminator is not, but says for every
picture, real or generated, whether it is real and of which class. Both players maximise the log
likelihood of the right class (section 3).

The networks are those of the paper's appendix for CIFAR-10: noise of 100 numbers and the class,
a linear layer to feature maps of 384 channels, 5x5 transposed convolutions of stride 2 to 192, 96
and the picture (batch normalisation, ReLU, tanh); against six 3x3 convolutions of 16 to 512
channels, strides 2 and 1 in turn (batch normalisation except in the first, LeakyReLU 0.2, half of
the units dropped). Adam at 2e-4 (0.5, 0.999), weights N(0, 0.02^2), batches of 100, 50,000
iterations. Each doubling of the size adds a layer to the generator, at most 768 channels wide.
Not from the paper: batch normalisation after the generator's linear layer, as all measured figures
have it, and layer normalisation in the discriminator under a gradient penalty.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.data.views import SquareView, View
from gan_core.errors import UserError
from gan_core.layers.init import normal_weights
from gan_core.layers.labels import class_weights
from gan_core.layers.layout import FlatLinear, to_map
from gan_core.layers.minibatch import with_deviation
from gan_core.layers.normalisation import normalisation
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.adversarial import AdversarialVariant, NormByPenaltyOptions, Term, default

UP = {16: (2, 1), 32: (4, 2, 1), 64: (8, 4, 2, 1), 128: (8, 4, 4, 2, 1)}
"""The generator's channels from 4 pixels on, as multiples of those next to the picture, by size."""
DOWN, STRIDES = (1, 2, 4, 8, 16, 32), (2, 1, 2, 1, 2, 1)
"""The discriminator's channels as multiples of the first layer's, and its strides."""


@dataclasses.dataclass(frozen=True)
class ACGANOptions(NormByPenaltyOptions):
    """The options of ``acgan``."""

    steps: int = default("steps", 50_000)
    batch_size: int = default("batch_size", 100)
    image_size: int = option(32, "pixels a side of the pictures: 16, 32, 64 or 128", minimum=1)
    width_g: int = option(96, "channels of the generator's layer next to the picture", minimum=1)
    width_d: int = option(16, "channels of the discriminator's first layer", minimum=1)
    dropout: float = option(
        0.5, "share of the discriminator's units dropped", kind="schedule", minimum=0, below=1
    )
    class_weight: float = option(
        1.0, "weight of the class's likelihood in both objectives", kind="schedule", minimum=0
    )


class Generator(nn.Module):
    """Latent (N, latent) and labels (N,) to pictures (N, C, S, S) in [-1, 1]."""

    def __init__(self, options: ACGANOptions, data: DataSpec) -> None:
        super().__init__()
        self.classes = data.classes
        channels = [m * options.width_g for m in UP[options.image_size]]
        self.shape = (channels[0], 4, 4)
        self.project = nn.Linear(options.latent + data.classes, channels[0] * 16)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for wide, narrow in itertools.pairwise(channels):
            layers += [_enlarge(wide, narrow), nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]
        layers += [_enlarge(channels[-1], data.target_shape[0]), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        normal_weights(self, 0.02)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        joint = torch.cat((latent, class_weights(label, self.classes, latent)), dim=1)
        return self.layers(to_map(self.project(joint), self.shape, self.layers[2]))


def _enlarge(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


class Discriminator(nn.Module):
    """Pictures (N, C, S, S) to (N, 1 + classes): the logit of "real", and those of the classes."""

    def __init__(self, options: ACGANOptions, data: DataSpec) -> None:
        super().__init__()
        channels = [data.target_shape[0], *(m * options.width_d for m in DOWN)]
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            layers.append(nn.Conv2d(inputs, outputs, 3, STRIDES[depth], 1))
            if depth > 0:
                layers += normalisation(options.norm_d or "batch", outputs)
            layers += [nn.LeakyReLU(0.2, inplace=True), nn.Dropout(options.dropout)]
        self.layers = nn.Sequential(*layers)
        side = options.image_size // 8
        self.output = FlatLinear(channels[-1] * side * side, 1 + data.classes)
        normal_weights(self, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.layers(image))


@register("acgan")
class ACGAN(AdversarialVariant):
    """The auxiliary classifier GAN."""

    summary = "by class: the discriminator also says of which class a picture is"
    paper = "Odena et al. 2016, arXiv:1610.09585"
    defaults = (
        "the paper's for CIFAR-10, but for batch normalisation after the generator's linear layer; "
        "at other sizes the generator's channels follow a rule of our own"
    )
    Options = ACGANOptions
    needs = frozenset({"label"})
    conditional = True

    def check_options(self) -> None:
        super().check_options()
        if self.options.image_size not in UP:
            sizes = ", ".join(map(str, UP))
            raise UserError(f"--image-size must be one of {sizes}, not {self.options.image_size}")
        self.options.check_normalisation()

    def view(self, spec: DataSpec) -> View:
        return SquareView(self.options.image_size)

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Generator(self.recipe, data)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        return Discriminator(self.recipe, data)

    def outputs(self, targets: Tensor, batch: Batch) -> Tensor:
        return self.discriminator(with_deviation(targets, self.recipe.minibatch_stddev))

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0]

    def _class_term(self, name: str, outputs: Tensor, batch: Batch) -> Term:
        """Minus the log likelihood of the right class: log K where the head knows nothing."""
        loss = F.cross_entropy(outputs[:, 1:].float(), batch["label"])
        return name, loss, self.recipe.class_weight

    def discriminator_terms(self, real: Tensor, fake: Tensor, batch: Batch) -> list[Term]:
        return [
            self._class_term("loss/class_real", real, batch),
            self._class_term("loss/class_fake", fake, batch),
        ]

    def generator_terms(self, fake: Tensor, batch: Batch) -> list[Term]:
        return [self._class_term("loss/class_generator", fake, batch)]
