from __future__ import annotations

import dataclasses
import pkgutil

import numpy as np
import pytest
import torch
from ray import tune
from torch import nn

import gan_core.variants  # noqa: F401  (registers the variants)
import tune_spaces
from gan_core.engine.averaging import MovingAverage
from gan_core.errors import UserError
from gan_core.losses import LOSSES
from gan_core.options import parse
from gan_core.variant import VARIANTS, list_variants
from tune_spaces import Dimension, SearchSpace, Setting, space_of
from tune_spaces.adversarial import adversarial

MODULES = sorted({m.name for m in pkgutil.iter_modules(tune_spaces.__path__)} - {"adversarial"})
SPACES = [(name, target) for name in MODULES for target in ("image", "point")]


def defaults(variant: str) -> dict[str, object]:
    return dataclasses.asdict(VARIANTS[variant].Options())


def test_there_is_a_space_for_each_of_these() -> None:
    assert {"gan", "cgan", "dcgan"} <= set(MODULES)
    assert set(MODULES) <= set(list_variants())


@pytest.mark.parametrize(("variant", "target"), SPACES)
def test_what_is_searched_are_options_and_each_has_its_reason(variant: str, target: str) -> None:
    space = space_of(variant, target)
    assert set(space.dimensions) <= set(defaults(variant))
    assert {"steps"}.isdisjoint(space.dimensions)
    assert all(len(dimension.reason) > 15 for dimension in space.dimensions.values())


@pytest.mark.parametrize(("variant", "target"), SPACES)
def test_the_settings_of_papers_are_inside_the_space(variant: str, target: str) -> None:
    space = space_of(variant, target)
    assert space.settings, "the papers' settings are tried first"
    for setting in space.settings:
        assert set(setting.values) <= set(space.dimensions), setting.source
    for point in space.first_points(defaults(variant)):
        for name, value in point.items():
            assert value is not None, f"{name} has no default: say it in the setting"
            assert space.dimensions[name].domain.is_valid(value), (name, value)


@pytest.mark.parametrize(("variant", "target"), SPACES)
def test_what_is_drawn_and_what_is_tried_first_are_valid_options(variant: str, target: str) -> None:
    space, options = space_of(variant, target), VARIANTS[variant].Options
    random = np.random.RandomState(0)
    drawn = [
        {name: domain.sample(random_state=random) for name, domain in space.domains().items()}
        for _ in range(50)
    ]
    for point in [*space.first_points(defaults(variant)), *drawn]:
        parsed = parse(options, point)
        assert {name: getattr(parsed, name) for name in point} == point


def test_the_original_recipes_come_first() -> None:
    first = space_of("gan").first_points(defaults("gan"))[0]
    assert (first["optimizer"], first["lr_d"], first["lr_g"], first["k"]) == ("sgd", 0.05, 0.1, 1)
    first = space_of("dcgan").first_points(defaults("dcgan"))[0]
    assert (first["lr_d"], first["beta1"], first["batch_size"], first["prior"]) == (
        2e-4, 0.5, 128, "uniform",
    )  # fmt: skip


@pytest.mark.parametrize(("variant", "target"), SPACES)
def test_averages_that_are_searched_differ_within_a_thousand_iterations(
    variant: str, target: str
) -> None:
    dimension = space_of(variant, target).dimensions.get("ema")
    if dimension is None:
        return
    found = []
    for decay in dimension.domain.categories:
        network = nn.Linear(1, 1)
        nn.init.zeros_(network.weight)
        average = MovingAverage(network, decay)
        with torch.no_grad():
            for number in range(1000):
                network.weight.fill_(number)
                average.update()
            average.copy_to(network)
        found.append(network.weight.item())
    assert len(set(found)) == len(found)


def test_bigganss_first_points_are_all_of_its_papers_settings() -> None:
    space = space_of("biggan")
    assert len(space.first_points(defaults("biggan"))) == len(space.settings) == 3


def test_the_losses_that_are_not_searched_are_named_with_their_reason() -> None:
    dimension = adversarial()["loss"]
    left_out = set(LOSSES) - set(dimension.domain.categories)
    assert left_out == {"relativistic"}
    assert all(f"{name} wants" in dimension.reason for name in left_out)


def test_points_have_a_space_of_their_own() -> None:
    assert space_of("gan", "point") is not space_of("gan", "image")
    assert "optimizer" not in space_of("gan", "point").dimensions
    assert space_of("dcgan", "point") is space_of("dcgan", "image")


def test_shared_dimensions_can_be_replaced_added_and_taken_away() -> None:
    other = Dimension(tune.choice([7]), "seven")
    found = adversarial(k=other, extra=other, r1=None)
    assert found["k"] is other
    assert found["extra"] is other
    assert "r1" not in found
    assert set(found) - {"extra"} == set(adversarial()) - {"r1"}


def test_what_the_user_fixes_is_not_searched_and_equal_settings_are_tried_once() -> None:
    dimension = Dimension(tune.choice([1, 2]), "one or two")
    space = SearchSpace(
        {"k": dimension, "latent": dimension},
        (Setting("a", {"k": 1}), Setting("b", {"k": 2}), Setting("c", {"k": 2, "latent": 1})),
    )
    assert space.first_points({"k": 1, "latent": 1}) == [
        {"k": 1, "latent": 1},
        {"k": 2, "latent": 1},
    ]
    left = space.without({"k": 5})
    assert set(left.dimensions) == {"latent"}
    assert left.first_points({"latent": 2}) == [{"latent": 2}, {"latent": 1}]


def test_a_variant_without_a_module_has_the_shared_space_if_it_has_the_shared_options() -> None:
    from gan_core.variant import GameOptions, register
    from gan_core.variants.adversarial import AdversarialVariant

    networks = {"make_generator": None, "make_discriminator": None}
    try:
        register("two_nets")(type("TwoNets", (AdversarialVariant,), networks))
        assert set(space_of("two_nets").dimensions) == set(adversarial())
        other = {**networks, "Options": GameOptions}
        register("other")(type("Other", (AdversarialVariant,), other))
        with pytest.raises(UserError, match=r"tune_spaces/other\.py"):
            space_of("other")
    finally:
        for name in ("two_nets", "other"):
            VARIANTS._entries.pop(name, None)


def test_settings_outside_the_space_are_not_tried() -> None:
    dimension = Dimension(tune.loguniform(0.1, 1.0), "a reason that is long")
    space = SearchSpace(
        {"lr": dimension, "k": Dimension(tune.choice([1, 2]), "another reason")},
        (Setting("inside", {"lr": 0.5}), Setting("rate", {"lr": 2.0}), Setting("k", {"k": 3})),
    )
    assert space.first_points({"lr": None, "k": 1}) == [{"lr": 0.5, "k": 1}]
    assert [dimension.holds(value) for value in (0.1, 1.0, 1.1, None)] == [True, True, False, False]


def test_batches_that_workers_cannot_share_are_not_searched() -> None:
    space = space_of("dcgan")
    listed = space.dimensions["batch_size"].domain.categories
    assert space.with_batches_for(1).dimensions["batch_size"].domain.categories == listed
    halved = space.with_batches_for(64)
    kept = halved.dimensions["batch_size"].domain.categories
    assert kept == [size for size in listed if size % 64 == 0] != listed
    points = halved.first_points(defaults("dcgan"))
    assert points
    assert all(point["batch_size"] % 64 == 0 for point in points)
    with pytest.raises(UserError, match="searched can be shared by 3 workers"):
        space.with_batches_for(3)
    alone = space.without({"batch_size": 48})
    assert alone.with_batches_for(3) is alone
