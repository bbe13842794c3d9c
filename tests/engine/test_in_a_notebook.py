"""What people do to games and runs from a notebook: interrupt, run again, look in between."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toys import Continued, pictures, toy_game

from gan_core.config import make_config
from gan_core.data.loading import load_examples
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.seat import Seat
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import FolderObserver
from gan_core.run import Run, play
from gan_core.variant import create

TINY = {"hidden": 4, "maxout_units": 2, "latent": 2}


def stacked_game() -> Game:
    """Of two stages of 6 iterations on views of their own, of which averages go on."""
    return toy_game(Continued(6), pictures(40, size=8))


def small_game(**values: Any) -> Game:
    train, held_out = (load_examples("ring", None, split) for split in ("train", "validation"))
    return Game(create("gan", train.spec, TINY), train, held_out, **{"batch_size": 8, **values})


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state.clone()]
    if isinstance(state, dict):
        return [t for value in state.values() for t in tensors(value)]
    if isinstance(state, (list, tuple)):
        return [t for value in state for t in tensors(value)]
    return []


def equal(first: Game, second: Game) -> bool:
    pairs = zip(tensors(first.state_dict()), tensors(second.state_dict()), strict=True)
    return first.examples_seen == second.examples_seen and all(a.equal(b) for a, b in pairs)


def interrupting(plain: Callable[..., Any]) -> Callable[..., Any]:
    """``plain``, of which the second call is interrupted as it begins."""
    calls = iter(range(10**6))

    def called(*words: Any, **named: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return plain(*words, **named)

    return called


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Seat, "__init__"), (Game, "_stream"), (Seat, "take_over"), (Game, "_on_device")],
)
def test_a_stage_that_is_interrupted_as_it_begins_is_played_as_if_it_was_not(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = stacked_game(), stacked_game()
    whole.play(20)
    broken.play(6)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupting(getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            broken.play(1)
    broken.play(20)
    assert (broken.step, broken.finished) == (whole.step, True)
    assert equal(whole, broken)
    seen = [tensors(game.held_out_examples()) for game in (whole, broken)]
    assert all(a.equal(b) for a, b in zip(*seen, strict=True))


def test_a_game_whose_networks_were_looked_at_in_evaluation_mode_is_trained_as_before() -> None:
    plain, looked_at = small_game(), small_game()
    for game in (plain, looked_at):
        torch.manual_seed(0)  # dropout
        game.play(2)
        if game is looked_at:
            game.variant.eval().requires_grad_(False)
        game.play(2)
    assert looked_at.variant.generator.training
    assert equal(plain, looked_at)


def test_a_copy_of_a_state_is_what_a_game_can_come_back_to() -> None:
    game = small_game()
    game.play(2)
    state, before = copy.deepcopy(game.state_dict()), tensors(game.state_dict())
    game.play(3)
    game.load_state_dict(state)
    assert game.step == 2
    assert all(a.equal(b) for a, b in zip(before, tensors(game.state_dict()), strict=True))
    with pytest.raises(UserError, match="no state of a game: it has no networks, players"):
        game.load_state_dict({})


def test_a_game_can_be_pickled() -> None:
    game = small_game()
    game.play(2)
    again = pickle.loads(pickle.dumps(game))  # dropout draws from torch's random state
    for one in (game, again):
        torch.manual_seed(0)
        one.play(2)
    assert equal(game, again)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"learning_rate": -1.0}, "learning rate is 0 or more"),
        ({"learning_rate": float("nan")}, "learning rate is 0 or more"),
        ({"betas": (0.5, 1.5)}, "betas are two numbers from 0 to below 1"),
        ({"momentum": 0.9}, "momentum of an OptimizerSpec is a function"),
        ({"lr": 1e-4}, "unknown field of OptimizerSpec 'lr'"),
        ({"kind": "sgd"}, "begin another game"),
    ],
)
def test_values_that_no_optimiser_can_have_are_refused(values: dict[str, Any], told: str) -> None:
    game = small_game()
    with pytest.raises(UserError, match=told):
        game.set_optimizer("generator", **values)
    game.play(1)


def test_who_and_what_there_is_not_is_refused() -> None:
    game = small_game()
    with pytest.raises(UserError, match="unknown player 'critic'"):
        game.set_turns("critic", 2)
    with pytest.raises(UserError, match=r"at least one turn, a whole number, not 2\.5"):
        game.set_turns("generator", 2.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least one example, not 0"):
        small_game(batch_size=0)
    with pytest.raises(UserError, match="unknown examples_on 'gpu'"):
        small_game(examples_on="gpu")
    with pytest.raises(UserError, match="unknown precision of an engine 'fp16'"):
        Engine(precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown mode of an engine 'bf16'"):
        Engine("bf16")  # type: ignore[arg-type]


def test_a_game_that_is_over_says_so() -> None:
    train, held_out = (load_examples("ring", None, split) for split in ("train", "validation"))
    game = Game(create("gan", train.spec, {**TINY, "steps": 2}), train, held_out, batch_size=8)
    game.play(100)
    game.play(100)  # nothing is left
    with pytest.raises(UserError, match="all 2 iterations of the game are played"):
        game.iterate()


# -- runs ----------------------------------------------------------------------------------------


def config_of(folder: Path, **values: Any) -> Any:
    return make_config({
        "variant": "gan", "data": "ring", "workers": 0, "device": "cpu", "storage": str(folder),
        "name": "run", "batch_size": 8, "steps": 20, "log_every": 5, "evaluate_every": 0,
        "checkpoint_every": 0, "extractor": "none", **TINY, **values,
    })  # fmt: skip


def played(config: Any, checkpoint: Path | None = None) -> dict[str, Any]:
    return play(config, World(), FolderObserver(config.folder, World()), checkpoint)


def test_a_run_is_not_played_into_another_one(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    played(config)
    with pytest.raises(UserError, match=r"run holds a run already: give another name, or go on"):
        played(config_of(tmp_path, seed=3))
    longer = config_of(tmp_path, steps=30)
    assert played(longer, find_checkpoint(longer.folder))["step"] == 30


def test_a_run_that_goes_on_with_other_networks_or_data_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    played(config)
    before = (config.folder / "config.yaml").read_text()
    for changed in ({"seed": 5}, {"latent": 3}):
        other = config_of(tmp_path, steps=40, **changed)
        with pytest.raises(UserError, match=r"cannot resume|other options"):
            played(other, find_checkpoint(other.folder))
    assert (config.folder / "config.yaml").read_text() == before
    elsewhere = config_of(tmp_path, name="other", seed=5, steps=30)
    assert played(elsewhere, find_checkpoint(config.folder))["step"] == 30  # another's: as told


def test_an_interrupted_run_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, plain = config_of(tmp_path), Game.iterate

    def iterate(game: Game) -> None:
        if game.step == 7:
            raise KeyboardInterrupt
        plain(game)

    with monkeypatch.context() as patch:
        patch.setattr(Game, "iterate", iterate)
        with pytest.raises(KeyboardInterrupt):
            played(config)
    found = find_checkpoint(config.folder)
    assert found is not None
    assert found.name == "step_00000007"
    whole = config_of(tmp_path, name="whole")
    run = Run(whole, World(), FolderObserver(whole.folder, World()))
    run.play()
    again = Run(config, World(), FolderObserver(config.folder, World()))
    again.play(found)
    assert equal(run.game, again.game)


def test_a_run_leaves_torch_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(99)
    wanted = torch.rand(1)
    torch.manual_seed(99)
    cudnn = torch.backends.cudnn
    before = (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic)
    cudnn.deterministic = False
    try:
        played(config_of(tmp_path))
        assert not cudnn.deterministic
    finally:
        cudnn.deterministic = before[2]
    assert torch.rand(1).equal(wanted)
    assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == before[:2]
