"""The signals by which a process is asked to end, that of a closed terminal among them."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
TOGETHER = 1.0
"""Seconds within which several signals are one wish to end: ``torchrun`` hands a Ctrl-C on that its
processes have had from the terminal already, and who ends a session sends SIGTERM and SIGHUP."""


def take_signals(handler: Handler, *more: int) -> dict[int, Any]:
    """Let ``handler`` have SIGTERM, SIGHUP and ``more``; the handlers before, to be given back.

    It has one of those that come :data:`TOGETHER`. SIGHUP, which a closed terminal sends, comes
    once however often it is sent, and what is printed after it goes nowhere, since writing to that
    terminal is an error. Under ``nohup`` it is ignored and stays so. Empty outside of the main
    thread, which alone has signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handler = _first_of_some(handler)
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, *more)}
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        before[_HANGUP] = signal.signal(_HANGUP, _once(handler))
    return before


def give_back(before: Mapping[int, Any]) -> None:
    """Put the handlers of :func:`take_signals` back; a terminal that was closed stays closed."""
    for number, handler in before.items():
        if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _first_of_some(handler: Handler) -> Handler:
    heard_at = -math.inf

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard_at
        now = time.monotonic()
        if now - heard_at >= TOGETHER:
            heard_at = now
            handler(number, frame)

    return hear


def _once(handler: Handler) -> Handler:
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def hung_up(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a shell and the terminal each send one
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        handler(number, frame)

    return hung_up
