"""Plain GAN loops as tutorials have them: the baseline of `benchmarks.speed`.

A DataLoader over a Dataset that makes examples one by one (`benchmarks/textbook_data.py`), float32
networks in torch's default layout and precision, one pass of the discriminator for real and one for
fake examples, optimisers as they come, the losses read by ``.item()`` after every update. They play
the same games as the project's engine: the same losses, batches, turns and rates, new noise (and,
where the paper's players do not share a batch, new examples) for every update. Tests hold every
update against the engine's: the same gradients and weights, to rounding.

Here is what all loops share, and :class:`TextbookLoop`, that of a generator and a discriminator;
others are in `textbook_translation.py` and `textbook_systems.py`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset

from benchmarks.textbook import networks
from benchmarks.textbook_data import Pictures, endless, transform
from gan_core.data.examples import Examples
from gan_core.errors import UserError
from gan_core.losses import LOSSES
from gan_core.options import flag
from gan_core.variant import OptimizerSpec, Player, Stage, Variant, constant


def check_options(variant: Any, heeded: frozenset[str]) -> None:
    """Raises ``UserError`` for options that are neither ``heeded`` nor left at their defaults."""
    fields = {f.name: f.default for f in dataclasses.fields(variant.options)}
    for name, recipe in fields.items():
        if name not in heeded and getattr(variant.options, name) != recipe:
            raise UserError(f"no textbook loop is written for {flag(name)}")


class Optimizer:
    """Torch's optimiser as it comes, and the scheduler that a tutorial steps after it.

    ``turns``: updates of the player in an iteration, for rates that fall with the iterations.
    """

    def __init__(self, spec: OptimizerSpec, parameters: list[nn.Parameter], turns: int) -> None:
        self.spec, self.updates = spec, 0
        self.plain: optim.Optimizer
        if spec.kind == "sgd":
            self.plain = optim.SGD(parameters, spec.learning_rate, spec.momentum(0))
        else:
            self.plain = optim.Adam(parameters, spec.learning_rate, spec.betas)
        self.schedule: optim.lr_scheduler.LambdaLR | None = None
        if spec.rate is not constant or spec.annealing is not constant:
            self.schedule = optim.lr_scheduler.LambdaLR(
                self.plain, lambda updates: spec.rate(updates) * spec.annealing(updates / turns)
            )

    def zero_grad(self) -> None:
        """Before the backward pass."""
        self.plain.zero_grad()

    def step(self) -> None:
        """One update, then the next one's rate and momentum."""
        self.plain.step()
        self.updates += 1
        if self.schedule is not None:
            self.schedule.step()
        if self.spec.kind == "sgd":
            for group in self.plain.param_groups:
                group["momentum"] = self.spec.momentum(self.updates)


class Loop:
    """What every loop shares: batches, optimisers, an average of the generator's weights.

    ``variant`` has been built, and says what is played, of several stages the first; ``train`` is
    as its source gives it. ``loaders`` are the DataLoader's processes: none on a CPU, two beside a
    GPU. ``same_fakes``: G learns from D's last fakes.
    """

    heeded: ClassVar[frozenset[str]] = frozenset({"steps", "batch_size", "ema"})
    """The options that the loop heeds; others must be left at what the recipe says."""
    may_share_fakes: ClassVar[bool] = False
    """Whether G may learn from the fakes that D has just seen, instead of new ones."""
    generator: nn.Module
    discriminator: nn.Module

    def __init__(
        self,
        variant: Variant,
        train: Examples,
        batch_size: int,
        device: torch.device,
        *,
        loaders: int | None = None,
        same_fakes: bool = False,
    ) -> None:
        if same_fakes and not self.may_share_fakes:
            raise UserError(f"no textbook loop with the same fakes is written for {variant.name}")
        self.same_fakes = same_fakes
        self.variant: Any = variant
        check_options(variant, self.heeded)
        self.stage: Stage = variant.stages()[0]
        self.players: dict[str, Player] = {p.name: p for p in self.stage.players}
        self.recipe: Any = variant.recipe
        self.device, self.batch_size = device, batch_size
        self.prepare()
        self.average = copy.deepcopy(self.generator) if self.recipe.ema else None
        self.history: list[tuple[float, ...]] = []
        loaders = (2 if device.type == "cuda" else 0) if loaders is None else loaders
        self.batches = self._batches(self.dataset(train), loaders)

    def prepare(self) -> None:
        """Set ``generator``, ``discriminator`` (if the stage has one) and their optimisers."""
        raise NotImplementedError

    def dataset(self, train: Examples) -> Dataset[Any]:
        """The examples, one by one, as the loop takes them."""
        raise NotImplementedError

    def _batches(self, dataset: Dataset[Any], loaders: int) -> Iterator[Any]:
        count = len(dataset)  # type: ignore[arg-type]
        if count < self.batch_size:
            raise UserError(f"{count} pictures are less than a batch of {self.batch_size}")
        loader = DataLoader(
            dataset,
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=loaders,
            persistent_workers=loaders > 0,  # else small sets would pay for new ones all the time
        )
        return endless(loader)

    def next_batch(self) -> list[Tensor]:
        """The next batch on the device."""
        return [values.to(self.device) for values in next(self.batches)]

    def optimizer(self, player: str, *trained: nn.Module) -> Optimizer:
        """The optimiser of ``player``'s networks."""
        parameters = [p for network in trained for p in network.parameters()]
        return Optimizer(self.players[player].optimizer, parameters, self.players[player].turns)

    def iterate(self) -> None:
        """Every player's updates in their order, and the generator's average of weights."""
        losses = [
            [getattr(self, f"update_{player.name}")() for _ in range(player.turns)]
            for player in self.stage.players
        ]
        self.history.append(tuple(each[-1] for each in losses))
        if self.average is not None:
            self.update_average(self.average)

    @torch.no_grad()
    def update_average(self, average: nn.Module) -> None:
        """Move the average towards the generator's weights."""
        pairs = zip(average.parameters(), self.generator.parameters(), strict=True)
        for slow, live in pairs:
            slow.mul_(self.recipe.ema).add_(live, alpha=1 - self.recipe.ema)

    def gaussian(self, count: int, size: int) -> Tensor:
        """Normal noise (``count``, ``size``)."""
        return torch.randn(count, size, device=self.device)


class TextbookLoop(Loop):
    """A generator against a discriminator, with labels or without: gan, cgan, dcgan, acgan, sngan,
    sagan, biggan.

    As pytorch/examples ``dcgan/main.py``: real and fake passes of D, ``fake.detach()``, then G; its
    order is that of Goodfellow et al. 2014, algorithm 1, and as there fakes are made anew for G;
    with ``same_fakes`` G learns from D's last ones, as ``main.py`` does. With labels as
    eriklindernoren/PyTorch-GAN's ``cgan.py`` and ``acgan.py``, k updates of D and hinge losses as
    heykeetae/Self-Attention-GAN's trainer. D's gradients of G's turn are made and thrown away, as
    in all of them.
    """

    may_share_fakes = True

    heeded = frozenset(
        {
            *("steps", "batch_size", "loss", "k", "lr_d", "lr_g", "beta1", "beta2", "lr_decay_to"),
            *("prior", "latent", "ema", "batch_scale_g", "image_size", "width", "width_g"),
            *("width_d", "kernel", "norm_d", "dequantise", "embedding", "orthogonality"),
            *("optimizer", "lr_decay", "momentum", "momentum_end", "momentum_updates", "hidden"),
            *("hidden_latent", "hidden_label", "maxout_units", "maxout_label", "maxout_pieces"),
            *("layers_g", "layers_d", "init_label", "dropout", "dropout_input", "dropout_g"),
            *("dropout_d", "class_weight", "conditional", "attention"),
        }
    )

    def prepare(self) -> None:
        variant, recipe = self.variant, self.recipe
        self.generator, self.discriminator = (n.to(self.device) for n in networks(variant))
        self.loss = variant.loss
        if self.loss.paired or variant.second_order:
            raise UserError(f"no textbook loop is written for --loss {recipe.loss}")
        if self.same_fakes and recipe.batch_scale_g != 1:
            raise UserError("with the same fakes both players have batches of one size")
        self.latest: tuple[Tensor, Tensor] | None = None
        self.classes, self.conditional = variant.data.classes, variant.conditional
        self.bounds = variant.uniform_bounds
        self.class_weight: float | None = getattr(recipe, "class_weight", None)
        self.optimizer_d = self.optimizer("discriminator", self.discriminator)
        self.optimizer_g = self.optimizer("generator", self.generator)

    def dataset(self, train: Examples) -> Dataset[Any]:
        if train.spec.target != "image":
            raise UserError(f"no textbook loop is written for {train.spec.target} data")
        self.variant.initial_values(train.tensors)
        size = getattr(self.recipe, "image_size", None)
        dequantise = getattr(self.recipe, "dequantise", False)
        return Pictures(train, transform(train, size, dequantise))

    def judge(self, image: Tensor, label: Tensor) -> Tensor:
        """All that D says: logits (N,), or (N, 1 + classes) with AC-GAN's of the classes."""
        if self.class_weight is not None:
            return self.discriminator(image)
        given = (label,) if self.conditional else ()
        return self.discriminator(image, *given).flatten()

    def logits(self, outputs: Tensor) -> Tensor:
        """The logits (N,) of "real" among :meth:`judge`'s outputs."""
        return outputs if self.class_weight is None else outputs[:, 0]

    def generate(self, label: Tensor) -> Tensor:
        """Fakes of new noise, as many as there are labels."""
        given = (label,) if self.conditional else ()
        return self.generator(self.noise(len(label)), *given)

    def update_discriminator(self) -> float:
        """One update on real pictures and as many fakes; its loss."""
        image, label = self.next_batch()
        self.optimizer_d.zero_grad()
        real = self.judge(image, label)
        made = self.generate(label)
        self.latest = (made, label) if self.same_fakes else None
        fake = self.judge(made.detach(), label)
        loss = self.loss.discriminator(self.logits(real), self.logits(fake))
        if self.class_weight is not None:
            classes = F.cross_entropy(real[:, 1:], label) + F.cross_entropy(fake[:, 1:], label)
            loss = loss + self.class_weight * classes
        loss.backward()
        self.optimizer_d.step()
        return loss.item()

    def update_generator(self) -> float:
        """One update on new fakes, or on D's; its loss."""
        self.optimizer_g.zero_grad()
        if self.latest is not None:
            image, label = self.latest
        else:
            label = self.labels(self.batch_size * self.recipe.batch_scale_g)
            image = self.generate(label)
        fake = self.judge(image, label)
        loss = self.loss.generator(self.logits(fake))
        if self.class_weight is not None:
            loss = loss + self.class_weight * F.cross_entropy(fake[:, 1:], label)
        weight = getattr(self.recipe, "orthogonality", 0.0)
        if weight > 0:
            loss = loss + weight * self.orthogonality()
        loss.backward()
        self.optimizer_g.step()
        return loss.item()

    def labels(self, count: int) -> Tensor:
        """Classes (``count``,) to ask the generator for."""
        return torch.randint(max(1, self.classes), (count,), device=self.device)

    def noise(self, count: int) -> Tensor:
        """The generator's noise (``count``, latent)."""
        if self.recipe.prior == "gaussian":
            return self.gaussian(count, self.recipe.latent)
        low, high = self.bounds
        return low + (high - low) * torch.rand((count, self.recipe.latent), device=self.device)

    def orthogonality(self) -> Tensor:
        """BigGAN's penalty on the generator's weights but the embedding: a scalar."""
        total = torch.zeros((), device=self.device)
        for name, weight in self.generator.named_parameters():
            if weight.dim() > 1 and not name.startswith("embed."):
                matrix = weight.flatten(1)
                others = 1 - torch.eye(len(matrix), device=self.device)
                total = total + (matrix @ matrix.t() * others).square().sum()
        return total


def chosen_loss(recipe: Any) -> Any:
    """The adversarial loss that a ``recipe`` without :attr:`loss` of the variant's names."""
    return LOSSES[recipe.loss]
