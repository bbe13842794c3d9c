"""Examples on the host: the same batches, whatever is gathered ahead."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pretended_cuda import pretended_cuda

from gan_core.data.loading import load_examples
from gan_core.engine.game import Game
from gan_core.engine.hosted import TURNS_AHEAD, HostedRows, _largest, belongs_on_host
from gan_core.engine.world import World
from gan_core.variant import create

STORED = {"image": torch.arange(40)[:, None], "label": torch.arange(40) * 10}


class Places:
    """Rows of a turn, and which turns were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, position: int) -> dict[str, torch.Tensor]:
        self.asked.append(position)
        rows = (position + torch.arange(4)) % 40
        return {"image": rows, "label": rows.flip(0)}


def test_rows_are_those_of_the_position_wherever_it_moves() -> None:
    rows = HostedRows(STORED, Places(), 4, torch.device("cpu"))
    for position in (0, 4, 8, 20, 24, 0, 3, 7):
        batch = rows.at(position)
        wanted = (position + torch.arange(4)) % 40
        assert torch.equal(batch["image"], wanted[:, None])
        assert torch.equal(batch["label"], wanted.flip(0) * 10)


def test_following_turns_are_gathered_ahead_and_once() -> None:
    places = Places()
    rows = HostedRows(STORED, places, 4, torch.device("cpu"))
    for turn in range(5):
        rows.at(4 * turn)
    rows._thread.shutdown(wait=True)
    assert places.asked == [4 * turn for turn in range(5 + TURNS_AHEAD)]


def test_an_error_of_the_gathering_thread_reaches_the_turn() -> None:
    def nowhere(position: int) -> dict[str, torch.Tensor]:
        return {"image": torch.tensor([99]), "label": torch.tensor([0])}

    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        HostedRows(STORED, nowhere, 1, torch.device("cpu")).at(0)


def test_the_largest_tensors_stay_on_the_host_until_the_rest_fits() -> None:
    sizes = {"image": torch.zeros(100), "depth": torch.zeros(50), "label": torch.zeros(2)}
    assert _largest(sizes, 4 * 152) == frozenset()
    assert _largest(sizes, 4 * 151) == {"image"}
    assert _largest(sizes, 4 * 52) == {"image"}
    assert _largest(sizes, 4 * 51) == {"image", "depth"}
    assert belongs_on_host(sizes, torch.device("cpu")) == frozenset()


def game(examples_on: str, world: World | None = None, **options: Any) -> Game:
    train, held_out = (load_examples("digits", None, s) for s in ("train", "validation"))
    small = {"hidden": 8, "hidden_latent": 4, "hidden_label": 4, "maxout_units": 4, "latent": 3}
    variant = create("cgan", train.spec, small | options)
    return Game(
        variant, train, held_out, batch_size=96, world=world or World(), examples_on=examples_on
    )


def test_a_game_on_the_host_is_the_game_on_the_device() -> None:
    near, far = game("device"), game("host")
    assert (near.hosted, far.hosted) == (frozenset(), {"image", "label"})
    for played in (near, far):
        torch.manual_seed(0)  # dropout
        played.play(20)  # more than a pass
    state = copy.deepcopy(far.state_dict())
    assert all(
        torch.equal(w, state["networks"][n]) for n, w in near.state_dict()["networks"].items()
    )
    for held_out in (False, True):
        one, other = (g.examples_for_judgement(10, held_out) for g in (near, far))
        assert all(torch.equal(one[name], other[name]) for name in one)
    resumed = game("host")
    resumed.load_state_dict(state)
    for played in (near, resumed):
        torch.manual_seed(1)
        played.play(3)
    found = dict(resumed.variant.named_parameters())
    assert all(torch.equal(w, found[n]) for n, w in near.variant.named_parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a device that is none")
def test_batches_of_the_host_reach_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    near = game("device")
    torch.manual_seed(0)  # dropout
    near.play(5)
    with pretended_cuda(monkeypatch) as device:
        far = game("host", World(device=device))
        torch.manual_seed(0)
        far.play(5)
        found = {name: weight.cpu() for name, weight in far.variant.named_parameters()}
    assert far.hosted == {"image", "label"}
    assert all(torch.equal(w, found[n]) for n, w in near.variant.named_parameters())
