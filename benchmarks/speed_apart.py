"""A way that is timed in a process of its own: a part of `benchmarks.speed`.

On a CPU a game takes the memory that others of its process have left, without asking the kernel for
it; a tutorial's loop, which gives its memory back, has nobody to leave it any.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing as mp

from benchmarks.speed_ways import Setting, Timed, Way, make_all
from gan_core.errors import UserError


@contextmanager
def made(wanted: Mapping[str, tuple[Setting, Way]]) -> Iterator[list[Timed]]:
    """Those of ``wanted`` that can be played; on a CPU in processes that end with the block."""
    on_cpu = any(setting.device == "cpu" for setting, _ in wanted.values())
    loops = make_all(wanted, TimedApart if on_cpu else Timed)
    try:
        yield loops
    finally:
        for loop in loops:
            if isinstance(loop, TimedApart):
                loop.end()


class TimedApart(Timed):
    """A :class:`Timed` in another process, which sleeps while it is asked for nothing."""

    def __init__(self, name: str, setting: Setting, way: Way) -> None:
        context = mp.get_context("spawn")
        self._line, theirs = context.Pipe()
        words = (theirs, name, setting, way, torch.get_num_threads())
        self._process = context.Process(target=_serve, args=words)  # a DataLoader may want its own
        self._process.start()
        theirs.close()  # so that its death ends the line
        self._hear()

    def round(self, seconds: float) -> None:
        """As of any: play for about ``seconds``."""
        self._ask("round", seconds)

    def look_at_memory(self) -> None:
        """As of any: measure what an iteration needs."""
        self._ask("look_at_memory")

    def operations(self) -> int:
        """As of any: those of an iteration."""
        return int(self._ask("operations"))

    def end(self) -> None:
        """Let the process end."""
        self._line.close()
        self._process.join()

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._line.send((method, arguments))
        return self._hear()

    def _hear(self) -> Any:
        """The answer; what is known of the loop is then known here too."""
        try:
            answer, problem, known = self._line.recv()
        except (EOFError, ConnectionResetError):
            raise UserError("a process that was timed has died: its error is above") from None
        if problem is not None:
            self.end()
            raise UserError(problem)
        vars(self).update(known)
        return answer


def _serve(line: Connection, name: str, setting: Setting, way: Way, threads: int) -> None:
    """A process's life: make the loop, then do what it is asked to until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends this process too
    torch.set_num_threads(threads)
    try:
        timed = Timed(name, setting, way)
    except (UserError, RuntimeError) as problem:
        line.send((None, str(problem), {}))
        return
    answer: Any = None
    while True:
        known = {name: value for name, value in vars(timed).items() if name != "loop"}
        try:
            line.send((answer, None, known))
            method, arguments = line.recv()
        except (EOFError, OSError):  # nobody asks any more
            return
        answer = getattr(timed, method)(*arguments)
