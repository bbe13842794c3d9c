"""Adversarial losses as pairs of functions of logits, and penalties on gradients.

``a`` is the discriminator's raw output ("logit"), sigmoid(a) its probability of "real". Logits
may be (N,), (N, 1) or maps (N, 1, H, W): every loss is the mean over all of their entries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from gan_core.registry import Names, Registry


class GeneratorLoss(Protocol):
    """The generator's side of a game; ``real_logits`` are for losses that compare with them."""

    def __call__(self, fake_logits: Tensor, real_logits: Tensor | None = None, /) -> Tensor:
        """The scalar that the generator minimises."""


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """Both sides of a game.

    ``boundary`` is the output at which real and fake are equally likely, 0 for true logits; of
    ``paired`` and ``lipschitz`` losses there is no such output.
    ``paired``: outputs mean something only against each other; the i-th real one is compared with
    the i-th fake one, and the generator's side needs real ones too. ``cross_entropy``: the
    discriminator's side is one, so its targets can be smoothed. ``lipschitz``: it means something
    of a discriminator whose slope is bounded, and its values have no bound of their own.
    """

    summary: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: GeneratorLoss
    boundary: float = 0.0
    paired: bool = False
    cross_entropy: bool = False
    lipschitz: bool = False


def precise(logits: Tensor) -> Tensor:
    """At least float32: sums of logarithms do not fit the half precisions."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def cross_entropy_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))): 2 log 2 at D = 1/2.

    Goodfellow et al. 2014 (arXiv:1406.2661), equation 1. As softplus, because log(sigmoid(a)) is
    -infinity in float32 from a = -104 on, and its gradient not a number.
    """
    real, fake = precise(real_logits), precise(fake_logits)
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_generator(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """E log(1 - D(G(z))): -log 2 at D = 1/2, gradient -sigmoid(a) in each logit.

    Goodfellow et al. 2014, equation 1; the gradient vanishes where D is sure (section 3).
    """
    return -F.softplus(precise(fake_logits)).mean()


def non_saturating_generator(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E log D(G(z)): log 2 at D = 1/2, gradient -(1 - sigmoid(a)) in each logit.

    Goodfellow et al. 2014, section 3: the same fixed point, a strong gradient early on.
    """
    return F.softplus(-precise(fake_logits)).mean()


def least_squares_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2, D without a sigmoid.

    Mao et al. 2017 (arXiv:1611.04076), equation 9 (a = 0, b = c = 1).
    """
    real, fake = precise(real_logits), precise(fake_logits)
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def least_squares_generator(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """1/2 E (D(G(z)) - 1)^2. Mao et al. 2017, equation 9."""
    return 0.5 * (precise(fake_logits) - 1).square().mean()


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))): 2 for logits of zero.

    Lim and Ye 2017 (arXiv:1705.02894); Miyato et al. 2018 (arXiv:1802.05957), equation 16.
    """
    real, fake = precise(real_logits), precise(fake_logits)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def linear_generator(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E D(G(z)). Miyato et al. 2018, equation 17; Arjovsky et al. 2017, algorithm 1."""
    return -precise(fake_logits).mean()


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E D(G(z)) - E D(x), of a critic that some constraint keeps 1-Lipschitz.

    Arjovsky et al. 2017 (arXiv:1701.07875), equation 2 and algorithm 1.
    """
    return precise(fake_logits).mean() - precise(real_logits).mean()


def relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log sigmoid(D(x) - D(G(z))) over pairs: log 2 where D says the same of both.

    Jolicoeur-Martineau 2018 (arXiv:1807.00734), as R3GAN has it (Huang et al. 2024,
    arXiv:2501.05441, equation 2), which adds R1 and R2.
    """
    return _paired(fake_logits, real_logits)


def relativistic_generator(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E log sigmoid(D(G(z)) - D(x)) over pairs: D's loss with the sides changed."""
    if real_logits is None:
        raise ValueError("the relativistic loss compares with real logits")
    return _paired(real_logits, fake_logits)


def _paired(less: Tensor, more: Tensor) -> Tensor:
    if less.shape != more.shape:  # every one would be compared with every other
        raise ValueError(f"pairs want equal shapes, not {tuple(less.shape)}, {tuple(more.shape)}")
    return F.softplus(precise(less) - precise(more)).mean()


def smoothed_discriminator(real_logits: Tensor, fake_logits: Tensor, smoothing: float) -> Tensor:
    """The cross-entropy with the target 1 - ``smoothing`` for real and 0 for fake examples.

    One-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498, section 3.4): the best D is
    (1 - smoothing) p / (p + q), never quite sure.
    """
    wrong = smoothing * F.softplus(precise(real_logits)).mean()
    right = (1 - smoothing) * F.softplus(-precise(real_logits)).mean()
    return right + wrong + F.softplus(precise(fake_logits)).mean()


LOSSES: Registry[AdversarialLoss] = Registry("loss", AdversarialLoss)
for _name, _loss in {
    "minimax": AdversarialLoss(
        "the original game; the generator's gradient vanishes where D is sure",
        cross_entropy_discriminator,
        minimax_generator,
        cross_entropy=True,
    ),
    "non-saturating": AdversarialLoss(
        "the original game, the generator maximising log D(G(z))",
        cross_entropy_discriminator,
        non_saturating_generator,
        cross_entropy=True,
    ),
    "least-squares": AdversarialLoss(
        "outputs 1 for real and 0 for fake by least squares (LSGAN)",
        least_squares_discriminator,
        least_squares_generator,
        boundary=0.5,
    ),
    "hinge": AdversarialLoss(
        "margins of 1 either side (SN-GAN, SAGAN, BigGAN)", hinge_discriminator, linear_generator
    ),
    "wasserstein": AdversarialLoss(
        "the difference of a Lipschitz critic's means (WGAN); wants a gradient penalty",
        wasserstein_discriminator,
        linear_generator,
        lipschitz=True,
    ),
    "relativistic": AdversarialLoss(
        "how much more real than its fake partner each real example is (R3GAN)",
        relativistic_discriminator,
        relativistic_generator,
        paired=True,
    ),
}.items():
    LOSSES.register(_name)(_loss)
UNPAIRED = Names(LOSSES, lambda loss: not loss.paired)
"""The losses whose generator's side needs no real examples."""


def gradient_penalty(
    discriminate: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor
) -> Tensor:
    """E (||grad_x D(x)|| - 1)^2 at x = mix * real + (1 - mix) * fake; its weight is lambda.

    Gulrajani et al. 2017 (arXiv:1704.00028), equation 3 and algorithm 1. ``real`` and ``fake``
    (N, ...), ``mix`` (N,) uniform in (0, 1). The gradient is that of the sum of all logits, so
    ``discriminate`` should treat each example by itself: no batch normalisation (section 4 of the
    paper). The standard deviation of a group enters every logit of the group, and each example's
    norm holds its part in all of them; Progressive GAN (Karras et al. 2018, section 3) was
    trained so. Where ``fake`` has the generator's graph, the penalty is differentiable through it.
    """
    if not real.is_floating_point():
        raise ValueError(f"real examples are floats, as they are generated, not {real.dtype}")
    share = mix.reshape(-1, *[1] * (real.dim() - 1)).to(real.dtype)
    made = fake.detach() if fake.is_leaf else fake
    between = share * real.detach() + (1 - share) * made
    if not between.requires_grad:
        between.requires_grad_()
    logits = precise(discriminate(between))
    (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    slopes = precise(gradient).flatten(1)
    # A norm at zero has no second derivative, which unrolled steps ask for: it is left out there.
    steep = (slopes != 0).any(dim=1)
    norms = torch.linalg.vector_norm(torch.where(steep[:, None], slopes, 1.0), dim=1)
    norms = torch.where(steep, norms, 0.0)
    return (norms - 1).square().mean() + 0 * logits.sum()


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """1/2 E ||grad_x D(x)||^2 at real x (R1), or at generated x (R2); its weight is gamma.

    Mescheder et al. 2018 (arXiv:1801.04406), equations 9 and 10. ``real`` (N, ...) must require a
    gradient and ``real_logits`` come from it. The gradient is that of the sum of all logits, so D
    should treat each example by itself: under batch normalisation a logit depends on the whole
    batch, and cross-example terms enter the norms; so they do where D sees a group's deviation.
    """
    logits = precise(real_logits)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    # The last bias has no part in the gradient: without the zero, its own gradient would be
    # missing, which data-parallel training takes for an error.
    return 0.5 * precise(gradient).flatten(1).square().sum(1).mean() + 0 * logits.sum()


def mean_over_workers(values: Tensor) -> Tensor:
    """The mean of ``values`` over the workers, with the gradient of the own ones.

    Data-parallel training averages gradients over the workers, so of a loss of such means every
    worker ends up with the gradient that one worker would have for all the examples.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return values + (total / dist.get_world_size() - values.detach())


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 ||E f(x) - E f(G(z))||^2 of features (N, ...), the means over all workers' examples.

    Salimans et al. 2016 (arXiv:1606.03498), section 3.1; with the half as in Yang et al. 2017.
    """
    means = (mean_over_workers(precise(features).mean(dim=0)) for features in (real, fake))
    target, mean = means
    return 0.5 * (target.detach() - mean).square().sum()
