"""Games that share a process: each is bit for bit what it is alone, whatever the others do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_toys import Crash, CrashingObserver, StoppingObserver, difference, saved, tiny_config

from gan_core import run
from gan_core.config import RunConfig
from gan_core.data.loading import load_examples
from gan_core.engine import taking_turns
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.taking_turns import MOST_GAMES, Company, Place
from gan_core.engine.world import World
from gan_core.journal import FILE, read
from gan_core.observers import FolderObserver, Observer
from gan_core.run import play
from gan_core.variant import create

ALONE, CPU = World(), torch.device("cpu")
TIMING = {"images_per_second", "seconds"}
GAMES: dict[str, dict[str, Any]] = {
    "dropout": {"variant": "gan", "k": 2},
    "other_seed": {"variant": "gan", "k": 2, "seed": 5},
    "average": {"variant": "dcgan", "ema": 0.9, "precision": "bf16"},
    "figures": {"variant": "gan", "data": "ring", "extractor": "auto", "dropout": 0.3},
}


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Operations are cut in two, in the games' threads too."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one iteration, however short it is."""
    monkeypatch.setattr(taking_turns, "_TURN", 0.0)


def configs(folder: Path) -> dict[str, RunConfig]:
    return {name: tiny_config(folder / name, **values) for name, values in GAMES.items()}


Playing = Callable[[Place], Any]


def together(playing: Sequence[Playing]) -> list[Any]:
    """What each returns or raises, each in a thread; all have joined before the first plays on."""
    company = Company(len(playing), CPU)
    found: list[Any] = [None] * len(playing)

    def in_thread(number: int) -> None:
        try:
            with company.join() as place:
                while len(company._baton._waiting) < len(playing) - 1 and number == 0:
                    time.sleep(0.001)
                found[number] = playing[number](place)
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=in_thread, args=(i,)) for i in range(len(playing))]
    for thread in threads:
        thread.start()
        while thread is threads[0] and not company._baton._held:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    return found


def a_run(
    config: RunConfig, observer: Observer | None = None, start: Path | None = None
) -> Playing:
    def playing(place: Place) -> dict[str, Any]:
        return play(config, ALONE, observer or FolderObserver(config.folder, ALONE), start, place)

    return playing


def newest(folder: Path) -> Path:
    found = find_checkpoint(folder)
    assert found is not None
    return found


def assert_same_run(first: Path, second: Path) -> None:
    """Two runs ended in the same state and told the same."""
    assert newest(first).name == newest(second).name
    assert difference(saved(newest(first)), saved(newest(second))) == []
    told = [
        [
            (event["step"], name, value)
            for event, _ in read(folder / FILE)
            if event["kind"] == "metrics"
            for name, value in event["values"].items()
            if name not in TIMING
        ]
        for folder in (first, second)
    ]
    assert repr(sorted(told[0])) == repr(sorted(told[1]))


def test_games_in_company_are_the_games_alone(tmp_path: Path) -> None:
    alone, shared = configs(tmp_path / "alone"), configs(tmp_path / "together")
    expected = {name: a_run(config)(Place()) for name, config in alone.items()}
    before = torch.get_rng_state()
    found = dict(zip(shared, together([a_run(config) for config in shared.values()]), strict=True))
    assert torch.equal(torch.get_rng_state(), before), "the process's own is as it was"
    for name in GAMES:
        assert_same_run(alone[name].folder, shared[name].folder)
        for key in ("status", "step", "figures", "best", "diagnosis"):
            assert found[name][key] == expected[name][key], (name, key)


def turns(iterations: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who has played when, of three games whose iterations take so many seconds of a clock that
    no load of the machine moves.
    """
    played: list[str] = []
    now = [0.0]
    monkeypatch.setattr(taking_turns, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def a_game(name: str) -> Playing:
        def playing(place: Place) -> None:
            for _ in range(iterations):
                played.append(name)
                now[0] += seconds
                place.pass_on()

        return playing

    assert together([a_game(name) for name in "abc"]) == [None] * 3
    return "".join(played)


def test_they_take_turns_in_the_order_in_which_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    played = turns(3, 0.0, monkeypatch)
    assert played in ("abc" * 3, "acb" * 3)


def test_a_turn_of_short_iterations_is_several_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking_turns, "_TURN", 0.3)
    played = turns(4, 0.2, monkeypatch)
    assert played in ("aabbcc" * 2, "aaccbb" * 2)


def test_a_game_that_fails_and_one_that_is_stopped_leave_the_others_as_they_are(
    tmp_path: Path,
) -> None:
    alone, shared = configs(tmp_path / "alone"), configs(tmp_path / "together")
    for name in ("dropout", "average", "figures"):
        a_run(alone[name])(Place())
    failing, stopped = shared["other_seed"], shared["average"]
    outcomes = together(
        [
            a_run(failing, CrashingObserver(failing.folder, ALONE, crash_at=6)),
            a_run(shared["dropout"]),
            a_run(stopped, StoppingObserver(stopped.folder, ALONE, stop_at=6)),
            a_run(shared["figures"]),
        ]
    )
    assert isinstance(outcomes[0], Crash)
    assert [o["status"] for o in outcomes[1:]] == ["finished", "stopped", "finished"]
    assert outcomes[2]["step"] == 6
    for name in ("dropout", "figures"):
        assert_same_run(alone[name].folder, shared[name].folder)
    # Both go on in company of one that begins: the random state is that of their checkpoint.
    (stopped.folder / "STOP").unlink()
    shared["other_seed"].folder.joinpath(FILE).unlink()
    again = tiny_config(tmp_path / "again", **GAMES["dropout"])
    together([a_run(stopped, start=newest(stopped.folder)), a_run(again)])
    assert_same_run(alone["average"].folder, stopped.folder)
    assert_same_run(alone["dropout"].folder, again.folder)


def test_others_play_while_one_waits_aside_and_it_goes_on_as_it_was() -> None:
    free, drawn = threading.Event(), []

    def waiting(place: Place) -> None:
        torch.manual_seed(1)
        with place.aside():
            assert free.wait(10), "nobody else played"
        drawn.append(torch.rand(1).item())

    def playing(place: Place) -> None:
        for _ in range(3):
            torch.rand(5)
            place.pass_on()
        free.set()

    assert together([waiting, playing]) == [None, None]
    torch.manual_seed(1)
    assert drawn == [torch.rand(1).item()]


def test_each_goes_on_in_its_own_precision() -> None:
    seen: dict[str, list[tuple[str, bool]]] = {"tf32": [], "fp32": []}

    def a_game(precision: Any) -> Playing:
        def playing(place: Place) -> None:
            Engine("eager", precision).set_numerics()
            for _ in range(2):
                place.pass_on()
                flags = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
                seen[precision].append(flags)

        return playing

    Engine("eager", "fp32").set_numerics()
    assert torch.backends.cudnn.deterministic
    assert together([a_game("tf32"), a_game("fp32"), a_game("tf32")]) == [None] * 3
    assert seen == {"tf32": [("high", True)] * 4, "fp32": [("highest", False)] * 2}
    assert torch.get_float32_matmul_precision() == "highest"


def test_one_more_than_there_are_places_for_waits_until_one_is_free() -> None:
    company, joined = Company(1, CPU), threading.Event()

    def one_more() -> None:
        with company.join():
            joined.set()

    thread = threading.Thread(target=one_more)
    with company.join() as place:
        thread.start()
        with place.aside():
            waited = not joined.wait(0.1)
    thread.join()
    assert waited
    assert joined.is_set()


@pytest.mark.parametrize("places", [0, MOST_GAMES + 1])
def test_a_number_of_places_that_cannot_be_is_refused(places: int) -> None:
    with pytest.raises(ValueError, match=f"not {places}"):
        Company(places, CPU)


def test_what_others_do_meanwhile_is_not_on_the_clock_of_a_game_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]  # of a clock that no load of the machine moves

    def look() -> float:
        now[0] += 0.001
        return now[0]

    class Slow(Place):
        def pass_on(self) -> None:
            now[0] += 100

    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=look))
    summary = play(tiny_config(tmp_path / "run", "gan"), ALONE, Observer(), None, Slow())
    assert summary["step"] == 12
    assert now[0] > 1000, "they did take time"
    assert 0 < summary["seconds"] < 1


class FakeGenerator:
    """A GPU's default generator, of which only the state in use is looked at."""

    def __init__(self, state: str) -> None:
        self.state = state

    def graphsafe_get_state(self) -> FakeGenerator:
        return FakeGenerator(self.state)

    def graphsafe_set_state(self, other: FakeGenerator) -> None:
        self.state = other.state

    def clone_state(self) -> FakeGenerator:
        return FakeGenerator(f"copy of {self.state}")


def test_a_gpus_random_state_is_exchanged_for_the_games_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a GPU: generator and stream are stand-ins."""
    default = FakeGenerator("process")
    waited: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: waited.append(default.state))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", (default,))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    company = Company(1, torch.device("cuda", 0))
    with company.join() as place:
        assert default.state == "copy of process"
        with place.aside():
            assert default.state == "process"
        assert default.state == "copy of process"
    assert default.state == "process"
    assert waited == ["copy of process"], "what it launched has ended before its place is free"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_games_with_dropout_in_company_on_a_gpu_are_the_games_alone(mode: Any) -> None:
    train, held_out = (load_examples("ring", None, split) for split in ("train", "validation"))
    world = World.current("cuda")

    def a_game(seed: int) -> Callable[[Place], dict[str, torch.Tensor]]:
        def playing(place: Place) -> dict[str, torch.Tensor]:
            options = {"dropout": 0.3, "hidden": 16, "maxout_units": 8, "k": 2}
            variant = create("gan", train.spec, options, seed)
            engine = Engine(mode)
            game = Game(variant, train, held_out, batch_size=64, world=world, engine=engine)
            seed_rank(seed, world)
            for _ in range(60):
                game.iterate()
                place.pass_on()
            return {name: w.detach().clone() for name, w in variant.named_parameters()}

        return playing

    alone = [a_game(seed)(Place()) for seed in range(4)]
    company = Company(4, world.device)
    found: dict[int, dict[str, torch.Tensor]] = {}

    def in_thread(seed: int) -> None:
        with company.join() as place:
            found[seed] = a_game(seed)(place)

    threads = [threading.Thread(target=in_thread, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [difference(found[seed], alone[seed]) for seed in range(4)] == [[]] * 4
