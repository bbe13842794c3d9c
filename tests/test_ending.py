from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest

from gan_core.config import make_config
from pipelines import ending
from pipelines.ending import give_back, take_signals
from pipelines.run_folder import STOP
from pipelines.study import _exit_code
from pipelines.train import Watch
from pipelines.tune import _endings_as_interrupts


@pytest.fixture(autouse=True)
def default_hangup(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGHUP as in a terminal, which the tests may not run in; one they run in stays open."""
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is, in ``now``, as the code that takes signals sees it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(ending, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_closed_terminal_asks_once_for_an_end_however_often_it_says_so(
    clock: SimpleNamespace,
) -> None:
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = take_signals(hear, signal.SIGINT)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.raise_signal(number)
        clock.now += ending.TOGETHER
    give_back(before)
    signal.raise_signal(signal.SIGHUP)  # would end this process
    assert heard == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is not hear


def test_signals_that_come_together_are_one_wish_to_end(clock: SimpleNamespace) -> None:
    heard: list[tuple[int, float]] = []
    before = take_signals(lambda number, frame: heard.append((number, clock.now)), signal.SIGINT)
    for number, later in (
        (signal.SIGINT, 0.0),  # from the terminal
        (signal.SIGINT, 0.9),  # what torchrun hands on
        (signal.SIGTERM, 0.2),  # a second wish, 1.1 seconds after the first
        (signal.SIGHUP, 0.5),
    ):
        clock.now += later
        signal.raise_signal(number)
    give_back(before)
    assert heard == [(signal.SIGINT, 100.0), (signal.SIGTERM, pytest.approx(101.1))]


SLEEPER = """
import os, signal, sys, time
def stop(number, frame):
    print("written", number, flush=True)
    sys.exit(3)
signal.signal(int(sys.argv[1]), stop)
os.kill(os.getppid(), int(sys.argv[1]))
time.sleep(30)
"""
"""Has the process that waits for it asked to end, and ends by what comes of that."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_study_that_is_asked_to_end_has_its_step_end_and_waits_for_it(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code([sys.executable, "-c", SLEEPER, str(int(number))]) == 130
    assert capfd.readouterr().out == f"written {int(number)}\n"


def test_a_study_that_is_asked_to_end_as_its_step_begins_passes_that_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[int] = []

    class Step:
        """A process whose start is not over when the signal comes."""

        def __init__(self, words: list[str]) -> None:
            signal.raise_signal(signal.SIGTERM)

        def send_signal(self, number: int) -> None:
            sent.append(number)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Step)
    assert _exit_code(["a step"]) == 130
    assert sent == [signal.SIGTERM]


def test_what_is_heard_first_may_interrupt(clock: SimpleNamespace) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = take_signals(interrupt, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)  # leaves alone what cleans up after the first
    give_back(before)


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _endings_as_interrupts():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_what_was_not_sent_is_as_before() -> None:
    give_back(take_signals(lambda number, frame: None))
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_search_is_interrupted_as_by_ctrl_c(number: signal.Signals) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Tune leaves its own
    try:
        with pytest.raises(KeyboardInterrupt), _endings_as_interrupts():
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_whose_terminal_is_closed_is_asked_for_a_checkpoint(tmp_path: Path) -> None:
    config = make_config({"variant": "gan", "data": "ring", "storage": str(tmp_path), "name": "r"})
    config.folder.mkdir()
    with Watch(config) as watch:
        watch.started = True
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert (config.folder / STOP).exists()
        assert watch.signals == 1, "a second one would end it without a checkpoint"


def test_what_is_printed_after_the_terminal_was_closed_goes_nowhere(tmp_path: Path) -> None:
    code = """if True:
        import signal, sys, time
        from pathlib import Path
        from pipelines.ending import take_signals
        asked = []
        take_signals(lambda *_: asked.append(1))
        print("ready", flush=True)
        while not asked:
            time.sleep(0.01)
        print("last words", flush=True)
        Path(sys.argv[1]).write_text("ended well")
    """
    said = tmp_path / "said"
    terminal, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(said)], stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    told = b""
    while b"\n" not in told:  # without a buffer the line and its end come one after the other
        told += os.read(terminal, 100)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert said.read_text() == "ended well"
