"""How a command ends: wrong input in one line, an interruption without a trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from gan_core.errors import UserError

WRONG_INPUT = 2
INTERRUPTED = 130  # as a shell has it: 128 and the signal's number
READER_GONE = 141


def exit_code(command: Callable[[], int | None]) -> int:
    """Run ``command``; returns its exit code, 0 for ``None``.

    Wrong input (``UserError``) is one line on stderr and 2, Ctrl-C 130, a reader that went away
    (``| head``) 141. Other exceptions pass: they are defects, and their trace is wanted.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code or 0
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Keeps the interpreter from complaining about the pipe as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
