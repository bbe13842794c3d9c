"""GAN: generative adversarial nets (Goodfellow et al. 2014, arXiv:1406.2661).

The MNIST experiment of section 5 as the authors' code (github.com/goodfeli/adversarial,
``mnist.yaml``) plays it: a generator of two rectifier layers of 1200 and a sigmoid output from
100 uniform numbers, against a discriminator of two maxout layers of 240 units and 5 pieces with
dropout; batches of 100; k = 1; the generator maximises log D(G(z)). The players take turns, each
with fresh noise, as in the paper's algorithm 1; the code updates both at once from the same fakes.

For points in the plane (ring, grid) the paper has no recipe. There the output is linear, the
networks are small and begin with torch's own weights, there is no dropout, and the default is
Adam at 1e-3. Many modes want more layers (``layers_g``, ``layers_d``): PacGAN (Lin et al. 2018,
arXiv:1712.04086, section 4.1) takes four in its generator and three in its discriminator.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor, nn

from gan_core.data.examples import DataSpec
from gan_core.layers.init import uniform_weights
from gan_core.layers.maxout import Maxout
from gan_core.layers.pixels import PixelOutput, to_flat_pixels
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.perceptron import PerceptronOptions, PerceptronVariant

PICTURES = {"hidden": 1200, "maxout_units": 240, "dropout_input": 0.2, "dropout": 0.5}
POINTS = {"hidden": 128, "maxout_units": 64, "dropout_input": 0.0, "dropout": 0.0}
POINTS_ADAM: dict[str, Any] = {"optimizer": "adam", "lr_d": 1e-3, "lr_g": 1e-3}


def _or_for_points(name: str) -> Any:
    """The option ``name`` that is left open, its help saying what it is for points as well."""
    metadata = PerceptronOptions.__dataclass_fields__[name].metadata
    told = f"{metadata['help']} ({POINTS_ADAM[name]} for points)"
    return dataclasses.field(default=None, metadata={**metadata, "help": told})


@dataclasses.dataclass(frozen=True)
class GANOptions(PerceptronOptions):
    """The options of ``gan``."""

    optimizer: str | None = _or_for_points("optimizer")
    lr_d: float | None = _or_for_points("lr_d")
    lr_g: float | None = _or_for_points("lr_g")
    hidden: int | None = option(
        None,
        "units of each of the generator's hidden layers; not given: the paper's 1200 "
        "(128 for points)",
        minimum=1,
    )
    maxout_units: int | None = option(
        None,
        "maxout units of each of the discriminator's hidden layers; not given: the paper's "
        "240 (64 for points)",
        minimum=1,
    )
    layers_g: int = option(2, "hidden layers of the generator; the paper's 2", minimum=1)
    layers_d: int = option(2, "hidden layers of the discriminator; the paper's 2", minimum=1)
    maxout_pieces: int = option(5, "linear pieces of a maxout unit", minimum=1)
    dropout_input: float | None = option(
        None,
        "share of the discriminator's inputs that are dropped; not given: the paper's 0.2 "
        "(0 for points)",
        kind="schedule",
        minimum=0,
        below=1,
    )
    dropout: float | None = option(
        None,
        "share of the discriminator's hidden units that are dropped; not given: the paper's 0.5 "
        "(0 for points)",
        kind="schedule",
        minimum=0,
        below=1,
    )


class Generator(nn.Module):
    """Latent (N, latent) through ``layers`` rectifier layers to a picture, or a point (N, D)."""

    def __init__(self, latent: int, hidden: int, layers: int, data: DataSpec) -> None:
        super().__init__()
        shape = data.target_shape
        body: list[nn.Module] = []
        for inputs in [latent] + [hidden] * (layers - 1):
            body += [nn.Linear(inputs, hidden), nn.ReLU()]
        self.body = nn.Sequential(*body)
        self.output: nn.Module = PixelOutput(hidden, shape)
        if data.target == "point":
            self.output = nn.Linear(hidden, math.prod(shape))
        else:
            uniform_weights(self, 0.05)

    def forward(self, latent: Tensor) -> Tensor:
        return self.output(self.body(latent))


class Discriminator(nn.Module):
    """``layers`` maxout layers, dropout before each layer, to a logit (N, 1)."""

    def __init__(
        self, units: int, pieces: int, layers: int, dropouts: tuple[float, float], data: DataSpec
    ) -> None:
        super().__init__()
        self.of_pixels = data.target == "image"
        dropped_inputs, dropped = dropouts
        parts: list[nn.Module] = [nn.Dropout(dropped_inputs)]
        for inputs in [math.prod(data.target_shape)] + [units] * (layers - 1):
            parts += [Maxout(inputs, units, pieces), nn.Dropout(dropped)]
        self.layers = nn.Sequential(*parts, nn.Linear(units, 1))
        if self.of_pixels:
            uniform_weights(self, 0.005)

    def forward(self, target: Tensor) -> Tensor:
        return self.layers(to_flat_pixels(target) if self.of_pixels else target)


@register("gan")
class GAN(PerceptronVariant):
    """The original GAN."""

    summary = "the original: fully connected, rectifiers against maxout units"
    paper = "Goodfellow et al. 2014, arXiv:1406.2661"
    defaults = "the paper's for pictures; it has none for points"
    targets = frozenset({"image", "point"})
    Options = GANOptions
    uniform_bounds = (-math.sqrt(3), math.sqrt(3))

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        if data.target == "image":
            return {**super().resolve(data), **PICTURES}
        by_optimizer = POINTS_ADAM if self.options.optimizer != "sgd" else {}
        return {**super().resolve(data), **POINTS, **by_optimizer}

    def make_generator(self, data: DataSpec) -> nn.Module:
        recipe = self.recipe
        return Generator(recipe.latent, recipe.hidden, recipe.layers_g, data)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        recipe = self.recipe
        dropouts = (recipe.dropout_input, recipe.dropout)
        units, pieces = recipe.maxout_units, recipe.maxout_pieces
        return Discriminator(units, pieces, recipe.layers_d, dropouts, data)
