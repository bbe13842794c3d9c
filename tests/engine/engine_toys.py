"""Small games and data for the tests of the engine; importable by the processes they start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.config import RunConfig, make_config
from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
from gan_core.data.views import SquareView, View
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.layers.remembered import RememberedMatching
from gan_core.losses import feature_matching
from gan_core.observers import FolderObserver
from gan_core.priors import Gaussian, Uniform
from gan_core.variant import (
    GameOptions,
    Loss,
    NoiseSpec,
    OptimizerSpec,
    Player,
    Stage,
    Variant,
    create,
)

TINY: dict[str, dict[str, Any]] = {
    "gan": {"latent": 3, "hidden": 16, "maxout_units": 4, "maxout_pieces": 2},
    "cgan": {
        "latent": 3,
        "hidden_latent": 5,
        "hidden_label": 6,
        "hidden": 16,
        "maxout_units": 4,
        "maxout_label": 3,
    },
    "dcgan": {"latent": 3, "width": 2, "image_size": 16, "kernel": 4},
    "sngan": {"latent": 3, "width_g": 2, "width_d": 2, "image_size": 16, "k": 2},
}
"""Options that make a variant's networks small."""


def pictures(count: int = 50, size: int = 8, classes: int = 3, seed: int = 0) -> Examples:
    """Random pictures with labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, size, size), generator=generator)
    specs = {
        "image": TensorSpec((1, size, size), -1.0, 1.0),
        "label": TensorSpec((), classes=classes),
    }
    tensors = {"image": images.to(torch.uint8), "label": torch.arange(count) % classes}
    return Examples(tensors, DataSpec(specs), "toys")


def vectors(count: int = 50, seed: int = 0, **shapes: tuple[int, ...]) -> Examples:
    """Random float tensors by name; the first is the target."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: torch.randn(count, *s, generator=generator) for n, s in shapes.items()}
    specs = {name: TensorSpec(shape) for name, shape in shapes.items()}
    return Examples(tensors, DataSpec(specs, next(iter(shapes))), "toys")


def tiny_game(
    name: str,
    options: Mapping[str, Any],
    batch_size: int = 12,
    world: World | None = None,
    examples: Examples | None = None,
) -> Game:
    """A game of a registered variant with small networks on random data."""
    examples = examples or pictures()
    variant = create(name, examples.spec, {**TINY[name], **options}, seed=1)
    return Game(variant, examples, examples, batch_size=batch_size, seed=3, world=world or World())


def toy_game(
    variant: Variant,
    examples: Examples,
    batch_size: int = 8,
    world: World | None = None,
    **words: Any,
) -> Game:
    """A game of one of the variants below."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        variant.build(examples.spec)
    words |= {"batch_size": batch_size, "seed": 3, "world": world or World()}
    return Game(variant, examples, examples, **words)


def tiny_config(folder: Path, variant: str, **values: Any) -> RunConfig:
    """A run of small networks on the digits in ``folder``, in this process."""
    return make_config(
        {
            "variant": variant,
            "storage": str(folder.parent),
            "name": folder.name,
            "workers": 0,
            "device": "cpu",
            "extractor": "none",
            "samples": 40,
            "batch_size": 16,
            "steps": 12,
            "log_every": 3,
            "evaluate_every": 6,
            "checkpoint_every": 4,
            **TINY[variant],
            **values,
        }
    )


class Crash(BaseException):
    """The end of a process, as far as a test in the same process can have it."""


class CrashingObserver(FolderObserver):
    """Ends without a word at the first logging point at or after ``crash_at``."""

    def __init__(self, folder: Path, world: World, crash_at: int) -> None:
        super().__init__(folder, world)
        self.crash_at = crash_at

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        if step >= self.crash_at:
            raise Crash


class StoppingObserver(FolderObserver):
    """Asks for a stop by the file STOP as soon as ``stop_at`` is logged."""

    def __init__(self, folder: Path, world: World, stop_at: int) -> None:
        super().__init__(folder, world)
        self.stop_at = stop_at

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        if step >= self.stop_at and self.world.leads:
            (self.folder / "STOP").touch()


def difference(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two nested structures of tensors and plain values are not bit-identical."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [path]
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return [f"{path}: {sorted(map(str, first))} {sorted(map(str, second))}"]
        return [d for key in first for d in difference(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            return [f"{path}: {len(first)} {len(second)}"]
        pairs = zip(first, second, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in difference(a, b, f"{path}/{i}")]
    same = first == second or (first != first and second != second)  # noqa: PLR0124  (NaN)
    return [] if same else [f"{path}: {first} {second}"]


def saved(checkpoint: Path, ranks: int = 1) -> dict[str, Any]:
    """All that a checkpoint holds, but for the clock."""
    content = {
        f"rank_{rank}": torch.load(checkpoint / f"rank_{rank}.pt", weights_only=True)
        for rank in range(ranks)
    }
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    del state["clock"]
    return {**content, "state": state}


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are now."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


# -- games of other shapes -------------------------------------------------------------------------


class Toy(Variant):
    """Notes what changed in every turn."""

    targets = frozenset({"point", "image", "b", "bar"})
    Options: ClassVar[type[GameOptions]] = GameOptions

    def __init__(self, steps: int = 3, **values: Any) -> None:
        super().__init__(GameOptions(steps=steps))
        self.values = values
        self.changed: list[tuple[str, set[str]]] = []
        self._last: dict[str, Tensor] = {}

    def sampling_networks(self, stage: str) -> tuple[str, ...]:
        return tuple(self._modules)

    def watch(self) -> None:
        """From now on :attr:`changed` grows by a turn's player and the networks that changed."""
        self._last = copies(dict(self.named_parameters()))

    def on_turn_end(self, player: str) -> None:
        if self._last:
            now = dict(self.named_parameters())
            moved = {n.split(".")[0] for n in now if not torch.equal(now[n], self._last[n])}
            self.changed.append((player, moved))
            self.watch()

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        return (NoiseSpec("latent", (2,), Gaussian()),)


SGD = OptimizerSpec("sgd", 0.05)
ADAM = OptimizerSpec("adam", 0.01)


def mlp(inputs: int, outputs: int, norm: bool = False) -> nn.Sequential:
    """A small network."""
    middle = [nn.BatchNorm1d(7)] if norm else []
    return nn.Sequential(nn.Linear(inputs, 7), *middle, nn.Tanh(), nn.Linear(7, outputs))


class Cycle(Toy):
    """Four networks and two players that share an iteration's batch; fakes are handed over."""

    def build(self, data: DataSpec) -> None:
        self.g_ab, self.g_ba, self.d_a, self.d_b = mlp(2, 2), mlp(2, 2), mlp(2, 1), mlp(2, 1)
        self.handed: list[Batch] = []

    def stages(self) -> tuple[Stage, ...]:
        reads = ("a", "b")
        makers = Player("generators", ("g_ab", "g_ba"), self.generators_loss, ADAM, reads)
        judges = Player("discriminators", ("d_a", "d_b"), self.discriminators_loss, ADAM, reads)
        return (Stage("only", (makers, judges), self.options.steps, batch="iteration"),)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        return ()

    def generators_loss(self, batch: Batch) -> Loss:
        fake_a, fake_b = self.g_ba(batch["b"]), self.g_ab(batch["a"])
        cycle = (self.g_ba(fake_b) - batch["a"]).abs().mean()
        cycle = cycle + (self.g_ab(fake_a) - batch["b"]).abs().mean()
        fooled = (self.d_a(fake_a) - 1).square().mean() + (self.d_b(fake_b) - 1).square().mean()
        # Handed over as they are: that no gradient follows them back is the engine's business.
        carry = {"fake_a": fake_a, "fake_b": fake_b}
        return Loss(fooled + 10 * cycle, {"loss/generator": fooled.detach()}, carry)

    def discriminators_loss(self, batch: Batch) -> Loss:
        self.handed.append({name: value.detach().clone() for name, value in batch.items()})
        total = torch.zeros(())
        for name, judge in (("a", self.d_a), ("b", self.d_b)):
            real, fake = judge(batch[name]), judge(batch[f"fake_{name}"])
            total = total + (real - 1).square().mean() + fake.square().mean()
        return Loss(total, {"loss/discriminator": total.detach()})

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"b": self.g_ab(batch["a"])}


class Matching(Toy):
    """A generator that is to match the mean of the data, which is a worker's own no more."""

    def build(self, data: DataSpec) -> None:
        self.generator = mlp(2, 2)
        self.remembered = RememberedMatching(2)

    def stages(self) -> tuple[Stage, ...]:
        player = Player("generator", ("generator",), self.loss, SGD, ("point",))
        return (Stage("only", (player,), self.options.steps),)

    def loss(self, batch: Batch) -> Loss:
        real, fake = batch["point"], self.generator(batch["latent"])
        total = feature_matching(real, fake) + 100 * self.remembered(real, fake)
        return Loss(total, {"loss/generator": total.detach()})

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"point": self.generator(batch["latent"])}


class Stacked(Toy):
    """Two stages at two sizes; the second builds on the first's frozen generator."""

    COARSE: ClassVar[View] = SquareView(2)
    FINE: ClassVar[View] = SquareView(4)

    def build(self, data: DataSpec) -> None:
        self.coarse, self.coarse_judge = mlp(2, 4, norm=True), mlp(4, 1)
        self.fine, self.fine_judge = mlp(4, 16, norm=True), mlp(16, 1)
        self.given = data

    def view(self, spec: DataSpec) -> View:
        return self.COARSE

    def stages(self) -> tuple[Stage, ...]:
        return (
            self._stage("I", "coarse", "coarse_judge", self.COARSE),
            self._stage("II", "fine", "fine_judge", self.FINE),
        )

    def _stage(self, name: str, maker: str, judge: str, view: View) -> Stage:
        def judges_loss(batch: Batch) -> Loss:
            real = getattr(self, judge)(batch["image"].flatten(1))
            fake = getattr(self, judge)(self.make(name, batch).flatten(1))
            loss = (real - 1).square().mean() + fake.square().mean()
            return Loss(loss, {"loss/discriminator": loss.detach()})

        def makers_loss(batch: Batch) -> Loss:
            fake = getattr(self, judge)(self.make(name, batch).flatten(1))
            return Loss((fake - 1).square().mean())

        players = (
            Player("discriminator", (judge,), judges_loss, ADAM, reads=("image",)),
            Player("generator", (maker,), makers_loss, ADAM, ema=(maker,), ema_decay=0.9),
        )
        return Stage(name, players, self.options.steps, view=view)

    def make(self, stage: str, batch: Batch) -> Tensor:
        """Pictures of the stage's size."""
        coarse = self.coarse(batch["latent"])
        if stage == "I":
            return coarse.tanh().unflatten(1, (1, 2, 2))
        return self.fine(coarse).tanh().unflatten(1, (1, 4, 4))

    def sampling_networks(self, stage: str) -> tuple[str, ...]:
        return ("coarse",) if stage == "I" else ("coarse", "fine")

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"image": self.make(stage, batch)}


class Continued(Stacked):
    """The second stage trains the first's generator further."""

    def stages(self) -> tuple[Stage, ...]:
        first, second = super().stages()
        judge, maker = second.players
        maker = dataclasses.replace(
            maker, networks=("coarse", "fine"), ema=("coarse", "fine"), ema_decay=0.5
        )
        return first, dataclasses.replace(second, players=(judge, maker))


class Melody(Toy):
    """Extra named tensors, a shared batch, two generator turns (as MidiNet has)."""

    turns = 2

    def build(self, data: DataSpec) -> None:
        self.generator, self.discriminator = mlp(2 + 3 + 1, 3), mlp(3 + 1, 1)
        self.seen: list[tuple[str, Batch]] = []

    def stages(self) -> tuple[Stage, ...]:
        judge = Player(
            "discriminator", ("discriminator",), self.judges_loss, SGD, ("bar", "previous", "chord")
        )
        maker = Player(
            "generator",
            ("generator",),
            self.makers_loss,
            SGD,
            ("bar", "previous", "chord"),
            turns=self.turns,
        )
        return (Stage("only", (judge, maker), self.options.steps, batch="iteration"),)

    def make(self, batch: Batch) -> Tensor:
        return self.generator(torch.cat((batch["latent"], batch["previous"], batch["chord"]), 1))

    def judges_loss(self, batch: Batch) -> Loss:
        self.seen.append(("discriminator", copies(batch)))
        real = self.discriminator(torch.cat((batch["bar"], batch["chord"]), 1))
        fake = self.discriminator(torch.cat((self.make(batch).detach(), batch["chord"]), 1))
        return Loss((real - 1).square().mean() + fake.square().mean())

    def makers_loss(self, batch: Batch) -> Loss:
        self.seen.append(("generator", copies(batch)))
        bar = self.make(batch)
        fake = self.discriminator(torch.cat((bar, batch["chord"]), 1))
        matched = (bar.mean() - batch["bar"].mean()).square()
        return Loss((fake - 1).square().mean() + matched)

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"bar": self.make(batch)}


class Plain(Toy):
    """One generator, one discriminator, options of the players from ``values``."""

    def build(self, data: DataSpec) -> None:
        self.generator, self.discriminator = mlp(2, 2), mlp(2, 1)
        self.sizes: list[tuple[str, int]] = []

    def stages(self) -> tuple[Stage, ...]:
        judge = Player("discriminator", ("discriminator",), self.judges_loss, ADAM, ("point",))
        maker = Player("generator", ("generator",), self.makers_loss, ADAM)
        players = (
            dataclasses.replace(judge, **self.values.get("discriminator", {})),
            dataclasses.replace(maker, **self.values.get("generator", {})),
        )
        return (Stage("only", players, self.options.steps),)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        mix = NoiseSpec("mix", (), Uniform(0.0, 1.0), players=("discriminator",))
        return (*super().noise(stage), mix)

    def judges_loss(self, batch: Batch) -> Loss:
        self.sizes.append(("discriminator", len(batch["point"])))
        mixed = batch["mix"][:, None] * batch["point"]
        real, fake = self.discriminator(mixed), self.discriminator(self.generator(batch["latent"]))
        loss = (real - 1).square().mean() + fake.square().mean()
        return Loss(loss, {"loss/discriminator": loss.detach()})

    def makers_loss(self, batch: Batch) -> Loss:
        self.sizes.append(("generator", len(batch["latent"])))
        loss = (self.discriminator(self.generator(batch["latent"])) - 1).square().mean()
        return Loss(loss, {"loss/generator": loss.detach()})

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"point": self.generator(batch["latent"])}
