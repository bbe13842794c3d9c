"""What keeps a discriminator from learning its examples by heart, or from too steep a slope.

Penalties on its gradient (R1, WGAN-GP) and differentiable augmentation, as options of every system.
:class:`Regularisation` applies them where a discriminator judges pictures in a game of its own
kind: levels of a pyramid, translations, enlargements, pictures of texts. The plain game has more of
the like (:mod:`gan_core.variants.remedies`) and applies them itself
(:mod:`gan_core.variants.adversarial`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from gan_core.data.examples import Batch
from gan_core.errors import UserError
from gan_core.layers.augmentation import Augmentation
from gan_core.losses import LOSSES, gradient_penalty, precise, r1_penalty
from gan_core.options import flag, option
from gan_core.priors import Uniform
from gan_core.variant import GameOptions, Loss, NoiseSpec

WGAN_GP_WEIGHT = 10.0
"""lambda of Gulrajani et al. 2017, algorithm 1."""

REMEDIES = "penalties and remedies (docs/diagnosis.md says against what)"
"""How lists of options call what steadies any game."""

Term = tuple[str, Tensor, float]
"""A part of an objective beside its adversarial loss: its name in the log, scalar and weight."""


@dataclasses.dataclass(frozen=True)
class RegularisationOptions(GameOptions):
    """The penalties and the augmentation that every system offers, none by default.

    A subclass has an option ``loss``, or says its :attr:`penalty_weight` itself.
    """

    heading = REMEDIES
    r1: float = option(
        0.0,
        "weight gamma of the R1 penalty on the discriminator's gradient at real examples, 0 for "
        "none: it steadies a game (0.1 to 10; begin with 1). Under batch normalisation in the "
        "discriminator and under --minibatch-stddev, where there are such, it has cross-example "
        "terms; of a discriminator of patches it is that of the mean of a picture's logits",
        kind="schedule",
        minimum=0,
    )
    gradient_penalty: float | None = option(
        None,
        "weight lambda of WGAN-GP's penalty, 0 for none; not given: 10 with the wasserstein "
        "loss, else none",
        kind="schedule",
        minimum=0,
    )
    diffaug: str = option(
        "none",
        "differentiable augmentation of what the discriminator sees: some of color, translation, "
        "cutout, flip with commas, or none",
        kind="schedule",
    )

    @property
    def penalty_weight(self) -> float:
        """The gradient penalty's weight, as given or as the loss has it."""
        if self.gradient_penalty is not None:
            return self.gradient_penalty
        loss: Any = getattr(self, "loss", None)
        return WGAN_GP_WEIGHT if loss is not None and LOSSES[loss].lipschitz else 0.0

    @property
    def decided(self) -> dict[str, Any]:
        return {**super().decided, "gradient_penalty": self.penalty_weight}


@dataclasses.dataclass(frozen=True)
class NormByPenaltyOptions(RegularisationOptions):
    """Options with a ``norm_d`` that not given is batch, or layer under a gradient penalty."""

    norm_d: str | None = option(
        None,
        "normalisation in the discriminator; not given: the paper's batch normalisation, or layer "
        "under a gradient penalty, which must not mix examples",
        choices=("batch", "layer", "none"),
    )

    def check_normalisation(self) -> None:
        """Raises ``UserError`` where penalties do not go with batch normalisation."""
        if self.norm_d == "batch" and self.penalty_weight > 0:
            raise UserError(
                "--norm-d batch mixes examples, which the gradient penalty must not: choose layer "
                "or none, or --gradient-penalty 0"
            )

    @property
    def decided(self) -> dict[str, Any]:
        return {**super().decided, "norm_d": "layer" if self.penalty_weight > 0 else "batch"}

    def keeping(self, name: str, value: object) -> str:
        # Batch normalisation given by its name would be refused: the penalty must not mix examples.
        return "--gradient-penalty 0" if value == "batch" else super().keeping(name, value)


OF_DISCRIMINATOR = frozenset({"r1", "gradient_penalty", "diffaug"})
"""What means nothing to a game without a discriminator."""


def check_none(options: RegularisationOptions, why: str) -> None:
    """Raises ``UserError`` for such options where there is none; ``why``: as which one says."""
    usual = type(options)()
    for name in sorted(OF_DISCRIMINATOR):
        if getattr(options, name) not in (getattr(usual, name), 0):
            raise UserError(
                f"{flag(name)} is the discriminator's, and with {why} there is none: leave it out"
            )


def check_bounded(options: Any) -> None:
    """Raises ``UserError`` for a loss that only a bounded slope gives a meaning, without one.

    Of discriminators that nothing else bounds.
    """
    if LOSSES[options.loss].lipschitz and not (options.r1 or options.penalty_weight):
        raise UserError(
            f"--loss {options.loss} lets a discriminator without a penalty on its gradient grow "
            "without end: leave --gradient-penalty out, or give it or --r1 a weight"
        )


class Regularisation:
    """What discriminators of pictures (N, C, H, W) are shown, and what their slopes cost.

    ``options``: a recipe, that is :class:`RegularisationOptions` none of which is open. Where
    several discriminators play at once, ``of`` tells their noise apart.
    """

    def __init__(self, options: Any) -> None:
        self.r1: float = options.r1
        self.gradient_penalty: float = options.penalty_weight
        self.augmentation = Augmentation.parse(options.diffaug)

    @property
    def second_order(self) -> bool:
        """Whether the discriminator's objective differentiates a gradient."""
        return max(self.r1, self.gradient_penalty) > 0

    def noise(self, of: str = "") -> tuple[NoiseSpec, ...]:
        """The random numbers that the other methods find in the batches of both players."""
        unit, only_d = Uniform(0.0, 1.0), ("discriminator",)
        specs = []
        if self.gradient_penalty > 0:
            specs.append(NoiseSpec(f"mix{of}", (), unit, players=only_d))
        if self.augmentation.numbers:
            shape, both = (self.augmentation.numbers,), (*only_d, "generator")
            specs.append(NoiseSpec(f"augment_real{of}", shape, unit, players=only_d))
            specs.append(NoiseSpec(f"augment_fake{of}", shape, unit, players=both))
        return tuple(specs)

    def shown(self, images: Tensor, batch: Batch, kind: str, of: str = "") -> Tensor:
        """``images``, real or fake as ``kind`` says, as the discriminator shall see them."""
        if not self.augmentation.names:
            return images
        return self.augmentation(images, batch[f"augment_{kind}{of}"])

    def watched(self, real: Tensor) -> Tensor:
        """Real pictures as :meth:`shown`, so that R1 can differentiate what becomes of them."""
        return real.detach().requires_grad_() if self.r1 > 0 else real

    def penalties(
        self,
        judge: Callable[[Tensor], Tensor],
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        batch: Batch,
        *,
        of: str = "",
    ) -> list[Term]:
        """The penalties chosen.

        ``judge`` gives logits (N,), or (N, ...) of patches, of pictures that go with the batch;
        ``real`` (:meth:`watched`) and ``fake`` are what it has seen, ``real_logits`` what it said.
        """
        terms: list[Term] = []
        if self.r1 > 0:
            terms.append(("penalty/r1", r1_penalty(_values(real_logits), real), self.r1))
        if self.gradient_penalty > 0:
            mix = batch[f"mix{of}"]
            found = gradient_penalty(lambda between: _values(judge(between)), real, fake, mix)
            terms.append(("penalty/gradient", found, self.gradient_penalty))
        return terms


def _values(logits: Tensor) -> Tensor:
    """What is said (N,) of each picture: the mean of its patches' logits, as in the losses.

    Were it their sum, a critic of slope 1 would have losses as many times smaller as a picture has
    patches. R1 of the mean falls about as their number grows: larger pictures want larger weights.
    """
    logits = precise(logits)  # 1 / P is no bfloat16
    return logits.flatten(1).mean(1) if logits.dim() > 1 else logits


def summed(loss: Tensor, diagnostics: dict[str, Tensor], terms: list[Term]) -> Loss:
    """``loss`` and the weighted ``terms``, each logged by its name; of one name, their sum."""
    for name, value, weight in terms:
        loss = loss + weight * value
        diagnostics[name] = diagnostics.get(name, 0) + value.detach()
    return Loss(loss, diagnostics)


def check_terms(variant: object, method: str, found: object) -> None:
    """Raises ``UserError`` unless what a variant's ``method`` gives is a list of :data:`Term`."""
    if isinstance(found, list) and all(isinstance(t, tuple) and len(t) == 3 for t in found):
        return
    raise UserError(
        f"`{method}` of {type(variant).__name__} gives a {type(found).__name__}, not a list of "
        '(name, value, weight): return [("loss/its_name", value, weight)], or [] for none'
    )
