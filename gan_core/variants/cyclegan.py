"""CycleGAN: unpaired image-to-image translation (Zhu et al. 2017, arXiv:1703.10593).

Two residual generators translate between two domains, one each way, and two PatchGANs judge what
comes out. There and back must give the picture again: 10 times the mean absolute difference each
way; and a picture that is of the target domain already should stay: half of that (sections 3.2 and
5.2). Least squares; the discriminators' loss halved (appendix 7.1), on pictures from a pool of 50
(section 4). Of least squares that half is in the loss already (Mao et al. 2017), in the generators'
too, where the paper has none: their weight is 2 then. Other losses weigh 1 and are halved for
discriminators. Adam at 2e-4 with beta1 0.5, batches of one, 100 epochs at the full rate and 100 in
which it falls linearly to 0, weights from N(0, 0.02^2). The default steps are 200 epochs of 1,000
pictures.

``generator`` makes ``image`` from ``input``, ``inverse`` the other way. As in the authors' code
both generators are one player and play first, and both discriminators another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers.pool import ImagePool
from gan_core.layers.residual_generator import ResidualGenerator
from gan_core.layers.unet import UNet
from gan_core.metrics.translation import COMPARED, closeness, relative_diversity
from gan_core.options import option
from gan_core.priors import Uniform
from gan_core.variant import GameOptions, Loss, NoiseSpec, Player, register
from gan_core.variants.adversarial import decisions, default
from gan_core.variants.regularisation import summed
from gan_core.variants.translation import (
    TranslationOptions,
    TranslationVariant,
    in_parts,
    side_by_side,
)

_HALVED = "least-squares"
"""The loss that is half of the paper's on both sides."""
_DOMAINS = ("image", "input")
_POOLS = ("image_pool", "input_pool")
_JUDGES = ("discriminator", "inverse_discriminator")


@dataclasses.dataclass(frozen=True)
class CycleGANOptions(TranslationOptions):
    """The options of ``cyclegan``."""

    steps: int = default("steps", 200_000, GameOptions)
    loss: str = default("loss", "least-squares", TranslationOptions)
    constant: float = default("constant", 0.5, TranslationOptions)
    blocks: int | None = option(
        None,
        "residual blocks of a generator; not given: 9 from 256 pixels on, else 6",
        minimum=0,
    )
    kernel: int = option(
        7,
        "size of a generator's first and last convolution, odd: 7 in the paper; with 3 small "
        "networks take two thirds of the time",
        minimum=3,
    )
    network: str = option(
        "resnet",
        "the generators: residual blocks as in the paper, or the U-Net that the authors' code also "
        "offers, where thin lines pass beside the bottleneck",
        choices=("resnet", "unet"),
    )
    adversarial: float | None = option(
        None,
        "weight of the adversarial losses; not given: the paper's 1, or 2 with least squares, as "
        "the paper's square is not halved",
        kind="schedule",
        above=0,
    )
    cycle: float = option(
        10.0, "weight of the difference after there and back", kind="schedule", minimum=0
    )
    identity: float = option(
        0.5,
        "weight of the identity loss, as a multiple of --cycle; 0 for none",
        kind="schedule",
        minimum=0,
    )
    pool: int = option(50, "past pictures that a discriminator may see again", minimum=0)

    @property
    def decided(self) -> dict[str, Any]:
        blocks = 9 if self.image_size >= 256 else 6
        weight = 2.0 if self.loss == _HALVED else 1.0
        return {**super().decided, "blocks": blocks, "adversarial": weight}


@register("cyclegan")
class CycleGAN(TranslationVariant):
    """Translation learned from two sets of pictures that do not belong together."""

    summary = "pictures to pictures and back, learned without pairs: cycle consistency"
    paper = "Zhu et al. 2017, arXiv:1703.10593"
    default_data = "unpaired"
    data_help = (
        "two folders of pictures that do not belong together (--input-folder, --target-folder, or "
        "trainA and trainB as its authors lay them out). With --truth the folders hold the same "
        "names: training sees disjoint pictures, and figures compare held-out ones with the truth."
    )
    data_example = (
        "--data unpaired --data-root ~/openmoji --input-folder color --target-folder black "
        "--truth --image-size 64"
    )
    Options = CycleGANOptions
    figure_names = (
        *TranslationVariant.figure_names,
        "l1_inverse", "ssim_inverse", "l1_inverse_input", "ssim_inverse_input",
        "cycle_l1", "cycle_l1_inverse", "diversity_inverse",
    )  # fmt: skip

    inverse: nn.Module
    discriminator: nn.Module
    inverse_discriminator: nn.Module
    image_pool: ImagePool
    input_pool: ImagePool

    def check_options(self) -> None:
        super().check_options()
        if self.options.image_size % 4:
            raise UserError(
                f"--image-size must be a multiple of 4 for cyclegan, not {self.options.image_size}"
            )
        if self.options.network == "unet" and self.options.image_size.bit_count() != 1:
            raise UserError(
                "--image-size must be a power of two for --network unet, not "
                f"{self.options.image_size}"
            )
        if self.options.kernel % 2 == 0:
            raise UserError(f"--kernel must be odd, not {self.options.kernel}")
        if self.options.network == "resnet" and self.options.kernel // 2 >= self.options.image_size:
            raise UserError(
                f"--kernel {self.options.kernel} looks beyond the reflection of pictures of "
                f"{self.options.image_size} pixels: choose a smaller one"
            )

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        channels = {name: spec.tensors[name].shape[0] for name in _DOMAINS}
        if self.options.identity > 0 and channels["image"] != channels["input"]:
            raise UserError(
                "the identity loss needs pictures of as many channels, not "
                f"{channels['input']} and {channels['image']}: give --identity 0, or --channels"
            )

    def make_networks(self, inputs: int, outputs: int) -> None:
        recipe = self.recipe
        self.generator = self.make_generator(inputs, outputs)
        self.inverse = self.make_generator(outputs, inputs)
        self.discriminator = self.make_discriminator(outputs, affine=False)
        self.inverse_discriminator = self.make_discriminator(inputs, affine=False)
        square = (recipe.image_size, recipe.image_size)
        self.image_pool = ImagePool(recipe.pool, (outputs, *square))
        self.input_pool = ImagePool(recipe.pool, (inputs, *square))

    def make_generator(self, inputs: int, outputs: int) -> nn.Module:
        """A generator of pictures of ``outputs`` channels from such of ``inputs``."""
        recipe = self.recipe
        if recipe.network == "unet":
            return UNet(
                inputs,
                outputs,
                recipe.image_size,
                width=recipe.width,
                rate=0.0,
                residual=recipe.residual,
            )
        return ResidualGenerator(
            inputs,
            outputs,
            width=recipe.width,
            blocks=recipe.blocks,
            kernel=recipe.kernel,
            residual=recipe.residual,
        )

    def players(self) -> tuple[Player, ...]:
        recipe, networks = self.recipe, ("generator", "inverse")
        generators = Player(
            "generator",
            networks,
            self.generator_loss,
            self.optimizer(recipe.lr_g),
            reads=_DOMAINS,
            ema=networks if recipe.ema > 0 else (),
            ema_decay=recipe.ema,
        )
        discriminators = Player(
            "discriminator",
            _JUDGES,
            self.discriminator_loss,
            self.optimizer(recipe.lr_d),
            second_order=_JUDGES if self.regularisation.second_order else (),
        )
        return generators, discriminators

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        pools = (
            NoiseSpec(f"pool_{name}", (2,), Uniform(0.0, 1.0), players=("discriminator",))
            for name in _DOMAINS
        )
        jitter = (spec for name in _DOMAINS for spec in self.jitter_noise(name))
        regular = (spec for name in _DOMAINS for spec in self.regularisation.noise(f"_{name}"))
        return (*jitter, *pools, *regular)

    def sampling_networks(self, stage: str) -> tuple[str, ...]:
        return ("generator", "inverse")

    def translate(self, batch: Batch) -> Tensor:
        return self.generator(batch["input"])

    def generator_loss(self, batch: Batch) -> Loss:
        """Adversarial, cycle and identity losses, both ways (equation 3, section 5.2)."""
        recipe = self.recipe
        image, given = (self.jitter(batch[name], batch, name) for name in _DOMAINS)
        fake_image, same_image = self._forth(self.generator, given, image)
        fake_given, same_given = self._forth(self.inverse, image, given)
        shown = self.regularisation.shown
        seen = shown(fake_image, batch, "fake", "_image")
        fooled = self.loss.generator(self.discriminator(seen))
        seen = shown(fake_given, batch, "fake", "_input")
        fooled = fooled + self.loss.generator(self.inverse_discriminator(seen))
        cycle = F.l1_loss(self.inverse(fake_image), given)
        cycle = cycle + F.l1_loss(self.generator(fake_given), image)
        total = recipe.adversarial * fooled + recipe.cycle * cycle
        diagnostics = {"loss/adversarial": fooled.detach(), "loss/cycle": cycle.detach()}
        if same_image is not None and same_given is not None:
            identity = F.l1_loss(same_image, image) + F.l1_loss(same_given, given)
            total = total + recipe.identity * recipe.cycle * identity
            diagnostics["loss/identity"] = identity.detach()
        diagnostics["loss/generator"] = total.detach()
        made = {"fake_image": fake_image, "fake_input": fake_given}
        return Loss(total, diagnostics, {"image": image, "input": given, **made})

    def _forth(
        self, network: nn.Module, given: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """``given`` translated by ``network`` and, for the identity loss, what is there already."""
        if self.recipe.identity == 0:
            return network(given), None
        translated, same = network(torch.cat((given, own))).chunk(2)
        return translated, same

    def discriminator_loss(self, batch: Batch) -> Loss:
        """Both discriminators', on what is real and on carried pictures by way of the pools.

        Halved, as in appendix 7.1, where the loss is not so already; penalties are not.
        """
        regular = self.regularisation
        losses, diagnostics, terms = [], {}, []
        for name, network, past in zip(_DOMAINS, _JUDGES, _POOLS, strict=True):
            discriminator, pool = getattr(self, network), getattr(self, past)
            fake = pool.exchange(batch[f"fake_{name}"], batch[f"pool_{name}"])
            fake = regular.shown(fake, batch, "fake", f"_{name}")
            real = regular.watched(regular.shown(batch[name], batch, "real", f"_{name}"))
            real_logits, fake_logits = discriminator(torch.cat((real, fake))).chunk(2)
            losses.append(self.loss.discriminator(real_logits, fake_logits))
            terms += regular.penalties(discriminator, real, fake, real_logits, batch, of=f"_{name}")
            if name == "image":
                diagnostics = decisions(self.loss, real_logits.detach(), fake_logits.detach())
        total = torch.stack(losses).sum()
        if self.recipe.loss != _HALVED:
            total = total / 2
        return summed(total, {**diagnostics, "loss/discriminator": total.detach()}, terms)

    def deal_out(self, ranks: Iterable[Mapping[str, Tensor]], rank: int, size: int) -> str:
        kept = list(ranks)
        for name in _POOLS:
            pools = [(own[f"{name}.images"], own[f"{name}.seen"]) for own in kept]
            getattr(self, name).deal_out(pools, rank, size)
        return "the pools of past pictures" if self.recipe.pool else ""

    def loss_scales(self) -> Mapping[str, float]:
        options = self.options
        adversarial = options.adversarial
        if adversarial is None:
            adversarial = options.decided["adversarial"]
        weights = adversarial + options.cycle * (1 + options.identity)
        return {"loss/generator": max(1.0, 2 * weights)}  # each term is there both ways

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        def logits(part: Batch) -> Tensor:
            both = (part["image"], self.translate(part))
            return torch.cat([self.discriminator(images) for images in both], dim=1)

        real, fake = in_parts(logits, batch).chunk(2, dim=1)
        return self.judged(real, fake)

    def back(self, images: Tensor) -> Tensor:
        """What ``inverse`` makes of ``images`` of the target domain, a few at a time."""
        return in_parts(lambda part: self.inverse(part["image"]), {"image": images})

    @torch.no_grad()
    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        found = super().figures(stage, generated, held_out)
        made = self.back(held_out["image"])
        if self.knows_truth(held_out):
            found |= self.against_truth(made, held_out["image"], held_out["input"], "_inverse")
        there_and_back = self.back(generated["image"])
        back_and_there = in_parts(self.translate, {"input": made})
        found["cycle_l1"] = closeness(there_and_back, held_out["input"])["l1"]
        found["cycle_l1_inverse"] = closeness(back_and_there, held_out["image"])["l1"]
        if min(len(made), len(held_out["input"])) > 1:
            found["diversity_inverse"] = relative_diversity(made, held_out["input"])
        return found

    def protocol(self, stage: str) -> str:
        return (
            f"{super().protocol(stage)}, cycle_l1: l1 between the input and its translation "
            "translated back, ..._inverse: the same figures of the other direction, "
            f"diversity_inverse: distance of two of the first {COMPARED} of its pictures over that "
            "of real ones"
        )

    @torch.no_grad()
    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor | None:
        if self.knows_truth(held_out):
            return super().picture(stage, generated, held_out)
        columns = [held_out["input"], generated["image"], self.back(generated["image"])]
        return side_by_side(columns)
