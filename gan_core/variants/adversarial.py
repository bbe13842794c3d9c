"""What every system of one generator and one discriminator shares (Goodfellow et al. 2014).

A variant built on this states its two networks and its paper's values; see ``gan.py``.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers.augmentation import Augmentation
from gan_core.layers.minibatch import pack, seen_by_discriminator, unpack, with_deviation
from gan_core.layers.normalisation import running_statistics_kept
from gan_core.losses import LOSSES, AdversarialLoss, gradient_penalty, precise, r1_penalty
from gan_core.options import option
from gan_core.priors import PRIORS, Uniform, create_prior
from gan_core.variant import (
    MOST_TURNS,
    GameOptions,
    Loss,
    NoiseSpec,
    OptimizerSpec,
    Player,
    Stage,
    Variant,
)
from gan_core.variants import regularisation, remedies
from gan_core.variants.regularisation import Term, check_terms, summed
from gan_core.variants.remedies import RemedyOptions
from gan_core.variants.schedules import LinearRamp
from gan_core.variants.unrolling import UNROLLED_RATE, unrolled


@dataclasses.dataclass(frozen=True)
class AdversarialOptions(RemedyOptions):
    """Options of every variant of one generator and one discriminator."""

    loss: str = option("non-saturating", "adversarial loss", kind="schedule", choices=LOSSES)
    k: int = option(
        1,
        "discriminator updates for each of the generator's",
        kind="schedule",
        minimum=1,
        maximum=MOST_TURNS,
    )
    lr_d: float = option(2e-4, "learning rate of the discriminator", kind="schedule", above=0)
    lr_g: float = option(2e-4, "learning rate of the generator", kind="schedule", above=0)
    beta1: float = option(
        0.5, "Adam's decay of the mean gradient", kind="schedule", minimum=0, below=1
    )
    beta2: float = option(
        0.999, "Adam's decay of the mean squared gradient", kind="schedule", minimum=0, below=1
    )
    prior: str = option(
        "gaussian", "distribution of the generator's noise", kind="schedule", choices=PRIORS
    )
    latent: int = option(100, "dimensions of the generator's noise", minimum=1)
    ema: float = option(
        0.0,
        "decay of the moving average of the generator's weights, 0 for none; after t iterations it "
        "is at most (1 + t) / (10 + t): 0.99 from 890 on, 0.999 from 8,990, 0.9999 from 89,990",
        kind="schedule",
        minimum=0,
        below=1,
    )
    lr_decay_to: float = option(
        1.0,
        "share of the learning rates that is left at the end, falling linearly over the steps; "
        "1 for no fall",
        kind="schedule",
        minimum=0,
        maximum=1,
    )
    batch_scale_g: int = option(
        1, "the generator's batch as a multiple of --batch-size", kind="schedule", minimum=1
    )
    accumulate: int = option(
        1,
        "into how many parts a batch is cut, to fit a small device; batch statistics are a part's",
        kind="schedule",
        minimum=1,
    )

    @property
    def examples_per_iteration(self) -> int:
        """Those of D's and of G's turns, and of the turns of D that G's looks ahead by."""
        return self.batch_size * (self.k + self.batch_scale_g + self.unrolled)


@dataclasses.dataclass(frozen=True)
class NormByPenaltyOptions(regularisation.NormByPenaltyOptions, AdversarialOptions):
    """Options with a ``norm_d`` that not given is batch, or layer under a gradient penalty."""

    def check_normalisation(self) -> None:
        """Raises ``UserError`` where penalties do not go with batch normalisation."""
        super().check_normalisation()
        if (self.norm_d or self.decided["norm_d"]) == "batch":
            remedies.check_third_order(self, "choose --norm-d layer or none, or ")


def logit_slopes(loss: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The size of the generator's loss's derivative in each fake logit, times their number.

    Of logits (N,), or (N, P) of P patches each.

    sigmoid(a) for the minimax loss, 1 - sigmoid(a) for the non-saturating one.
    """
    with torch.enable_grad():
        logits = fake_logits.detach().requires_grad_()
        total = loss.generator(logits, real_logits.detach())
        (slopes,) = torch.autograd.grad(total, logits)
    return slopes.abs() * slopes.numel()


def undecided(loss: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor) -> Tensor | float:
    """The logit at which D is undecided; where only differences mean anything, between both means.

    So it is of losses of pairs, and of a Lipschitz critic, to which any number may be added. Those
    means are of the examples given: of a worker's own share, while a game of several plays.
    """
    if loss.paired or loss.lipschitz:
        return (real_logits.mean() + fake_logits.mean()) / 2
    return loss.boundary


def judgement_of(
    loss: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor
) -> dict[str, Tensor]:
    """What :meth:`Variant.judge` tells, of logits (N,) or of (N, P) of patches."""
    boundary = undecided(loss, real_logits, fake_logits)
    slope = logit_slopes(loss, real_logits, fake_logits)
    return {"real": real_logits - boundary, "fake": fake_logits - boundary, "slope": slope}


def decisions(loss: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """D's mean belief in real and fake examples, and its share of right decisions on them."""
    real, fake = precise(real_logits), precise(fake_logits)
    boundary = undecided(loss, real, fake)
    real, fake = real - boundary, fake - boundary
    right = (real > 0).float().mean() + (fake < 0).float().mean()
    return {
        "prob/real": torch.sigmoid(real).mean(),
        "prob/fake": torch.sigmoid(fake).mean(),
        "accuracy/batch": right / 2,
    }


def default(name: str, value: object, options: type[GameOptions] = AdversarialOptions) -> Any:
    """The option ``name`` of ``options`` with another default: a paper's own value."""
    return dataclasses.field(default=value, metadata=options.__dataclass_fields__[name].metadata)


class AdversarialVariant(Variant):
    """One generator against one discriminator.

    A subclass gives ``make_generator`` and ``make_discriminator``. Networks are called as
    ``generator(latent)`` and ``discriminator(target)``, with ``label`` as a second argument where
    ``conditional`` is true (a class attribute, or set from the options before ``build``): int64
    (N,), or floats (N, classes) for mixtures of classes. The discriminator gives logits (N,) or
    (N, 1); one that gives more overrides :meth:`outputs` and :meth:`logits`.
    """

    Options = AdversarialOptions
    conditional: bool = False
    uniform_bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    """The uniform prior's bounds in the paper."""
    one_pass: bool = True
    """Whether D may see real and fake in one batch: faster, and never done with batch statistics,
    with which it would be wrong. A subclass whose D mixes examples otherwise says False."""
    batch_normalised: bool = False
    """Whether D, once it is built, has batch normalisation."""

    generator: nn.Module
    discriminator: nn.Module
    data: DataSpec
    target: str

    def __init__(self, options: GameOptions) -> None:
        super().__init__(options)
        self.augmentation = Augmentation.parse(self.options.diffaug)

    @abc.abstractmethod
    def make_generator(self, data: DataSpec) -> nn.Module:
        """The generator of targets like those of ``data``."""

    @abc.abstractmethod
    def make_discriminator(self, data: DataSpec) -> nn.Module:
        """The discriminator of targets like those of ``data``."""

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        # Options of one's own may decide something without what theirs are made of decide.
        own = {"gradient_penalty": self.options.penalty_weight, "unrolled_rate": UNROLLED_RATE}
        return {**own, **super().resolve(data)}

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        self.augmentation.check(spec.target)
        remedies.check(self.options, self.options.loss, self.conditional)

    def refused_options(self) -> frozenset[str]:
        target = getattr(self, "target", None)  # not known until it is built
        pictures = "image" in self.targets if target is None else target == "image"
        third_order = self.batch_normalised  # which has none: penalties or unrolled steps
        refused = {
            "packing": self.conditional,
            "diffaug": not pictures,
            "unrolled": third_order and max(self.options.r1, self.options.r2) > 0,
            "r1": third_order and self.options.unrolled > 0,
            "r2": third_order and self.options.unrolled > 0,
        }
        return frozenset(name for name, is_refused in refused.items() if is_refused)

    def check_share(self, share: int) -> None:
        options = self.options
        remedies.check_share(options, share, options.accumulate)
        if options.penalty_stride == 1 or self.one_pass or not self.second_order:
            return
        left = share // (options.accumulate * options.packing * options.penalty_stride)
        if left < 2:
            raise UserError(
                f"--penalty-stride {options.penalty_stride} leaves {left} of a worker's examples, "
                "and batch normalisation in the discriminator needs 2: give a smaller one"
            )

    def build(self, data: DataSpec) -> None:
        self.fill_in(data)
        self.data, self.target = data, data.target
        self.generator = _made("make_generator", self.make_generator(data))
        seen = seen_by_discriminator(data, self.recipe.packing, self.recipe.minibatch_stddev)
        self.discriminator = _made("make_discriminator", self.make_discriminator(seen))
        # No part of the state: a run resumed with noise or without it goes by its iterations.
        self.register_buffer("played", torch.zeros(()), persistent=False)
        networks = self.discriminator.modules()
        self.batch_normalised = any(isinstance(m, _BatchNorm) for m in networks)
        self.one_pass = self.one_pass and not self.batch_normalised
        if self.batch_normalised:
            remedies.check_third_order(self.recipe)

    @property
    def loss(self) -> AdversarialLoss:
        """The chosen adversarial loss."""
        return remedies.chosen_loss(self.recipe.loss, self.recipe.label_smoothing)

    def optimizer(self, learning_rate: float) -> OptimizerSpec:
        """A player's optimiser, without what ``lr_decay_to`` does to its rate."""
        return OptimizerSpec("adam", learning_rate, (self.recipe.beta1, self.recipe.beta2))

    def _decaying(self, spec: OptimizerSpec) -> OptimizerSpec:
        """``spec`` with its rate falling to the share ``lr_decay_to`` over the game."""
        if self.recipe.lr_decay_to == 1:
            return spec
        falling = LinearRamp(1.0, self.recipe.lr_decay_to, self.recipe.steps)
        return dataclasses.replace(spec, annealing=falling)

    @property
    def second_order(self) -> bool:
        """Whether the discriminator's objective differentiates a gradient."""
        return max(self.recipe.r1, self.recipe.r2, self.recipe.penalty_weight) > 0

    @property
    def real_readers(self) -> tuple[str, ...]:
        """The players whose turns see real targets."""
        both = self.loss.paired or self.recipe.unrolled > 0
        return ("discriminator", "generator") if both else ("discriminator",)

    def stages(self) -> tuple[Stage, ...]:
        recipe, labels = self.recipe, self.conditions()
        discriminator = Player(
            "discriminator",
            ("discriminator",),
            self.discriminator_loss,
            self._decaying(self.optimizer(recipe.lr_d)),
            reads=(self.target, *labels),
            turns=recipe.k,
            accumulate=recipe.accumulate,
            second_order=("discriminator",) if self.second_order else (),
        )
        generator = Player(
            "generator",
            ("generator",),
            self.generator_loss,
            self._decaying(self.optimizer(recipe.lr_g)),
            reads=(self.target, *labels) if "generator" in self.real_readers else labels,
            second_order=("discriminator",) if recipe.unrolled else (),
            batch_scale=recipe.batch_scale_g,
            accumulate=recipe.accumulate,
            ema=("generator",) if recipe.ema > 0 else (),
            ema_decay=recipe.ema,
        )
        return (
            Stage("train", (discriminator, generator), recipe.steps, view=self.view(self.data)),
        )

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        prior = create_prior(self.recipe.prior, *self.uniform_bounds)
        specs = [NoiseSpec("latent", (self.recipe.latent,), prior)]
        unit, only_d = Uniform(0.0, 1.0), ("discriminator",)
        if self.recipe.gradient_penalty > 0:
            ahead = ("generator",) if self.recipe.unrolled > 0 else ()
            specs.append(NoiseSpec("mix", (), unit, players=(*only_d, *ahead)))
        if self.augmentation.numbers:
            shape = (self.augmentation.numbers,)
            specs.append(NoiseSpec("augment_real", shape, unit, players=self.real_readers))
            specs.append(NoiseSpec("augment_fake", shape, unit, players=(*only_d, "generator")))
        if self.recipe.instance_noise > 0:
            specs += remedies.instance_noise(self.data.target_shape, self.real_readers)
        return tuple(specs)

    def on_iteration_start(self, played: int) -> None:
        if remedies.noise_falls(self.recipe):
            self.get_buffer("played").fill_(played)

    def conditions(self) -> tuple[str, ...]:
        return ("label",) if self.conditional else ()

    def generate(self, batch: Batch) -> Tensor:
        """Targets (N, ...) from the batch's noise and labels."""
        return self.generator(batch["latent"], *self._labels(batch))

    def outputs(self, targets: Tensor, batch: Batch) -> Tensor:
        """All that the discriminator says (N, ...) of targets that go with the batch's labels."""
        seen = with_deviation(targets, self.recipe.minibatch_stddev)
        return self.discriminator(seen, *self._labels(batch))

    def logits(self, outputs: Tensor) -> Tensor:
        """The logits (N,) of "real" among the discriminator's outputs."""
        if outputs.ndim == 2 and outputs.shape[1] != 1:
            raise UserError(
                f"the discriminator says {outputs.shape[1]} numbers of a target, not one logit "
                '(N, 1): a variant\'s own method `logits` says which is that of "real"'
            )
        return outputs.flatten()

    def discriminate(self, targets: Tensor, batch: Batch) -> Tensor:
        """Logits (N,) of targets (or packs of them) that go with the batch's labels."""
        return self.logits(self.outputs(targets, batch))

    def _labels(self, batch: Batch) -> tuple[Tensor, ...]:
        return tuple(batch[name] for name in self.conditions())

    def _both_outputs(self, real: Tensor, fake: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        group = self.recipe.minibatch_stddev
        if not self.one_pass or (group and len(real) % group):  # a group would hold both kinds
            real_outputs, fake_outputs = (self.outputs(seen, batch) for seen in (real, fake))
            return _a_row_each(real_outputs, real), _a_row_each(fake_outputs, fake)
        twice = {name: torch.cat((batch[name], batch[name])) for name in self.conditions()}
        both = torch.cat((real, fake))
        real_outputs, fake_outputs = _a_row_each(self.outputs(both, twice), both).chunk(2)
        return real_outputs, fake_outputs

    def real_targets(self, batch: Batch) -> Tensor:
        """The batch's real targets, as the discriminator shall learn from them."""
        return self._shown(batch[self.target], batch, "real")

    def fake_targets(self, batch: Batch) -> Tensor:
        """Generated targets, as the discriminator shall learn from them."""
        targets = self.generate(batch)
        made, wanted = tuple(targets.shape[1:]), tuple(self.data.target_shape)
        if made != wanted:
            raise UserError(
                f"the generator made targets of the shape {made}, not {wanted}: make_generator "
                "finds it in data.target_shape"
            )
        return self._shown(targets, batch, "fake")

    def _shown(self, targets: Tensor, batch: Batch, kind: str) -> Tensor:
        """``targets`` augmented, disturbed and packed, as the options say."""
        if self.augmentation.names:
            targets = self.augmentation(targets, batch[f"augment_{kind}"])
        if self.recipe.instance_noise > 0:
            noise = self.recipe.instance_noise * batch[f"instance_noise_{kind}"]
            if remedies.noise_falls(self.recipe):
                noise = noise * remedies.remaining_noise(self.get_buffer("played"), self.recipe)
            targets = targets + noise
        return pack(targets, self.recipe.packing)

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The discriminator's objective: its loss, the penalties chosen, and further terms."""
        real = self.real_targets(batch)
        with torch.no_grad():
            fake = self.fake_targets(batch)
        return self._discriminator_objective(real, fake, batch)

    def _discriminator_objective(self, real: Tensor, fake: Tensor, batch: Batch) -> Loss:
        """That objective on these targets; through ``fake``, if it has a graph, differentiable."""
        whole = self.recipe.penalty_stride == 1
        if whole and self.recipe.r1 > 0:
            real = _differentiable(real)
        if whole and self.recipe.r2 > 0:
            fake = _differentiable(fake)
        outputs = self._both_outputs(real, fake, batch)
        real_logits, fake_logits = (self.logits(o) for o in outputs)
        loss, diagnostics = self.adversarial_loss(real_logits, fake_logits, batch)
        diagnostics["loss/discriminator"] = loss.detach()
        diagnostics.update(decisions(self.loss, real_logits.detach(), fake_logits.detach()))
        if whole:
            terms = self._penalties(real, fake, real_logits, fake_logits, batch)
        else:
            terms = self._penalties_of_some(real, fake, batch)
        own = self.discriminator_terms(*outputs, batch)
        check_terms(self, "discriminator_terms", own)
        return summed(loss, diagnostics, [*terms, *own])

    def discriminator_terms(self, real: Tensor, fake: Tensor, batch: Batch) -> list[Term]:
        """What the discriminator minimises besides, from its outputs for real and fake.

        One that differentiates a gradient (a penalty of one's own) overrides :attr:`second_order`
        too, with True: else ``--engine compile`` compiles the discriminator, and a compiled network
        cannot be differentiated twice.
        """
        return []

    def adversarial_loss(
        self, real_logits: Tensor, fake_logits: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss without penalties, and what a variant has to say about it."""
        return self.loss.discriminator(real_logits, fake_logits), {}

    def _penalties(
        self, real: Tensor, fake: Tensor, real_logits: Tensor, fake_logits: Tensor, batch: Batch
    ) -> list[Term]:
        penalties: list[Term] = []
        if self.recipe.r1 > 0:
            penalties.append(("penalty/r1", r1_penalty(real_logits, real), self.recipe.r1))
        if self.recipe.r2 > 0:
            penalties.append(("penalty/r2", r1_penalty(fake_logits, fake), self.recipe.r2))
        return penalties + self._gradient_penalty(real, fake, batch)

    def _gradient_penalty(self, real: Tensor, fake: Tensor, batch: Batch) -> list[Term]:
        if self.recipe.gradient_penalty == 0:
            return []
        # A pack is mixed by its first member's number, however many packs a worker has.
        mix = batch["mix"][:: self.recipe.packing][: len(real)]
        penalty = gradient_penalty(
            lambda between: self.discriminate(between, batch), real, fake, mix
        )
        return [("penalty/gradient", penalty, self.recipe.gradient_penalty)]

    def _penalties_of_some(self, real: Tensor, fake: Tensor, batch: Batch) -> list[Term]:
        """The penalties of every ``penalty_stride``-th example (or pack), in passes of their own.

        A penalty costs more than the loss does, as it differentiates a gradient. StyleGAN2 (Karras
        et al. 2020, arXiv:1912.04958, section 3.1) penalises every 16th batch only; a part of every
        batch is as cheap an estimate, and leaves all iterations alike. It is unbiased but under
        batch normalisation, whose statistics are then those of the part; they leave no trace in the
        running ones, which are to be of real and generated examples alike.
        """
        recipe, stride = self.recipe, self.recipe.penalty_stride
        names = [name for name in (*self.conditions(), "mix") if name in batch]
        part = {name: batch[name][::stride] for name in names}
        terms: list[Term] = []
        with running_statistics_kept(self.discriminator):
            for name, weight, targets in (("r1", recipe.r1, real), ("r2", recipe.r2, fake)):
                if weight > 0:
                    some = _differentiable(targets[::stride])
                    penalty = r1_penalty(self.discriminate(some, part), some)
                    terms.append((f"penalty/{name}", penalty, weight))
            terms += self._gradient_penalty(real[::stride], fake[::stride], part)
        return terms

    def generator_loss(self, batch: Batch) -> Loss:
        """The generator's objective: its loss, and further terms."""
        fake = self.fake_targets(batch)
        opponent = self._opponent(fake, batch)
        outputs = opponent.outputs(fake, batch)
        real_logits = None
        if self.loss.paired:
            real_logits = opponent.discriminate(self.real_targets(batch), batch)
        loss = self.loss.generator(self.logits(outputs), real_logits)
        diagnostics = {"loss/generator": loss.detach()}
        own = self.generator_terms(outputs, batch)
        check_terms(self, "generator_terms", own)
        return summed(loss, diagnostics, own)

    def _opponent(self, fake: Tensor, batch: Batch) -> AdversarialVariant:
        """This variant, with the discriminator as it would answer to ``fake``, where unrolled.

        It descends the whole of its objective: with its penalties, which makes the generator's
        gradient one of third order, and its further terms.
        """
        if self.recipe.unrolled == 0:
            return self
        real = self.real_targets(batch)

        def answer(variant: AdversarialVariant) -> Tensor:
            return variant._discriminator_objective(real, fake, batch).total

        recipe = self.recipe
        return unrolled(self, "discriminator", answer, recipe.unrolled, recipe.unrolled_rate)

    def generator_terms(self, fake: Tensor, batch: Batch) -> list[Term]:
        """What the generator minimises besides, given the discriminator's outputs for fakes."""
        return []

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """Logits (N,) for the batch's real targets and for as many generated ones."""
        packing, total = self.recipe.packing, len(batch[self.target])
        real = self.discriminate(pack(batch[self.target], packing), batch)
        fake = self.discriminate(pack(self.generate(batch), packing), batch)
        found = judgement_of(self.loss, real, fake)
        return {name: unpack(values, packing, total) for name, values in found.items()}

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {self.target: self.generate(batch)}


def _made(method: str, network: object) -> nn.Module:
    """``network``, which ``method`` has made, if it is one."""
    if not isinstance(network, nn.Module):
        raise UserError(f"`{method}` returned a {type(network).__name__}, not an nn.Module")
    return network


def _a_row_each(outputs: object, targets: Tensor) -> Tensor:
    """``outputs``, a discriminator's of ``targets``, if they are a row for each of them.

    Others would train too: logits of half of a batch, or one of all of it.
    """
    if not isinstance(outputs, Tensor):
        raise UserError(f"the discriminator gives a {type(outputs).__name__}, not a tensor (N, 1)")
    if outputs.ndim == 0 or len(outputs) != len(targets):
        raise UserError(
            f"the discriminator made {tuple(outputs.shape)} of {len(targets)} targets, not a row "
            "for each of them, such as (N, 1)"
        )
    return outputs


def _differentiable(targets: Tensor) -> Tensor:
    """``targets`` for a gradient in them; where they have a graph, as a new node of it.

    Unrolled weights depend on the generated targets themselves, which a penalty must not see.
    """
    if targets.requires_grad:
        return targets.view_as(targets)
    return targets.detach().requires_grad_()
