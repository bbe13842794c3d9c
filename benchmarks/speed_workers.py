"""Data-parallel workers against one process on the same machine: a part of `benchmarks.speed`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.speed_ways import WARM_UPS, Setting, Way, make_game
from gan_core.engine.world import World
from gan_core.errors import UserError

PATIENCE = timedelta(minutes=30)
"""How long a worker waits for the others, who play nothing while another team does."""


def _work(
    rank: int,
    line: Connection,
    *,
    size: int,
    threads: int,
    meeting: Path,
    setting: Setting,
    way: Way,
) -> None:
    """A worker's life: make the game, then play as many iterations as it is told, until none."""
    torch.set_num_threads(threads)
    cuda = setting.device == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    if size > 1:
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    try:
        world = World.current(f"cuda:{rank}" if cuda else "cpu")
        way.set_numerics()
        game = make_game(setting, way, world)
        line.send(0.0)
        while iterations := line.recv():
            line.send(_seconds(game.iterate, iterations, cuda))
    finally:
        if size > 1:
            dist.destroy_process_group()


def _seconds(iterate: Callable[[], None], iterations: int, cuda: bool) -> float:
    begun = time.perf_counter()
    for _ in range(iterations):
        iterate()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


class Team:
    """``size`` processes that play one game together, with ``threads`` threads each.

    They live until the ``with`` statement ends, and sleep while they are not asked to play.
    """

    def __init__(self, size: int, threads: int, setting: Setting, way: Way) -> None:
        self.size, self.threads = size, threads
        self.setting, self.way = setting, way
        self.rounds: list[float] = []
        self._folder = tempfile.TemporaryDirectory(prefix="gan-speed-")

    def __enter__(self) -> Team:
        context = mp.get_context("spawn")
        words = {
            "size": self.size,
            "threads": self.threads,
            "meeting": Path(self._folder.name) / "meeting",
            "setting": self.setting,
            "way": self.way,
        }
        self._lines, self._processes = [], []
        for rank in range(self.size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_work, args=(rank, theirs), kwargs=words, daemon=True)
            process.start()
            theirs.close()  # so that a worker's death ends the line
            self._lines.append(mine)
            self._processes.append(process)
        self._hear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for line, process in zip(self._lines, self._processes, strict=True):
            if error is None:
                line.send(0)
            else:
                process.terminate()  # it may be waiting for one that has died
            process.join()
        self._folder.cleanup()

    def play(self, iterations: int) -> float:
        """Seconds an iteration: the slowest worker's."""
        return max(self._hear(iterations)) / iterations

    def _hear(self, iterations: int = 0) -> list[float]:
        """Every worker's answer; ``iterations``: asked for first."""
        try:
            for line in self._lines if iterations else ():
                line.send(iterations)
            return [float(line.recv()) for line in self._lines]
        except (EOFError, ConnectionResetError, BrokenPipeError):
            raise UserError("a worker has died: its error is above") from None


def compare_workers(
    setting: Setting, way: Way, size: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """``size`` workers of a thread each and one process of ``size`` threads, in turns.

    Both play the same number of iterations in a round, for about ``seconds``; prints the ratio.
    """
    check(setting, way, size)
    with Team(size, 1, setting, way) as several, Team(1, size, setting, way) as one:
        teams = (several, one)
        latest = max(_warmed_up(team) for team in teams)
        for number in range(rounds):
            iterations = max(1, round(seconds / latest))
            for team in teams if number % 2 == 0 else reversed(teams):
                team.rounds.append(1000 * team.play(iterations))
            latest = max(team.rounds[-1] for team in teams) / 1000
    ratios = [b / a for a, b in zip(several.rounds, one.rounds, strict=True)]
    found = {
        "setting": setting.describe(),
        "way": str(way),
        "workers": {"milliseconds": statistics.median(several.rounds), "rounds": several.rounds},
        "one": {"milliseconds": statistics.median(one.rounds), "rounds": one.rounds},
        "ratio": statistics.median(ratios),
    }
    print(told(found, size, setting.device))
    return found


def check(setting: Setting, way: Way, size: int) -> None:
    """Raises ``UserError`` if so many workers cannot play here."""
    way.check(setting.device)
    if way.mode not in ("eager", "compile"):
        raise UserError(f"several workers play eager or compile, not {way.mode}")
    if setting.device == "cuda" and torch.cuda.device_count() < size:
        raise UserError(f"{size} workers need as many GPUs, here are {torch.cuda.device_count()}")
    if setting.played.batch_size % size:
        raise UserError(f"--batch-size must be a multiple of --workers {size}")


def _warmed_up(team: Team) -> float:
    team.play(WARM_UPS[team.way.mode])
    return team.play(1)


def told(found: dict[str, Any], size: int, device: str) -> str:
    """The comparison in lines."""
    each, whole = ("a GPU", "one GPU") if device == "cuda" else ("one thread", f"{size} threads")
    return (
        f"{found['setting']}; {found['way']}\n"
        f"{size} workers, {each} each: {found['workers']['milliseconds']:.2f} ms an iteration\n"
        f"one process, {whole}: {found['one']['milliseconds']:.2f} ms\n"
        f"the workers are {found['ratio']:.2f} times as fast"
    )
