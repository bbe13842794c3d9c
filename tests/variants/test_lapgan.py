"""LAPGAN: the chain, the levels' independence, and levels played apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gan_core.data.digits import Digits
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.data.views import SquareView
from gan_core.engine.game import Game
from gan_core.errors import UserError
from gan_core.layers import laplacian
from gan_core.variant import create
from gan_core.variants.lapgan import LAPGAN

TINY = {"levels": 2, "latent": 3, "hidden": 8, "width": 3, "steps": 3, "dropout": 0.0}


def pictures(channels: int, size: int, classes: int = 0) -> DataSpec:
    tensors = {"image": TensorSpec((channels, size, size), -1.0, 1.0)}
    if classes:
        tensors["label"] = TensorSpec((), classes=classes)
    return DataSpec(tensors)


def digits(split: str) -> Examples:
    found = SquareView(12).prepare(Digits().load(split))  # type: ignore[arg-type]
    return found.select(torch.arange(40))


def variant_of(spec: DataSpec, **options: Any) -> LAPGAN:
    found = create("lapgan", spec, TINY | options)
    assert isinstance(found, LAPGAN)
    return found


def game_of(**options: Any) -> Game:
    train, held_out = digits("train"), digits("validation")
    return Game(variant_of(train.spec, **options), train, held_out, batch_size=8)


def noise_for(variant: LAPGAN, count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    stage = variant.stages()[-1].name
    return {
        spec.name: torch.rand(count, *spec.shape, generator=generator) * 2 - 1
        for spec in variant.noise(stage)
    }


def test_a_loss_whose_generator_needs_real_examples_is_refused_before_the_game() -> None:
    with pytest.raises(UserError, match="--loss"):
        variant_of(pictures(3, 32), loss="relativistic")


ADAM: dict[str, Any] = {"optimizer": "adam", "lr_d": 1e-3, "lr_g": 1e-3}
DESCENT: dict[str, Any] = {"lr_d": 0.05, "lr_g": 0.05}


@pytest.mark.parametrize("bound", [ADAM, DESCENT | {"gradient_penalty": 0.0, "r1": 1.0}])
def test_a_critic_under_a_penalty_does_not_grow_without_end(bound: dict[str, Any]) -> None:
    game = game_of(loss="wasserstein", level=0, steps=200, **bound)
    game.play(200)
    assert all(values.isfinite().all() for values in game.variant.state_dict().values())


def test_plain_descent_at_the_papers_rate_is_refused_under_a_gradient_penalty() -> None:
    told = "does not hold the gradient penalty of --loss wasserstein: give --optimizer adam"
    with pytest.raises(UserError, match=told) as refused:
        variant_of(pictures(3, 32), loss="wasserstein")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="does not hold the gradient penalty: give --optimizer"):
        variant_of(pictures(3, 32), gradient_penalty=1.0)
    variant_of(pictures(3, 32), loss="wasserstein", lr_d=1e-4)


def test_r1_alone_bounds_a_critic_as_it_did_before_there_was_another_penalty() -> None:
    options = {"loss": "wasserstein", "r1": 1.0}  # with plain descent at the paper's rate
    assert variant_of(pictures(3, 32), **options).recipe.gradient_penalty == 0
    assert variant_of(pictures(3, 32), **options | ADAM).recipe.gradient_penalty == 0
    both = variant_of(pictures(3, 32), **options | ADAM, gradient_penalty=10)
    assert both.recipe.gradient_penalty == 10
    assert variant_of(pictures(3, 32), loss="wasserstein", **ADAM).recipe.gradient_penalty == 10


def test_untrained_levels_add_nothing_to_the_enlarged_picture() -> None:
    variant = variant_of(pictures(3, 32), levels=3)
    batch = noise_for(variant, 4)
    coarse, middle, fine = variant.chain(batch)
    assert [p.shape[-1] for p in (coarse, middle, fine)] == [8, 16, 32]
    assert torch.equal(middle, laplacian.up(coarse))
    assert torch.equal(variant.sample("level_2", batch)["image"], laplacian.up(middle).clamp(-1, 1))


def test_a_generator_of_the_true_differences_restores_the_picture() -> None:
    variant = variant_of(pictures(1, 28), levels=3)
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pyramid = laplacian.build(images, 3)

    class True_(torch.nn.Module):
        def __init__(self, part: torch.Tensor) -> None:
            super().__init__()
            self.part = part

        def forward(self, latent: Any, coarse: Any, label: Any) -> torch.Tensor:
            return self.part

    for level, part in enumerate(pyramid):
        setattr(variant, f"generator_{level}", True_(part))
    found = variant.sample("level_2", noise_for(variant, 4))["image"]
    assert torch.allclose(found, images, atol=1e-6)


def test_the_discriminator_sees_the_coarse_picture_with_the_difference_added() -> None:
    variant = variant_of(pictures(1, 12))
    batch = {"image": torch.rand(4, 1, 12, 12) * 2 - 1} | noise_for(variant, 4)
    seen: list[torch.Tensor] = []
    variant.discriminator_1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr,operator]
    variant.discriminator_loss(1, batch)
    real, fake = seen
    assert torch.equal(real, batch["image"])
    assert torch.equal(fake, laplacian.up(laplacian.down(real)))  # an untrained generator's


def test_the_papers_networks_have_their_sizes() -> None:
    variant = create("lapgan", pictures(3, 32, 10), {"conditional": True})
    assert [s.name for s in variant.stages()] == ["level_0", "level_1", "level_2"]

    def count(name: str) -> int:
        return sum(p.numel() for p in getattr(variant, name).parameters())

    plane = 10 * 32 * 32 + 32 * 32
    layers = (5 * 49 * 64 + 64) + (64 * 49 * 64 + 64) + (64 * 25 * 3 + 3)
    assert count("generator_2") == plane + layers
    # 32 px: 28 after the first convolution, 12 after the second.
    assert count("discriminator_2") == plane + (4 * 25 * 64 + 64) + (64 * 25 * 64 + 64) + (
        64 * 12 * 12 + 1
    )
    assert count("generator_0") == (110 * 1200 + 1200) + (1200 * 1200 + 1200) + (1200 * 192 + 192)
    # Half as wide: "600 units/layer vs 1200 for G".
    assert count("discriminator_0") == (202 * 600 + 600) + (600 * 600 + 600) + 601
    wider = create("lapgan", pictures(3, 32), {"hidden": 30, "hidden_d": 7})
    assert wider.discriminator_0.layers[0].out_features == 7  # type: ignore[union-attr,index]


def test_the_class_that_is_asked_for_matters_at_every_level() -> None:
    variant = variant_of(pictures(1, 12, 3), conditional=True)
    torch.nn.init.normal_(variant.generator_1.layers[-1].weight)  # type: ignore[union-attr,index]
    batch = noise_for(variant, 3)
    first, second = (variant.chain(batch | {"label": torch.tensor([i, i, i])}) for i in (0, 2))
    for one, other in zip(first, second, strict=True):
        assert not torch.allclose(one, other)


def test_mixtures_of_classes_begin_and_end_at_the_classes_at_every_level() -> None:
    variant = variant_of(pictures(1, 12, 3), conditional=True)
    torch.nn.init.normal_(variant.generator_1.layers[-1].weight)  # type: ignore[union-attr,index]
    batch = noise_for(variant, 2)
    asked = {"label": torch.tensor([0, 2])}, {"label": torch.eye(3)[[0, 2]]}
    for one, other in zip(*(variant.chain(batch | labels) for labels in asked), strict=True):
        assert torch.equal(one, other)
    between = variant.chain(batch | {"label": torch.tensor([[0.5, 0.0, 0.5]] * 2)})
    for one, other in zip(between, variant.chain(batch | asked[0]), strict=True):
        assert not torch.allclose(one, other)


def test_levels_learn_from_real_pictures_alone() -> None:
    game = game_of()
    base = {n: v.clone() for n, v in game.variant.state_dict().items() if "_1." in n}
    game.play(3)
    assert all(torch.equal(v, game.variant.state_dict()[n]) for n, v in base.items())
    first = {n: v.clone() for n, v in game.variant.state_dict().items() if "_0." in n}
    game.play(3)
    assert game.stage.name == "level_1"
    assert all(torch.equal(v, game.variant.state_dict()[n]) for n, v in first.items())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_levels_played_apart_and_put_together_are_those_played_in_turn(ema: float) -> None:
    whole = game_of(ema=ema)
    whole.play(6)
    parts = LAPGAN.parts(whole.variant.options)
    assert parts == {"level_0": {"level": 0}, "level_1": {"level": 1}}
    states = {}
    for stage, options in parts.items():
        alone = game_of(ema=ema, **options)
        assert [s.name for s in alone.stages] == [stage]
        alone.play(3)
        assert alone.finished
        states[stage] = alone.state_dict()
    joined = game_of(ema=ema)
    joined.join(states)
    assert joined.finished
    assert (joined.step, joined.examples_seen) == (6, whole.examples_seen)
    for name, value in whole.variant.state_dict().items():
        assert torch.equal(value, joined.variant.state_dict()[name]), name
    index = torch.arange(5)
    assert torch.equal(whole.sampler()(index)["image"], joined.sampler()(index)["image"])
    again = game_of(ema=ema)
    again.load_state_dict(joined.state_dict())
    assert torch.equal(again.sampler()(index)["image"], joined.sampler()(index)["image"])


def test_a_level_that_has_ended_is_used_with_its_average() -> None:
    game = game_of(ema=0.9)
    game.play(3)
    average = game.sampler().network("generator_0").state_dict()
    live = game.variant.generator_0  # type: ignore[union-attr]
    assert not any(torch.equal(v, average[n]) for n, v in live.state_dict().items())
    game.play(2)
    assert all(torch.equal(v, average[n]) for n, v in live.state_dict().items())  # type: ignore[union-attr]


def test_a_level_alone_starts_from_real_coarse_pictures() -> None:
    variant = variant_of(pictures(1, 48), levels=3, level=1)
    assert variant.asks_held_out
    assert not variant_of(pictures(1, 48), levels=3, level=0).asks_held_out
    assert variant.conditions() == ("image",)
    batch = noise_for(variant, 2) | {"image": torch.rand(2, 1, 48, 48) * 2 - 1}
    found = variant.sample("level_1", batch)["image"]
    expected = laplacian.up(laplacian.up(laplacian.reduced(batch["image"], 2)))
    assert torch.equal(found, expected)


def test_sizes_that_a_pyramid_cannot_have_are_one_clear_line() -> None:
    for size, options, told in (
        (30, {"levels": 3}, "halve pictures 2 times, which 30 x 30 pixels do not allow"),
        (16, {"levels": 3}, "make a level of 8 pixels, less than 12"),
        (32, {"levels": 3, "level": 3}, "--level goes from 0 to 2, not 3"),
    ):
        with pytest.raises(UserError, match=told):
            create("lapgan", pictures(1, size), options)
    with pytest.raises(UserError, match="needs a source with labels"):
        create("lapgan", pictures(1, 28), {"conditional": True})


def test_the_papers_schedule() -> None:
    stage = create("lapgan", pictures(1, 28), {}).stages()[0]
    epoch = -(-45_000 // 64)  # of the code's updates, each of 64 real pictures
    for player, rate in zip(stage.players, (0.01, 0.02), strict=True):
        spec = player.optimizer
        assert (spec.kind, spec.learning_rate) == ("sgd", rate)
        assert [spec.rate(n) for n in (0, 25_000)] == pytest.approx([1, 1], rel=0.002)
        momenta = [spec.momentum(n * epoch) for n in (0, 1, 100, 250, 300)]
        assert momenta == pytest.approx([0.5, 0.5008, 0.58, 0.7, 0.7], abs=1e-4)
    adam = create("lapgan", pictures(1, 28), {"optimizer": "adam"}).stages()[0]
    assert {p.optimizer.learning_rate for p in adam.players} == {2e-4}
    assert dataclasses.is_dataclass(adam.players[0].optimizer)


def test_a_level_s_critic_is_judged_by_differences() -> None:
    variant = variant_of(pictures(1, 24), loss="wasserstein", r1=1.0, gradient_penalty=0, level=0)
    batch = {"image": torch.rand(6, 1, 24, 24) * 2 - 1, **noise_for(variant, 6)}
    named = []
    for shift in (0.0, 50.0):
        with torch.no_grad():
            list(variant.discriminator_0.parameters())[-1].fill_(shift)  # type: ignore[arg-type]
            judged = variant.judge_stage("level_0", batch)
        assert (judged["real"].mean() + judged["fake"].mean()).item() == pytest.approx(0, abs=1e-4)
        named.append(variant.discriminator_loss(0, batch).diagnostics)
    for name in ("prob/real", "prob/fake", "accuracy/batch"):
        torch.testing.assert_close(*(found[name] for found in named), rtol=1e-4, atol=1e-5)


def test_every_level_has_a_judge_of_its_own() -> None:
    variant = variant_of(pictures(1, 24), levels=2).eval()
    batch = {"image": torch.rand(6, 1, 24, 24) * 2 - 1, **noise_for(variant, 6)}
    small = F.avg_pool2d(batch["image"], 2)
    coarse = F.interpolate(small, scale_factor=2, mode="bilinear")
    made = coarse + variant.generator_1(batch["latent_1"], coarse, None)  # type: ignore[operator]
    expected = {
        "level_0": (small, variant.generator_0(batch["latent_0"], None, None)),  # type: ignore[operator]
        "level_1": (batch["image"], made),
    }
    for stage, (real, fake) in expected.items():
        judge = getattr(variant, f"discriminator_{stage[-1]}")
        found = variant.judge_stage(stage, batch)
        torch.testing.assert_close(found["real"], judge(real, None))
        torch.testing.assert_close(found["fake"], judge(fake, None))
        torch.testing.assert_close(found["slope"], 1 - torch.sigmoid(found["fake"]))
