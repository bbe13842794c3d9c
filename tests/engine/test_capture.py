"""What a captured turn needs: optimisers that a graph can replay, and the same training."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn

from gan_core.data.examples import Batch
from gan_core.data.loading import load_examples
from gan_core.engine import capture
from gan_core.engine.capture import WARM_UP_TURNS, CapturedTurn
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.optimizers import apply_schedule, create_optimizer, load_optimizer_state
from gan_core.engine.world import World
from gan_core.variant import OptimizerSpec, create

SGD = OptimizerSpec("sgd", 0.1, rate=lambda u: 0.9**u, momentum=lambda u: 0.5 + 0.02 * u)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> None:
    generator = torch.Generator().manual_seed(updates)
    batch = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    apply_schedule(optimizer, SGD, updates)
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


def test_a_turn_that_cannot_be_recorded_is_played_and_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a GPU: what records, and the stream for the warm-up, are stand-ins."""
    played: list[Batch] = []
    told: list[str] = []

    def turn(batch: Batch) -> Batch:
        played.append(batch)
        return batch

    def fail(self: CapturedTurn, batch: Batch) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(capture, "_side_stream", lambda: None)
    monkeypatch.setattr(CapturedTurn, "_aside", lambda self, batch: self._turn(batch))
    monkeypatch.setattr(CapturedTurn, "_record", fail)
    captured = CapturedTurn(turn, told.append)
    batches = [{"image": torch.tensor([i])} for i in range(WARM_UP_TURNS + 3)]
    assert [captured(batch) for batch in batches] == batches
    assert played == batches
    assert told == ["operation not permitted when stream is capturing"]


@pytest.mark.parametrize(
    ("present", "recorded"), [("default", "new"), ("the game's", "the game's")]
)
def test_a_game_with_a_stream_of_its_own_records_on_that(
    monkeypatch: pytest.MonkeyPatch, present: str, recorded: str
) -> None:
    """Without a GPU: streams are words, what records is a stand-in."""
    asked: list[object] = []

    def graph(_: object, **words: object) -> object:
        asked.append(words)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: present)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda: "default")
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "new")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    CapturedTurn(lambda batch: batch, print)._record({})
    assert asked == [{"stream": recorded, "capture_error_mode": "thread_local"}]


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
