"""Which samples a picture shows, and what it is where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gan_core.variants  # noqa: F401
from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
from gan_core.engine.game import Game
from gan_core.pictures import sample_picture
from gan_core.sample_pictures import SamplePictures
from gan_core.variant import Variant, create

SMALL = {"gan": {"latent": 3, "hidden": 8}, "dcgan": {"latent": 3, "width": 2, "image_size": 16}}
SMALL["cgan"] = {"latent": 3, "hidden_latent": 4, "hidden_label": 4, "hidden": 8}


def game_of(variant: str, shape: tuple[int, ...] = (1, 8, 8)) -> Game:
    generator = torch.Generator().manual_seed(0)
    specs = {"image": TensorSpec(shape, -1.0, 1.0), "label": TensorSpec((), classes=3)}
    images = torch.randint(0, 256, (30, *shape), generator=generator).to(torch.uint8)
    tensors = {"image": images, "label": torch.arange(30) % 3}
    data = Examples(tensors, DataSpec(specs), "toys")
    return Game(create(variant, data.spec, SMALL[variant], 1), data, data, batch_size=10)


def drawn(game: Game, examples: int = 20) -> tuple[Tensor | None, list[str]]:
    told: list[str] = []
    pictures = SamplePictures(game, examples, told.append)
    pictures.draw(game.sampler())
    return pictures.draw(game.sampler()), told


def test_the_usual_picture_is_a_grid_of_64_samples() -> None:
    game = game_of("dcgan")
    samples = game.sampler()(torch.arange(64))["image"]
    picture, told = drawn(game)
    assert picture is not None
    assert torch.equal(picture, sample_picture(samples, game.train.spec, None, 8))
    assert told == []


def test_samples_that_are_asked_for_by_class_stand_in_a_row_each() -> None:
    game = game_of("cgan")
    labels = torch.arange(3).repeat_interleave(10)
    samples = game.sampler()(torch.arange(30), conditions={"label": labels})["image"]
    picture, _ = drawn(game)
    assert picture is not None
    assert torch.equal(picture, sample_picture(samples, game.train.spec, None, 10))


def test_what_is_asked_for_beside_the_class_is_there_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    game = game_of("cgan")
    asked: list[Batch] = []
    variant = type(game.variant)

    def sample(self: Variant, stage: str, batch: Batch) -> Batch:
        asked.append(batch)
        return {"image": torch.zeros(len(batch["label"]), 1, 8, 8)}

    monkeypatch.setattr(variant, "conditions", lambda self: ("label", "image"))
    monkeypatch.setattr(variant, "sample", sample)
    picture, _ = drawn(game)
    assert picture is not None
    assert torch.equal(asked[-1]["label"], torch.arange(3).repeat_interleave(10))
    assert asked[-1]["image"].shape == (30, 1, 8, 8)


@pytest.mark.parametrize(("examples", "shown"), [(20, 8), (5, 5)])
def test_a_variant_shows_what_it_makes_of_the_first_held_out_examples(
    examples: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = game_of("cgan")
    own = torch.zeros(1, 2, 2, dtype=torch.uint8)
    given: list[tuple[str, Batch, Batch]] = []
    monkeypatch.setattr(
        type(game.variant), "picture", lambda variant, *what: given.append(what) or own
    )
    picture, _ = drawn(game, examples)
    assert picture is own
    stage, generated, held_out = given[-1]
    assert stage == game.stage.name
    assert len(generated["image"]) == shown
    assert torch.equal(held_out["label"], torch.arange(shown) % 3)


def test_where_nothing_can_be_drawn_it_is_told_once() -> None:
    picture, told = drawn(game_of("gan", (2, 8, 8)))
    assert picture is None
    assert len(told) == 1
    assert told[0].startswith("no picture is drawn of 'image' of the shape (2, 8, 8)")
