"""Batches are a function of (seed, position): any slice, any place, any number drawn ahead."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from engine_toys import difference, pictures
from torch import Tensor

from gan_core.data.examples import Batch
from gan_core.data.views import View
from gan_core.engine import batches
from gan_core.engine.batches import BatchStream, ShuffledOrder
from gan_core.engine.world import World
from gan_core.priors import Gaussian, Integers, TruncatedGaussian, Uniform, draw
from gan_core.randomness import stream_key
from gan_core.variant import NoiseSpec

COUNT = 23
NOISE = (NoiseSpec("latent", (3,), Gaussian()), NoiseSpec("pick", (), Integers(5)))
STORED = {"image": torch.arange(COUNT)[:, None], "label": torch.arange(COUNT) * 10}


def stream(batch_size: int = 6, world: World | None = None, **values: object) -> BatchStream:
    settings = {"seed": 4, "names": ("stage", "player"), "reads": ("image", "label")} | values
    reads = settings.pop("reads")
    return BatchStream(
        STORED,
        View(),
        reads,  # type: ignore[arg-type]
        NOISE,
        batch_size=batch_size,
        world=world or World(),
        **settings,  # type: ignore[arg-type]
    )


def examples(found: list[Batch]) -> Tensor:
    return torch.cat([batch["image"][:, 0] for batch in found])


@pytest.mark.parametrize("batch_size", [1, 6, 23, 60])
def test_every_pass_shows_each_example_once_in_another_order(batch_size: int) -> None:
    drawn = stream(batch_size)
    seen = examples([drawn.next() for _ in range(4 * COUNT // batch_size + 1)])[: 3 * COUNT]
    passes = seen.split(COUNT)
    assert all(sorted(one.tolist()) == list(range(COUNT)) for one in passes)
    assert len({tuple(one.tolist()) for one in passes}) == len(passes)


def test_the_order_is_the_one_of_earlier_versions() -> None:
    """A run that goes on needs the same: torch's permutation by the lower 63 bits of a key."""
    order = ShuffledOrder(COUNT, 3, "stage", "player")
    passes = []
    for number in range(3):
        key = stream_key(3, "stage", "player", "order", str(number)) % 2**63
        generator = torch.Generator().manual_seed(key)
        passes.append(torch.randperm(COUNT, generator=generator))
    assert torch.equal(order.examples(torch.arange(3 * COUNT)), torch.cat(passes))


def test_tensors_of_an_example_stay_together() -> None:
    for batch in (stream().next(), stream(50).next()):
        assert torch.equal(batch["label"], batch["image"][:, 0] * 10)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_slices_of_the_ranks_tile_the_global_batch(size: int) -> None:
    alone = stream()
    ranks = [stream(world=World(rank, size)) for rank in range(size)]
    for _ in range(9):
        whole, parts = alone.next(), [rank.next() for rank in ranks]
        together = {name: torch.cat([part[name] for part in parts]) for name in whole}
        assert difference(together, whole) == []
    assert {rank.position for rank in ranks} == {alone.position}


@pytest.mark.parametrize("ahead", [1, 4, 64])
def test_a_stream_set_anywhere_goes_on_as_one_that_played_there(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = [None] * 12
    reference = stream()
    played = [reference.next() for _ in range(12)]
    monkeypatch.setattr(batches, "_TURNS_AHEAD", ahead)
    moved = stream()
    for turn in (0, 5, 6, 2, 11, 3, 4, 5, 0, 8):
        moved.position = 6 * turn
        assert difference(moved.next(), played[turn]) == []
        assert moved.position == 6 * (turn + 1)


PLANES = (
    NoiseSpec("plane", (3, 5, 7), Gaussian()),
    NoiseSpec("bounded", (9,), TruncatedGaussian(1.5)),
    NoiseSpec("place", (2, 2), Uniform(0.0, 1.0)),
    NoiseSpec("turn", (), Integers(8)),
)


def noise_stream(world: World) -> BatchStream:
    return BatchStream({}, View(), (), PLANES, batch_size=6, seed=4, names=("one",), world=world)


@pytest.mark.parametrize("most", [1, 3_000, 10_000, 1 << 20, 1 << 23])
def test_large_noise_is_the_same_however_many_turns_of_it_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(batches, "_VALUES_AHEAD", {"cpu": most})
    drawn = noise_stream(World())
    per_turn = 6 * (3 * 5 * 7 + 9 + 4 + 1 + 1)
    assert drawn._turns == max(1, min(64, most // per_turn))
    for turn in range(70):
        batch, index = drawn.next(), torch.arange(6 * turn, 6 * turn + 6)
        for spec in PLANES:
            alone = draw(spec.prior, stream_key(4, "one", spec.name), index, spec.shape)
            assert torch.equal(batch[spec.name], alone)


def test_a_gpu_draws_more_turns_of_large_noise_at_once() -> None:
    wide = (NoiseSpec("plane", (3, 64, 64), Gaussian()),)
    turns = {
        device: BatchStream(
            {}, View(), (), wide, batch_size=64, seed=4, names=("one",),
            world=World(device=torch.device(device)),
        )._turns
        for device in ("cpu", "cuda", "meta")
    }  # fmt: skip
    assert turns == {"cpu": 1, "cuda": 10, "meta": 1}


def test_a_position_between_batches_shows_the_samples_that_follow_it() -> None:
    whole = stream(60).next()
    moved = stream(6)
    moved.next()
    moved.position = 20  # across the first pass's end, and within what was drawn ahead
    assert difference(moved.next(), {name: v[20:26] for name, v in whole.items()}) == []


def test_another_batch_size_sees_the_same_samples() -> None:
    small, large = stream(6), stream(24)
    parts = [small.next() for _ in range(8)]
    wholes = [large.next() for _ in range(2)]
    for name in parts[0]:
        assert torch.equal(
            torch.cat([b[name] for b in parts]), torch.cat([b[name] for b in wholes])
        )


def test_noise_is_what_its_prior_draws_for_the_sample_number() -> None:
    drawn = stream(world=World(1, 2))
    for turn in range(3):
        batch = drawn.next()
        index = torch.arange(6 * turn + 3, 6 * turn + 6)
        for spec in NOISE:
            key = stream_key(4, "stage", "player", spec.name)
            assert torch.equal(batch[spec.name], draw(spec.prior, key, index, spec.shape))


def test_players_and_seeds_have_streams_of_their_own() -> None:
    first = stream().next()
    for other in (stream(names=("stage", "other")), stream(seed=5)):
        batch = other.next()
        assert not torch.equal(batch["image"], first["image"])
        assert not torch.equal(batch["latent"], first["latent"])


def test_only_what_is_read_is_drawn_and_pixels_come_as_floats() -> None:
    assert set(stream(reads=()).next()) == {"latent", "pick"}
    stored = dict(pictures(10).tensors)
    drawn = BatchStream(
        stored, View(), ("image",), (), batch_size=5, seed=0, names=("a",), world=World()
    )
    batch = drawn.next()
    assert set(batch) == {"image"}
    place = ShuffledOrder(10, 0, "a").examples(torch.arange(5))
    assert torch.equal(batch["image"], stored["image"][place].float() / 127.5 - 1)


def test_examples_of_one_batch_may_come_from_many_passes() -> None:
    order = ShuffledOrder(3, 0, "x")
    found = order.examples(torch.arange(30)).tolist()
    assert Counter(found) == dict.fromkeys(range(3), 10)
    again = ShuffledOrder(3, 0, "x")
    assert [again.examples(torch.tensor([i])).item() for i in reversed(range(30))] == found[::-1]


def test_series_have_lengths_and_orders_of_their_own() -> None:
    stored = {
        "a": torch.arange(7)[:, None],
        "a_name": torch.arange(7) * 10,
        "b": torch.arange(5)[:, None],
    }
    drawn = BatchStream(
        stored,
        View(),
        ("a", "a_name", "b"),
        (),
        batch_size=3,
        seed=4,
        names=("stage",),
        world=World(),
        series={"b": "second"},
    )
    found = [drawn.next() for _ in range(35)]
    a, b, names = (torch.cat([batch[n].flatten() for batch in found]) for n in ("a", "b", "a_name"))
    assert torch.equal(names, a * 10)
    assert all(sorted(one.tolist()) == list(range(7)) for one in a.split(7))
    assert all(sorted(one.tolist()) == list(range(5)) for one in b.split(5))
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) > 20  # no fixed pairs
