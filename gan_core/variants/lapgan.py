"""LAPGAN: a Laplacian pyramid of adversarial networks (Denton et al. 2015, arXiv:1506.05751).

The coarsest level is a fully connected GAN of small pictures. Every finer level is a GAN of what
enlarging the coarser picture lacks: its generator sees the enlarged picture and a plane of noise,
and its discriminator sees that picture with the true or the generated difference added. Sampling
goes through the chain, coarse to fine.

Levels learn from real coarse pictures alone, never from each other, so each is a stage that needs
no other: they are played one after another, or apart (``--level``) at the same time and put
together. A level that has not been trained adds nothing: its last layer begins at zero.

Networks as in the authors' code (github.com/facebook/eyescream), section 3.3 and appendix A: in
the generator convolutions of 7, 7 and 5 with 64 channels, in the discriminator two of 5 and
dropout; a class enters as a plane. SGD at 0.02, batches of 128. In the code these are half real,
half generated for the discriminator, and its loss is the mean over both: half of what it is here,
so half the rate is its. After each epoch, 704 updates on CIFAR-10, the momentum rises by 0.0008,
from 0.5 to 0.7 (in the paper to 0.8), and rates are divided by 1.00004, which makes 0.14 % over the
default steps and is left out. The base has two hidden layers of 1,200 units in the generator and
600 in the discriminator (section 4). Not from the paper: the base's output is tanh and its weights
begin as torch's do (in the code normal, by 0.05 in the generator and 0.005 in the discriminator),
pictures are in [-1, 1] instead of standardised, and the last layers of finer levels begin at zero.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers import laplacian
from gan_core.layers.labels import class_weights
from gan_core.losses import LOSSES, UNPAIRED
from gan_core.options import option
from gan_core.priors import Uniform
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
from gan_core.variants.adversarial import decisions, default, judgement_of
from gan_core.variants.regularisation import (
    Regularisation,
    RegularisationOptions,
    check_bounded,
    summed,
)
from gan_core.variants.schedules import ExponentialDecay, LinearRamp

# The code's discriminator minimises half of what is its loss here, at a rate of 0.02.
RATES = {"sgd": {"lr_d": 0.01, "lr_g": 0.02}, "adam": {"lr_d": 2e-4, "lr_g": 2e-4}}


@dataclasses.dataclass(frozen=True)
class LAPGANOptions(RegularisationOptions):
    """The options of ``lapgan``."""

    steps: int = option(25_000, "iterations of each level", kind="schedule", minimum=1)
    batch_size: int = default("batch_size", 128, GameOptions)
    levels: int = option(
        3, "levels of the pyramid: 3 are 7, 14, 28 pixels or 8, 16, 32", minimum=2, maximum=6
    )
    level: int | None = option(
        None,
        "play this level alone, 0 is the coarsest; it is judged by what it makes of real "
        "pictures of the next coarser size; not given: all, one after another",
        minimum=0,
    )
    conditional: bool = option(False, "ask for a class, at every level")
    latent: int = option(100, "dimensions of the coarsest level's noise", minimum=1)
    hidden: int = option(1200, "units of the coarsest generator's hidden layers", minimum=1)
    hidden_d: int | None = option(
        None,
        "units of the coarsest discriminator's; not given: the paper's half of --hidden",
        minimum=1,
    )
    width: int = option(64, "channels of the finer levels' convolutions", minimum=1)
    dropout: float = option(
        0.5, "share of units dropped in discriminators", kind="schedule", minimum=0, below=1
    )
    loss: str = option(
        "non-saturating",
        "adversarial loss",
        kind="schedule",
        choices=UNPAIRED,
    )
    k: int = option(
        1,
        "discriminator updates for each of the generator's",
        kind="schedule",
        minimum=1,
        maximum=MOST_TURNS,
    )
    optimizer: str = option("sgd", "optimiser of all players", choices=("sgd", "adam"))
    lr_d: float | None = option(
        None,
        "learning rate of the discriminators; not given: 0.01 with sgd (the paper's code takes "
        "0.02 on half the loss), 0.0002 with adam",
        kind="schedule",
        above=0,
    )
    lr_g: float | None = option(
        None,
        "learning rate of the generators; not given: the paper's 0.02 with sgd, 0.0002 with adam",
        kind="schedule",
        above=0,
    )
    lr_decay: float = option(
        1.0,
        "what each update divides the learning rates by; the paper's 1.00004 an epoch is nothing",
        kind="schedule",
        minimum=1,
    )
    momentum: float = option(
        0.5, "momentum of sgd at the start, and beta1 of adam", kind="schedule", minimum=0, below=1
    )
    momentum_end: float = option(
        0.7, "momentum of sgd at the end of its rise", kind="schedule", minimum=0, below=1
    )
    momentum_updates: int = option(
        176_000,
        "updates over which the momentum rises (250 of the paper's epochs)",
        kind="schedule",
        minimum=1,
    )
    gradient_penalty: float | None = option(
        None,
        "weight lambda of WGAN-GP's penalty, 0 for none; not given: 10 with the wasserstein loss "
        "where no --r1 bounds its critic, else none",
        kind="schedule",
        minimum=0,
    )
    ema: float = default("ema", 0.0)

    @property
    def examples_per_iteration(self) -> int:
        """Those of D's and of G's turns."""
        return self.batch_size * (self.k + 1)

    @property
    def penalty_weight(self) -> float:
        """As of every system, but that R1 is enough: so critics were played before there was it."""
        alone = self.gradient_penalty is None and self.r1 > 0
        return 0.0 if alone else super().penalty_weight

    @property
    def decided(self) -> dict[str, Any]:
        units = {"hidden_d": max(1, self.hidden // 2)}
        return {**super().decided, **units, **RATES[self.optimizer]}

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Every level is a stage."""
        return (self.steps,) * (self.levels if self.level is None else 1)


class _ClassPlane(nn.Module):
    """A class (N,), or a mixture (N, classes), as a plane (N, 1, S, S): one-hot, linear, ReLU."""

    def __init__(self, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.classes, self.size = classes, size
        self.linear = nn.Linear(classes, math.prod(size))

    def forward(self, label: Tensor) -> Tensor:
        weights = class_weights(label, self.classes, self.linear.weight)
        return F.relu(self.linear(weights)).unflatten(1, (1, *self.size))


class _Conditioned(nn.Module):
    """A network whose input gets the class's plane, or its one-hot vector, beside it."""

    def __init__(self, classes: int, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.classes = classes
        self.plane = _ClassPlane(classes, size) if classes and size else None

    def beside(self, values: Tensor, label: Tensor | None) -> Tensor:
        """``values`` (N, F, ...) with the class along dimension 1."""
        if label is None:
            return values
        if self.plane is not None:
            return torch.cat((values, self.plane(label)), dim=1)
        return torch.cat((values, class_weights(label, self.classes, values)), dim=1)


class BaseGenerator(_Conditioned):
    """Latent (N, latent) to small pictures in [-1, 1]: two hidden layers."""

    def __init__(self, options: LAPGANOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(classes, None)
        hidden = options.hidden
        self.layers = nn.Sequential(
            nn.Linear(options.latent + classes, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, math.prod(shape)),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )

    def forward(self, latent: Tensor, coarse: Tensor | None, label: Tensor | None) -> Tensor:
        return self.layers(self.beside(latent, label))


class BaseDiscriminator(_Conditioned):
    """Small pictures to logits (N,): two hidden layers with dropout."""

    def __init__(self, options: LAPGANOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(classes, None)
        hidden, drop = options.hidden_d, options.dropout
        assert hidden is not None, "the recipe has it"
        self.layers = nn.Sequential(
            nn.Linear(math.prod(shape) + classes, hidden),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(hidden, 1),
        )

    def forward(self, images: Tensor, label: Tensor | None) -> Tensor:
        return self.layers(self.beside(images.flatten(1), label)).flatten()


class LevelGenerator(_Conditioned):
    """Noise (N, 1, S, S) and the enlarged coarse picture to a difference (N, C, S, S)."""

    def __init__(self, options: LAPGANOptions, shape: tuple[int, ...], classes: int) -> None:
        channels, rows, columns = shape
        super().__init__(classes, (rows, columns))
        width, planes = options.width, 1 + channels + bool(classes)
        last = nn.Conv2d(width, channels, 5, padding=2)
        nn.init.zeros_(last.weight)  # a level adds nothing before it has learned
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(
            nn.Conv2d(planes, width, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(width, width, 7, padding=3),
            nn.ReLU(),
            last,
        )

    def forward(self, latent: Tensor, coarse: Tensor, label: Tensor | None) -> Tensor:
        return self.layers(self.beside(torch.cat((latent, coarse), dim=1), label))


class LevelDiscriminator(_Conditioned):
    """Pictures, that is enlarged coarse ones plus a difference, to logits (N,)."""

    def __init__(self, options: LAPGANOptions, shape: tuple[int, ...], classes: int) -> None:
        channels, rows, columns = shape
        super().__init__(classes, (rows, columns))
        width, sides = options.width, [((n - 4) - 5) // 2 + 1 for n in (rows, columns)]
        self.layers = nn.Sequential(
            nn.Conv2d(channels + bool(classes), width, 5),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(options.dropout),
            nn.Linear(width * math.prod(sides), 1),
        )

    def forward(self, images: Tensor, label: Tensor | None) -> Tensor:
        return self.layers(self.beside(images, label)).flatten()


_SMALLEST = 12
"""Pixels a side of the smallest picture that a level's discriminator can look at."""


@register("lapgan")
class LAPGAN(Variant):
    """The Laplacian pyramid of GANs."""

    summary = "a GAN for every level of a Laplacian pyramid, coarse to fine"
    paper = "Denton et al. 2015, arXiv:1506.05751"
    defaults = (
        "the paper's, but for the coarsest level's tanh and initial weights, pictures in [-1, 1] "
        "instead of standardised, and finer levels that begin by adding nothing"
    )
    default_data = "cifar10"
    data_help = (
        "pictures whose sides can be halved --levels - 1 times: MNIST's (7, 14, 28 pixels), "
        "CIFAR-10's (8, 16, 32), with classes for --conditional. With --workers 2 or more levels "
        "are trained at the same time, as runs NAME-level_0, NAME-level_1 and so on."
    )
    data_example = "--data cifar10 --data-root FOLDER"
    Options = LAPGANOptions

    def __init__(self, options: GameOptions) -> None:
        super().__init__(options)
        # A level alone is judged by what it makes of held-out coarse pictures.
        self.asks_held_out = bool(self.options.level)
        self.regularisation = Regularisation(self.options)

    @classmethod
    def parts(cls, options: Any) -> dict[str, dict[str, Any]]:
        if options.level is not None:
            return {}
        return {f"level_{level}": {"level": level} for level in range(options.levels)}

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        options, shape = self.options, spec.target_shape
        halvings = options.levels - 1
        if len(shape) != 3 or any(side % 2**halvings for side in shape[1:]):
            raise UserError(
                f"--levels {options.levels} halve pictures {halvings} times, which "
                f"{' x '.join(map(str, shape[1:]))} pixels do not allow: choose fewer levels, or "
                "another --image-size"
            )
        smallest = min(shape[1:]) // 2 ** (halvings - 1)
        if smallest < _SMALLEST:
            remedy = "fewer levels or larger" if options.levels > 2 else "larger"
            raise UserError(
                f"--levels {options.levels} make a level of {smallest} pixels, less than "
                f"{_SMALLEST}: choose {remedy} pictures"
            )
        if options.level is not None and options.level >= options.levels:
            raise UserError(f"--level goes from 0 to {options.levels - 1}, not {options.level}")
        check_bounded(options)
        if options.penalty_weight > 0 and options.optimizer == "sgd" and options.lr_d is None:
            raise UserError(
                "plain descent at the paper's rate does not hold the gradient penalty"
                f"{' of --loss ' + options.loss if options.gradient_penalty is None else ''}: give "
                "--optimizer adam, or a small --lr-d"
            )

    def build(self, data: DataSpec) -> None:
        self.fill_in(data)
        self.data = data
        classes = data.classes if self.options.conditional else 0
        channels, rows, columns = data.target_shape
        for level in range(self.options.levels):
            shrunk = 2 ** (self.options.levels - 1 - level)
            shape = (channels, rows // shrunk, columns // shrunk)
            base = level == 0
            generator = (BaseGenerator if base else LevelGenerator)(self.recipe, shape, classes)
            discriminator = (BaseDiscriminator if base else LevelDiscriminator)(
                self.recipe, shape, classes
            )
            # All are made, so that a level begins with the same weights, alone or not.
            if level in self._played:
                self.add_module(f"generator_{level}", generator)
                self.add_module(f"discriminator_{level}", discriminator)

    @property
    def _played(self) -> list[int]:
        """The levels that are played."""
        alone = self.options.level
        return list(range(self.options.levels)) if alone is None else [alone]

    # -- the stages --------------------------------------------------------------------------

    def optimizer(self, learning_rate: float) -> OptimizerSpec:
        """A player's optimiser."""
        recipe = self.recipe
        return OptimizerSpec(
            recipe.optimizer,
            learning_rate,
            (recipe.momentum, 0.999),
            rate=ExponentialDecay(recipe.lr_decay),
            momentum=LinearRamp(recipe.momentum, recipe.momentum_end, recipe.momentum_updates),
        )

    def stages(self) -> tuple[Stage, ...]:
        return tuple(self._stage(level) for level in self._played)

    def _stage(self, level: int) -> Stage:
        recipe = self.recipe
        reads = ("image", *self._label)
        discriminator = Player(
            "discriminator",
            (f"discriminator_{level}",),
            functools.partial(self.discriminator_loss, level),
            self.optimizer(recipe.lr_d),
            reads=reads,
            turns=recipe.k,
            second_order=(f"discriminator_{level}",) if self.regularisation.second_order else (),
        )
        generator = Player(
            "generator",
            (f"generator_{level}",),
            functools.partial(self.generator_loss, level),
            self.optimizer(recipe.lr_g),
            reads=reads,
            ema=(f"generator_{level}",) if recipe.ema > 0 else (),
            ema_decay=recipe.ema,
        )
        return Stage(f"level_{level}", (discriminator, generator), recipe.steps)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        trained = _level_of(stage)
        latents = (
            NoiseSpec(
                f"latent_{level}",
                self._noise_shape(level),
                Uniform(-1.0, 1.0),
                players=() if level == trained else ("sample",),
            )
            for level in self._played
        )
        return (*latents, *self.regularisation.noise())

    def _noise_shape(self, level: int) -> tuple[int, ...]:
        if level == 0:
            return (int(self.options.latent),)
        shrunk = 2 ** (self.options.levels - 1 - level)
        _, rows, columns = self.data.target_shape
        return (1, rows // shrunk, columns // shrunk)

    # -- the objectives ----------------------------------------------------------------------

    @property
    def _label(self) -> tuple[str, ...]:
        return ("label",) if self.options.conditional else ()

    def real(self, level: int, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The batch's pictures at the size of ``level``, and the next coarser ones enlarged."""
        image = laplacian.reduced(batch["image"], self.options.levels - 1 - level)
        return image, laplacian.up(laplacian.down(image)) if level else None

    def refined(self, level: int, coarse: Tensor | None, batch: Batch) -> Tensor:
        """Generated pictures of ``level``, from enlarged coarse ones (none at level 0)."""
        generator = getattr(self, f"generator_{level}")
        made = generator(
            batch[f"latent_{level}"], coarse, batch.get("label") if self._label else None
        )
        return made if coarse is None else coarse + made

    def discriminate(self, level: int, images: Tensor, batch: Batch) -> Tensor:
        """Logits (N,) of pictures of ``level``."""
        label = batch["label"] if self._label else None
        return getattr(self, f"discriminator_{level}")(images, label)

    def discriminator_loss(self, level: int, batch: Batch) -> Loss:
        """A level's discriminator (paper, equation 1 and its conditional form 2)."""
        adversarial = LOSSES[self.recipe.loss]
        regular = self.regularisation
        real, coarse = self.real(level, batch)
        real = regular.watched(regular.shown(real, batch, "real"))
        with torch.no_grad():
            fake = regular.shown(self.refined(level, coarse, batch), batch, "fake")
        real_logits = self.discriminate(level, real, batch)
        fake_logits = self.discriminate(level, fake, batch)
        loss = adversarial.discriminator(real_logits, fake_logits)
        diagnostics = {"loss/discriminator": loss.detach()}
        diagnostics |= decisions(adversarial, real_logits.detach(), fake_logits.detach())
        judge = functools.partial(self.discriminate, level, batch=batch)
        return summed(loss, diagnostics, regular.penalties(judge, real, fake, real_logits, batch))

    def generator_loss(self, level: int, batch: Batch) -> Loss:
        """A level's generator."""
        _, coarse = self.real(level, batch)
        fake = self.regularisation.shown(self.refined(level, coarse, batch), batch, "fake")
        loss = LOSSES[self.recipe.loss].generator(self.discriminate(level, fake, batch))
        return Loss(loss, {"loss/generator": loss.detach()})

    def judge_stage(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        """Logits of real pictures of the level, and of what it makes of coarse real ones."""
        level = _level_of(stage)
        image, coarse = self.real(level, batch)
        real = self.discriminate(level, image, batch)
        fake = self.discriminate(level, self.refined(level, coarse, batch), batch)
        return judgement_of(LOSSES[self.recipe.loss], real, fake)

    # -- sampling ----------------------------------------------------------------------------

    def conditions(self) -> tuple[str, ...]:
        return ("image", *self._label) if self.options.level else self._label

    def chain(self, batch: Batch) -> list[Tensor]:
        """Generated pictures coarse to fine, each twice the size of the one before.

        Of a level that is played alone: the real coarse pictures, and what it makes of them.
        """
        first, *finer = self._played
        if first == 0:
            images = [self.refined(0, None, batch)]
        else:
            coarser = self.options.levels - first
            images, finer = [laplacian.reduced(batch["image"], coarser)], [first]
        for level in finer:
            images.append(self.refined(level, laplacian.up(images[-1]), batch))
        return images

    def sample(self, stage: str, batch: Batch) -> Batch:
        """Pictures of the whole size; what finer levels would add to one played alone lacks."""
        image = self.chain(batch)[-1]
        while image.shape[-1] < self.data.target_shape[-1]:
            image = laplacian.up(image)
        return {"image": image.clamp(-1, 1)}

    def sampling_networks(self, stage: str) -> tuple[str, ...]:
        return tuple(f"generator_{level}" for level in self._played)


def _level_of(stage: str) -> int:
    """The level that the stage of this name is about."""
    return int(stage.removeprefix("level_"))
