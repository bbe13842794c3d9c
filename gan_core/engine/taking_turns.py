"""Several games in one process, by turns: each in a thread and on a CUDA stream of its own.

A small game does not fill a GPU. Of the games' threads only the one that holds the baton does
anything; after an iteration or a few it hands the baton on to whoever has waited longest. What it
has launched by then plays on, on the game's own stream, beside what the others launch. With the
baton goes what torch has once for the whole process and a game depends on: the random states, and
the precision of products. So a game is, bit for bit, what it is alone. Other global state (that of
numpy, say) nothing here draws from.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import gc
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

MOST_GAMES = 16
"""Games at a time in a process. torch deals 32 streams out in turn, and two games on the same one
would share the scratch memory of their captured products."""
_TURN = 0.002  # seconds that a turn lasts at least: handing the baton on takes about 0.08 ms


class Place:
    """A game's place in its process. This one shares it with nobody: there is none to wait for."""

    def pass_on(self) -> None:
        """Called between iterations: let the other games have a turn each, if it is time."""

    def aside(self) -> AbstractContextManager[None]:
        """A block in which the others play on, for waiting in. Nothing of torch may be used in it
        but waiting for an event.
        """
        return contextlib.nullcontext()


class Company:
    """The games of a process that take turns on ``device``, at most ``places`` of them at a time.

    Raises ``ValueError`` for less than one place or more than :data:`MOST_GAMES`. While none of
    the games has a turn, random states and precision are as they were when this was made; while one
    has, no other thread may draw random numbers or seed.
    """

    def __init__(self, places: int, device: torch.device) -> None:
        if not 1 <= places <= MOST_GAMES:
            raise ValueError(f"1 to {MOST_GAMES} games take turns in a process, not {places}")
        self.device = device
        self._baton = _Baton()
        self._outside = _Globals(device)
        # All at once, so that no two are the same; the next game in a place takes over its stream.
        self._streams: queue.SimpleQueue[torch.cuda.Stream | None] = queue.SimpleQueue()
        for _ in range(places):
            self._streams.put(torch.cuda.Stream(device) if device.type == "cuda" else None)

    @contextmanager
    def join(self) -> Iterator[Place]:
        """A block in which this thread plays a game, all of it: it is to be made here too.

        Waits for a free place and for the first turn. Whatever ends the block, the others go on.
        """
        stream = self._streams.get()
        with contextlib.ExitStack() as stack:  # what is put on last is done first
            stack.callback(self._streams.put, stream)
            self._baton.take()
            stack.callback(self._baton.hand_on)
            stack.callback(self._outside.install)
            stack.callback(gc.collect)  # a graph that died later could do so while one is recorded
            if stream is not None:
                stack.callback(stream.synchronize)
                stack.enter_context(torch.cuda.stream(stream))
            yield _SharedPlace(self._baton, self._outside)


class _SharedPlace(Place):
    def __init__(self, baton: _Baton, outside: _Globals) -> None:
        self._baton, self._outside, self._own = baton, outside, outside.copy()
        self._since = time.perf_counter()

    def pass_on(self) -> None:
        if self._baton.wanted and time.perf_counter() - self._since >= _TURN:
            self._own.keep()
            self._baton.pass_on()
            self._go_on()

    def _go_on(self) -> None:
        self._own.install()
        self._since = time.perf_counter()

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._own.keep()
        self._outside.install()
        self._baton.hand_on()
        try:
            yield
        finally:
            self._baton.take()
            self._go_on()


class _Baton:
    """What one thread at a time holds; those who wait for it get it in the order in which they
    came.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: collections.deque[threading.Lock] = collections.deque()

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def take(self) -> None:
        """Wait for it."""
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = self._line_up()
        turn.acquire()

    def hand_on(self) -> None:
        """Give it to the first who waits, or put it down."""
        with self._guard:
            self._give()

    def pass_on(self) -> None:
        """Give it to the first who waits and wait behind the last."""
        with self._guard:
            turn = self._line_up()
            self._give()
        turn.acquire()

    def _line_up(self) -> threading.Lock:
        turn = threading.Lock()
        turn.acquire()  # released by the one who gives
        self._waiting.append(turn)
        return turn

    def _give(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._held = False


class _Globals:
    """What torch has once for the process, as it is now, for going on with it later.

    A GPU's random state is not copied but exchanged for another: a captured graph goes on drawing
    from the one that it was recorded with, whoever holds the baton when the device plays it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device_random: torch.Generator | None = None
        if device.type == "cuda":
            torch.cuda.init()
            self._default = torch.cuda.default_generators[device.index or 0]
            self._device_random = self._default.graphsafe_get_state()
        self.keep()

    def copy(self) -> _Globals:
        """The same values, that go their own way."""
        twin = copy.copy(self)
        if self._device_random is not None:
            twin._device_random = self._device_random.clone_state()
        twin.install()
        return twin

    def keep(self) -> None:
        """Remember what is now, for :meth:`install`; a GPU's random state needs no remembering."""
        self._random = torch.get_rng_state()
        self._products = torch.get_float32_matmul_precision()
        self._convolutions_in_tf32 = torch.backends.cudnn.allow_tf32

    def install(self) -> None:
        """Let it be as it was when it was last kept."""
        torch.set_rng_state(self._random)
        if self._device_random is not None:
            self._default.graphsafe_set_state(self._device_random)
        if torch.get_float32_matmul_precision() != self._products:
            torch.set_float32_matmul_precision(self._products)
        torch.backends.cudnn.allow_tf32 = self._convolutions_in_tf32
