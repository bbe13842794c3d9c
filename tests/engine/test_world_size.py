"""The number of workers changes nothing but speed. One start of two processes serves all tests."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import engine_toys
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from engine_toys import (
    Crash,
    CrashingObserver,
    Cycle,
    Matching,
    Plain,
    StoppingObserver,
    copies,
    difference,
    saved,
    tiny_config,
    tiny_game,
    toy_game,
    vectors,
)
from tapes import record_on_tapes
from test_best_state import run_of
from torch import Tensor, nn

from gan_core.config import RunConfig
from gan_core.data.mixtures import MIXTURES
from gan_core.diagnostics import signals
from gan_core.engine.checkpoint import all_bests, find_checkpoint
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.metrics.evaluation import Evaluator
from gan_core.metrics.features import Extractor
from gan_core.observers import FolderObserver
from gan_core.run import Run, play

WHOLE = {"dropout_g": 0.0, "dropout_d": 0.0}
# Plain descent: Adam makes a step of rounding where a critic's gradient is exactly zero.
PENALISED = {
    **{"loss": "wasserstein", "r1": 0.5, "k": 2},
    **{"optimizer": "sgd", "lr_d": 0.01, "lr_g": 0.01},
}

GAMES: dict[str, Callable[[World], Game]] = {
    "points": lambda world: tiny_game(
        "gan", {"k": 3, "ema": 0.9}, world=world, examples=vectors(90, point=(2,))
    ),
    "classes": lambda world: tiny_game("cgan", {"k": 3, "lr_d": 0.1, **WHOLE}, world=world),
    "penalties": lambda world: tiny_game(
        "gan", PENALISED, world=world, examples=vectors(90, point=(2,))
    ),
    "groups": lambda world: tiny_game(
        "gan",
        PENALISED | {"minibatch_stddev": 3, "packing": 2, "r2": 0.5, "batch_scale_g": 2},
        world=world,
        examples=vectors(90, point=(2,)),
    ),
    "penalties of some": lambda world: tiny_game(
        "gan",
        PENALISED | {"r2": 0.5, "penalty_stride": 3, "minibatch_stddev": 2, "packing": 2},
        batch_size=24,
        world=world,
        examples=vectors(90, point=(2,)),
    ),
    "four networks": lambda world: toy_game(
        Cycle(4), vectors(a=(2,), b=(2,)), batch_size=12, world=world
    ),
    "means over all workers": lambda world: toy_game(
        Matching(4), vectors(point=(2,)), batch_size=12, world=world
    ),
    "parts": lambda world: toy_game(
        Plain(4, generator={"accumulate": 3, "batch_scale": 2}),
        vectors(point=(2,)),
        batch_size=12,
        world=world,
    ),
}
CRITICS = ("penalties", "groups", "penalties of some")
"""The games whose discriminator's values have no zero."""
RECORDED = ("points", "classes", "penalties", "four networks", "parts")
"""The games that are played as recorded turns too."""
RESUMED = ("gan", "dcgan", "cgan", "sngan")


class Projection(Extractor):
    """A fixed linear map of pictures to 6 features."""

    name = "inception"

    def __init__(self) -> None:
        network = nn.Linear(64, 6, bias=False)
        network.weight.data = torch.linspace(-1, 1, 384).sin().reshape(6, 64)
        super().__init__(network, {"weights": "fixed"}, torch.device("cpu"))

    @classmethod
    def create(cls, setup: Any) -> Projection:
        return cls()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.network(images.flatten(1))
        return features, features * 3


def figures(game: Game, world: World) -> dict[str, float]:
    """Figures of the game's sampler: of points by the ring's modes, of pictures by a projection."""
    of_points = len(game.train.spec.target_shape) == 1
    evaluator = Evaluator(
        reference=game.train,
        extractors=[] if of_points else [Projection()],
        samples=50,
        world=world,
        batch_size=16,
        mixture=MIXTURES["ring"] if of_points else None,
    )
    sampler, target = game.sampler(), game.train.spec.target
    return evaluator(lambda index: sampler(index)[target]).figures


def played(name: str, world: World) -> dict[str, Any]:
    """All that is to agree between world sizes after 4 iterations of a game."""
    game = GAMES[name](world)
    game.play(2)
    diagnostics = [game.take_diagnostics()]
    game.play(2)
    measures = name in ("points", "classes", "penalties")
    diagnostics.append(signals.measure(game) if measures else game.take_diagnostics())
    return {
        "networks": copies(game.variant.state_dict()),
        "averages": [a.state_dict() for seat in game.seats for a in seat.averages.values()],
        "diagnostics": diagnostics,
        "figures": figures(game, world) if measures else {},
        "seen": game.examples_seen,
    }


def resumed_run(variant: str, folder: Path, world: World) -> list[str]:
    """How a run that crashed, went on, was stopped and went on differs from one in one go."""
    options = {"ema": 0.9} if variant == "dcgan" else {}
    config = tiny_config(folder / f"{variant}-whole", variant, **options)
    play(config, world, FolderObserver(config.folder, world))
    torch.manual_seed(world.rank + 50)  # what another process would not have
    config = tiny_config(folder / f"{variant}-parts", variant, **options)
    with contextlib.suppress(Crash):
        play(config, world, CrashingObserver(config.folder, world, crash_at=6))
    world.barrier()
    torch.manual_seed(world.rank + 60)
    first = world.broadcast_object(find_checkpoint(config.folder))
    observer = StoppingObserver(config.folder, world, stop_at=9)
    summary = play(config, world, observer, first)
    assert summary["status"] == "stopped"
    if world.leads:
        (config.folder / "STOP").unlink()
    world.barrier()
    torch.manual_seed(world.rank + 70)
    second = world.broadcast_object(find_checkpoint(config.folder))
    assert (first.name, second.name) == ("step_00000004", "step_00000009")
    play(config, world, FolderObserver(config.folder, world), second)
    ends = [
        saved(folder / f"{variant}-{kind}" / "checkpoints" / "step_00000012", world.size)
        for kind in ("whole", "parts")
    ]
    return difference(*ends)


def best_and_begun(folder: Path, world: World) -> list[str]:
    """How the best state of two workers is not that of a run that keeps none, at its end; and a
    run that begins from it not as it should.
    """
    whole = folder / "dcgan-whole" / "checkpoints" / "step_00000012"
    config = tiny_config(folder / "best", "dcgan", ema=0.9)
    run = run_of(config, {6: 50.0, 12: 30.0}, FolderObserver(config.folder, world), world)
    run.play()
    (best,) = all_bests(config.folder)
    there, kept, last = (
        saved(found, world.size)
        for found in (whole, best, config.folder / "checkpoints" / "step_00000012")
    )
    told = difference(kept, last)
    for state in (there, kept):
        state["state"] = state["state"]["game"]
    told += difference(there, kept)
    after = tiny_config(folder / "begun", "dcgan", ema=0.9, begin_from=str(config.folder), steps=2)
    play(after, world, FolderObserver(after.folder, world))
    begun = saved(after.folder / "checkpoints" / "step_00000000", world.size)
    told += difference(kept["state"]["networks"], begun["state"]["game"]["networks"])
    own = f"rank_{world.rank}"
    return told + difference(kept["rank_0"]["buffers"], begun[own]["buffers"])


def failing_run(config: RunConfig, failing: int | None, world: World) -> Run:
    """A run whose evaluation fails on every rank after iteration ``failing``."""
    run = Run(config, world, FolderObserver(config.folder, world))
    evaluate = run._evaluate

    def judge() -> Any:
        return evaluate() if run.game.step != failing else 1 / 0

    run._evaluate = judge  # type: ignore[method-assign]
    return run


def failed_and_resumed(folder: Path, world: World) -> list[str]:
    """How a run whose evaluation failed, and that went on, differs from one in one go."""
    options = {"data": "ring", "extractor": "auto", "checkpoint_every": 0}
    whole = tiny_config(folder / "judged", "gan", **options)
    failing_run(whole, None, world).play()
    broken = tiny_config(folder / "failed", "gan", **options)
    with contextlib.suppress(ZeroDivisionError):
        failing_run(broken, 6, world).play()
    world.barrier()
    kept = broken.folder / "checkpoints" / "step_00000006"
    play(broken, world, FolderObserver(broken.folder, world), kept)
    ends = [c.folder / "checkpoints" / "step_00000012" for c in (whole, broken)]
    return difference(*(saved(end, world.size) for end in ends))


def meeting(world: World) -> list[bool]:
    """Whether both ranks have met: with each other, and where the other does not come."""
    together = world.meets(30)
    return [together, world.meets(0.5) if world.leads else False]


def normalised(world: World) -> dict[str, Any]:
    """What a rank samples where each keeps batch statistics of its own."""
    game = tiny_game("dcgan", {"ema": 0.9}, world=world)
    game.play(2)
    index = torch.arange(10)
    return {
        "own": copies(dict(game.variant.generator.named_buffers())),  # type: ignore[union-attr]
        "live": game.sampler(averaged=False)(index)["image"],
        "averaged": game.sampler()(index)["image"],
    }


def refused(folder: Path, world: World) -> str:
    """What a rank says to a checkpoint of other networks."""
    config = tiny_config(folder / "gan-whole", "gan", hidden=17)
    checkpoint = config.folder / "checkpoints" / "step_00000012"
    try:
        play(config, world, FolderObserver(folder / f"refused-{world.rank}", world), checkpoint)
    except UserError as error:
        return str(error)
    return ""


def recorded(world: World) -> dict[str, Any]:
    """What the games of turns that are recorded and replayed have come to."""
    with pytest.MonkeyPatch.context() as patch:
        tapes = record_on_tapes(patch)
        patch.setattr(engine_toys, "Game", functools.partial(Game, engine=Engine("graph")))
        found: dict[str, Any] = {name: played(name, world) for name in RECORDED}
        return found | {"tapes": len(tapes)}


def work(rank: int, folder: Path) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    try:
        world = World.current("cpu")
        found = {
            "played": {name: played(name, world) for name in GAMES},
            "resumed": {name: resumed_run(name, folder, world) for name in RESUMED},
            "best and begun": best_and_begun(folder, world),
            "normalised": normalised(world),
            "refused": refused(folder, world),
            "recorded": recorded(world),
            "failed": failed_and_resumed(folder, world),
            "meeting": meeting(world),
        }
        torch.save({**found, "folder": str(folder)}, folder / f"found_{rank}.pt")
        world.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two workers has found."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(work, args=(folder,), nprocs=2)
    return [torch.load(folder / f"found_{rank}.pt", weights_only=True) for rank in range(2)]


@functools.cache
def played_alone(name: str) -> dict[str, Any]:
    """What one worker has found."""
    return played(name, World())


@pytest.mark.parametrize("name", GAMES)
def test_two_workers_take_the_steps_of_one(name: str, two: list[dict[str, Any]]) -> None:
    alone, together = played_alone(name), two[0]["played"][name]
    assert together["networks"].keys() == alone["networks"].keys()
    for key, value in alone["networks"].items():
        torch.testing.assert_close(together["networks"][key], value, rtol=0, atol=1e-6)
    for mine, theirs in zip(alone["averages"], together["averages"], strict=True):
        assert mine["updates"] == theirs["updates"]
        torch.testing.assert_close(theirs["average"], mine["average"], rtol=0, atol=1e-6)
    assert together["seen"] == alone["seen"]


@pytest.mark.parametrize("name", GAMES)
def test_diagnostics_and_figures_do_not_depend_on_the_number_of_workers(
    name: str, two: list[dict[str, Any]]
) -> None:
    alone, together = played_alone(name), two[0]["played"][name]
    for mine, theirs in zip(alone["diagnostics"], together["diagnostics"], strict=True):
        assert "loss/generator" in mine
        assert theirs.keys() == mine.keys()
        for key, value in mine.items():
            # A logit of zero but for rounding may be decided either way: one example of 50.
            near = 0.021 if key.startswith("accuracy/") else 1e-6
            if name in CRITICS and key.startswith("prob/"):
                near = 1e-2  # as seen from the middle of a worker's own batch
            assert theirs[key] == pytest.approx(value, rel=1e-5, abs=near), key
    assert together["figures"] == pytest.approx(alone["figures"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", GAMES)
def test_both_workers_hold_the_same_networks(name: str, two: list[dict[str, Any]]) -> None:
    first, second = (found["played"][name] for found in two)
    for key in ("networks", "averages", "figures", "seen"):
        assert difference(first[key], second[key]) == []


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_turns_of_two_workers_take_the_steps_of_one(
    name: str, two: list[dict[str, Any]]
) -> None:
    alone, (first, second) = played_alone(name), (found["recorded"][name] for found in two)
    for key, value in alone["networks"].items():
        torch.testing.assert_close(first["networks"][key], value, rtol=0, atol=2e-6)
    assert difference(first["networks"], second["networks"]) == []
    players = 2  # and of each the passes and the step
    assert two[0]["recorded"]["tapes"] == len(RECORDED) * players * 2


def test_workers_with_batch_statistics_of_their_own_make_the_same_samples(
    two: list[dict[str, Any]],
) -> None:
    first, second = (found["normalised"] for found in two)
    assert difference(first["own"], second["own"]) != []
    for kind in ("live", "averaged"):
        assert torch.equal(first[kind], second[kind])
    assert not torch.equal(first["live"], first["averaged"])


@pytest.mark.parametrize("variant", RESUMED)
def test_two_workers_resume_bit_for_bit(variant: str, two: list[dict[str, Any]]) -> None:
    assert [found["resumed"][variant] for found in two] == [[], []]


def test_two_workers_keep_the_best_state_and_begin_from_it(two: list[dict[str, Any]]) -> None:
    assert [found["best and begun"] for found in two] == [[], []]


def test_two_workers_keep_what_they_played_where_an_evaluation_fails(
    two: list[dict[str, Any]],
) -> None:
    assert [found["failed"] for found in two] == [[], []]
    assert [found["meeting"] for found in two] == [[True, False], [True, False]]


def test_every_worker_refuses_a_checkpoint_of_other_networks(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "\n" not in found["refused"]
        assert "step_00000012" in found["refused"]
        assert "generator.body.0.weight is (16, 3) there and (17, 3) here" in found["refused"]


def test_another_number_of_workers_goes_on_and_says_that_it_is_not_exact(
    two: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = Path(two[0]["folder"]) / "dcgan-whole"
    config = tiny_config(tmp_path / "alone", "dcgan", ema=0.9, steps=14)
    told: list[tuple[str, str]] = []

    class Listener(FolderObserver):
        def message(self, step: int, text: str, level: str = "info") -> None:
            told.append((level, text))

    checkpoint = folder / "checkpoints" / "step_00000012"
    summary = play(config, World(), Listener(config.folder, World()), checkpoint)
    assert summary["step"] == 14
    assert [level for level, _ in told] == ["warning"]
    assert "resumed with 1 workers from a checkpoint of 2" in told[0][1]
