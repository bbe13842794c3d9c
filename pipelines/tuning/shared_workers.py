"""Workers that trials share: each plays the games of several, which take turns on its device.

A trial's own process only passes on: to Tune what its game reports, to the game what Tune decides.
The game waits for that, so that it gets no further than Tune knows; the others play meanwhile.
"""

from __future__ import annotations

import math
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from gan_core import journal
from gan_core.config import RunConfig, make_config
from gan_core.engine.taking_turns import Company, Place
from gan_core.engine.world import World
from gan_core.run import play
from pipelines.tuning.study import Study
from pipelines.tuning.trial import Report, TrialObserver, WorkerLost

_POLL = 5.0  # seconds that a question waits in the worker for what the game will say
_LOOK = 0.1  # seconds between a trial's looks for a free place
_ANSWER = 1.0  # seconds in which a worker that has started says whether it has one
_ANEW = 60.0  # seconds in which a worker that was lost is started anew, or cannot be
_SIGN = 2.0  # seconds between a trial's signs of life
_SILENT = 20.0  # seconds without one after which others may have its place
_UNWIND = 60.0  # seconds in which a game that is to end has ended, whatever the others are at
_SCRATCH = "report-"  # how the folders begin in which checkpoints wait for Tune to copy them


class GameEnded(BaseException):
    """Nobody wants the game any more: it ends where it is, without a checkpoint."""


class Said(NamedTuple):
    """What a game reports: as :data:`Report`, or (``summary``) that it has ended."""

    step: int
    figures: dict[str, float]
    folder: str
    summary: dict[str, Any] | None = None


class SharedGame:
    """A trial's game in a thread of its own: ``playing`` plays it and returns the summary.

    What it has to say waits until the trial asks, and the game then until the trial asks again.
    """

    def __init__(self, playing: Callable[[SharedGame], dict[str, Any]]) -> None:
        self._playing = playing
        self._said: queue.SimpleQueue[Said | Exception] = queue.SimpleQueue()
        self._leave = threading.Semaphore(0)
        self._told = False
        self._ended = False
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._live, name="game", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            self._said.put(Said(0, {}, "", self._playing(self)))
        except GameEnded:
            pass
        except Exception as error:
            self._said.put(error)
        except BaseException as error:  # the worker must outlive it
            self._said.put(RuntimeError(repr(error)))

    # -- called by the game ----------------------------------------------------------------------

    def report(self, step: int, figures: Mapping[str, float], folder: Path) -> None:
        """Say it, and wait until Tune has taken it and the game may play on."""
        self._said.put(Said(step, dict(figures), str(folder)))
        self._leave.acquire()
        self.check()

    def check(self) -> None:
        """Raises :class:`GameEnded` if nobody wants the game any more."""
        if self._ended:
            raise GameEnded

    # -- called for the trial --------------------------------------------------------------------

    def follow(self, timeout: float) -> Said | None:
        """What it says next, ``None`` if nothing in so many seconds; what it said last is done.

        Raises the error of a game that failed, :class:`WorkerLost` where it was ended.
        """
        if self._ended:
            raise WorkerLost("its trial was silent for so long that another has its place")
        self.hear()
        if self._told:
            self._told = False
            self._leave.release()
        try:
            said = self._said.get(timeout=timeout)
        except queue.Empty:
            return None
        self._told = True
        if isinstance(said, Exception):
            raise said
        return said

    def hear(self) -> None:
        """The trial has given a sign of life."""
        self._heard = time.monotonic()

    @property
    def silent(self) -> bool:
        """Whether its trial has given none for so long that its process must have been lost."""
        return time.monotonic() - self._heard > _SILENT

    @property
    def plays(self) -> bool:
        """Whether its thread has not ended yet."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Let it end where it is, soon."""
        self._ended = True
        self._leave.release()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(_UNWIND)


class SharedWorker:
    """An actor that plays up to ``places`` games at a time, with so many ``threads`` together.

    ``device``: "cuda" or "cpu". Games are named after their trials.
    """

    def __init__(self, places: int, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self._world = World.current(device)
        self._places = places
        self._company = Company(places, self._world.device)
        self._games: list[tuple[str, SharedGame]] = []
        self._guard = threading.Lock()

    def has_room(self) -> bool:
        """Whether another game can begin. Games whose trials were lost are ended first."""
        with self._guard:
            for _, game in self._games:
                if game.silent:
                    game.end()
            return self._playing() < self._places

    def _playing(self) -> int:
        return sum(game.plays for _, game in self._games)

    def begin(self, config: dict[str, Any], checkpoint: str | None) -> bool:
        """Begin the game of ``config``, from ``checkpoint`` if given; whether there was room."""
        run = make_config(config)
        with self._guard:
            if self._playing() >= self._places:
                return False
            game = SharedGame(lambda game: self._play(run, checkpoint, game))
            self._games = [each for each in self._games if each[0] != run.name]
            self._games.append((str(run.name), game))
        return True

    def _play(self, config: RunConfig, checkpoint: str | None, game: SharedGame) -> dict[str, Any]:
        for left in config.folder.glob(f"{_SCRATCH}*"):  # by a worker that was killed
            shutil.rmtree(left, ignore_errors=True)
        with self._company.join() as place:
            game.check()
            observer = SharedTrialObserver(config.folder, self._world, game, place)
            start = None if checkpoint is None else Path(checkpoint)
            return play(config, self._world, observer, start, place)

    def _game(self, trial: str) -> SharedGame:
        for name, game in self._games:
            if name == trial:
                return game
        raise WorkerLost(f"the worker that played {trial} has been started anew")

    def follow(self, trial: str) -> Said | None:
        """See :meth:`SharedGame.follow`; :class:`WorkerLost` for a game that is not here."""
        return self._game(trial).follow(_POLL)

    def hear(self, trial: str) -> None:
        """See :meth:`SharedGame.hear`."""
        for name, game in self._games:
            if name == trial:
                game.hear()

    def end(self, trial: str) -> None:
        """End the game of ``trial`` if there is one; returns when it has ended."""
        with self._guard:
            found = [game for name, game in self._games if name == trial]
            self._games = [each for each in self._games if each[0] != trial or each[1].plays]
        for game in found:
            game.end()
            game.join()


class SharedTrialObserver(TrialObserver):
    """Keeps a trial in its folder; evaluations and checkpoints wait for it with ``game``.

    They wait in the trial's folder, which its process can read on whatever node it is.
    """

    def __init__(self, folder: Path, world: World, game: SharedGame, place: Place) -> None:
        def report(step: int, figures: Mapping[str, float], saved: Path | None) -> None:
            assert saved is not None
            with place.aside():
                game.report(step, figures, saved)

        super().__init__(folder, world, report, scratch=folder / _SCRATCH)
        self._game = game

    def should_stop(self) -> bool:
        """Also ends a game that nobody wants any more."""
        self._game.check()
        return super().should_stop()


@contextmanager
def shared_workers(study: Study, concurrent: int) -> Iterator[tuple[str, ...]]:
    """The names of as many workers as ``concurrent`` trials of ``study`` need, for a block.

    One that is lost is started anew, without its games. They end with the block.
    """
    options = study.options
    places = options.games_per_worker
    device = "cuda" if options.gpus_per_trial else "cpu"
    names = tuple(f"{study.run.name}-worker-{i}" for i in range(math.ceil(concurrent / places)))
    threads = max(1, int(options.cpus_per_trial))
    actor: Any = ray.remote(SharedWorker)
    workers = [
        actor.options(
            name=name,
            num_cpus=options.cpus_per_trial,
            num_gpus=options.gpus_per_trial or 0.0,
            max_restarts=-1,
            max_concurrency=4 * places + 4,  # of each trial a question, a sign of life, an end
        ).remote(places, threads, device)
        for name in names
    ]
    try:
        yield names
    finally:
        for worker in workers:
            ray.kill(worker)


def play_on_shared_worker(
    names: Sequence[str], config: RunConfig, checkpoint: Path | None, report: Report
) -> dict[str, Any]:
    """Play ``config`` on one of the workers ``names`` that has room; returns the summary.

    This thread, which is the trial's, reports to Tune. However it ends, the game does too. Raises
    :class:`WorkerLost` if the worker is lost.
    """
    trial = str(config.name)
    workers: list[Any] = [ray.get_actor(name) for name in order_of_asking(names, trial)]
    if _has_been_played(config.folder):  # by a process that was lost, it may play on somewhere
        ended = [worker.end.remote(trial) for worker in workers]
        ray.wait(ended, num_returns=len(ended), timeout=_UNWIND)
    worker = _begin(workers, config, checkpoint)
    over = threading.Event()
    threading.Thread(target=_give_signs, args=(worker, trial, over), daemon=True).start()
    try:
        while True:
            said: Said | None = _answer(worker.follow.remote(trial))
            if said is None:
                continue
            if said.summary is not None:
                return said.summary
            report(said.step, said.figures, Path(said.folder))
    finally:
        over.set()
        worker.end.remote(trial)


def order_of_asking(names: Sequence[str], trial: str) -> list[str]:
    """The workers ``names`` as ``trial`` asks them: each next trial begins at the next of them."""
    first = sum(trial.encode()) % len(names)
    return [*names[first:], *names[:first]]


def _has_been_played(folder: Path) -> bool:
    return any(event["kind"] == "start" for event, _ in journal.read(folder / journal.FILE))


def _begin(workers: Sequence[Any], config: RunConfig, checkpoint: Path | None) -> Any:
    """The worker on which the game has begun: the first with room, when there is one.

    Tune starts no more trials than there are places, but games that end take a moment, and
    workers to start. Raises :class:`WorkerLost` if none of them lives for :data:`_ANEW` seconds.
    """
    start = None if checkpoint is None else str(checkpoint)
    limit = time.monotonic() + _ANEW
    while True:
        for worker in workers:
            try:
                if _has_room(worker) and _answer(worker.begin.remote(config.to_dict(), start)):
                    return worker
                limit = time.monotonic() + _ANEW
            except WorkerLost:  # it is about to be started anew
                if time.monotonic() > limit:
                    raise
        time.sleep(_LOOK)


def _has_room(worker: Any) -> bool:
    """Whether it says so at once; one that has not started says nothing."""
    asked = worker.has_room.remote()
    answered, _ = ray.wait([asked], timeout=_ANSWER)
    return bool(answered and _answer(asked))


def _give_signs(worker: Any, trial: str, over: threading.Event) -> None:
    while not over.wait(_SIGN):
        worker.hear.remote(trial)


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except (RayActorError, OutOfMemoryError) as error:
        raise WorkerLost("the worker that played its game was lost") from error
