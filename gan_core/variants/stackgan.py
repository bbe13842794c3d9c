"""StackGAN: from texts to pictures in two stages (Zhang et al. 2016, arXiv:1612.03242).

Stage-I draws 64 x 64 pixels from noise and a text's condition; Stage-II sees Stage-I's picture and
the text again, and draws ``image_size`` pixels, without noise of its own. Stage-I is frozen by
then. The networks are those of section 3 and of the authors' code
(github.com/hanzhanggit/StackGAN), without what only that has, residual bottlenecks in Stage-I and
in the discriminators and a leaky rectifier on a condition's mean and log sigma: nearest-neighbour
enlargement and 3x3 convolutions in the generators, strided 4x4 convolutions in the discriminators,
where a text of 128 numbers is laid beside every place of the 4x4 map.

A discriminator must tell real pictures with their text both from generated ones and from real ones
with a wrong text: L_D = BCE(real, text) + 1/2 [BCE(real, wrong text) + BCE(generated, text)] (Reed
et al. 2016, arXiv:1605.05396, algorithm 1). A wrong text is one of another training picture, drawn
from all of them, so that it does not depend on how a batch is shared by workers; one that the
picture has as well counts for nothing. The generator minimises -log D and ``kl`` times the mean
over its dimensions of the condition's divergence from N(0, I), as in the code (weight 2; the sum
over dimensions, as the paper writes it, is the mean times ``condition``). A condition's noise is
N(0, I), as in the paper; the code cuts it off at two standard deviations.

With ``contrast`` the discriminator's maps must also tell each real picture's text from wrong ones,
and the generator's pictures must be told so (XMC-GAN, Zhang et al. 2021, arXiv:2101.04702).

Adam at 2e-4 with beta1 0.5, halved every 100 epochs, batches of 64, 600 epochs for each stage:
the defaults are those epochs on the 8,855 birds of CUB. A text is the average of up to 4 of the
picture's captions (the code's).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.data.views import SquareView, View
from gan_core.errors import UserError
from gan_core.layers.bicubic import enlarged
from gan_core.layers.captions import belongs, chosen_captions, mean_caption
from gan_core.layers.conditioning import ConditioningAugmentation, gaussian_divergence
from gan_core.layers.init import normal_weights
from gan_core.layers.normalisation import normalisation
from gan_core.layers.resampling import EnlargingConv2d
from gan_core.losses import LOSSES, non_saturating_generator, precise
from gan_core.options import option
from gan_core.pictures import image_grid
from gan_core.priors import Gaussian, Uniform
from gan_core.variant import (
    MOST_TURNS,
    GameOptions,
    Loss,
    NoiseSpec,
    OptimizerSpec,
    Player,
    Stage,
    Variant,
    register,
)
from gan_core.variants.adversarial import default, judgement_of
from gan_core.variants.regularisation import NormByPenaltyOptions, Regularisation, summed
from gan_core.variants.schedules import Halving

SIZE_1 = 64
"""Pixels a side of Stage-I's pictures."""
_CODE = 16  # places a side of the map into which Stage-II encodes Stage-I's picture
_RESIDUAL_BLOCKS = 4
_KEY = 128  # dimensions in which pictures and texts are compared
_TEMPERATURE = 0.1  # of their cosines, XMC-GAN's


@dataclasses.dataclass(frozen=True)
class StackGANOptions(NormByPenaltyOptions):
    """The options of ``stackgan``."""

    stage_lengths = ("steps", "steps_2")
    steps: int = default("steps", 83_000, GameOptions)
    steps_2: int | None = option(
        None,
        "iterations of Stage-II; not given: as many as of Stage-I; 0: Stage-I alone, to which "
        "--resume can add them",
        kind="schedule",
        minimum=0,
    )
    image_size: int = option(256, "pixels a side of Stage-II's pictures: 128 or 256", minimum=1)
    latent: int = option(100, "dimensions of Stage-I's noise", minimum=1)
    condition: int = option(128, "dimensions of a text's condition", minimum=1)
    width: int = option(64, "Stage-I generator's channels at 64 pixels", minimum=1)
    width_2: int = option(
        128, "Stage-II generator's channels at 64 pixels, half as many at 128", minimum=4
    )
    width_d: int = option(
        64, "channels of the discriminators' first layers, doubled in each further in", minimum=1
    )
    kl: float = option(
        2.0, "weight of the conditions' mean divergence from N(0, 1)", kind="schedule", minimum=0
    )
    averaged_captions: int = option(
        4, "how many of a picture's captions, drawn anew, make its text", kind="schedule", minimum=1
    )
    fewer_captions: bool = option(
        False, "draw how many, too: from one up to --averaged-captions", kind="schedule"
    )
    k: int = option(
        1,
        "discriminator updates for each of the generator's",
        kind="schedule",
        minimum=1,
        maximum=MOST_TURNS,
    )
    lr_d: float = option(2e-4, "learning rate of the discriminators", kind="schedule", above=0)
    lr_g: float = option(2e-4, "learning rate of the generators", kind="schedule", above=0)
    halve_every: int = option(
        13_800, "iterations after which learning rates are halved", kind="schedule", minimum=1
    )
    beta1: float = option(
        0.5, "Adam's decay of the mean gradient", kind="schedule", minimum=0, below=1
    )
    gradient_penalty: float = option(
        0.0,
        "weight lambda of WGAN-GP's penalty, on mixtures of real and generated pictures with the "
        "own text; 0 for none",
        kind="schedule",
        minimum=0,
    )
    residual: bool = option(
        False,
        "Stage-II says what is added to Stage-I's picture, enlarged, and begins with that picture; "
        "the paper's draws it anew",
    )
    contrast: float = option(
        0.0,
        "weight, in both players' losses, of finding a picture's text among wrong ones by the "
        "discriminator's maps (XMC-GAN); none in the paper",
        minimum=0,
    )
    contrast_texts: int = option(
        15,
        "with --contrast, how many wrong texts there are",
        kind="schedule",
        minimum=1,
        maximum=255,
    )
    l1: float = option(
        0.0,
        "weight, in the generators' losses, of the mean absolute difference from the real picture "
        "of the text, as in pix2pix; none in the paper",
        minimum=0,
    )
    ema: float = default("ema", 0.0)

    @property
    def examples_per_iteration(self) -> int:
        """Those of D's and of G's turns."""
        return self.batch_size * (self.k + 1)

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Those of Stage-I and, where it is played, of Stage-II."""
        second = self.steps if self.steps_2 is None else self.steps_2
        return (self.steps, second) if second else (self.steps,)

    @property
    def unused(self) -> frozenset[str]:
        """What makes Stage-II's networks, where Stage-I is alone."""
        return frozenset({"width_2", "residual"} if self.steps_2 == 0 else ())


def _convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, norm: str = "batch"
) -> list[nn.Module]:
    """A convolution without bias, normalised."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
    return [layer, *normalisation(norm, outputs)]


def _enlargement(inputs: int, outputs: int) -> list[nn.Module]:
    """Twice as many pixels a side."""
    layer = EnlargingConv2d(inputs, outputs, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _beside(maps: Tensor, vectors: Tensor) -> Tensor:
    """``vectors`` (N, C) laid at every place of ``maps`` (N, D, H, W): (N, D + C, H, W)."""
    tiled = vectors[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    return torch.cat((maps, tiled), dim=1)


class Generator(nn.Module):
    """Stage-I: latent, text and epsilon to pictures (N, C, 64, 64), mean and log sigma."""

    def __init__(self, options: StackGANOptions, data: DataSpec) -> None:
        super().__init__()
        self.augment = ConditioningAugmentation(text_size(data), options.condition)
        wide = 16 * options.width
        self.shape = (wide, 4, 4)
        self.project = nn.Sequential(
            nn.Linear(options.latent + options.condition, wide * 16, bias=False),
            nn.BatchNorm1d(wide * 16),
            nn.ReLU(inplace=True),
        )
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += _enlargement(wide, wide // 2)
            wide //= 2
        layers += [nn.Conv2d(wide, data.target_shape[0], 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        normal_weights(self, 0.02)

    def forward(self, latent: Tensor, text: Tensor, epsilon: Tensor) -> tuple[Tensor, ...]:
        condition, mean, log_sigma = self.augment(text, epsilon)
        joint = self.project(torch.cat((condition, latent), dim=1))
        return self.layers(joint.unflatten(1, self.shape)), mean, log_sigma


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input goes on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = _convolution(channels, channels), _convolution(channels, channels)
        self.layers = nn.Sequential(*first, nn.ReLU(inplace=True), *second)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.layers(maps))


class RefiningGenerator(nn.Module):
    """Stage-II: pictures (N, C, 64, 64), text and epsilon to (N, C, S, S), mean and log sigma.

    A ``residual`` one says what is added to the picture, enlarged: at first nothing.
    """

    def __init__(self, options: StackGANOptions, data: DataSpec) -> None:
        super().__init__()
        channels, width = data.target_shape[0], options.width_2
        self.augment = ConditioningAugmentation(text_size(data), options.condition)
        relu = nn.ReLU(inplace=True)
        self.encode = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            relu,
            *_convolution(width, 2 * width, 4, 2),
            relu,
            *_convolution(2 * width, 4 * width, 4, 2),
            relu,
        )
        wide = 4 * width
        layers = [*_convolution(wide + options.condition, wide), relu]
        layers += [ResidualBlock(wide) for _ in range(_RESIDUAL_BLOCKS)]
        for _ in range(int(math.log2(options.image_size // _CODE))):
            layers += _enlargement(wide, wide // 2)
            wide //= 2
        last = nn.Conv2d(wide, channels, 3, padding=1)
        self.residual, self.scale = options.residual, options.image_size // SIZE_1
        self.layers = nn.Sequential(*layers, last, *([] if options.residual else [nn.Tanh()]))
        normal_weights(self, 0.02)
        if options.residual:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, text: Tensor, epsilon: Tensor) -> tuple[Tensor, ...]:
        condition, mean, log_sigma = self.augment(text, epsilon)
        made = self.layers(_beside(self.encode(image), condition))
        if self.residual:
            made = (enlarged(image, self.scale) + made).clamp(-1, 1)
        return made, mean, log_sigma


class Discriminator(nn.Module):
    """Pictures (N, C, S, S) to maps, and these with texts (N, d) to logits (N,)."""

    def __init__(self, options: StackGANOptions, data: DataSpec, size: int) -> None:
        super().__init__()
        width, top = options.width_d, 8 * options.width_d
        slope = nn.LeakyReLU(0.2, inplace=True)
        layers: list[nn.Module] = [nn.Conv2d(data.target_shape[0], width, 4, 2, 1), slope]
        convolution = functools.partial(_convolution, norm=options.norm_d or "batch")
        for _ in range(int(math.log2(size // 4)) - 1):
            layers += [*convolution(width, 2 * width, 4, 2), slope]
            width *= 2
        while width > top:  # a larger picture's deeper maps, brought back to Stage-I's width
            layers += [*convolution(width, width // 2, 1), slope]
            width //= 2
        self.layers = nn.Sequential(*layers)
        self.compress = nn.Sequential(nn.Linear(text_size(data), options.condition), slope)
        joint = convolution(top + options.condition, top, 1)
        self.judge = nn.Sequential(*joint, slope, nn.Conv2d(top, 1, 4))
        normal_weights(self, 0.02)
        if options.contrast > 0:
            self.picture_key = nn.Linear(top, _KEY)
            self.text_key = nn.Linear(text_size(data), _KEY)

    def forward(self, seen: Tensor, text: Tensor | None = None) -> Tensor:
        """Without a text, the maps (N, 8 width, 4, 4) of pictures; with one, the logits (N,) of
        such maps, which can be held against several texts.
        """
        if text is None:
            return self.layers(seen)
        return self.judge(_beside(seen, self.compress(text))).flatten()

    def see(self, image: Tensor) -> Tensor:
        """The maps of pictures; by a call, which is what can be compiled."""
        maps: Tensor = self(image)
        return maps

    def cosines(self, maps: Tensor, texts: Tensor) -> Tensor:
        """How near (N, M) each picture's maps are to its texts (N, M, d), -1 to 1."""
        pictures = F.normalize(precise(self.picture_key(maps.mean(dim=(2, 3)))), dim=1)
        words = F.normalize(precise(self.text_key(texts)), dim=2)
        return (words * pictures[:, None]).sum(dim=2)  # a product of matrices would be bfloat16


def matching_loss(real: Tensor, wrong: Tensor, fake: Tensor, counts: Tensor) -> Tensor:
    """BCE(real, 1) + 1/2 [BCE(wrong, 0) + BCE(fake, 0)] of logits (N,): 2 log 2 at D = 1/2.

    Of ``wrong`` only those that count (bool (N,)) add to the mean over all N. Reed et al. 2016,
    algorithm 1.
    """
    real, wrong, fake = precise(real), precise(wrong), precise(fake)
    mistaken = (F.softplus(wrong) * counts).mean()
    return F.softplus(-real).mean() + 0.5 * (mistaken + F.softplus(fake).mean())


def contrastive_loss(cosines: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of the first of each picture's texts among all that count.

    ``cosines`` (N, 1 + M): the right text's, then those of wrong ones, of which only those count
    that ``counts`` (bool (N, M)) says. XMC-GAN's (Zhang et al. 2021), whose wrong texts are the
    batch's; here they are drawn for each picture by itself, so that it does not matter how a batch
    is shared by workers.
    """
    right = torch.ones_like(counts[:, :1])
    compared = torch.cat((right, counts), dim=1)
    logits = (precise(cosines) / _TEMPERATURE).masked_fill(~compared, -torch.inf)
    return -logits.log_softmax(dim=1)[:, 0].mean()


def _stage_of(batch: Batch) -> str:
    """The stage whose noise ``batch`` holds."""
    return "stage2" if "epsilon_2" in batch else "stage1"


def text_size(data: DataSpec) -> int:
    """The dimensions of a caption's vector."""
    return data.tensors["text"].shape[-1]


@register("stackgan")
class StackGAN(Variant):
    """Text to pictures in two stages."""

    summary = "from captions to pictures: a sketch of 64 pixels, then a frozen Stage-I refined"
    paper = "Zhang et al. 2016, arXiv:1612.03242"
    defaults = (
        "the paper's, and its authors' code's where that says more (--kl); without the residual "
        "bottlenecks that their code has in Stage-I and in the discriminators, and its rectifier "
        "on the condition's mean and log sigma"
    )
    default_data = "captions"
    data_help = (
        "pictures with captions: a folder with a CSV file whose columns name each picture and its "
        "captions (--captions, --file-column, --text-columns), and the pictures (--pictures). The "
        "captions are encoded once by a sentence encoder (--text-encoder: a model's folder, or "
        "`words` without the transformers package)."
    )
    data_example = (
        "--data captions --data-root ~/openmoji --pictures color "
        "--text-columns annotation,tags,subgroup --image-size 128"
    )
    needs = frozenset({"text"})
    Options = StackGANOptions
    asks_held_out = True

    generator: Generator
    discriminator: Discriminator

    def __init__(self, options: GameOptions) -> None:
        super().__init__(options)
        self.regularisation = Regularisation(self.options)

    def check_options(self) -> None:
        super().check_options()
        if self.options.image_size not in (128, 256):
            raise UserError(f"--image-size must be 128 or 256, not {self.options.image_size}")
        self.options.check_normalisation()

    def check_share(self, share: int) -> None:
        if share < 2:
            raise UserError(
                "stackgan's batch normalisation needs 2 of a worker's examples at once, and this "
                f"is {share}: give a larger --batch-size or fewer --workers"
            )

    def view(self, spec: DataSpec) -> View:
        return SquareView(self.options.image_size)

    def build(self, data: DataSpec) -> None:
        self.fill_in(data)
        recipe = self.recipe
        self.captions = data.tensors["text"].shape[0]
        self.generator = Generator(recipe, data)
        self.discriminator = Discriminator(recipe, data, SIZE_1)
        if self._steps_2:
            self.generator_2 = RefiningGenerator(recipe, data)
            self.discriminator_2 = Discriminator(recipe, data, recipe.image_size)

    def initial_values(self, train: Batch) -> None:
        # A plain attribute: the data are no part of the variant's state. They may be the host's,
        # and a turn draws captions where the networks are.
        device = next(self.generator.parameters()).device
        self._all_captions = train["text"].to(device)

    @property
    def _steps_2(self) -> int:
        return sum(self.options.stage_steps[1:])

    # -- the game ------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        first = Stage("stage1", self._players(""), self.options.steps, view=SquareView(SIZE_1))
        if not self._steps_2:
            return (first,)
        view = SquareView(self.options.image_size)
        return (first, Stage("stage2", self._players("_2"), self._steps_2, view))

    def _players(self, suffix: str) -> tuple[Player, ...]:
        options = self.options
        discriminator = Player(
            "discriminator",
            (f"discriminator{suffix}",),
            self.discriminator_loss,
            self._optimizer(options.lr_d),
            reads=("image", "text"),
            turns=options.k,
            second_order=(f"discriminator{suffix}",) if self.regularisation.second_order else (),
        )
        generator = Player(
            "generator",
            (f"generator{suffix}",),
            self.generator_loss,
            self._optimizer(options.lr_g),
            reads=("image", "text") if options.l1 > 0 else ("text",),
            ema=(f"generator{suffix}",) if options.ema > 0 else (),
            ema_decay=options.ema,
        )
        return discriminator, generator

    def _optimizer(self, rate: float) -> OptimizerSpec:
        betas = (self.options.beta1, 0.999)
        return OptimizerSpec("adam", rate, betas, annealing=Halving(self.options.halve_every))

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        options, unit = self.options, Uniform(0.0, 1.0)
        playing, only_d = ("discriminator", "generator"), ("discriminator",)
        specs = [
            NoiseSpec("latent", (options.latent,), Gaussian()),
            NoiseSpec("epsilon", (options.condition,), Gaussian()),
            NoiseSpec("choice", (self.captions + 1,), unit, playing),
            NoiseSpec("wrong", (), unit, only_d),
            NoiseSpec("wrong_choice", (self.captions + 1,), unit, only_d),
        ]
        if stage == "stage2":
            specs.append(NoiseSpec("epsilon_2", (options.condition,), Gaussian()))
        if options.contrast > 0:
            specs.append(NoiseSpec("others", (options.contrast_texts,), unit, playing))
        return (*specs, *self.regularisation.noise())

    def conditions(self) -> tuple[str, ...]:
        return ("text",)

    def sampling_networks(self, stage: str) -> tuple[str, ...]:
        return ("generator", "generator_2") if stage == "stage2" else ("generator",)

    # -- the objectives ------------------------------------------------------------------------

    def _choose(self, captions: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        options = self.options
        chosen = chosen_captions(numbers, options.averaged_captions, options.fewer_captions)
        return mean_caption(captions, chosen), chosen

    def wrong_text(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A text (N, d) of another training picture for each of the batch, and whether it counts.

        It does not (N,) where the draw fell on the picture itself, or on captions that it shares.
        """
        captions = self._captions_of(batch["wrong"])
        text, chosen = self._choose(captions, batch["wrong_choice"])
        return text, ~belongs(captions, chosen, batch["text"])

    def _captions_of(self, numbers: Tensor) -> Tensor:
        """The captions (..., K, d) of the training pictures that ``numbers`` in (0, 1) mean."""
        table = self._all_captions
        return table[(numbers * len(table)).long().clamp(max=len(table) - 1)]

    def contrast(self, judge: Discriminator, maps: Tensor, batch: Batch) -> Tensor:
        """How badly pictures' own texts are found among others by the ``maps`` of the pictures.

        Of each other picture those captions are taken that make the own text, so that nothing but
        what they say tells them apart.
        """
        text, chosen = self._choose(batch["text"], batch["choice"])
        captions = self._captions_of(batch["others"])  # (N, M, K, d)
        count = captions.shape[1]
        captions, chosen = captions.flatten(0, 1), chosen.repeat_interleave(count, dim=0)
        others = mean_caption(captions, chosen)
        own = batch["text"].repeat_interleave(count, dim=0)
        counts = ~belongs(captions, chosen, own).unflatten(0, (-1, count))
        texts = torch.cat((text[:, None], others.unflatten(0, (-1, count))), dim=1)
        return contrastive_loss(judge.cosines(maps, texts), counts)

    def generate(self, stage: str, batch: Batch, text: Tensor) -> tuple[Tensor, ...]:
        """Pictures for ``text`` (N, d), with the mean and log sigma of their conditions."""
        if stage == "stage1":
            return self.generator(batch["latent"], text, batch["epsilon"])
        with torch.no_grad():
            sketch, _, _ = self.generator(batch["latent"], text, batch["epsilon"])
        return self.generator_2(sketch, text, batch["epsilon_2"])

    def _opponent(self, stage: str) -> Discriminator:
        found: Any = self.discriminator if stage == "stage1" else self.discriminator_2
        return found

    def discriminator_loss(self, batch: Batch) -> Loss:
        """BCE(real, text) + 1/2 [BCE(real, wrong text) + BCE(generated, text)], and penalties."""
        stage, regular = _stage_of(batch), self.regularisation
        opponent = self._opponent(stage)
        text, _ = self._choose(batch["text"], batch["choice"])
        wrong, counts = self.wrong_text(batch)
        with torch.no_grad():
            fake = regular.shown(self.generate(stage, batch, text)[0], batch, "fake")
        real = regular.watched(regular.shown(batch["image"], batch, "real"))
        maps = opponent.see(real)
        logits = {"real": opponent(maps, text), "wrong": opponent(maps, wrong)}
        logits["fake"] = opponent(opponent.see(fake), text)
        loss = matching_loss(logits["real"], logits["wrong"], logits["fake"], counts)
        found = {f"prob/{n}": torch.sigmoid(precise(a.detach())).mean() for n, a in logits.items()}
        found["loss/discriminator"] = loss.detach()

        def judge(images: Tensor) -> Tensor:
            return opponent(opponent.see(images), text)

        terms = []
        if self.options.contrast > 0:
            contrast = self.contrast(opponent, maps, batch)
            terms.append(("contrast/real", contrast, self.options.contrast))
        terms += regular.penalties(judge, real, fake, logits["real"], batch)
        return summed(loss, found, terms)

    def generator_loss(self, batch: Batch) -> Loss:
        """-log D(generated, text), and the weighted mean divergence of the conditions."""
        stage = _stage_of(batch)
        text, _ = self._choose(batch["text"], batch["choice"])
        image, mean, log_sigma = self.generate(stage, batch, text)
        judge = self._opponent(stage)
        maps = judge.see(self.regularisation.shown(image, batch, "fake"))
        loss = non_saturating_generator(judge(maps, text))
        divergence = gaussian_divergence(mean, log_sigma).mean() / mean.shape[1]
        terms = [("loss/divergence", divergence, self.options.kl)]
        if self.options.contrast > 0:
            contrast = self.contrast(judge, maps, batch)
            terms.append(("contrast/fake", contrast, self.options.contrast))
        if self.options.l1 > 0:
            terms.append(("loss/l1", F.l1_loss(image, batch["image"]), self.options.l1))
        return summed(loss, {"loss/generator": loss.detach()}, terms)

    def loss_scales(self) -> Mapping[str, float]:
        return {"loss/divergence": math.inf}  # of two Gaussians: no logits

    # -- looking on ----------------------------------------------------------------------------

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        stage = _stage_of(batch)
        opponent, text = self._opponent(stage), batch["text"].mean(dim=1)
        real = opponent(opponent.see(batch["image"]), text)
        fake = opponent(opponent.see(self.generate(stage, batch, text)[0]), text)
        return judgement_of(LOSSES["non-saturating"], real, fake)

    def sample(self, stage: str, batch: Batch) -> Batch:
        """Pictures for the mean of each example's captions, ``text`` (N, any number, d)."""
        return {"image": self.generate(stage, batch, batch["text"].mean(dim=1))[0]}

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor:
        """Generated pictures, and below each the real one of its captions."""
        rows = torch.cat((generated["image"], held_out["image"]))
        return image_grid(rows, columns=len(generated["image"]))
