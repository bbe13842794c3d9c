"""Tune's view of the trials, told to the driver's board.

Tune pickles its callbacks with the search and takes the pickled ones up again on a restore. The
callback therefore holds nothing: it looks up the board of the process that it is in.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback


class Board(Protocol):
    """Who wants to know how trials fare; ``trial`` is the name of its folder."""

    def started(self, trial: str, point: dict[str, Any]) -> None:
        """It plays, or goes on with a point that the scheduler has changed."""

    def reported(self, trial: str, result: dict[str, Any]) -> None:
        """It has been judged."""

    def ended(self, trial: str) -> None:
        """It will play no more: it is done, or the scheduler has stopped it."""

    def died(self, trial: str, error: str) -> None:
        """Its process was lost more often than allowed."""

    def looked(self, waiting: Collection[str]) -> None:
        """Tune has looked at its trials (several times a second); some are paused."""


_boards: list[Board] = []


def set_board(board: Board | None) -> None:
    """The board of this process."""
    _boards[:] = [] if board is None else [board]


def _name(trial: Trial) -> str:
    return str(trial.custom_dirname)


class Telling(TrialProgressCallback):
    """Tells the board, in the place of Tune's callback, whose lines would break into the table."""

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        for board in _boards:
            board.started(_name(trial), dict(trial.config))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        for board in _boards:
            board.reported(_name(trial), result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        for board in _boards:
            board.ended(_name(trial))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        error = trial.get_error()
        for board in _boards:
            board.died(_name(trial), _why(str(error)) if error else "its process was lost")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        waiting = [_name(trial) for trial in trials if trial.status == Trial.PAUSED]
        for board in _boards:
            board.looked(waiting)


def _why(error: str) -> str:
    """What Tune tells of a trial's error, in one line: its own heading says only when it was."""
    heading, _, rest = error.partition("\n")
    lines = [line.strip() for line in (rest or heading).splitlines() if line.strip()]
    if "Traceback (most recent call last)" in error:
        return lines[-1]
    return lines[0] if lines else heading
