"""Remedies against the failures of GAN training, as options of every adversarial variant.

Each changes what a player is shown or asked; :mod:`gan_core.variants.adversarial` applies them.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from torch import Tensor

from gan_core.errors import UserError
from gan_core.losses import LOSSES, AdversarialLoss, smoothed_discriminator
from gan_core.options import option
from gan_core.priors import Gaussian
from gan_core.variant import NoiseSpec
from gan_core.variants.regularisation import REMEDIES, RegularisationOptions


@dataclasses.dataclass(frozen=True)
class RemedyOptions(RegularisationOptions):
    """What can be done against collapse, vanishing gradients and oscillation."""

    heading = REMEDIES
    packing: int = option(
        1,
        "examples that the discriminator judges together, 1 for each alone (PacGAN); for variants "
        "without labels",
        minimum=1,
    )
    minibatch_stddev: int = option(
        0,
        "size of the groups of successive examples whose standard deviation the discriminator sees "
        "as a channel of its own (4 in Progressive GAN), 0 for none; a worker's batch must be a "
        "multiple. A penalty (R1, R2, gradient penalty) is then of the group's logits together, as "
        "in Progressive GAN: it has cross-example terms",
        minimum=0,
    )
    unrolled: int = option(
        0,
        "steps of the discriminator's answer that the generator looks ahead (Unrolled GAN), on the "
        "whole of D's objective, which with a penalty (R1, R2, gradient penalty) is for "
        "discriminators without batch normalisation; every worker's on its own share of the batch",
        kind="schedule",
        minimum=0,
    )
    unrolled_rate: float | None = option(
        None,
        "rate of the gradient descent in the unrolled steps; not given: 0.1, and 0.0001 for "
        "residual discriminators, whose sums over all places are so steep that 0.1 leaves D worse",
        kind="schedule",
        above=0,
    )
    instance_noise: float = option(
        0.0,
        "standard deviation of Gaussian noise on what the discriminator sees, real and generated",
        kind="schedule",
        minimum=0,
    )
    instance_noise_until: float = option(
        0.5,
        "share of --steps at which that noise has fallen to nothing, 0 for never",
        minimum=0,
        maximum=1,
    )
    label_smoothing: float = option(
        0.0,
        "by how much the target for real examples lies below 1 (one-sided: 0.1); losses minimax "
        "and non-saturating",
        kind="schedule",
        minimum=0,
        below=1,
    )
    r2: float = option(
        0.0,
        "weight gamma of the R2 penalty, R1's on generated examples, 0 for none",
        kind="schedule",
        minimum=0,
    )
    penalty_stride: int = option(
        1,
        "R1, R2 and the gradient penalty are of every n-th example of a batch, which D judges once "
        "more, at an n-th of their cost: an unbiased estimate but under batch normalisation in the "
        "discriminator, which then sees that part alone. A worker's batch must be a multiple (1: "
        "of all examples, in the same pass)",
        kind="schedule",
        minimum=1,
    )


def check(options: RemedyOptions, loss: str, conditional: bool) -> None:
    """Raises ``UserError`` for remedies that do not go with each other, or with the variant."""
    if options.packing > 1 and conditional:
        raise UserError("--packing is for variants without labels: a pack would mix classes")
    if options.label_smoothing and not LOSSES[loss].cross_entropy:
        raise UserError(f"--label-smoothing means nothing to the {loss} loss: leave it out")


def check_third_order(options: Any, instead: str = "") -> None:
    """Raises ``UserError`` for unrolled steps with penalties, in a discriminator with batch
    normalisation, of which torch has no third derivative. ``instead``: what else can be done.
    """
    penalties = {
        "--r1": options.r1,
        "--r2": options.r2,
        "--gradient-penalty": options.gradient_penalty,
    }
    given = [name for name, weight in penalties.items() if weight]
    if options.unrolled > 0 and given:
        raise UserError(
            f"--unrolled with {given[0]} differentiates three times, which the discriminator's "
            f"batch normalisation does not allow: {instead}leave one of them out"
        )


def check_share(options: RemedyOptions, share: int, parts: int) -> None:
    """Raises ``UserError`` if packs, groups and strides would not be whole in a worker's ``share``
    examples of a batch, cut into ``parts``: then they would depend on the number of workers.
    """
    part, rest = divmod(share, parts)
    if rest:
        raise UserError(
            f"a worker's {share} examples of a batch cannot be cut into --accumulate {parts} equal "
            "parts: give another --batch-size or --workers"
        )
    together = options.packing * max(1, options.minibatch_stddev) * options.penalty_stride
    if part % together == 0:
        return
    sizes = {
        "--packing": options.packing,
        "--minibatch-stddev": options.minibatch_stddev,
        "--penalty-stride": options.penalty_stride,
    }
    named = " times ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
    raise UserError(
        f"a worker's batch of {part} is no multiple of {named}: give another --batch-size, "
        "--workers or --accumulate"
    )


def chosen_loss(name: str, smoothing: float) -> AdversarialLoss:
    """The adversarial loss ``name``, its discriminator's targets for real smoothed."""
    loss = LOSSES[name]
    if smoothing == 0:
        return loss
    smoothed = partial(smoothed_discriminator, smoothing=smoothing)
    return dataclasses.replace(loss, discriminator=smoothed)


def instance_noise(shape: tuple[int, ...], real_readers: tuple[str, ...]) -> list[NoiseSpec]:
    """The noise on real and on generated targets of ``shape``, for the players that see them."""
    both = ("discriminator", "generator")
    return [
        NoiseSpec("instance_noise_real", shape, Gaussian(), players=real_readers),
        NoiseSpec("instance_noise_fake", shape, Gaussian(), players=both),
    ]


def noise_falls(options: RemedyOptions) -> bool:
    """Whether there is instance noise that becomes less."""
    return options.instance_noise > 0 and options.instance_noise_until > 0


def remaining_noise(played: Tensor, options: RemedyOptions) -> Tensor:
    """The share of the instance noise that is left after ``played`` iterations.

    It falls linearly (Soenderby et al. 2017, arXiv:1610.04490, section 3.1).
    """
    return (1 - played / (options.instance_noise_until * options.steps)).clamp_min(0)
