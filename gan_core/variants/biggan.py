"""BigGAN (Brock et al. 2018, arXiv:1809.11096).

SAGAN's networks, wider, with one embedding of the classes that all conditional normalisations
share, beside which each block is given its own part of the noise (hierarchical latent space,
appendix B); orthogonal weights, and a penalty in the generator that keeps them so (section 3.1);
an average of the generator's weights, whose decay rises towards 0.9999 (see --ema); and the
truncation trick at sampling (``sample --truncation``). Hinge loss; Adam with (0, 0.999).

The paper trains ImageNet with batches of 2,048, two discriminator updates, rates of 5e-5 and 2e-4
and attention at 64 pixels. The defaults here are those of the authors' script for CIFAR-10
(github.com/ajbrock/BigGAN-PyTorch, ``launch_cifar_ema.sh``): batches of 50, four discriminator
updates, 2e-4 both, no attention; ``accumulate`` and the others give back the paper's. The script
has neither orthogonal weights nor their penalty nor noise in every block: these are the paper's, as
are the 120 dimensions of the noise (128 in the script).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers.init import orthogonal_weights
from gan_core.layers.labels import class_weights
from gan_core.layers.orthogonality import orthogonality
from gan_core.layers.spectral import SpectralLinear
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.adversarial import Term, default
from gan_core.variants.resnet import (
    BOTTOM,
    WIDTHS,
    Architecture,
    Discriminator,
    GeneratorTrunk,
    ResNetOptions,
    ResNetVariant,
)


@dataclasses.dataclass(frozen=True)
class BigGANOptions(ResNetOptions):
    """The options of ``biggan``."""

    steps: int = default("steps", 50_000)
    batch_size: int = default("batch_size", 50)
    k: int = default("k", 4)
    loss: str = default("loss", "hinge")
    beta1: float = default("beta1", 0.0)
    beta2: float = default("beta2", 0.999)
    latent: int = default("latent", 120)
    ema: float = default("ema", 0.9999)
    width_d: int | None = option(
        None,
        "channels of the discriminator's first block; not given: 256 up to 32 pixels, 64 beyond",
        minimum=1,
    )
    width_g: int | None = option(
        None,
        "channels of the generator's layer next to the picture, at 64 pixels half of them; not "
        "given: 256 up to 32 pixels, 64 beyond (the paper's at 128: --width-g 96 --width-d 96 "
        "--attention 64)",
        minimum=1,
    )
    embedding: int = option(128, "dimensions of the shared embedding of the classes", minimum=1)
    orthogonality: float = option(
        1e-4,
        "weight beta of the penalty that keeps the rows of the generator's weights orthogonal",
        kind="schedule",
        minimum=0,
    )


class Generator(nn.Module):
    """Latent (N, latent) and labels (N,) to pictures in [-1, 1].

    The first part of the noise makes the feature maps of 4 pixels; each block is conditioned by
    the class's embedding and its own part, by :meth:`parts`.
    """

    def __init__(self, shape: Architecture, embedding: int) -> None:
        super().__init__()
        self.classes, self.start = shape.classes, (shape.up[0], BOTTOM, BOTTOM)
        self.blocks = len(shape.up) - 1
        part = shape.latent // (self.blocks + 1)
        self.embed = nn.Linear(shape.classes, embedding, bias=False)
        self.project = SpectralLinear(part, math.prod(self.start))
        self.trunk = GeneratorTrunk(shape, embedding + part, spectral_conditions=True)

    def parts(self, latent: Tensor) -> tuple[Tensor, ...]:
        """The noise (N, latent) in equal parts, one more than there are blocks."""
        return latent.chunk(self.blocks + 1, dim=1)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        embedded = self.embed(class_weights(label, self.classes, latent))
        first, *others = self.parts(latent)
        values = self.project(first).unflatten(1, self.start)
        return self.trunk(values, [torch.cat((embedded, part), dim=1) for part in others])


@register("biggan")
class BigGAN(ResNetVariant):
    """The large-scale GAN."""

    summary = "wide, by class through a shared embedding, noise in every block, orthogonal weights"
    paper = "Brock et al. 2018, arXiv:1809.11096"
    defaults = (
        "those of its authors' script for CIFAR-10 (batches of 50, k 4, rates of 2e-4, no "
        "attention), but for the paper's orthogonal weights and their penalty, shared embedding, "
        "120 numbers of noise and some in every block; the discriminator's last layer has no bias"
    )
    Options = BigGANOptions
    widths = {size: dataclasses.replace(w, base_d=w.base_g) for size, w in WIDTHS.items()}  # noqa: RUF012
    widths[64] = dataclasses.replace(widths[64], up=(16, 16, 8, 4, 2))  # the authors' G_arch
    spectral_g = True
    needs = frozenset({"label"})
    conditional = True

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        parts = len(self.widths[self.options.image_size].up)
        if self.options.latent % parts:
            raise UserError(
                f"--latent {self.options.latent} cannot be cut into {parts} equal parts, one for "
                f"each block and one to begin with: give a multiple of {parts}"
            )

    def make_generator(self, data: DataSpec) -> nn.Module:
        generator = Generator(self.architecture(data), self.recipe.embedding)
        orthogonal_weights(generator)
        return generator

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        discriminator = Discriminator(self.architecture(data))
        orthogonal_weights(discriminator)
        return discriminator

    def regularised(self) -> Iterator[Tensor]:
        """The generator's weights, but for the shared embedding (and without gains and biases)."""
        for name, weight in self.generator.named_parameters():
            if weight.dim() > 1 and not name.startswith("embed."):
                yield weight

    def generator_terms(self, fake: Tensor, batch: Batch) -> list[Term]:
        if self.recipe.orthogonality == 0:
            return []
        penalty = orthogonality(self.regularised())
        return [("penalty/orthogonality", penalty, self.recipe.orthogonality)]
