"""SRGAN: photo-realistic super-resolution (Ledig et al. 2017, arXiv:1609.04802).

Two stages. ``pretrain`` trains the generator alone on the mean squared error of pixels: that is
the paper's SRResNet. ``adversarial`` goes on from there against a discriminator, with the mean
squared error of features of a frozen network (VGG19's phi5,4) in the place of that of pixels, plus
1e-3 of the adversarial loss. Both learn from random squares of 96 pixels, reduced bicubically by
4 on the device; batches of 16; Adam with beta1 0.9, at 1e-4, and at 1e-5 in the second half of the
adversarial stage.

The generator sees the small picture in [0, 1] and gives the large one in [-1, 1]; it takes
pictures of any size. What the paper has not, and the options offer: bicubic enlargement as a
skip connection (``--skip bicubic``), no batch normalisation (``--norm-g none``, Lim et al. 2017),
one enlargement at the end instead of two (``--upsampling once``: several times cheaper), a falling
rate in pre-training, an average of the generator's weights.

No noise is drawn but where to crop and which of eight ways the square lies (which the paper has
not): a small picture has one enlargement.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec, to_pixels, to_unit_range
from gan_core.data.views import View
from gan_core.errors import UserError
from gan_core.layers import bicubic
from gan_core.layers.crops import crops, turned
from gan_core.layers.external import External
from gan_core.layers.features import FEATURES, load_features
from gan_core.layers.normalisation import normalisation
from gan_core.losses import LOSSES, UNPAIRED
from gan_core.metrics.super_resolution import PROTOCOL, SMALLEST, psnr, ssim
from gan_core.options import option
from gan_core.pictures import image_grid
from gan_core.priors import Integers, Uniform
from gan_core.variant import (
    GameOptions,
    Loss,
    NoiseSpec,
    OptimizerSpec,
    Player,
    Stage,
    Variant,
    register,
)
from gan_core.variants.adversarial import decisions, default, judgement_of
from gan_core.variants.regularisation import (
    OF_DISCRIMINATOR,
    NormByPenaltyOptions,
    Regularisation,
    check_bounded,
    check_none,
    summed,
)
from gan_core.variants.schedules import CosineDecay, StepDecay
from gan_core.variants.translation import KERNEL_DISTANCES

_REDUCTIONS = 4
"""How often the discriminator halves the picture."""


@dataclasses.dataclass(frozen=True)
class SRGANOptions(NormByPenaltyOptions):
    """The options of ``srgan``."""

    stage_lengths = ("steps", "pretrain_steps")
    steps: int = option(
        200_000,
        "iterations of the adversarial stage; 0: SRResNet alone (the content network must be had "
        "even so, unless --content pixels)",
        kind="schedule",
        minimum=0,
    )
    pretrain_steps: int = option(
        1_000_000, "iterations of the first stage, SRResNet", kind="schedule", minimum=1
    )
    batch_size: int = default("batch_size", 16, GameOptions)
    scale: int = option(4, "how many times larger pictures become: 2 or 4", minimum=2, maximum=4)
    crop: int = option(
        96, "pixels a side of the squares that are learned from", minimum=2**_REDUCTIONS
    )
    width: int = option(64, "channels of the generator", minimum=1)
    blocks: int = option(16, "residual blocks of the generator", minimum=1)
    kernel_end: int = option(9, "size of the generator's last convolution, odd", minimum=1)
    norm_g: str = option("batch", "normalisation in the generator", choices=("batch", "none"))
    upsampling: str = option(
        "twice",
        "enlarge by 2 at a time, or once by all of it with a quarter of the channels",
        choices=("twice", "once"),
    )
    skip: str = option(
        "none",
        "what is added to the generator's output: nothing as in the paper, or the bicubic "
        "enlargement",
        choices=("none", "bicubic"),
    )
    width_d: int = option(64, "channels of the discriminator's first layer", minimum=1)
    hidden_d: int = option(1024, "units of the discriminator's dense layer", minimum=1)
    content: str = option(
        "vgg19",
        "what the adversarial stage compares with the truth: features of VGG19 (the paper's "
        "phi5,4) or of MobileNetV2 (an eighth of the size, 32 channels), or pixels",
        choices=(*FEATURES, "pixels"),
    )
    content_weights: str | None = option(
        None,
        "file with the content network's weights, torchvision's (vgg19-dcbb9e9d.pth, "
        "mobilenet_v2-b0353104.pth); not given: where torch keeps them",
        kind="runtime",
    )
    pixel_weight: float = option(
        0.0, "weight of the pixels' error beside features", kind="schedule", minimum=0
    )
    adversarial_weight: float = option(
        1e-3, "weight of the adversarial loss", kind="schedule", minimum=0
    )
    loss: str = option(
        "non-saturating",
        "adversarial loss",
        kind="schedule",
        choices=UNPAIRED,
    )
    lr_pretrain: float = option(1e-4, "learning rate of the first stage", kind="schedule", above=0)
    decay_pretrain: str = option(
        "constant", "how that rate falls", kind="schedule", choices=("constant", "cosine")
    )
    lr_g: float = option(
        1e-4, "the generator's adversarial learning rate, a tenth in the second half",
        kind="schedule", above=0,
    )  # fmt: skip
    lr_d: float = option(
        1e-4, "the discriminator's learning rate, a tenth in the second half",
        kind="schedule", above=0,
    )  # fmt: skip
    beta1: float = option(
        0.9, "Adam's decay of the mean gradient", kind="schedule", minimum=0, below=1
    )
    ema: float = default("ema", 0.0)

    def keeping(self, name: str, value: object) -> str:
        kept = super().keeping(name, value)
        bare = value == "batch" and self.r1 == 0 and LOSSES[self.loss].lipschitz
        return f"{kept} with --r1 1" if bare else kept  # a critic must be bounded by something

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Those of SRResNet alone and, where it is played, of the adversarial stage."""
        return (self.pretrain_steps, self.steps) if self.steps else (self.pretrain_steps,)


@dataclasses.dataclass(frozen=True)
class ReducedView(View):
    """Pictures as they come, with the same ``scale`` times smaller beside them as "low"."""

    scale: int = 4

    def through(self, spec: DataSpec) -> DataSpec:
        channels, rows, columns = spec.target_shape
        small = TensorSpec((channels, rows // self.scale, columns // self.scale), -1.0, 1.0)
        return dataclasses.replace(spec, tensors={**spec.tensors, "low": small})

    def prepare(self, examples: Examples) -> Examples:
        images = examples.tensors[examples.spec.target]
        low = [to_pixels(bicubic.reduced(self.floats(c), self.scale)) for c in images.split(256)]
        tensors = {**examples.tensors, "low": torch.cat(low)}
        return dataclasses.replace(examples, tensors=tensors, spec=self.through(examples.spec))

    @staticmethod
    def floats(images: Tensor) -> Tensor:
        """Stored pictures, of 8 bits or not, as floats."""
        return to_unit_range(images) if images.dtype == torch.uint8 else images


class ResidualBlock(nn.Module):
    """conv3, norm, PReLU, conv3, norm, and the input added (paper, figure 4)."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            *normalisation(norm, width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            *normalisation(norm, width),
        )

    def forward(self, values: Tensor) -> Tensor:
        return values + self.layers(values)


class Generator(nn.Module):
    """Pictures (N, C, h, w) in [-1, 1] to (N, C, scale h, scale w), near [-1, 1]; any h and w.

    ``reach``: how far off, in pixels of the small picture, what a pixel depends on may be.
    """

    def __init__(self, options: SRGANOptions, channels: int) -> None:
        super().__init__()
        width = options.width
        self.enlarge = options.scale if options.skip == "bicubic" else None
        self.begin = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(ResidualBlock(width, options.norm_g) for _ in range(options.blocks)),
            nn.Conv2d(width, width, 3, padding=1),
            *normalisation(options.norm_g, width),
        )
        self.upsample, width = self._upsampling(options)
        kernel = options.kernel_end
        # The first convolution, two in each block and one after them, one of each enlargement, the
        # last (among larger pixels); the bicubic enlargement sees two pixels.
        within = 4 + 2 * options.blocks + 1 + len(self.upsample) // 3
        self.reach = within + -(-(kernel // 2) // options.scale)
        self.end = nn.Conv2d(width, channels, kernel, padding=kernel // 2)
        if self.enlarge is not None:  # begin as the bicubic enlargement
            nn.init.zeros_(self.end.weight)
            nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    @staticmethod
    def _upsampling(options: SRGANOptions) -> tuple[nn.Sequential, int]:
        """The layers that enlarge by ``scale``, and how many channels they give."""
        width, factors = options.width, [2] * (options.scale // 2)
        if options.upsampling == "once":
            width, factors = max(1, width // 4), [options.scale]
        layers: list[nn.Module] = []
        for inputs, factor in zip([options.width, width], factors, strict=False):
            layers += [
                nn.Conv2d(inputs, width * factor**2, 3, padding=1),
                nn.PixelShuffle(factor),
                nn.PReLU(),
            ]
        return nn.Sequential(*layers), width

    def forward(self, low: Tensor) -> Tensor:
        features = self.begin((low + 1) / 2)
        high = self.end(self.upsample(features + self.body(features)))
        return high if self.enlarge is None else high + bicubic.enlarged(low, self.enlarge)


class Discriminator(nn.Module):
    """Squares (N, C, S, S) to logits (N,): eight conv3, every second halving (figure 4)."""

    def __init__(self, options: SRGANOptions, channels: int) -> None:
        super().__init__()
        widths = [channels, *(options.width_d * 2 ** (i // 2) for i in range(2 * _REDUCTIONS))]
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=1 + depth % 2, padding=1))
            norm = options.norm_d or "batch"
            layers += normalisation(norm if depth else "none", outputs)
            layers.append(nn.LeakyReLU(0.2))
        side = -(-options.crop // 2**_REDUCTIONS)
        self.layers = nn.Sequential(*layers)
        self.output = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, options.hidden_d),
            nn.LeakyReLU(0.2),
            nn.Linear(options.hidden_d, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.layers(images)).flatten()


@register("srgan")
class SRGAN(Variant):
    """The super-resolution GAN."""

    summary = "super-resolution: SRResNet, then against a discriminator and frozen features"
    paper = "Ledig et al. 2017, arXiv:1609.04802"
    defaults = "the paper's, but that each square is turned and mirrored at random, eight ways"
    default_data = "hires"
    data_help = (
        "a folder of large pictures of any sizes (--data hires): they are cut into tiles, of which "
        "training takes random squares and reduces them. Any source of pictures of at least --crop "
        "pixels will do. The content network's weights are a file (--content-weights); without one "
        "--content pixels trains without features."
    )
    data_example = "--data hires --data-root ~/photographs --content-weights vgg19-dcbb9e9d.pth"
    Options = SRGANOptions
    asks_held_out = True
    best_by = (*KERNEL_DISTANCES, ("psnr", "high"))
    figure_names = ("psnr", "ssim", "psnr_bicubic", "ssim_bicubic")
    unlearnt_networks = ("content",)

    content: External

    def __init__(self, options: GameOptions) -> None:
        super().__init__(options)
        self.regularisation = Regularisation(self.options)

    def check_options(self) -> None:
        super().check_options()
        if self.options.content == "pixels" and self.options.pixel_weight > 0:
            raise UserError(
                "--pixel-weight is of the pixels' error beside that of features, and --content "
                "pixels has none: leave it out"
            )

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        options, shape = self.options, spec.target_shape
        if options.scale == 3:
            raise UserError("--scale must be 2 or 4, not 3")
        if options.crop % options.scale:
            raise UserError(f"--crop {options.crop} is no multiple of --scale {options.scale}")
        if options.kernel_end % 2 == 0:
            raise UserError(f"--kernel-end must be odd, not {options.kernel_end}")
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UserError(f"{self.name} needs pictures in gray or colour, not {shape}")
        if min(shape[1:]) < options.crop:
            raise UserError(
                f"--crop {options.crop} is larger than the pictures ({shape[2]} x {shape[1]} "
                "pixels; of --data hires: its --tile): choose a smaller crop"
            )
        if shape[1] % options.scale or shape[2] % options.scale:
            raise UserError(
                f"pictures of {shape[2]} x {shape[1]} pixels are no multiple of --scale "
                f"{options.scale}: choose another size (of --data hires: --tile)"
            )
        if options.steps == 0:
            check_none(options, "--steps 0")
        check_bounded(options)
        options.check_normalisation()

    def refused_options(self) -> frozenset[str]:
        alone = OF_DISCRIMINATOR if self.options.steps == 0 else frozenset()
        return alone | ({"pixel_weight"} if self.options.content == "pixels" else frozenset())

    def view(self, spec: DataSpec) -> View:
        return ReducedView(self.options.scale)

    def build(self, data: DataSpec) -> None:
        self.data = data
        self.fill_in(data)
        channels = data.target_shape[0]
        self.generator = Generator(self.recipe, channels)
        self.discriminator = Discriminator(self.recipe, channels)

    def load_pretrained(self) -> None:
        if self.options.content != "pixels":
            self.content = load_features(
                self.options.content, self.options.content_weights, "--content-weights"
            )

    # -- the stages --------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        options, view = self.options, ReducedView(self.options.scale)
        falls = CosineDecay(options.pretrain_steps)
        annealing = {"annealing": falls} if options.decay_pretrain == "cosine" else {}
        betas = (options.beta1, 0.999)
        half = StepDecay(max(1, options.steps // 2), 0.1)
        alone = Player(
            "generator",
            ("generator",),
            self.pretrain_loss,
            OptimizerSpec("adam", options.lr_pretrain, betas, **annealing),
            reads=("image",),
            ema=("generator",) if options.ema > 0 else (),
            ema_decay=options.ema,
        )
        generator = dataclasses.replace(
            alone,
            objective=self.generator_loss,
            optimizer=OptimizerSpec("adam", options.lr_g, betas, annealing=half),
        )
        discriminator = Player(
            "discriminator",
            ("discriminator",),
            self.discriminator_loss,
            OptimizerSpec("adam", options.lr_d, betas, annealing=half),
            second_order=("discriminator",) if self.regularisation.second_order else (),
        )
        pretrain = Stage("pretrain", (alone,), options.pretrain_steps, view=view)
        if options.steps == 0:
            return (pretrain,)
        # One batch for both, so that what the generator has made need not be made again.
        players = (generator, discriminator)
        adversarial = Stage("adversarial", players, options.steps, view, batch="iteration")
        return (pretrain, adversarial)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        trained = ("generator", "discriminator")
        return (
            NoiseSpec("place", (2,), Uniform(0.0, 1.0), players=trained),
            NoiseSpec("turn", (), Integers(8), players=trained),
            *(self.regularisation.noise() if stage == "adversarial" else ()),
        )

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Random squares (N, C, crop, crop) of the batch's pictures, and the same reduced."""
        high = turned(crops(batch["image"], batch["place"], self.options.crop), batch["turn"])
        return high, bicubic.reduced(high, self.options.scale)

    # -- the objectives ----------------------------------------------------------------------

    def pretrain_loss(self, batch: Batch) -> Loss:
        """The mean squared error of pixels in [-1, 1] (paper, equation 4)."""
        high, low = self.pair(batch)
        loss = F.mse_loss(self.generator(low), high)
        return Loss(loss, {"loss/generator": loss.detach()})

    def content_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """The mean squared error of features (equation 5), or of pixels where there are none."""
        pixels = F.mse_loss(fake, real)
        if self.options.content == "pixels":
            return pixels
        with torch.no_grad():
            wanted = self.content(real)
        return F.mse_loss(self.content(fake), wanted) + self.options.pixel_weight * pixels

    def generator_loss(self, batch: Batch) -> Loss:
        """Content and adversarial loss (equation 3)."""
        real, low = self.pair(batch)
        fake = self.generator(low)
        content = self.content_loss(fake, real)
        seen = self.regularisation.shown(fake, batch, "fake")
        adversarial = LOSSES[self.options.loss].generator(self.discriminator(seen))
        loss = content + self.options.adversarial_weight * adversarial
        diagnostics = {
            "loss/generator": loss.detach(),
            "loss/content": content.detach(),
            "loss/adversarial": adversarial.detach(),
        }
        return Loss(loss, diagnostics, carry={"real": real, "fake": fake})

    def discriminator_loss(self, batch: Batch) -> Loss:
        """Truth against what the generator made of it in this iteration, and penalties."""
        adversarial, regular = LOSSES[self.options.loss], self.regularisation
        real = regular.watched(regular.shown(batch["real"], batch, "real"))
        fake = regular.shown(batch["fake"], batch, "fake")
        # Two passes: batch statistics of truth and fakes are not mixed.
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        loss = adversarial.discriminator(real_logits, fake_logits)
        diagnostics = {"loss/discriminator": loss.detach()}
        diagnostics |= decisions(adversarial, real_logits.detach(), fake_logits.detach())
        terms = regular.penalties(self.discriminator, real, fake, real_logits, batch)
        return summed(loss, diagnostics, terms)

    def judge_stage(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        """Logits of squares of pictures, and of what is made of the same ones reduced."""
        if stage != "adversarial":
            return {}
        real, low = self.pair(batch)
        made = self.discriminator(self.generator(low))
        return judgement_of(LOSSES[self.options.loss], self.discriminator(real), made)

    def loss_scales(self) -> Mapping[str, float]:
        content = 1 + self.options.pixel_weight  # features are divided so as to weigh like pixels
        return {
            "loss/content": content,
            "loss/generator": content + self.options.adversarial_weight,
        }

    # -- sampling and figures ----------------------------------------------------------------

    def conditions(self) -> tuple[str, ...]:
        return ("low",)

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"image": self.generator(batch["low"]).clamp(-1, 1)}

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        truth = held_out["image"]
        measures = {"psnr": psnr} | ({"ssim": ssim} if min(truth.shape[-2:]) >= SMALLEST else {})
        found = {"": generated["image"], "_bicubic": bicubic.enlarged(held_out["low"], self.scale)}
        return {
            name + of: torch.cat([measure(i, t) for i, t in self._pairs(images, truth)])
            .mean()
            .item()
            for of, images in found.items()
            for name, measure in measures.items()
        }

    @property
    def scale(self) -> int:
        """How many times larger pictures become."""
        return int(self.options.scale)

    @staticmethod
    def _pairs(images: Tensor, truth: Tensor) -> zip[tuple[Tensor, Tensor]]:
        """A few at a time: the measures work in float64."""
        return zip(images.split(64), truth.split(64), strict=True)

    def protocol(self, stage: str) -> str:
        return f"x{self.scale}, {PROTOCOL}, mean of pictures, of {stage}; _bicubic: no network"

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor | None:
        """Bicubic, generated, truth, side by side."""
        enlarged = bicubic.enlarged(held_out["low"], self.scale)
        columns = torch.stack((enlarged, generated["image"], held_out["image"]), dim=1)
        return image_grid(columns.flatten(0, 1), columns=3)
