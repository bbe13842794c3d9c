"""A command of this program that ends soon after the process that started it has died.

    python -m pipelines.tethered PATIENCE VERB ...

The starter holds the other end of the standard input and writes nothing: the input ends when the
starter does, however that comes about (SIGKILL cannot be handled). Then the command is interrupted
as by Ctrl-C; after ``PATIENCE`` seconds, in which it can write a checkpoint, once more; and if that
does not end it either, it is killed with all that it has started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

GRACE = 15.0  # seconds that a command has to end after a second interrupt, before it is killed


def tether(patience: float, grace: float = GRACE) -> None:
    """Let this process, the first of its group, end after the one that started it."""
    thread = threading.Thread(target=_watch, args=(patience, grace), name="tether", daemon=True)
    thread.start()


def _watch(patience: float, grace: float) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    print("the process that started this one has died: stopping", file=sys.stderr, flush=True)
    _interrupt()
    time.sleep(patience)
    _interrupt()
    time.sleep(grace)
    os.killpg(os.getpid(), signal.SIGKILL)


def _interrupt() -> None:
    """As Ctrl-C does: a call that the main thread waits in is interrupted too."""
    number = threading.main_thread().ident
    assert number is not None
    signal.pthread_kill(number, signal.SIGINT)


def main() -> int:
    """The command after ``PATIENCE``; returns its exit code."""
    tether(float(sys.argv[1]))
    from pipelines.__main__ import main as run

    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
