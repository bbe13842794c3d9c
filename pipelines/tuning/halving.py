"""Asynchronous successive halving by promotion: which trials play on, and which wait.

Li et al. 2020, "A system for massively parallel hyperparameter tuning" (arXiv:1810.05934),
algorithm 2: every trial is paused at each rung, and whoever is free plays on the best that waits,
or else begins a new trial. Ray's own scheduler is the variant that never pauses: it decides once,
when a trial reaches a rung, and so lets the first trials go on whatever they are worth. Of few
trials that plays twice as much to find the same best.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

LATEST = 0.9
"""The share of a trial after which it is not compared any more."""


@dataclasses.dataclass
class _Entry:
    """A trial: its objective at each rung that it has reached; it plays, waits or has ended."""

    values: list[float] = dataclasses.field(default_factory=list)
    step: int = 0
    plays: bool = True
    waits: bool = False


def rungs(grace: int, reduction: int, max_steps: int, *, last_stage: int = 0) -> tuple[int, ...]:
    """The iterations at which trials are compared: ``grace``, times ``reduction``, and so on.

    None is in the last tenth of a trial, nor its end: judging there costs more than it can save,
    and a trial that waits there has been played for nothing. Where the last of several stages
    begins after ``last_stage`` iterations and has no rung, one more is where a ``reduction``-th of
    it has been played: what is the aim is judged there.
    """
    levels = []
    level = grace
    while level <= LATEST * max_steps:
        levels.append(level)
        level *= reduction
    extra = last_stage + max(1, (max_steps - last_stage) // reduction)
    if last_stage and max(levels, default=0) <= last_stage and grace <= extra <= LATEST * max_steps:
        levels.append(extra)
    return tuple(levels)


def least_share(
    levels: Sequence[int], reduction: int, finalists: int, trials: int, max_steps: int
) -> float:
    """The share of all trials' iterations that is played if no trial is promoted in vain.

    Promotions before all are known add to that: a tenth was seen.
    """
    marks = [0, *levels, max_steps]
    going, played = trials, 0
    for begin, end in itertools.pairwise(marks):
        played += going * (end - begin)
        going = min(going, max(finalists, going // reduction))
    return played / (trials * max_steps)


class Halving:
    """The books of a search of ``trials`` trials, of which less is better.

    At each of ``levels`` (iterations, ascending) one of ``reduction`` trials is promoted, by what
    is known so far. When no more trials can come to a rung, at least ``finalists`` are: a search
    of few trials would otherwise play none to its end. A promoted trial that fails makes room for
    the next best.
    """

    def __init__(self, levels: Sequence[int], reduction: int, finalists: int, trials: int) -> None:
        self._levels = tuple(levels)
        self._reduction, self._finalists, self._trials = reduction, finalists, trials
        self._entries: dict[str, _Entry] = {}

    @property
    def playing(self) -> int:
        """How many trials play or are about to."""
        return sum(entry.plays for entry in self._entries.values())

    @property
    def waiting(self) -> list[str]:
        """The trials that wait at a rung, in the order in which they were begun."""
        return [name for name, entry in self._entries.items() if entry.waits]

    @property
    def over(self) -> bool:
        """Whether nothing plays, nothing is to come, and nothing that waits will play on."""
        return self._all_begun and self.playing == 0 and self._next() is None

    def plays(self, trial: str) -> bool:
        """Whether it plays, or is about to."""
        return trial in self._entries and self._entries[trial].plays

    def close(self) -> None:
        """No more trials will come than have begun."""
        self._trials = len(self._entries)

    def begin(self, trial: str) -> None:
        """It plays, from its beginning or, where its process was lost, once more."""
        self._entries[trial] = _Entry()

    def report(self, trial: str, step: int, objective: float) -> bool:
        """It has been judged after ``step`` iterations; whether it must wait at a rung.

        One that goes on from an older checkpoint than its last report passes what it has reached;
        one that waited and is further than that has been promoted (by a driver that was killed).
        """
        entry = self._entries[trial]
        if entry.waits and step > entry.step:
            self.resume(trial)
        entry.step = max(entry.step, step)
        reached = sum(step >= level for level in self._levels)
        new = reached - len(entry.values)
        if new > 0:
            entry.values += [objective] * new
            entry.plays, entry.waits = False, True
        return entry.waits

    def end(self, trial: str, *, well: bool) -> None:
        """It will play no more; ``well``: it has not failed, nor has its training."""
        entry = self._entries[trial]
        entry.plays = entry.waits = False
        if not well:
            entry.values = [math.inf] * len(entry.values)

    def promote(self) -> str | None:
        """The trial that is to play on now, if any of those that wait is."""
        name = self._next()
        if name is not None:
            self.resume(name)
        return name

    def resume(self, trial: str) -> None:
        """It waits no longer, whatever it is worth."""
        entry = self._entries[trial]
        entry.plays, entry.waits = True, False

    @property
    def _all_begun(self) -> bool:
        return len(self._entries) >= self._trials

    def _next(self) -> str | None:
        """The best of the highest rung that has a right to go on; else of a rung that is full."""
        for rung in reversed(range(len(self._levels))):
            ranked = self._ranked(rung)
            found = self._first_waiting(ranked[: len(ranked) // self._reduction], rung)
            if found is not None:
                return found
        return self._next_of_full_rung() if self._all_begun else None

    def _next_of_full_rung(self) -> str | None:
        for rung in range(len(self._levels)):
            if any(e.plays and len(e.values) <= rung for e in self._entries.values()):
                return None  # it may still come here
            ranked = self._ranked(rung)
            share = max(self._finalists, len(ranked) // self._reduction)
            found = self._first_waiting(ranked[:share], rung)
            if found is not None:
                return found
        return None

    def _ranked(self, rung: int) -> list[str]:
        """All that have reached ``rung``, from the best."""
        reached = [name for name, entry in self._entries.items() if len(entry.values) > rung]
        return sorted(reached, key=lambda name: self._entries[name].values[rung])

    def _first_waiting(self, names: Iterable[str], rung: int) -> str | None:
        for name in names:
            entry = self._entries[name]
            if entry.waits and len(entry.values) == rung + 1:
                return name
        return None
