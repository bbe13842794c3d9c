"""Every ingredient of the systems can be recorded in a CUDA graph, and lives on when replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tapes import WARM_UP_TURNS, record_on_tapes
from test_engine_modes import game
from test_every_variant import every_row
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gan_core.data.examples import Batch, DataSpec
from gan_core.data.loading import load_examples
from gan_core.engine import capture
from gan_core.engine.capture import CapturedTurn, Turn
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.variant import create

SMALL = {"width_g": 8, "width_d": 8, "image_size": 16}
AUGMENTED = {"diffaug": "color,translation,cutout,flip"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sngan", SMALL | AUGMENTED | {"conditional": True, "k": 2}),
        ("sngan", SMALL | {"architecture": "cnn", "r1": 0.1}),
        ("sagan", SMALL | {"gradient_penalty": 1.0}),
        ("biggan", SMALL | {"k": 1}),
        ("acgan", SMALL | AUGMENTED),
    ],
)
def test_a_replayed_turn_moves_weights_and_spectral_vectors(
    name: str, options: dict[str, Any]
) -> None:
    train, held_out = (load_examples("digits", None, split) for split in ("train", "validation"))
    variant = create(name, train.spec, options)
    world = World.current("cuda")
    game = Game(variant, train, held_out, batch_size=32, world=world, engine=Engine("graph"))
    game.play(14)  # warmed up and recorded
    before = {n: t.clone() for n, t in variant.state_dict().items()}
    game.play(2)
    after = variant.state_dict()
    moving = {n for n, t in variant.named_parameters()} | {n for n in after if n.endswith(".u")}
    still = [n for n in moving if torch.equal(before[n], after[n]) and before[n].numel() > 1]
    assert [n for n in still if not n.endswith("bias")] == []  # biases before a normalisation
    assert all(torch.isfinite(t).all() for t in after.values() if t.is_floating_point())


# -- without a GPU: what a recording refuses -------------------------------------------------------

ASKS_THE_DEVICE = {
    "_local_scalar_dense",  # .item(), float(), if
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "bincount",
    "repeat_interleave",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "randperm",
    "multinomial",
}
FROM_THE_HOST = {"lift_fresh", "lift_fresh_copy"}  # torch.tensor([...]), new_tensor([...])
FACTORISES = ("linalg", "cholesky", "svd", "geqrf", "orgqr", "ormqr")
HARMLESS = {"linalg_vector_norm", "linalg_cross"}
BY_MASK = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}


class Recording(TorchDispatchMode):
    """Refuses on the CPU what a CUDA graph cannot hold, with a ``RuntimeError`` as there.

    ``held`` are the tensors that lie on the device; any other that was not made while recording
    would have to be copied there.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = list(held)  # kept, so that no other gets the place of one of them
        self._places = {self._place(tensor) for tensor in self._known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.split("::")[1]
        given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        self._check(name, args, given)
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._known.append(tensor)
                self._places.add(self._place(tensor))
        return found

    @staticmethod
    def _place(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _check(self, name: str, args: Any, given: list[Tensor]) -> None:
        factorises = any(word in name for word in FACTORISES) and name not in HARMLESS
        masked = name in BY_MASK and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in ASKS_THE_DEVICE | FROM_THE_HOST or factorises or masked:
            raise RuntimeError(f"not permitted when a stream is recorded: {name}")
        if any(self._place(tensor) not in self._places for tensor in given):
            raise RuntimeError(f"not permitted when a stream is recorded: {name} of a host tensor")


@contextlib.contextmanager
def recorded(held: Iterable[Tensor]) -> Iterator[None]:
    """Play so; what is made without a word about the device is not made on the game's."""
    with Recording(held), torch.device("meta"):
        yield


HOST = torch.ones(3, 3)
REFUSED: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "if": lambda x: bool(x.sum() > 0),
    "mask": lambda x: x[x > 0],
    "set by mask": lambda x: x.clone().index_put_((x > 0,), x.sum()),
    "nonzero": torch.nonzero,
    "tensor": lambda x: x * torch.tensor(2.0, device=x.device),
    "new tensor": lambda x: x * x.new_tensor([1.0, 2.0, 3.0]),
    "host": lambda x: x * HOST,
    "made on the host": lambda x: x * torch.ones(3),
    "randperm": lambda x: torch.randperm(3, device=x.device),
    "multinomial": lambda x: torch.multinomial(x.abs() + 1, 1),
    "svd": lambda x: torch.linalg.matrix_norm(x, 2),
    "eigenvalues": torch.linalg.eigvalsh,
    "inverse": torch.inverse,
    "unique": lambda x: x.unique(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_graph_cannot_hold_is_refused(what: str) -> None:
    given = torch.eye(3) + 0.1
    REFUSED[what](given)  # which is well played otherwise
    with pytest.raises(RuntimeError, match=r"recorded|device meta"), recorded([given]):
        REFUSED[what](given)


def test_what_a_graph_can_hold_is_not_refused() -> None:
    given = torch.eye(3) + 0.1
    with recorded([given]):
        made = given @ given.new_ones(3, 1) * 2.0 + torch.rand_like(given)
        F.dropout(torch.where(made > 0, made, made.exp()), 0.5).norm()
        made[:, torch.arange(2, device=given.device)].argmax(1)


def held(played: Game) -> list[Tensor]:
    """What lies on the device between turns: examples, networks, optimisers, sums."""
    found: list[Any] = [played._stored, *played.variant.parameters(), *played.variant.buffers()]
    for one in played.seats:
        found += [one.optimizer.state_dict(), *one.optimizer.param_groups, one._sums]
    return [tensor for tensor in tree_leaves(found) if isinstance(tensor, Tensor)]


WARM_UP = 2
"""Turns before the one that is watched: optimisers and sums are made in the first."""


def one_hot(label: Tensor, classes: int) -> Tensor:
    """As torch's, which on a CPU alone asks the labels whether they are below ``classes``."""
    return (label[:, None] == torch.arange(classes, device=label.device)).long()


def short_game(name: str, options: dict[str, Any], data: DataSpec, steps: int) -> Game:
    """A game of a row whose stages, those that are played at all, have so many iterations."""
    own = create(name, data, options).options
    lengths = {length: steps for length in own.stage_lengths if getattr(own, length)}
    return game(name, {**options, **lengths}, data, Engine("graph"))


@every_row
def test_no_turn_does_what_a_graph_cannot_hold(
    name: str, options: dict[str, Any], data: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: dict[CapturedTurn, int] = {}  # of each seat of each stage

    def play(self: CapturedTurn, turn: Turn, batch: Batch) -> Batch:
        turns[self] = turns.get(self, 0) + 1
        if turns[self] != WARM_UP + 1:
            return turn(batch)
        with recorded([*held(played), *batch.values()]):
            return turn(batch)

    record_on_tapes(monkeypatch)
    monkeypatch.setattr(CapturedTurn, "play", play)
    monkeypatch.setattr(F, "one_hot", one_hot)
    played = short_game(name, options, data, WARM_UP + 1)
    played.play(played.steps)
    assert played.finished
    assert len(turns) == sum(len(stage.players) for stage in played.stages)
    assert min(turns.values()) > WARM_UP


@every_row
def test_turns_that_are_replayed_train_as_those_that_are_played(
    name: str, options: dict[str, Any], data: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a turn reads is where another turn does not find it."""
    tapes = record_on_tapes(monkeypatch)
    replayed = short_game(name, options, data, WARM_UP_TURNS + 2)
    replayed.play(replayed.steps)
    assert len(tapes) == sum(len(stage.players) for stage in replayed.stages)
    monkeypatch.setattr(capture, "WARM_UP_TURNS", 1_000)
    played = short_game(name, options, data, WARM_UP_TURNS + 2)
    played.play(played.steps)
    torch.testing.assert_close(
        replayed.variant.state_dict(), played.variant.state_dict(), rtol=0, atol=0
    )
    assert replayed.take_diagnostics() == played.take_diagnostics()
