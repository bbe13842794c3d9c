"""Penalties and augmentation where a discriminator of pictures plays a game of its own kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_every_variant import (
    TINY_LAPGAN,
    TINY_SRGAN,
    TINY_STACKGAN,
    TINY_TRANSLATION,
    batch_for,
    built,
    captioned,
    carried,
    pairs,
    pictures,
    play,
)
from torch import Tensor

from gan_core.config import check_resumable, make_config
from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.layers.augmentation import Augmentation
from gan_core.variant import VARIANTS, Player, Stage, Variant, create, list_variants
from gan_core.variants.regularisation import _values

Judge = Callable[[int, Tensor], Tensor]
"""The discriminator's mean logit (a scalar) for a picture (C, H, W) in the place of example i's."""
Seen = list[tuple[Judge, Tensor, Tensor, str]]
"""For each discriminator: its judge, the real and the fake pictures, and whose noise is whose."""


def seen_by_lapgan(variant: Any, batch: Batch, augmented: Callable[..., Tensor]) -> Seen:
    real, coarse = variant.real(1, batch)
    fake = variant.refined(1, coarse, batch)

    def judge(i: int, image: Tensor) -> Tensor:
        return variant.discriminate(1, image[None], {"label": batch["label"][i : i + 1]}).mean()

    return [(judge, augmented(real, "real", ""), augmented(fake, "fake", ""), "")]


def seen_by_pix2pix(variant: Any, batch: Batch, augmented: Callable[..., Tensor]) -> Seen:
    given = augmented(batch["input"], "real", "")
    real, fake = augmented(batch["image"], "real", ""), augmented(batch["fake"], "fake", "")

    def judge(i: int, image: Tensor) -> Tensor:
        return variant.discriminator(torch.cat((given[i], image))[None]).mean()

    return [(judge, real, fake, "")]


def seen_by_cyclegan(variant: Any, batch: Batch, augmented: Callable[..., Tensor]) -> Seen:
    found: Seen = []
    networks = {"image": variant.discriminator, "input": variant.inverse_discriminator}
    for name, network in networks.items():
        real = augmented(batch[name], "real", f"_{name}")
        fake = augmented(batch[f"fake_{name}"], "fake", f"_{name}")  # without a pool
        found.append((lambda _, x, n=network: n(x[None]).mean(), real, fake, f"_{name}"))
    return found


def seen_by_srgan(variant: Any, batch: Batch, augmented: Callable[..., Tensor]) -> Seen:
    real, fake = augmented(batch["real"], "real", ""), augmented(batch["fake"], "fake", "")
    return [(lambda _, x: variant.discriminator(x[None]).mean(), real, fake, "")]


def seen_by_stackgan(variant: Any, batch: Batch, augmented: Callable[..., Tensor]) -> Seen:
    text, _ = variant._choose(batch["text"], batch["choice"])
    fake, _, _ = variant.generate("stage1", batch, text)
    network = variant.discriminator

    def judge(i: int, image: Tensor) -> Tensor:
        return network(network.see(image[None]), text[i : i + 1]).mean()

    real = augmented(batch["image"], "real", "")
    return [(judge, real, augmented(fake, "fake", ""), "")]


GAMES: dict[str, tuple[dict[str, object], DataSpec, Callable[..., Seen]]] = {
    "lapgan": (
        TINY_LAPGAN | {"level": 1, "conditional": True, "dropout": 0.0, "optimizer": "adam"},
        pictures(3, 16, classes=3),
        seen_by_lapgan,
    ),
    "pix2pix": (TINY_TRANSLATION | {"dropout": 0.0}, pairs(3, 16), seen_by_pix2pix),
    "cyclegan": (
        TINY_TRANSLATION | {"blocks": 1, "pool": 0},
        pairs(3, 16, series="input"),
        seen_by_cyclegan,
    ),
    "srgan": (TINY_SRGAN | {"steps": 4}, pictures(3, 20), seen_by_srgan),
    "stackgan": (TINY_STACKGAN | {"steps_2": 0}, captioned(3, 64), seen_by_stackgan),
}
each_game = pytest.mark.parametrize("name", GAMES)


def turn_of(variant: Variant, player: str) -> tuple[Stage, Player, Batch]:
    """The last stage, the ``player`` there, and a batch for it, all in double precision."""
    variant.double()
    if hasattr(variant, "_all_captions"):
        variant._all_captions = variant._all_captions.double()
    stage = variant.stages()[-1]
    (found,) = (p for p in stage.players if p.name == player)

    def precise(batch: Batch) -> Batch:
        return {n: t.double() if t.is_floating_point() else t for n, t in batch.items()}

    batch: Batch = {}
    if stage.batch == "iteration":
        for other in stage.players[: stage.players.index(found)]:
            batch |= precise(batch_for(variant, stage, other.name, other.reads))
            carry = other.objective(batch).carry
            batch = {**batch, **{n: t.detach() for n, t in carry.items()}}
    own = precise(batch_for(variant, stage, found.name, found.reads))
    return stage, found, {**own, **batch} if stage.batch == "iteration" else own


@each_game
@pytest.mark.parametrize("diffaug", ["none", "color,translation,flip"])
def test_penalties_are_those_of_each_picture_by_itself(name: str, diffaug: str) -> None:
    options, data, seen = GAMES[name]
    penalised = options | {"r1": 0.7, "gradient_penalty": 1.3, "diffaug": diffaug}
    if name == "srgan":
        penalised |= {"norm_d": "none"}
    variant = built(name, penalised, data)
    _, player, batch = turn_of(variant, "discriminator")
    loss = player.objective(batch)
    variant.regularisation.r1 = variant.regularisation.gradient_penalty = 0.0
    plain = player.objective(batch)

    def augmented(images: Tensor, kind: str, of: str) -> Tensor:
        if diffaug == "none":
            return images.detach()
        return Augmentation.parse(diffaug)(images.detach(), batch[f"augment_{kind}{of}"])

    r1, slopes = 0.0, 0.0
    for judge, real, fake, of in seen(variant, batch, augmented):
        mix = batch[f"mix{of}"]
        for i in range(len(real)):
            for where in ("real", "between"):
                at = real[i] if where == "real" else mix[i] * real[i] + (1 - mix[i]) * fake[i]
                at = at.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(judge(i, at), at)
                norm = float(gradient.norm())
                if where == "real":
                    r1 += 0.5 * norm**2 / len(real)
                else:
                    slopes += (norm - 1) ** 2 / len(real)
    assert r1 > 0
    assert float(loss.diagnostics["penalty/r1"]) == pytest.approx(r1, rel=1e-9)
    assert float(loss.diagnostics["penalty/gradient"]) == pytest.approx(slopes, rel=1e-9)
    added = float(loss.total.detach() - plain.total.detach())
    assert added == pytest.approx(0.7 * r1 + 1.3 * slopes, rel=1e-9)
    assert set(loss.diagnostics) - set(plain.diagnostics) == {"penalty/r1", "penalty/gradient"}
    assert float(loss.diagnostics["loss/discriminator"]) == pytest.approx(
        float(plain.diagnostics["loss/discriminator"]), rel=1e-12
    )


class Brighter(Augmentation):
    """Adds 100 to each picture."""

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        assert numbers.shape == (len(images), self.numbers)
        return images + 100


def discriminators_of(variant: Variant) -> list[torch.nn.Module]:
    return [module for name, module in variant.named_children() if "discriminator" in name]


@each_game
def test_while_they_play_discriminators_see_augmented_pictures_alone(name: str) -> None:
    options, data, _ = GAMES[name]
    variant = built(name, options | {"diffaug": "color", "gradient_penalty": 1.0}, data)
    variant.regularisation.augmentation = Brighter(("color",))
    shown: list[Tensor] = []
    for network in discriminators_of(variant):
        first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
        first.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach()))
    stage = variant.stages()[-1]
    of_pictures = slice(0, 3 if name == "lapgan" else None)  # beside them lies the class's plane
    for player in stage.players:
        shown.clear()
        play(variant, stage, player)
        assert shown
        assert all((images[:, of_pictures] > 50).all() for images in shown)
    shown.clear()
    readers = ("image", "input", "text", "label")
    reads = tuple(n for n in readers if n in stage.view.through(data).tensors)
    asked = batch_for(variant, stage, "sample", reads)
    asked |= batch_for(variant, stage, stage.players[-1].name, ())
    assert variant.judge_stage(stage.name, asked)
    assert shown
    assert all((images < 50).all() for images in shown)


def test_an_input_and_its_translation_are_augmented_alike() -> None:
    options, data, _ = GAMES["pix2pix"]
    variant: Any = built("pix2pix", options | {"diffaug": "color,translation,cutout,flip"}, data)
    shown: list[Tensor] = []
    variant.discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    variant.translate = lambda batch: batch["input"] + 0 * variant.generator(batch["input"])
    stage = variant.stages()[-1]
    for player in stage.players:
        batch = batch_for(variant, stage, player.name, player.reads)
        same = {**batch, "input": batch.get("image"), **carried(variant, stage, player)}
        if "fake" in same:
            same |= {"image": same["fake"], "input": same["fake"]}
        player.objective(same)
    assert len(shown) >= 2
    assert all(torch.equal(pair[:, :3], pair[:, 3:]) for pair in shown)
    assert len(shown[-1]) == 2 * len(shown[0])
    real, fake = shown[-1].chunk(2)
    assert not torch.equal(real, fake)  # drawn anew for each


@each_game
def test_a_critic_is_bounded_by_default_and_not_without_a_penalty(name: str) -> None:
    options, data, _ = GAMES[name]
    if name == "stackgan":  # whose loss is its own
        assert create(name, data, options).recipe.gradient_penalty == 0
        return
    variant = create(name, data, options | {"loss": "wasserstein"})
    assert variant.recipe.gradient_penalty == 10
    assert variant.regularisation.second_order
    bare = options | {"loss": "wasserstein", "gradient_penalty": 0}
    with pytest.raises(UserError, match=r"^--loss wasserstein .* grow without end: ") as refused:
        create(name, data, bare)
    assert "\n" not in str(refused.value)
    assert create(name, data, bare | {"r1": 1.0}).recipe.gradient_penalty == 0


@each_game
@pytest.mark.parametrize("penalty", [None, "r1", "gradient_penalty"])
def test_a_penalty_however_small_is_told_to_the_engine(name: str, penalty: str | None) -> None:
    """It must not compile a network that is differentiated twice, and draws what it is told to."""
    options, data, _ = GAMES[name]
    variant = create(name, data, options | ({} if penalty is None else {penalty: 0.01}))
    stage = variant.stages()[-1]
    twice = {network for player in stage.players for network in player.second_order}
    assert bool(twice) == (penalty is not None)
    drawn = [spec.name for spec in variant.noise(stage.name) if spec.name.startswith("mix")]
    assert bool(drawn) == (penalty == "gradient_penalty")


@pytest.mark.parametrize("name", list_variants())
def test_every_system_has_the_penalties_the_augmentation_and_the_average(name: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(VARIANTS[name].Options)}
    assert {"r1", "gradient_penalty", "diffaug", "ema"} <= set(fields)
    for penalty in ("r1", "gradient_penalty", "diffaug", "ema"):
        assert fields[penalty].metadata["kind"] == "schedule"
    if "loss" in fields:
        config = make_config({"variant": name, "options": {"loss": "wasserstein"}})
        assert config.game.penalty_weight == 10


@pytest.mark.parametrize("name", ["srgan", "stackgan"])
def test_a_discriminator_under_a_gradient_penalty_mixes_no_examples(name: str) -> None:
    options, data, _ = GAMES[name]
    kinds = {
        weight: {type(m).__name__ for d in discriminators_of(made) for m in d.modules()}
        for weight in (0.0, 1.0)
        for made in [create(name, data, options | {"gradient_penalty": weight})]
    }
    assert "BatchNorm2d" in kinds[0.0]
    assert "BatchNorm2d" not in kinds[1.0]
    assert "GroupNorm" in kinds[1.0]
    with pytest.raises(UserError, match="--norm-d batch mixes examples"):
        create(name, data, options | {"gradient_penalty": 1.0, "norm_d": "batch"})


@pytest.mark.parametrize(
    ("given", "named"),
    [({"r1": 1.0}, "--r1"), ({"gradient_penalty": 2.0}, "--gradient-penalty"),
     ({"diffaug": "flip"}, "--diffaug")],
)  # fmt: skip
def test_what_is_the_discriminators_is_refused_where_there_is_none(
    given: dict[str, object], named: str
) -> None:
    options, data, _ = GAMES["pix2pix"]
    with pytest.raises(UserError, match=f"^{named} is the discriminator's"):
        create("pix2pix", data, options | {"adversarial": 0.0} | given)
    alone = create("pix2pix", data, options | {"adversarial": 0.0})
    assert alone.refused_options() >= {"r1", "gradient_penalty", "diffaug"}
    assert create("pix2pix", data, options).refused_options() == frozenset()


def test_super_resolution_alone_has_no_discriminator_either() -> None:
    options, data, _ = GAMES["srgan"]
    alone = options | {"steps": 0}
    assert create("srgan", data, alone).refused_options() >= {"r1", "gradient_penalty", "diffaug"}
    assert create("srgan", data, options).refused_options() == {"pixel_weight"}, "of pixels alone"
    with pytest.raises(UserError, match=r"^--r1 is the discriminator's, and with --steps 0 there"):
        create("srgan", data, alone | {"r1": 1.0})


def test_what_keeps_a_critics_batch_normalisation_bounds_it_too() -> None:
    was = make_config({"variant": "srgan"})
    with pytest.raises(UserError, match="give --gradient-penalty 0 with --r1 1, leave that out"):
        check_resumable(was, make_config({"variant": "srgan", "options": {"loss": "wasserstein"}}))
    kept = {"loss": "wasserstein", "gradient_penalty": 0, "r1": 1}
    check_resumable(was, make_config({"variant": "srgan", "options": kept}))
    with pytest.raises(UserError, match="give --gradient-penalty 0, leave that out"):
        check_resumable(was, make_config({"variant": "srgan", "options": {"gradient_penalty": 1}}))


def test_a_mean_of_bfloat16_logits_is_a_float32s() -> None:
    logits = torch.full((2, 1, 3, 3), 1.0, dtype=torch.bfloat16)
    logits[1, 0, 0, 0] = 1 + 2**-7
    values = _values(logits)
    assert values.dtype == torch.float32
    assert values.tolist() == pytest.approx([1.0, 1 + 2**-7 / 9], abs=1e-7)


def test_an_unknown_augmentation_is_named_before_anything_is_built() -> None:
    for name, (options, data, _) in GAMES.items():
        with pytest.raises(UserError, match="unknown --diffaug 'colour': did you mean 'color'"):
            create(name, data, options | {"diffaug": "colour"})
