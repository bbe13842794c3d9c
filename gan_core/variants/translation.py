"""What the systems that translate pictures share: jitter, held-out figures, pictures.

The data are ``input`` (what is given) and ``image`` (what it becomes). See ``pix2pix.py`` and
``cyclegan.py``.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.data.views import SquareView, View
from gan_core.errors import UserError
from gan_core.layers.jitter import jittered
from gan_core.layers.patchgan import PatchDiscriminator, map_size
from gan_core.losses import LOSSES, UNPAIRED, AdversarialLoss
from gan_core.metrics.translation import SSIM_PROTOCOL, closeness
from gan_core.options import flag, option
from gan_core.pictures import image_grid
from gan_core.priors import Uniform
from gan_core.variant import GameOptions, NoiseSpec, OptimizerSpec, Player, Stage, Variant
from gan_core.variants.adversarial import default, judgement_of
from gan_core.variants.regularisation import (
    Regularisation,
    RegularisationOptions,
    check_bounded,
)
from gan_core.variants.schedules import HoldThenFall

_JITTER = 286 / 256  # both papers' enlargement before the crop
_MOST = 4  # times as large as the crop
_CHUNK = 64  # pictures translated at once: memory stays bounded whatever is asked for

KERNEL_DISTANCES: tuple[tuple[str, Literal["low", "high"]], ...] = (
    ("kid", "low"),
    ("kid_classifier", "low"),
    ("kid_mobilenet_v2", "low"),
)
"""What is good when low of few held-out pictures, where fid is biased: for ``best_by``."""


@dataclasses.dataclass(frozen=True)
class TranslationOptions(RegularisationOptions):
    """Options of every system that translates pictures."""

    batch_size: int = default("batch_size", 1, GameOptions)
    image_size: int = option(256, "pixels a side of the pictures", minimum=8)
    width: int = option(64, "channels of the generator's first layer", minimum=1)
    width_d: int | None = option(
        None, "channels of the discriminator's first layer; not given: as --width", minimum=1
    )
    residual: bool = option(
        False,
        "generators say what is added to each picture (Kupyn et al. 2018): a game that begins near "
        "the identity map, for domains that share most of each picture",
    )
    patch_layers: int = option(
        3,
        "layers of stride 2 in the PatchGAN: 3 see 70 x 70 pixels; 0 is the PixelGAN",
        minimum=0,
        maximum=8,
    )
    enlarged: int | None = option(
        None,
        "pixels a side that pictures are enlarged to before a random crop of --image-size; as much "
        "as that for no crop; not given: 286 for 256, and other sizes in proportion",
        kind="schedule",
        minimum=1,
    )
    flip: bool = option(True, "mirror half of the training pictures", kind="schedule")
    loss: str = option(
        "non-saturating",
        "adversarial loss",
        kind="schedule",
        choices=UNPAIRED,
    )
    lr_d: float = option(2e-4, "learning rate of the discriminator", kind="schedule", above=0)
    lr_g: float = option(2e-4, "learning rate of the generator", kind="schedule", above=0)
    beta1: float = option(
        0.5, "Adam's decay of the mean gradient", kind="schedule", minimum=0, below=1
    )
    beta2: float = option(
        0.999, "Adam's decay of the mean squared gradient", kind="schedule", minimum=0, below=1
    )
    constant: float = option(
        1.0,
        "share of the steps with the full learning rate, which then falls linearly to 0",
        kind="schedule",
        minimum=0,
        maximum=1,
    )
    ema: float = default("ema", 0.0)

    @property
    def decided(self) -> dict[str, Any]:
        jitter = {"enlarged": round(self.image_size * _JITTER)}
        return {**super().decided, **jitter, "width_d": self.width}


class TranslationVariant(Variant):
    """From ``input`` (N, C, S, S) to ``image`` (N, D, S, S), both in [-1, 1].

    A subclass builds its networks, of which ``generator`` translates, and states its objectives.
    The generator plays first, and what it has made is carried to the discriminator.
    """

    needs = frozenset({"input"})
    asks_held_out = True
    best_by = (*KERNEL_DISTANCES, ("l1", "low"))
    figure_names: ClassVar[tuple[str, ...]] = ("l1", "ssim", "l1_input", "ssim_input")
    Options: ClassVar[type[GameOptions]] = TranslationOptions

    generator: nn.Module
    data: DataSpec

    def __init__(self, options: GameOptions) -> None:
        super().__init__(options)
        self.regularisation = Regularisation(self.options)

    def check_options(self) -> None:
        super().check_options()
        size, enlarged = self.options.image_size, self.options.enlarged
        if enlarged is not None and enlarged > _MOST * size:
            raise UserError(
                f"--enlarged {enlarged} leaves little of a picture in a crop of {size} pixels: "
                f"give at most {_MOST * size}"
            )

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        for name in ("image", "input"):
            shape = spec.tensors[name].shape
            if len(shape) != 3 or shape[0] not in (1, 3):
                raise UserError(f"{self.name} translates pictures, and '{name}' is {shape}")
        options = self.options
        channels = [spec.tensors[name].shape[0] for name in ("input", "image")]
        if options.residual and channels[0] != channels[1]:
            raise UserError(
                f"--residual needs pictures of as many channels, not {channels[0]} and "
                f"{channels[1]}: leave it out, or give --channels"
            )
        if map_size(options.patch_layers, options.image_size) < 1:
            raise UserError(
                f"--patch-layers {options.patch_layers} leave nothing of pictures of "
                f"{options.image_size} pixels: give fewer"
            )
        if options.enlarged is not None and options.enlarged < options.image_size:
            raise UserError(
                f"--enlarged {options.enlarged} must be at least --image-size {options.image_size}"
            )
        check_bounded(options)

    def view(self, spec: DataSpec) -> View:
        return SquareView(self.options.image_size, also=("input",))

    def build(self, data: DataSpec) -> None:
        self.data = data
        self.fill_in(data)
        self.make_networks(
            data.tensors["input"].shape[0],
            data.tensors["image"].shape[0],
        )

    @abc.abstractmethod
    def make_networks(self, inputs: int, outputs: int) -> None:
        """Make the networks from pictures of ``inputs`` channels to such of ``outputs``."""

    @abc.abstractmethod
    def players(self) -> tuple[Player, ...]:
        """The players in the order of their turns."""

    @property
    def loss(self) -> AdversarialLoss:
        """The chosen adversarial loss."""
        return LOSSES[self.recipe.loss]

    def make_discriminator(self, channels: int, *, affine: bool) -> PatchDiscriminator:
        """A PatchGAN of pictures with ``channels``."""
        recipe = self.recipe
        return PatchDiscriminator(
            channels, width=recipe.width_d, layers=recipe.patch_layers, affine=affine
        )

    def optimizer(self, learning_rate: float) -> OptimizerSpec:
        """A player's optimiser."""
        recipe = self.recipe
        falling = HoldThenFall(round(recipe.constant * recipe.steps), recipe.steps)
        betas = (recipe.beta1, recipe.beta2)
        return OptimizerSpec("adam", learning_rate, betas, annealing=falling)

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(
                "train",
                self.players(),
                self.recipe.steps,
                view=self.view(self.data),
                batch="iteration",
            ),
        )

    # -- jitter --------------------------------------------------------------------------------

    def jitter_noise(self, name: str) -> tuple[NoiseSpec, ...]:
        """What :meth:`jitter` under ``name`` finds in its batches."""
        return (
            NoiseSpec(f"crop_{name}", (2,), Uniform(0.0, 1.0), players=("generator",)),
            NoiseSpec(f"flip_{name}", (), Uniform(0.0, 1.0), players=("generator",)),
        )

    def jitter(self, images: Tensor, batch: Batch, name: str) -> Tensor:
        """``images`` cropped and mirrored by the batch's noise called ``name``."""
        mirrored = batch[f"flip_{name}"] if self.recipe.flip else None
        return jittered(images, self.recipe.enlarged, batch[f"crop_{name}"], mirrored)

    # -- judging -------------------------------------------------------------------------------

    def conditions(self) -> tuple[str, ...]:
        return ("input",)

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"image": in_parts(self.translate, batch)}

    @abc.abstractmethod
    def translate(self, batch: Batch) -> Tensor:
        """The pictures that ``batch["input"]`` becomes, with the noise in ``batch``."""

    def judged(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What ``judge`` tells (N, M * M), from maps of logits (N, 1, M, M): of every patch."""
        return judgement_of(self.loss, real.flatten(1), fake.flatten(1))

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        if not self.knows_truth(held_out):
            return {}
        return self.against_truth(generated["image"], held_out["input"], held_out["image"])

    def against_truth(
        self, made: Tensor, given: Tensor, truth: Tensor, suffix: str = ""
    ) -> dict[str, float]:
        """``l1`` and ``ssim`` of what was made and, as ``..._input``, of what was given."""
        figures = {f"{n}{suffix}": value for n, value in closeness(made, truth).items()}
        if given.shape == truth.shape:
            beside = closeness(given, truth)
            figures |= {f"{n}{suffix}_input": value for n, value in beside.items()}
        return figures

    def knows_truth(self, held_out: Batch) -> bool:
        """Whether the inputs of ``held_out`` come with the pictures that they should become."""
        tensors = self.data.tensors
        if tensors["input"].series == tensors["image"].series:
            return True
        return "paired" in held_out and bool(held_out["paired"].all())

    def protocol(self, stage: str) -> str:
        return (
            f"l1 is the mean absolute difference in [-1, 1], {SSIM_PROTOCOL}, at "
            f"{self.recipe.image_size} px, ..._input: the input itself in the place of the "
            "translation"
        )

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor | None:
        columns = [held_out["input"], generated["image"]]
        if self.knows_truth(held_out):
            columns.append(held_out["image"])
        return side_by_side(columns)


def side_by_side(columns: list[Tensor]) -> Tensor:
    """A row for each example, with what the ``columns`` (N, 1 or 3, S, S) have of it."""
    channels = max(images.shape[1] for images in columns)
    alike = [images.expand(-1, channels, -1, -1).cpu() for images in columns]
    return image_grid(torch.stack(alike, dim=1).flatten(0, 1), columns=len(columns))


def in_parts(function: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """``function`` of ``batch``, a few examples at a time; each must be for itself."""
    count = len(next(iter(batch.values())))
    parts = [
        function({name: values[start : start + _CHUNK] for name, values in batch.items()})
        for start in range(0, count, _CHUNK)
    ]
    return torch.cat(parts)


def refuse_unpaired(name: str, spec: DataSpec) -> None:
    """Raises ``UserError`` where ``input`` and ``image`` do not belong together."""
    if spec.tensors["input"].series != spec.tensors["image"].series:
        raise UserError(
            f"{name} learns from pairs, and here input and image do not belong together: take "
            f"{flag('data')} pairs, or train cyclegan"
        )
