"""Games of one process, by turns or one after another: a part of `benchmarks.speed`."""

from __future__ import annotations

import queue
import statistics
import threading
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.speed_ways import WARM_UPS, Setting, Way, check_recorded, make_game, wait
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.taking_turns import MOST_GAMES, Company
from gan_core.engine.world import World
from gan_core.errors import UserError

AS_CHOSEN = {"cpu": "eager+channels-last", "cuda": "graph+tf32+channels-last"}
"""What the engine plays convolutions in, on a device, where the user names nothing."""


def _begin(setting: Setting, way: Way, seed: int) -> Game:
    world = World.current(setting.device)
    way.set_numerics()
    game = make_game(setting, way, world, seed)
    seed_rank(seed, world)  # last: making networks may draw
    return game


class _Alone:
    """A game with the process to itself, which goes on with its own random state."""

    def __init__(self, setting: Setting, way: Way, seed: int) -> None:
        self._way = way
        self.game = _begin(setting, way, seed)
        self._keep()

    def _keep(self) -> None:
        state = self.game.rank_state()
        self._random, self._device_random = state["random"], state["cuda_random"]

    def play(self, iterations: int) -> None:
        """So many iterations, to their end on the device."""
        self._way.set_numerics()
        torch.set_rng_state(self._random)
        if self._device_random is not None:
            torch.cuda.set_rng_state(self._device_random, self.game.world.device)
        self.game.play(iterations)
        wait(self.game.world.device.type)
        self._keep()


class _Team(Protocol):
    """Games that can be told to play."""

    games: list[Game]

    def play(self, iterations: int) -> None:
        """So many iterations of each game."""


class OneAfterAnother:
    """``count`` games of the seeds from 0 on, of which each plays alone."""

    def __init__(self, setting: Setting, way: Way, count: int) -> None:
        self._players = [_Alone(setting, way, seed) for seed in range(count)]
        self.games = [player.game for player in self._players]

    def play(self, iterations: int) -> None:
        """So many iterations of the first, then of the second..."""
        for player in self._players:
            player.play(iterations)


class Together:
    """The same games taking turns, each in a thread that waits while it is not told to play.

    To be closed: the threads end then.
    """

    def __init__(self, setting: Setting, way: Way, count: int) -> None:
        self._company = Company(count, World.current(setting.device).device)
        self._orders: list[queue.SimpleQueue[int]] = [queue.SimpleQueue() for _ in range(count)]
        self._answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        made: dict[int, Game] = {}

        def in_thread(seed: int) -> None:
            try:
                self._live(setting, way, seed, made)
            except BaseException as error:
                self._answers.put(error)

        self._threads = [threading.Thread(target=in_thread, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()
        self._hear()
        self.games = [made[seed] for seed in range(count)]

    def _live(self, setting: Setting, way: Way, seed: int, made: dict[int, Game]) -> None:
        with self._company.join() as place:
            game = made[seed] = _begin(setting, way, seed)
            while True:
                with place.aside():
                    self._answers.put(None)  # from here on it leaves alone what others draw from
                    iterations = self._orders[seed].get()
                if not iterations:
                    return
                for _ in range(iterations):
                    game.iterate()
                    place.pass_on()

    def play(self, iterations: int) -> None:
        """So many iterations of each, by turns, to their end on the device."""
        for orders in self._orders:
            orders.put(iterations)
        self._hear()
        wait(self._company.device.type)

    def _hear(self) -> None:
        """Wait until each has played; what one of them raised is raised here."""
        answers = [self._answers.get() for _ in self._threads]
        for error in filter(None, answers):
            self.close()
            raise error

    def close(self) -> None:
        """End the threads."""
        for orders in self._orders:
            orders.put(0)
        for thread in self._threads:
            thread.join()


def compare_games(
    setting: Setting, way: Way, count: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """``count`` games one after another and together, in rounds of about ``seconds`` each way.

    Both play the same number of iterations; prints the figures, and whether the games' networks
    are the same in the end.
    """
    check(setting, way, count)
    apart, together = OneAfterAnother(setting, way, count), Together(setting, way, count)
    try:
        times, played = _times((apart, together), way, rounds, seconds)
        same = [_same(one, other) for one, other in zip(apart.games, together.games, strict=True)]
    finally:
        together.close()
    found = {
        "setting": setting.describe(),
        "machine": setting.machine(),
        "way": str(way),
        "games": count,
        "iterations": played,
        "rows": [
            _row(name, times[i], times[0], setting.images * count)
            for i, name in enumerate(("one after another", "together"))
        ],
        "same": same,
        "same_when_repeated": all(same) or _repeats(setting, way, apart.games[0], played),
    }
    print(table(found))
    return found


def check(setting: Setting, way: Way, count: int) -> None:
    """Raises ``UserError`` if so many games cannot play here."""
    way.check(setting.device)
    if way.mode == "textbook":
        raise UserError("games that take turns are the engine's, not textbook")
    if not 2 <= count <= MOST_GAMES:
        raise UserError(f"--games is from 2 to {MOST_GAMES}, not {count}")


def _times(
    teams: Sequence[_Team], way: Way, rounds: int, seconds: float
) -> tuple[list[list[float]], int]:
    """Milliseconds of an iteration of all games, by team and round; iterations played of each."""
    warm_up = WARM_UPS[way.mode]
    for team in teams:
        team.play(warm_up)
        for game in team.games:
            check_recorded(game, way)
    latest = max(_seconds(team, warm_up) for team in teams)
    times: list[list[float]] = [[] for _ in teams]
    played = 2 * warm_up
    for number in range(rounds):
        iterations = max(1, round(seconds / latest))
        for i in range(len(teams)) if number % 2 == 0 else reversed(range(len(teams))):
            times[i].append(1000 * _seconds(teams[i], iterations))
        latest = max(own[-1] for own in times) / 1000
        played += iterations
    return times, played


def _seconds(team: _Team, iterations: int) -> float:
    begun = perf_counter()
    team.play(iterations)
    return (perf_counter() - begun) / iterations


def _networks(game: Game) -> dict[str, Tensor]:
    return game.variant.state_dict()


def _same(one: Game, other: Game) -> bool:
    """Whether their networks are equal bit for bit."""
    mine, theirs = _networks(one), _networks(other)
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def _repeats(setting: Setting, way: Way, first: Game, iterations: int) -> bool:
    """Whether the first game is the same when it is played alone once more.

    Where it is not, the device itself adds up in another order each time.
    """
    again = _Alone(setting, way, 0)
    again.play(iterations)
    return _same(first, again.game)


def _row(name: str, own: Sequence[float], first: Sequence[float], images: int) -> dict[str, Any]:
    milliseconds = statistics.median(own)
    return {
        "way": name,
        "milliseconds": milliseconds,
        "rounds": list(own),
        "images_per_second": 1000 * images / milliseconds,
        "ratio": statistics.median(b / a for a, b in zip(own, first, strict=True)),
    }


def table(found: dict[str, Any]) -> str:
    """The comparison in Markdown, and what became of the networks."""
    lines = [
        f"{found['setting']}; {found['way']}; {found['machine']}",
        "",
        f"| {found['games']} games | ms an iteration of all | real images/s | times as fast |",
        "|---|---:|---:|---:|",
    ]
    for r in found["rows"]:
        cells = [r["way"], f"{r['milliseconds']:.2f}", f"{r['images_per_second']:,.0f}"]
        lines.append("| " + " | ".join([*cells, f"{r['ratio']:.2f}"]) + " |")
    same = sum(found["same"])
    lines += ["", f"after {found['iterations']:,} iterations the networks of {same} of the "
              f"{found['games']} games are bit for bit those of the game alone"]  # fmt: skip
    if not found["same_when_repeated"]:
        lines.append("a game alone does not repeat itself bit for bit here either")
    return "\n".join(lines)
