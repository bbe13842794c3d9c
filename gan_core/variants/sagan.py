"""SAGAN: self-attention (Zhang et al. 2018, arXiv:1805.08318).

The ResNet of SN-GAN with projection, and three changes: attention in both networks, at the feature
maps of 32 pixels for pictures of 128 (here also of 64; 16 for 32 pixels, 8 for 16); spectral
normalisation in the generator too; and two rates, 1e-4 for the generator and 4e-4 for the
discriminator, with one update of each in turn. Hinge loss; Adam with (0, 0.9); batches of 256;
Glorot's weights as in the authors' code (github.com/brain-research/self-attention-gan).

The paper is about labelled pictures; ``--no-conditional`` leaves the labels out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gan_core.data.examples import DataSpec
from gan_core.options import option
from gan_core.variant import register
from gan_core.variants.adversarial import default
from gan_core.variants.resnet import ResNetOptions, ResNetVariant

ATTENTION = {16: 8, 32: 16, 64: 32, 128: 32}
"""Pixels a side of the feature maps with attention, by those of the pictures."""


@dataclasses.dataclass(frozen=True)
class SAGANOptions(ResNetOptions):
    """The options of ``sagan``."""

    steps: int = default("steps", 50_000)
    batch_size: int = default("batch_size", 256)
    loss: str = default("loss", "hinge")
    lr_g: float = default("lr_g", 1e-4)
    lr_d: float = default("lr_d", 4e-4)
    beta1: float = default("beta1", 0.0)
    beta2: float = default("beta2", 0.9)
    latent: int = default("latent", 128)
    attention: int | None = option(  # type: ignore[assignment]
        None,
        "pixels a side of the feature maps that get self-attention, 0 for none; not given: the "
        "paper's 32 (16 for pictures of 32 pixels, 8 for 16)",
        minimum=0,
    )
    conditional: bool = option(
        True, "by class: conditional batch normalisation, and the projection discriminator"
    )


@register("sagan")
class SAGAN(ResNetVariant):
    """The self-attention GAN."""

    summary = "self-attention in both networks, two learning rates; by class"
    paper = "Zhang et al. 2018, arXiv:1805.08318"
    Options = SAGANOptions
    spectral_g = True

    def __init__(self, options: SAGANOptions) -> None:
        super().__init__(options)
        self.conditional = options.conditional

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        return {**super().resolve(data), "attention": ATTENTION[self.options.image_size]}
