"""Every variant trains the same however its turns are played."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._inductor.lowering  # which its decompositions need
from test_every_variant import ROWS, random_tensor
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor.decomposition import select_decomp_table

from gan_core.data.examples import Batch, DataSpec, Examples, to_pixels
from gan_core.engine import optimizers
from gan_core.engine.batches import BatchStream
from gan_core.engine.execution import Engine, Mode
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
_IN_ORDER = {name: row for name, row in _FIRST.items() if name != "midinet"}  # D's steps overlap


@pytest.mark.slow
@pytest.mark.parametrize("row", _FIRST.values(), ids=list(_FIRST))
@pytest.mark.usefixtures("double_precision")
def test_compiled_networks_are_the_same_training(
    row: tuple[str, dict[str, Any], DataSpec],
) -> None:
    """One row of each variant; compiling takes from ten seconds to minutes."""
    same_training(*row, Engine("compile", channels_last=True))


_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::convolution"}
_OF_WEIGHTS = {"biggan": {"aten::mm"}}  # its penalty on them


def _compiled(event: Any) -> bool:
    """Whether what the profiler saw was part of a compiled graph."""
    while event is not None and event.name != "compiled":
        event = event.cpu_parent
    return event is not None


@pytest.mark.parametrize("row", _FIRST.values(), ids=list(_FIRST))
def test_compiled_networks_do_all_the_work_and_add_up_nothing_in_an_order_of_their_own(
    row: tuple[str, dict[str, Any], DataSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What writes to places that a tensor names does so by atomic additions on a GPU."""
    written: list[str] = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        written.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")

        def play(*values: Any) -> Any:
            with torch.profiler.record_function("compiled"):
                return graph.forward(*values)

        return make_boxed_func(play)

    looking = aot_autograd(fw_compiler=look, bw_compiler=look, decompositions=select_decomp_table())
    monkeypatch.setattr(
        nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=looking)
    )
    played = game(*row, Engine("compile"))
    played.play(1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        played.play(1)
    products = [event for event in seen.events() if event.name in _PRODUCTS]
    assert any(map(_compiled, products))
    beside = {event.name for event in products if not _compiled(event)}
    assert beside == _OF_WEIGHTS.get(row[0], set()), "of no network's call"
    if row[0] in _IN_ORDER:
        assert not [name for name in written if "index_put" in name or "scatter_add" in name]


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def float32_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are float32 numbers, as recorded turns have them, also where they are Python's."""
    plain = optimizers._set
    monkeypatch.setattr(
        optimizers, "_set", lambda group, name, value: plain(group, name, float32(value))
    )


def float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


@on_a_gpu
@every_row
@pytest.mark.usefixtures("double_precision", "float32_rates")
def test_recorded_turns_are_the_same_training(
    name: str, options: dict[str, Any], data: DataSpec
) -> None:
    same_training(name, options, data, Engine("graph"), World.current("cuda"))


@on_a_gpu
@pytest.mark.parametrize("row", _FIRST.values(), ids=list(_FIRST))
@pytest.mark.usefixtures("double_precision", "float32_rates")
def test_recorded_turns_of_compiled_networks_are_the_same_training(
    row: tuple[str, dict[str, Any], DataSpec],
) -> None:
    same_training(*row, Engine("compiled-graph", channels_last=True), World.current("cuda"))


@on_a_gpu
@pytest.mark.parametrize("mode", ["graph", "compiled-graph"])
@pytest.mark.parametrize("row", _IN_ORDER.values(), ids=list(_IN_ORDER))
def test_a_game_on_a_gpu_repeats_itself_bit_for_bit(
    row: tuple[str, dict[str, Any], DataSpec], mode: Mode
) -> None:
    engine, ends = Engine(mode, "tf32", channels_last=True), []
    engine.set_numerics()
    for _ in range(2):
        played = game(*row, engine, World.current("cuda"))
        played.play(30)
        ends.append(played.variant.state_dict())
    torch.testing.assert_close(*ends, rtol=0, atol=0)
