"""Pix2Pix: image-to-image translation with conditional GANs (Isola et al. 2016, arXiv:1611.07004).

A U-Net translates; a PatchGAN sees the input beside the picture and judges patches of 70 x 70
pixels. The generator's loss is the non-saturating one plus 100 times the mean absolute difference
from the truth (section 3.1); the discriminator's is halved, which slows it down (section 3.3).
Adam at 2e-4 with beta1 0.5, batches of one, weights from N(0, 0.02^2), pictures enlarged to 286
pixels and cropped to 256, and mirrored (section 6.2). The default steps are the 200 epochs of the
paper's facades, 400 pairs.

The paper has no noise but dropout, which stays on at test time, as do the statistics of the test
batch in batch normalisation, where a batch is one picture. So here every picture is normalised by
its own statistics, in training (also of larger batches) and afterwards, and dropout's masks are
noise like any other: a sample is a function of its input, the seed and its number.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers.dropout import BITS, words_for
from gan_core.layers.unet import UNet
from gan_core.options import option
from gan_core.variant import GameOptions, Loss, NoiseSpec, Player, register
from gan_core.variants.adversarial import decisions, default
from gan_core.variants.regularisation import OF_DISCRIMINATOR, check_none, summed
from gan_core.variants.translation import (
    TranslationOptions,
    TranslationVariant,
    in_parts,
    refuse_unpaired,
)

_SLOWDOWN = 0.5  # section 3.3: the objective of D is divided by 2


@dataclasses.dataclass(frozen=True)
class Pix2PixOptions(TranslationOptions):
    """The options of ``pix2pix``."""

    steps: int = default("steps", 80_000, GameOptions)
    l1: float = option(
        100.0, "weight of the absolute difference from the truth", kind="schedule", minimum=0
    )
    adversarial: float = option(
        1.0,
        "weight of the adversarial loss; 0 trains the U-Net on the difference alone, without a "
        "discriminator",
        minimum=0,
    )
    dropout: float = option(
        0.5,
        "share of units dropped in the first three layers of the decoder, also when sampling",
        minimum=0,
        below=1,
    )


@register("pix2pix")
class Pix2Pix(TranslationVariant):
    """Translation learned from pairs."""

    summary = "pictures to pictures, learned from pairs: U-Net, PatchGAN and absolute difference"
    paper = "Isola et al. 2016, arXiv:1611.07004"
    default_data = "pairs"
    data_help = (
        "pairs of pictures, an input and what it is to become: two folders with the same names "
        "(--input-folder, --target-folder), or files with both squares side by side "
        "(--input-side). --image-size is a power of two."
    )
    data_example = (
        "--data pairs --data-root ~/openmoji --input-folder black --target-folder color "
        "--image-size 64"
    )
    Options = Pix2PixOptions

    generator: UNet
    discriminator: nn.Module

    def check_options(self) -> None:
        super().check_options()
        size = self.options.image_size
        if size & (size - 1):
            raise UserError(f"--image-size must be a power of two for a U-Net, not {size}")

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        refuse_unpaired(self.name, spec)
        if self.options.adversarial == 0:
            self._check_alone()

    def _check_alone(self) -> None:
        """Raises ``UserError`` for what means nothing without a discriminator."""
        options = self.options
        if options.l1 == 0:
            raise UserError("with --l1 0 and --adversarial 0 there is nothing to learn")
        check_none(options, "--adversarial 0")

    def refused_options(self) -> frozenset[str]:
        return OF_DISCRIMINATOR if self.options.adversarial == 0 else frozenset()

    def make_networks(self, inputs: int, outputs: int) -> None:
        recipe = self.recipe
        self.generator = UNet(
            inputs,
            outputs,
            recipe.image_size,
            width=recipe.width,
            rate=recipe.dropout,
            residual=recipe.residual,
        )
        if recipe.adversarial > 0:
            self.discriminator = self.make_discriminator(inputs + outputs, affine=True)

    def players(self) -> tuple[Player, ...]:
        recipe = self.recipe
        generator = Player(
            "generator",
            ("generator",),
            self.generator_loss,
            self.optimizer(recipe.lr_g),
            reads=("input", "image"),
            ema=("generator",) if recipe.ema > 0 else (),
            ema_decay=recipe.ema,
        )
        if recipe.adversarial == 0:
            return (generator,)
        discriminator = Player(
            "discriminator",
            ("discriminator",),
            self.discriminator_loss,
            self.optimizer(recipe.lr_d),
            second_order=("discriminator",) if self.regularisation.second_order else (),
        )
        return generator, discriminator

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        units = self.generator.dropped_units
        dropout = (NoiseSpec("dropout", (words_for(units),), BITS, ("generator", "sample")),)
        regular = self.regularisation.noise() if self.recipe.adversarial > 0 else ()
        return (*self.jitter_noise("pair"), *(dropout if units else ()), *regular)

    def translate(self, batch: Batch) -> Tensor:
        return self.generator(batch["input"], batch.get("dropout"))

    def discriminate(self, given: Tensor, images: Tensor) -> Tensor:
        """Maps of logits (N, 1, M, M) of ``images`` as translations of ``given``."""
        return self.discriminator(torch.cat((given, images), dim=1))

    def shown(self, given: Tensor, images: Tensor, batch: Batch, kind: str) -> tuple[Tensor, ...]:
        """Both, as the discriminator shall see them: augmented alike, so that they stay a pair."""
        shown = self.regularisation.shown
        return shown(given, batch, kind), shown(images, batch, kind)

    def generator_loss(self, batch: Batch) -> Loss:
        """Weighted adversarial loss and absolute difference (equation 4)."""
        recipe = self.recipe
        pair = self.jitter(torch.cat((batch["input"], batch["image"]), dim=1), batch, "pair")
        given, real = pair.split((batch["input"].shape[1], batch["image"].shape[1]), dim=1)
        fake = self.translate({**batch, "input": given})
        difference = F.l1_loss(fake, real)
        total, diagnostics = recipe.l1 * difference, {"loss/l1": difference.detach()}
        if recipe.adversarial > 0:
            seen = self.shown(given, fake, batch, "fake")
            fooled = self.loss.generator(self.discriminate(*seen))
            total = total + recipe.adversarial * fooled
            diagnostics["loss/adversarial"] = fooled.detach()
        diagnostics["loss/generator"] = total.detach()
        return Loss(total, diagnostics, {"input": given, "image": real, "fake": fake})

    def discriminator_loss(self, batch: Batch) -> Loss:
        """Real against carried fake translations of the same inputs, halved, and penalties."""
        given_real, real = self.shown(batch["input"], batch["image"], batch, "real")
        given_fake, fake = self.shown(batch["input"], batch["fake"], batch, "fake")
        real = self.regularisation.watched(real)
        both = self.discriminate(torch.cat((given_real, given_fake)), torch.cat((real, fake)))
        real_logits, fake_logits = both.chunk(2)
        loss = self.loss.discriminator(real_logits, fake_logits)
        diagnostics = {"loss/discriminator": loss.detach()}
        diagnostics |= decisions(self.loss, real_logits.detach(), fake_logits.detach())
        judge = functools.partial(self.discriminate, given_real)
        terms = self.regularisation.penalties(judge, real, fake, real_logits, batch)
        return summed(_SLOWDOWN * loss, diagnostics, terms)

    def loss_scales(self) -> Mapping[str, float]:
        return {"loss/generator": max(1.0, self.options.l1 + self.options.adversarial)}

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        if self.recipe.adversarial == 0:
            return {}

        def logits(part: Batch) -> Tensor:
            fake = self.translate(part)
            maps = [self.discriminate(part["input"], images) for images in (part["image"], fake)]
            return torch.cat(maps, dim=1)

        real, fake = in_parts(logits, batch).chunk(2, dim=1)
        return self.judged(real, fake)
