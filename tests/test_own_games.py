"""Runs of games and data of one's own: what a run looks at on the way never ends it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gan_core.variants  # noqa: F401
from gan_core import journal
from gan_core.config import make_config
from gan_core.data.examples import Batch, DataSpec, Examples, Split, TensorSpec
from gan_core.data.loading import load_examples
from gan_core.data.sources import SOURCES, Source
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import FolderObserver
from gan_core.pictures import histogram, sample_picture
from gan_core.priors import Gaussian
from gan_core.run import play
from gan_core.variant import (
    VARIANTS,
    GameOptions,
    Loss,
    NoiseSpec,
    OptimizerSpec,
    Player,
    Stage,
    Variant,
    create,
)
from pipelines.diagnose import fresh_samples

SHAPES: dict[str, tuple[int, ...]] = {
    "point": (2,),
    "line": (1,),
    "wave": (1, 8),
    "bands": (4, 8, 8),
}


class Numbers(Source):
    """Random numbers of some shape."""

    needs_root = False
    target: str

    def load(self, split: Split) -> Examples:
        shape = SHAPES[self.target]
        spec = DataSpec({self.target: TensorSpec(shape)}, self.target)
        numbers = torch.randn(40, *shape, generator=torch.Generator().manual_seed(len(split)))
        return Examples({self.target: numbers}, spec, self.target, split)


class Own(Variant):
    """A game of two players whose names are the usual ones and whose diagnostics are not."""

    targets = frozenset(SHAPES)
    reported = "mine/d"

    def build(self, data: DataSpec) -> None:
        self.target, shape = data.target, data.target_shape
        size = int(torch.Size(shape).numel())
        self.generator = nn.Sequential(nn.Linear(3, size), nn.Unflatten(1, shape))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(size, 1))

    def stages(self) -> tuple[Stage, ...]:
        optimizer = OptimizerSpec()
        d = Player("discriminator", ("discriminator",), self.d_loss, optimizer, (self.target,))
        g = Player("generator", ("generator",), self.g_loss, optimizer)
        return (Stage("train", (d, g), self.options.steps),)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        return (NoiseSpec("z", (3,), Gaussian()),)

    def d_loss(self, batch: Batch) -> Loss:
        real, fake = self.discriminator(batch[self.target]), self._judged(batch)
        loss = (F.softplus(-real) + F.softplus(fake)).mean()
        return Loss(loss, {self.reported: loss.detach()})

    def g_loss(self, batch: Batch) -> Loss:
        loss = F.softplus(-self._judged(batch)).mean()
        return Loss(loss, {"mine/g": loss.detach()})

    def _judged(self, batch: Batch) -> Tensor:
        return self.discriminator(self.generator(batch["z"]))

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {self.target: self.generator(batch["z"])}


class Unprobed(Own):
    """Its objective cannot be played on anything but whole batches."""

    reported = "loss/discriminator"

    def g_loss(self, batch: Batch) -> Loss:
        if len(batch["z"]) != self.options.batch_size:
            raise RuntimeError("not such\na batch")
        return super().g_loss(batch)


class Drawn(Own):
    """It draws for itself."""

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor:
        assert generated[self.target].shape == held_out[self.target].shape
        return torch.full((3, 5, 7), 9, dtype=torch.uint8)


class Undrawn(Own):
    """It fails to draw."""

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor:
        raise KeyError("canvas")


class Pale(Own):
    """It draws in floats."""

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor:
        return torch.zeros(3, 5, 7)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    variants, sources = dict(VARIANTS._entries), dict(SOURCES._entries)
    for cls in (Own, Unprobed, Drawn, Undrawn, Pale):
        cls.name = cls.__name__.lower()
        VARIANTS.register(cls.name)(cls)
    for name in SHAPES:
        SOURCES.register(f"some-{name}")(type(name, (Numbers,), {"target": name}))
    yield
    VARIANTS._entries, SOURCES._entries = variants, sources


def played(folder: Path, variant: str, target: str = "point") -> list[dict[str, Any]]:
    """The events of a run of ten iterations, judged twice and saved at its end."""
    values = {"variant": variant, "data": f"some-{target}", "steps": 10, "batch_size": 10,
              "evaluate_every": 5, "log_every": 5, "storage": str(folder), "name": "run",
              "samples": 20, "extractor": "none"}  # fmt: skip
    config, world = make_config(values), World()
    summary = play(config, world, FolderObserver(config.folder, world))
    assert summary["status"] == "finished"
    assert find_checkpoint(config.folder) is not None
    return [event for event, _ in journal.read(config.folder / journal.FILE)]


def messages(events: list[dict[str, Any]], level: str) -> list[str]:
    return [e["text"] for e in events if e["kind"] == "message" and e["level"] == level]


def seen(events: list[dict[str, Any]]) -> set[str]:
    return {name for e in events if e["kind"] == "metrics" for name in e["values"]}


def test_a_game_of_the_usual_players_need_not_report_the_usual_loss(tmp_path: Path) -> None:
    events = played(tmp_path, "own")
    assert messages(events, "warning") == []
    assert "rotation" in seen(events)
    assert "duality_gap" not in seen(events)


def test_a_probe_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    events = played(tmp_path, "unprobed")
    (told,) = messages(events, "warning")
    assert told == "no signals of the game's dynamics from here on: RuntimeError: not such"


@pytest.mark.parametrize("target", ["wave", "bands"])
def test_targets_without_a_picture_are_learnt_without_one(tmp_path: Path, target: str) -> None:
    events = played(tmp_path, "own", target)
    assert [e for e in events if e["kind"] == "picture"] == []
    (told,) = messages(events, "info")
    assert told.startswith(f"no picture is drawn of '{target}' of the shape {SHAPES[target]}")
    assert fresh_samples(tmp_path / "run", 4) is None


def test_points_of_one_number_are_drawn_as_a_histogram(tmp_path: Path) -> None:
    events = played(tmp_path, "own", "line")
    assert len([e for e in events if e["kind"] == "picture"]) == 2
    picture = fresh_samples(tmp_path / "run", 4)
    assert picture is not None
    assert picture.shape == (3, 512, 512)


@pytest.mark.parametrize("target", ["point", "wave"])
def test_a_variants_own_picture_is_asked_for_whatever_it_is_judged_by(
    tmp_path: Path, target: str
) -> None:
    events = played(tmp_path, "drawn", target)
    assert len([e for e in events if e["kind"] == "picture"]) == 2
    assert messages(events, "info") == []


def test_a_picture_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    (told,) = messages(played(tmp_path, "undrawn"), "warning")
    assert told == "no pictures of samples from here on: KeyError: 'canvas'"


def test_a_picture_that_cannot_be_kept_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    (told,) = messages(played(tmp_path, "pale"), "warning")
    assert told == (
        "no pictures of samples from here on: TypeError: the variant's picture is torch.float32 of "
        "the shape (3, 5, 7), not uint8 (1 or 3, H, W): gan_core.pictures.image_grid makes one"
    )


def test_what_cannot_be_drawn_is_refused_in_a_line() -> None:
    spec = DataSpec({"wave": TensorSpec((1, 8))}, "wave")
    with pytest.raises(UserError, match=r"no picture can be drawn of 'wave' of the shape \(1, 8\)"):
        sample_picture(torch.zeros(4, 1, 8), spec)


def test_the_bars_of_a_histogram_stand_where_the_numbers_are() -> None:
    real = torch.cat((torch.zeros(300, 1), torch.ones(100, 1)))
    picture = histogram(torch.tensor([[0.0], [5.0]]), real)
    bottom = picture[:, 505]
    grey = (bottom == torch.tensor((170, 170, 170), dtype=torch.uint8)[:, None]).all(dim=0)
    columns = grey.nonzero().flatten()
    # The frame reaches 0.55 beyond the middle, 0.5: zero is at 0.05 / 1.1 of its 512 pixels.
    near = [abs(c - 512 * share) for c in columns.tolist() for share in (0.05 / 1.1, 1.05 / 1.1)]
    assert sorted(near)[0] < 8
    assert 8 <= len(columns) <= 2 * 8 + 2
    assert (picture == torch.tensor((31, 99, 180), dtype=torch.uint8)[:, None, None]).all(0).any()


def some(target: str) -> Examples:
    return Numbers.load(type(target, (Numbers,), {"target": target})(), "train")


def test_two_players_that_report_one_name_are_both_heard() -> None:
    class Alike(Own):
        reported = "loss"

        def g_loss(self, batch: Batch) -> Loss:
            return Loss(
                super().g_loss(batch).total, {"loss": torch.tensor(7.0), "mine": torch.ones(())}
            )

    variant, examples = Alike(GameOptions()), some("point")
    variant.build(examples.spec)
    game = Game(variant, examples, examples, batch_size=10)
    game.play(3)
    found = game.take_diagnostics()
    assert set(found) == {"loss/discriminator", "loss/generator", "objective/mine"}
    assert found["loss/generator"] == 7.0
    assert 0 < found["loss/discriminator"] < 7


def test_noise_by_the_name_of_a_tensor_of_the_data_is_refused() -> None:
    class Shadowing(Own):
        def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
            return (*super().noise(stage), NoiseSpec("point", (2,), Gaussian()))

    variant, examples = Shadowing(GameOptions()), some("point")
    variant.build(examples.spec)
    with pytest.raises(UserError, match="the noise 'point' has the name of a tensor of the data"):
        Game(variant, examples, examples, batch_size=10)


def test_pictures_of_floats_in_memory_are_refused_before_they_are_rounded_to_black() -> None:
    pixels = load_examples("digits", None, "train")
    floats = pixels.tensors["image"].float() / 127.5 - 1
    held = dataclasses.replace(pixels, tensors={**pixels.tensors, "image": floats})
    options = {"image_size": 16, "width": 2, "kernel": 4, "latent": 2}
    refused = r"pictures of torch\.float32 cannot be made 16 x 16: give pixels"
    for train, held_out in ((held, pixels), (pixels, held)):
        with pytest.raises(UserError, match=refused):
            Game(create("dcgan", pixels.spec, options), train, held_out, batch_size=8)


def game_of(cls: type[Variant], **methods: Any) -> Game:
    """A game of a subclass of ``cls`` that has those methods of its own."""
    variant, examples = type("Wrong", (cls,), methods)(cls.Options()), some("point")
    variant.build(examples.spec)
    return Game(variant, examples, examples, batch_size=10)


SCALAR = torch.ones(())
WRONG_LOSSES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "returned a NoneType: it must return Loss"),
    "a number": (1.0, "returned a float: it must return Loss"),
    "no total": (Loss(1.0), "returned a Loss whose 'total' is no scalar tensor, but float"),  # type: ignore[arg-type]
    "many": (Loss(torch.ones(3)), r"returned a Loss whose 'total' is no scalar tensor, but \(3,\)"),
    "numbers": (Loss(SCALAR, {"l1": 1.0}), "whose 'l1' is no scalar tensor, but float"),  # type: ignore[dict-item]
    "detached": (Loss(SCALAR), "returned a total without a gradient"),
}


@pytest.mark.parametrize("what", WRONG_LOSSES)
def test_an_objective_that_returns_no_loss_is_told(what: str) -> None:
    returned, expected = WRONG_LOSSES[what]
    game = game_of(Own, d_loss=lambda self, batch: returned)
    with pytest.raises(UserError, match=f"the objective of discriminator .*{expected}"):
        game.play(1)


def test_an_objective_that_reads_what_its_batch_lacks_is_told_what_that_has() -> None:
    game = game_of(Own, g_loss=lambda self, batch: batch["point"])
    told = "KeyError 'point' in the objective of generator, whose batch has z "
    with pytest.raises(LookupError, match=told):
        game.play(1)
    game = game_of(Own, g_loss=lambda self, batch: {}[next(iter(batch))])
    with pytest.raises(KeyError, match="z"):
        game.play(1)


def reading(*names: str) -> Any:
    def stages(self: Own) -> tuple[Stage, ...]:
        d = Player("d", ("discriminator",), self.d_loss, OptimizerSpec(), names)
        return (Stage("train", (d,), 5),)

    return stages


def test_what_a_game_names_and_lacks_is_told_before_it_begins() -> None:
    with pytest.raises(UserError, match="player d reads 'image', which the data lack: they have p"):
        game_of(Own, stages=reading("point", "image"))
    with pytest.raises(UserError, match="samples are made by the network 'decoder', which there"):
        game_of(Own, sampling_networks=lambda self, stage: ("decoder",))


def test_what_the_data_hold_beside_their_specification_may_be_read() -> None:
    examples = some("point")
    held = dataclasses.replace(examples, tensors={**examples.tensors, "weight": torch.rand(40, 1)})
    variant = type("Wrong", (Own,), {"stages": reading("point", "weight")})(Own.Options())
    variant.build(held.spec)
    Game(variant, held, examples, batch_size=10).play(1)


def test_words_that_the_contract_does_not_know_are_refused() -> None:
    player = Player("p", (), lambda batch: Loss(SCALAR), OptimizerSpec())
    with pytest.raises(UserError, match="unknown kind of optimiser 'adamw': did you mean 'adam'"):
        OptimizerSpec("adamw")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown kind of batch 'iterations': did you mean 'iter"):
        Stage("s", (player,), 1, batch="iterations")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stage s: each player needs a name of its own"):
        Stage("s", (player, player), 1)
