"""Every variant trains the same however its turns are played."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_every_variant import ROWS, random_tensor

from gan_core.data.examples import Batch, DataSpec, Examples, to_pixels
from gan_core.engine.batches import BatchStream
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.world import World
from gan_core.variant import create

ALONE = World(device=torch.device("cpu"))
BATCH = 4
_DRAW_IN_MEMORY_ORDER = ("acgan", "lapgan")  # the masks of torch's dropout follow the layout
every_row = pytest.mark.parametrize(
    ("name", "options", "data"), ROWS, ids=[f"{row[0]}-{i}" for i, row in enumerate(ROWS)]
)


def examples(data: DataSpec) -> Examples:
    tensors = {}
    for name, spec in data.tensors.items():
        values = random_tensor(name, spec)
        tensors[name] = to_pixels(values) if len(spec.shape) == 3 and data.pictures else values
    return Examples(tensors, data, "random")


def game(
    name: str, options: dict[str, Any], data: DataSpec, engine: Engine, world: World = ALONE
) -> Game:
    split = examples(data)
    options = options | dict.fromkeys(("dropout",) if name in _DRAW_IN_MEMORY_ORDER else (), 0.0)
    variant = create(name, data, {"steps": 100, **options}, seed=1).to(torch.get_default_dtype())
    made = Game(variant, split, split, batch_size=BATCH, world=world, engine=engine)
    seed_rank(0, world)
    return made


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks, data and noise in float64."""
    plain = BatchStream.next

    def doubled(stream: BatchStream) -> Batch:
        batch = plain(stream)
        return {n: t.double() if t.is_floating_point() else t for n, t in batch.items()}

    monkeypatch.setattr(BatchStream, "next", doubled)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def matrices(played: Game) -> dict[str, torch.Tensor]:
    """All weights but gains and biases: before a normalisation a bias's gradient is rounding."""
    return {n: p.detach() for n, p in played.variant.named_parameters() if p.dim() > 1}


def same_training(
    name: str, options: dict[str, Any], data: DataSpec, engine: Engine, world: World = ALONE
) -> None:
    plain = game(name, options, data, Engine(), world)
    plain.play(50)
    other = game(name, options, data, engine, world)
    other.play(50)
    assert not [note for note in other.take_notes() if "recorded" in note]
    torch.testing.assert_close(matrices(other), matrices(plain), rtol=1e-9, atol=1e-9)
    wanted = {n: pytest.approx(v, abs=1e-5) for n, v in plain.take_diagnostics().items()}
    assert other.take_diagnostics() == wanted


@every_row
@pytest.mark.usefixtures("double_precision")
def test_channels_last_is_the_same_training(
    name: str, options: dict[str, Any], data: DataSpec
) -> None:
    same_training(name, options, data, Engine(channels_last=True))


@every_row
def test_bfloat16_leaves_weights_and_figures_in_float32(
    name: str, options: dict[str, Any], data: DataSpec
) -> None:
    played = game(name, options, data, Engine(precision="bf16", channels_last=True))
    before = copy.deepcopy(matrices(played))
    played.play(2)
    after = matrices(played)
    assert {p.dtype for p in played.variant.parameters()} == {torch.float32}
    moved = [n for n, weights in after.items() if not torch.equal(weights, before[n])]
    assert moved
    assert all(torch.isfinite(weights).all() for weights in after.values())
    assert all(abs(value) < 1e3 for value in played.take_diagnostics().values())


_FIRST = {row[0]: row for row in reversed(ROWS)}


@pytest.mark.slow
@pytest.mark.parametrize("row", _FIRST.values(), ids=list(_FIRST))
@pytest.mark.usefixtures("double_precision")
def test_compiled_networks_are_the_same_training(
    row: tuple[str, dict[str, Any], DataSpec],
) -> None:
    """One row of each variant; compiling takes from ten seconds to minutes."""
    same_training(*row, Engine("compile", channels_last=True))


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@on_a_gpu
@every_row
@pytest.mark.usefixtures("double_precision")
def test_recorded_turns_are_the_same_training(
    name: str, options: dict[str, Any], data: DataSpec
) -> None:
    same_training(name, options, data, Engine("graph"), World.current("cuda"))


@on_a_gpu
@pytest.mark.parametrize("row", _FIRST.values(), ids=list(_FIRST))
@pytest.mark.usefixtures("double_precision")
def test_recorded_turns_of_compiled_networks_are_the_same_training(
    row: tuple[str, dict[str, Any], DataSpec],
) -> None:
    same_training(*row, Engine("compiled-graph", channels_last=True), World.current("cuda"))
