"""Games whose course is known in closed form: Dirac-GAN, and a walk down a bowl."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
from gan_core.diagnostics import dynamics
from gan_core.engine.game import Game
from gan_core.priors import Gaussian
from gan_core.variant import GameOptions, Loss, NoiseSpec, OptimizerSpec, Player, Stage, Variant

RATE = 0.1


class Scalar(nn.Module):
    """One weight."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))


class Toy(Variant):
    """Generator weight theta, discriminator weight psi; all real data at ``data``."""

    def __init__(self, theta: float, psi: float, kind: str) -> None:
        super().__init__(GameOptions(steps=100))
        self.generator, self.discriminator, self.kind = Scalar(theta), Scalar(psi), kind

    def build(self, data: DataSpec) -> None:
        pass

    def stages(self) -> tuple[Stage, ...]:
        sgd = OptimizerSpec("sgd", RATE)
        d = Player("discriminator", ("discriminator",), self.d_loss, sgd, reads=("point",))
        g = Player("generator", ("generator",), self.g_loss, sgd)
        return (Stage("only", (d, g), 100),)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        return (NoiseSpec("latent", (1,), Gaussian()),)

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"point": self.generator.weight.expand(len(batch["latent"]), 1)}

    def d_loss(self, batch: Batch) -> Loss:
        theta, psi = self.generator.weight.detach(), self.discriminator.weight
        if self.kind == "dirac":  # D(x) = psi x, data at 0 (Mescheder et al. 2018, section 2)
            total = F.softplus(-psi * 0) + F.softplus(psi * theta)
        elif self.kind == "bilinear":
            total = -psi * theta
        else:
            total = (psi - 1).square()
        return Loss(total, {"loss/discriminator": total.detach()})

    def g_loss(self, batch: Batch) -> Loss:
        theta, psi = self.generator.weight, self.discriminator.weight.detach()
        if self.kind == "dirac":
            total = -F.softplus(psi * theta)
        elif self.kind == "bilinear":
            total = psi * theta
        else:
            total = (theta - 1).square()
        return Loss(total, {"loss/generator": total.detach()})


def game(
    theta: float, psi: float, kind: str, held_out: int = 300, kind_of: type[Toy] = Toy
) -> Game:
    spec = DataSpec({"point": TensorSpec((1,))}, "point")
    examples = Examples({"point": torch.zeros(300, 1)}, spec, "toys")
    others = Examples({"point": torch.zeros(held_out, 1)}, spec, "toys")
    return Game(kind_of(theta, psi, kind), examples, others, batch_size=4)


def weights(played: Game) -> tuple[float, float]:
    variant: Any = played.variant
    return variant.generator.weight.item(), variant.discriminator.weight.item()


@pytest.mark.parametrize(("theta", "psi"), [(1.0, 0.5), (0.01, -0.02), (-2.0, 1.5)])
def test_a_game_of_dirac_gan_takes_its_closed_form_steps_in_turn(theta: float, psi: float) -> None:
    played = game(theta, psi, "dirac")
    for _ in range(3):
        psi -= RATE * theta / (1 + math.exp(-theta * psi))
        theta += RATE * psi / (1 + math.exp(-theta * psi))  # it has seen D's step
        played.iterate()
        assert weights(played) == pytest.approx((theta, psi), rel=1e-12)


def test_near_its_equilibrium_dirac_gan_in_turns_neither_grows_nor_shrinks() -> None:
    # Steps with a = h / 2 there: p -= a q, q += a p, which leave p^2 + q^2 - a p q as it is.
    played, a = game(1e-4, 2e-4, "dirac"), RATE / 2
    values = []
    for _ in range(100):
        played.iterate()
        q, p = weights(played)
        values.append(p**2 + q**2 - a * p * q)
    assert min(values) == pytest.approx(max(values), rel=1e-5)
    assert max(values) == pytest.approx(5e-8 - a * 2e-8, rel=1e-5)


def test_where_nothing_pulls_nothing_turns() -> None:
    assert dynamics.rotation(game(0.0, 0.0, "bilinear")) == 0.0
    assert dynamics.rotation(game(1.0, 1.0, "bowls")) == 0.0


def test_of_too_few_held_out_examples_there_is_no_duality_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dynamics, "duality_gap", lambda game: math.nan)
    assert set(dynamics.measure(game(0.4, -0.7, "dirac"))) == {"rotation"}


@pytest.mark.parametrize(("held_out", "more"), [(1, set()), (2, {"duality_gap"})])
def test_of_one_held_out_example_nothing_is_asked(held_out: int, more: set[str]) -> None:
    # Which batch normalisation could not be given alone.
    found = dynamics.measure(game(0.4, -0.7, "dirac", held_out))
    assert set(found) == {"rotation", *more}


@pytest.mark.parametrize("kind", ["bilinear", "dirac"])
def test_a_game_of_pure_rotation_has_a_rotation_of_one(kind: str) -> None:
    assert dynamics.rotation(game(0.03, 0.02, kind)) == pytest.approx(1.0, abs=1e-3)


def test_two_walks_down_the_same_bowl_have_none() -> None:
    assert dynamics.rotation(game(3.0, -2.0, "bowls")) == pytest.approx(0.0, abs=1e-4)


def test_the_duality_gap_of_the_bilinear_game_is_what_its_steps_gain() -> None:
    # V = psi theta. K steps of D add K h theta^2 to it, K of G take K h psi^2 off.
    theta, psi, steps = 0.4, -0.7, dynamics.STEPS
    expected = steps * RATE * (theta**2 + psi**2)
    assert dynamics.duality_gap(game(theta, psi, "bilinear")) == pytest.approx(expected, rel=1e-6)
    assert dynamics.duality_gap(game(0.0, 0.0, "bilinear")) == 0.0


def test_the_duality_gap_is_of_the_steps_that_the_game_would_make_now() -> None:
    class Slowing(Toy):
        def stages(self) -> tuple[Stage, ...]:
            (stage,) = super().stages()
            slow = OptimizerSpec("sgd", RATE, rate=lambda updates: 0.5**updates)
            d, g = (dataclasses.replace(p, optimizer=slow) for p in stage.players)
            return (Stage("only", (d, g), 100),)

    played = game(0.4, -0.7, "bilinear", kind_of=Slowing)
    for _ in range(3):
        played.iterate()
    theta, psi = weights(played)
    at_stake = dynamics.STEPS * RATE * (theta**2 + psi**2)
    assert dynamics.duality_gap(played) == pytest.approx(at_stake / 8, rel=1e-6)
    played.set_optimizer("generator", learning_rate=0.0)
    played.set_optimizer("discriminator", learning_rate=0.0)
    assert dynamics.duality_gap(played) == 0.0


def test_probing_leaves_the_weights_and_needs_a_game_of_two() -> None:
    played = game(0.4, -0.7, "dirac")
    found = dynamics.measure(played)
    assert set(found) == {"duality_gap", "rotation"}
    assert found == dynamics.measure(played)
    assert weights(played) == (0.4, -0.7)
    assert not any(p.requires_grad for p in played.variant.parameters())

    class Other(Toy):
        def stages(self) -> tuple[Stage, ...]:
            return (Stage("only", super().stages()[0].players[:1], 100),)

    examples = played.train
    assert dynamics.measure(Game(Other(0.1, 0.1, "dirac"), examples, examples, batch_size=4)) == {}


def test_the_copies_learn_as_the_game_would() -> None:
    played = game(0.3, 0.2, "dirac")
    learned: Any = dynamics._learn(played, "discriminator")
    psi: Tensor = torch.tensor(0.2, dtype=torch.float64)
    for _ in range(dynamics.STEPS):
        psi = psi - RATE * torch.sigmoid(psi * 0.3) * 0.3
    assert learned.discriminator.weight.item() == pytest.approx(psi.item())
    assert learned.generator.weight.item() == 0.3


@pytest.mark.parametrize(
    ("size", "batch", "accumulate", "wanted"),
    [(32, 8, 1, 128), (64, 8, 1, 128), (128, 64, 1, 32), (256, 64, 1, 16), (32, 256, 4, 64),
     (32, 64, 16, 16), (64, 1024, 4, 128)],
)  # fmt: skip
def test_a_probe_takes_no_more_memory_than_large_pictures_or_a_cut_batch_allow(
    size: int, batch: int, accumulate: int, wanted: int
) -> None:
    view = SimpleNamespace(through=lambda spec: SimpleNamespace(target_shape=(3, size, size)))
    game: Any = SimpleNamespace(
        stage=SimpleNamespace(view=view),
        train=SimpleNamespace(spec=None),
        batch_size=batch,
        world=SimpleNamespace(size=1),
    )
    player: Any = SimpleNamespace(accumulate=accumulate)
    assert dynamics.batch_size(game, player) == wanted
