"""What a captured turn needs: optimisers that a graph can replay, and the same training."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from engine_toys import Plain, Stacked, difference, pictures, vectors
from tapes import record_on_tapes
from torch import nn

from gan_core.data.examples import Batch
from gan_core.data.loading import load_examples
from gan_core.engine.capture import WARM_UP_TURNS, CapturedTurn, Turn
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.optimizers import apply_schedule, create_optimizer, load_optimizer_state
from gan_core.engine.seat import Seat
from gan_core.engine.world import World
from gan_core.variant import Loss, OptimizerSpec, create

SGD = OptimizerSpec("sgd", 0.1, rate=lambda u: 0.9**u, momentum=lambda u: 0.5 + 0.02 * u)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> None:
    generator = torch.Generator().manual_seed(updates)
    batch = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    apply_schedule(optimizer, SGD, updates, updates)
    optimizer.zero_grad()
    network(batch).square().sum().backward()
    optimizer.step()


def twins() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()
    return network, copy.deepcopy(network)


def test_sgd_with_tensors_for_rate_and_momentum_is_torchs_sgd() -> None:
    plain, captured = twins()
    optimizers = [
        create_optimizer(SGD, list(network.parameters()), capturable=capturable)
        for network, capturable in ((plain, False), (captured, True))
    ]
    for updates in range(20):
        step(plain, optimizers[0], updates)
        step(captured, optimizers[1], updates)
    assert torch.allclose(plain.weight, captured.weight, rtol=1e-6, atol=0)  # float32 rates
    assert optimizers[1].param_groups[0]["momentum"].item() == pytest.approx(0.5 + 0.02 * 19)


def test_the_two_forms_of_sgd_take_over_each_others_state() -> None:
    plain, captured = twins()
    first = create_optimizer(SGD, list(plain.parameters()))
    second = create_optimizer(SGD, list(captured.parameters()), capturable=True)
    for updates in range(3):
        step(plain, first, updates)
    captured.load_state_dict(plain.state_dict())
    load_optimizer_state(second, copy.deepcopy(first.state_dict()))
    assert isinstance(second.param_groups[0]["lr"], torch.Tensor)
    step(plain, first, 3)
    step(captured, second, 3)
    assert torch.allclose(plain.weight, captured.weight, rtol=1e-6, atol=0)


class Word(str):
    """A stream, by its name."""

    device = "cpu"

    def wait_stream(self, other: str) -> None:
        """Nothing is played at the same time."""


class OnStream:
    """As torch's: what is never left, as where ending a recording fails, puts nothing back."""

    def __init__(self, gpu: PretendedGpu, stream: Word) -> None:
        self.gpu, self.stream = gpu, stream

    def __enter__(self) -> None:
        self.before, self.gpu.stream = self.gpu.stream, self.stream

    def __exit__(self, *_: object) -> None:
        self.gpu.stream = self.before


class PretendedGraph:
    """A graph that is recorded and replayed on ``gpu``."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu = gpu

    def capture_begin(self, pool: tuple[int, int] = (7, 0), **words: object) -> None:
        assert words["capture_error_mode"] == "thread_local"
        self.pool = pool
        self.gpu.allocating.add(pool)
        self.gpu.counts_for = self

    def capture_end(self) -> None:
        if self.gpu.broken:
            self.gpu.broken = False
            raise RuntimeError("operation failed due to a previous error during capture")
        self.gpu.allocating.remove(self.pool)
        self.gpu.counts_for = None
        self.gpu.recorded += [(self, self.gpu.stream)]

    def replay(self) -> None:
        self.gpu.replayed += 1

    def reset(self) -> None:
        """What it held is no matter here."""


class PretendedGpu:
    """What recording asks of ``torch.cuda``, without a GPU; ``torch.cuda.graph`` is torch's own.

    Streams are words. A recording in which ``broken`` was set ends in an error, as one does after
    an operation that it refuses; it leaves allocations and random numbers in its state then.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default, self.side = Word("default"), Word("side")
        self.stream: Word = self.default
        self.mode: Any = 0
        self.broken = False
        self.counts_for: PretendedGraph | None = None
        self.allocating: set[tuple[int, int]] = set()
        self.recorded: list[object] = []  # a graph each, and the stream
        self.replayed = 0
        for name, stand_in in self._stand_ins().items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self._end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *_: None, raising=False)

    def _stand_ins(self) -> dict[str, Any]:
        return {
            "current_stream": lambda *_: self.stream,
            "set_stream": lambda stream: setattr(self, "stream", stream),
            "default_stream": lambda *_: self.default,
            "current_device": lambda: 0,
            "Stream": lambda: self.side,
            "stream": lambda stream: OnStream(self, stream),
            "CUDAGraph": lambda: PretendedGraph(self),
            "graph_pool_handle": lambda: (0, 5),
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": self._set_mode,
        }

    def _set_mode(self, mode: Any) -> None:
        self.mode = {"warn": 1}.get(mode, mode)

    def _end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.allocating:
            raise RuntimeError("not currently recording")
        self.allocating.remove(pool)

    @property
    def records(self) -> bool:
        """Whether something is being recorded."""
        return bool(self.allocating)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    return PretendedGpu(monkeypatch)


BATCHES = [{"image": torch.tensor([i])} for i in range(WARM_UP_TURNS + 3)]


def play_all(captured: CapturedTurn, turn: Turn) -> list[Batch]:
    """What the turns carry, each on one of :data:`BATCHES`."""
    return [captured.play(turn, batch) for batch in BATCHES]


def test_a_turn_is_recorded_after_the_warm_up_and_replayed(gpu: PretendedGpu) -> None:
    played: list[Batch] = []

    def turn(batch: Batch) -> Batch:
        played.append(batch)
        assert gpu.stream == "side"
        return {"twice": 2 * batch["image"]}

    captured = CapturedTurn(print)
    carried = play_all(captured, turn)
    assert played[:-1] == BATCHES[:WARM_UP_TURNS]
    assert played[-1]["image"].item() == BATCHES[-1]["image"].item()  # copied to, before a replay
    assert gpu.replayed == 3
    assert [c["twice"].item() for c in carried[: WARM_UP_TURNS + 1]] == [
        2 * i for i in range(WARM_UP_TURNS + 1)
    ]
    assert (gpu.stream, gpu.allocating, gpu.mode) == ("default", set(), 0)


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "ended"])
def test_a_turn_that_cannot_be_recorded_is_played_and_told_once(
    gpu: PretendedGpu, broken: bool
) -> None:
    """Whether torch refuses before anything breaks, or its end of the recording fails too."""
    played: list[Batch] = []
    told: list[str] = []

    def turn(batch: Batch) -> Batch:
        if gpu.records:
            gpu.broken = broken
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        assert gpu.counts_for is None, "random numbers are taken for a graph's"
        played.append(batch)
        return batch

    captured = CapturedTurn(told.append)
    assert play_all(captured, turn) == BATCHES
    assert played == BATCHES
    assert told == ["operation not permitted when stream is capturing"]
    assert (gpu.stream, gpu.allocating, gpu.replayed) == ("default", set(), 0)


def test_another_error_while_recording_is_the_callers_on_the_stream_of_before(
    gpu: PretendedGpu,
) -> None:
    def turn(batch: Batch) -> Batch:
        return {"asked for": batch["missing"]} if gpu.records else batch

    captured = CapturedTurn(print)
    with pytest.raises(KeyError, match="missing"):
        play_all(captured, turn)
    assert gpu.stream == "default"


def test_a_turn_that_waits_for_the_device_is_not_tried(gpu: PretendedGpu) -> None:
    told: list[str] = []

    def turn(batch: Batch) -> Batch:
        assert not gpu.records
        if gpu.mode == 1:
            warnings.warn("something else", stacklevel=1)
            warnings.warn("called a synchronizing CUDA operation (Triggered...)", stacklevel=1)
        return batch

    captured = CapturedTurn(told.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert play_all(captured, turn) == BATCHES
    (reason,) = told
    assert reason.startswith("it waits for the device in test_capture.py:")
    assert gpu.mode == 0


def test_an_error_in_the_watched_turn_ends_the_watch(gpu: PretendedGpu) -> None:
    def turn(batch: Batch) -> Batch:
        if gpu.mode == 1:
            raise RuntimeError("out of memory")
        return batch

    captured = CapturedTurn(print)
    with pytest.raises(RuntimeError, match="out of memory"):
        play_all(captured, turn)
    assert (gpu.stream, gpu.mode) == ("default", 0)


@pytest.mark.parametrize(
    ("present", "recorded"), [("default", "side"), ("the game's", "the game's")]
)
def test_a_game_with_a_stream_of_its_own_records_on_that(
    gpu: PretendedGpu, present: str, recorded: str
) -> None:
    gpu.stream = type(gpu.side)(present)
    captured = CapturedTurn(print)
    play_all(captured, lambda batch: batch)
    assert [stream for _, stream in gpu.recorded] == [recorded]
    assert gpu.stream == present


# -- what is recorded and what a game holds --------------------------------------------------------


def stacked_game(engine: Engine, steps: int = 6) -> Game:
    """Of two stages, each of ``steps`` iterations."""
    data = pictures(40, size=8)
    variant = Stacked(steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        variant.build(data.spec)
    return Game(variant, data, data, batch_size=8, seed=3, world=World(), engine=engine)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_seats_of_a_stage_are_gone_when_the_next_one_begins(
    mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_on_tapes(monkeypatch)
    stacked_game(Engine(mode)).play(7)  # what torch imports at the first update keeps its frames
    gc.collect()
    gc.disable()  # nobody says when it comes, and until then memory is not free
    try:
        game = stacked_game(Engine(mode))
        game.play(6)
        old = [weakref.ref(x) for seat in game.seats for x in (seat, seat.optimizer)]
        if mode == "graph":
            old += [weakref.ref(seat._captured._graph) for seat in game.seats]
        at_first_seat: list[int] = []
        plain = Seat.__init__

        def counting(seat: Seat, *words: Any) -> None:
            at_first_seat.append(sum(one() is not None for one in old))
            plain(seat, *words)

        monkeypatch.setattr(Seat, "__init__", counting)
        game.play(1)
        assert game.stage.name == "II"
        assert [one() for one in old] == [None] * len(old)
        assert at_first_seat == [0, 0], "the old ones make room before there are new ones"
    finally:
        gc.enable()


def test_a_refusal_is_told_though_its_stage_has_ended() -> None:
    game = stacked_game(Engine())
    game.play(6)
    game.seats[1]._refusals.append("it waits for the device in losses.py:12")
    game.play(1)
    (note,) = game.take_notes()
    assert note.startswith("the generator's turn cannot be recorded as a CUDA graph (it waits")
    assert game.take_notes() == []


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_rates_of_recorded_turns_are_float32_as_adams_kernel_reads_them(kind: Any) -> None:
    weights = nn.Linear(2, 2).double()
    spec = OptimizerSpec(kind, 0.1, momentum=lambda _: 0.5)
    torch.set_default_dtype(torch.float64)
    try:
        optimizer = create_optimizer(spec, list(weights.parameters()), capturable=True)
    finally:
        torch.set_default_dtype(torch.float32)
    apply_schedule(optimizer, spec, 3, 3)
    (group,) = optimizer.param_groups
    held = [value for value in group.values() if isinstance(value, torch.Tensor)]
    assert [value.dtype for value in held] == [torch.float32] * (2 if kind == "sgd" else 1)


def test_a_game_that_is_loaded_after_its_turns_were_recorded_goes_on_as_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tapes = record_on_tapes(monkeypatch)
    saved = stacked_game(Engine(), 12)
    saved.play(4)
    shared, own = saved.state_dict(), saved.rank_state()
    fresh, played = (stacked_game(Engine("graph"), 12) for _ in range(2))
    played.play(9)
    assert len(tapes) == 2
    for game in (fresh, played):
        game.load_state_dict(shared)
        game.load_rank_state(own)
        game.play(7)
    assert len(tapes) == 6
    assert difference(fresh.state_dict(), played.state_dict()) == []
    assert difference(fresh.rank_state()["windows"], played.rank_state()["windows"]) == []
    assert fresh.take_diagnostics() == played.take_diagnostics()
    assert saved.seats[0].optimizer.state_dict()["state"][0]["step"].item() == 4, "its own"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{"optimizer": "sgd"}, {"optimizer": "adam", "r1": 0.1}])
def test_captured_turns_train_as_eager_ones(options: dict[str, object]) -> None:
    train, held_out = (load_examples("ring", None, split) for split in ("train", "validation"))
    games = []
    for engine in (Engine("eager"), Engine("graph")):
        variant = create("gan", train.spec, {**options, "hidden": 16, "maxout_units": 8, "k": 2})
        world = World.current("cuda")
        game = Game(variant, train, held_out, batch_size=64, world=world, engine=engine)
        game.play(40)
        games.append(game)
    for name, weights in games[0].variant.named_parameters():
        assert torch.allclose(weights, dict(games[1].variant.named_parameters())[name], atol=1e-4)
    assert games[0].take_diagnostics() == pytest.approx(games[1].take_diagnostics(), abs=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_turns_recorded_in_two_parts_under_nccl_train_as_eager_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train, held_out = (load_examples("ring", None, split) for split in ("train", "validation"))
    options = {"optimizer": "sgd", "hidden": 16, "maxout_units": 8, "k": 2}

    def played(engine: Engine) -> Game:
        variant = create("gan", train.spec, options)
        world = World.current("cuda")
        game = Game(variant, train, held_out, batch_size=64, world=world, engine=engine)
        game.play(40)
        return game

    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        eager = played(Engine("eager"))
        monkeypatch.setattr("gan_core.engine.seat.averages_apart", lambda *_: True)
        monkeypatch.setattr(World, "mean", lambda self, values: dist.all_reduce(values))
        recorded = played(Engine("graph"))
    finally:
        dist.destroy_process_group()
    for seat in recorded.seats:
        assert seat._captured is not None
        assert seat._captured_step is not None
        assert seat._captured._graph is not None
        assert seat._captured_step._graph is not None
    for name, weights in eager.variant.named_parameters():
        assert torch.allclose(weights, dict(recorded.variant.named_parameters())[name], atol=1e-4)


class Asking(Plain):
    """Dropout, and an objective that asks the device for a value from some turn on."""

    asks_from = 0
    played = 0

    def judges_loss(self, batch: Batch) -> Loss:
        self.played += 1
        loss = super().judges_loss({**batch, "point": F.dropout(batch["point"], 0.5)})
        if self.played > self.asks_from:
            assert loss.total.item() < 1e6
        return loss


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("asks_from", [0, WARM_UP_TURNS], ids=["always", "when recorded"])
def test_a_game_goes_on_after_a_turn_that_could_not_be_recorded(asks_from: int) -> None:
    data = vectors(point=(2,))
    variant = Asking(60)
    variant.asks_from = asks_from
    variant.build(data.spec)
    world = World.current("cuda")
    game = Game(variant, data, data, batch_size=8, world=world, engine=Engine("graph"))
    game.play(40)
    notes = game.take_notes()
    assert [note.split(" cannot")[0] for note in notes] == ["the discriminator's turn"]
    assert ("it waits for the device" if not asks_from else "capturing") in notes[0]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    F.dropout(torch.ones(9, device="cuda"))  # random numbers are nobody's but the caller's
    generator = next(seat for seat in game.seats if seat.player.name == "generator")
    assert generator._captured._graph is not None
    assert all(torch.isfinite(p).all() for p in variant.parameters())
