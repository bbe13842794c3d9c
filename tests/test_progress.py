from __future__ import annotations

import io
from typing import Any

import pytest

from pipelines.progress import ProgressLine, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What a reader sees: every carriage return goes back to the start of the line."""
        lines = []
        for line in self.getvalue().split("\n"):
            row = ""
            for part in line.split("\r"):
                row = part + row[len(part) :]
            lines.append(row.rstrip())
        return lines


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def metrics(step: int, at: float, **values: float) -> dict[str, Any]:
    named = {"loss/discriminator": 0.69, "loss/generator": 1.2, "images_per_second": 1234.4}
    return {"kind": "metrics", "step": step, "time": at, "values": named | values}


def start(step: int = 0, at: float = 0.0, **content: Any) -> dict[str, Any]:
    return {"kind": "start", "step": step, "time": at, **content}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (11229, "3:07:09"), (-3, "0:00")],
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_says_iteration_speed_losses_and_time_left() -> None:
    line = ProgressLine("dcgan", 400, stream=Terminal())
    for event in (start(), metrics(100, 10.0)):
        line.show(event)
    assert line.text() == (
        "dcgan [=====...............] 100/400  1,234 images/s  D 0.690  G 1.200  0:30 left"
    )


def test_time_left_follows_the_pace_of_the_run() -> None:
    line = ProgressLine("gan", 1000, stream=Terminal())
    line.show(start())
    assert line.seconds_left() is None
    line.show(metrics(250, 50.0))
    assert line.seconds_left() == pytest.approx(750 / 5)
    line.show(metrics(500, 150.0))
    assert line.seconds_left() == pytest.approx(500 / (500 / 150))


def test_a_resumed_run_counts_its_pace_from_where_it_went_on() -> None:
    line = ProgressLine("gan", 1000, stream=Terminal())
    line.show(start(step=900, at=100.0))
    line.show(metrics(950, 150.0))
    assert line.seconds_left() == pytest.approx(50.0)


def test_a_start_tells_the_iterations_of_all_stages() -> None:
    line = ProgressLine("stackgan", 100, stream=Terminal())
    line.show(start(steps=200))
    assert "0/200" in line.text()


def test_a_terminal_shows_one_line_and_messages_above_it() -> None:
    stream = Terminal()
    line = ProgressLine("gan", 100, stream=stream)
    line.show(start())
    line.show(metrics(10, 1.0))
    line.show({"kind": "message", "step": 10, "time": 1.0, "text": "hello", "level": "warning"})
    line.show(metrics(20, 2.0))
    line.close()
    screen = stream.screen()
    assert screen[0] == "warning: hello"
    assert screen[1].startswith("gan [====................] 20/100")
    assert screen[2:] == [""]


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine("gan", 100, stream=stream, clock=clock)
    line.show(start())
    for step in range(1, 26):
        clock.now = float(step)
        line.show(metrics(step, float(step)))
    line.close()
    text = stream.getvalue()
    assert "\r" not in text
    steps = [int(row.split("] ")[1].split("/")[0]) for row in text.splitlines()]
    assert steps == [1, 11, 21, 25]


def test_workers_that_start_again_are_mentioned() -> None:
    stream = io.StringIO()
    line = ProgressLine("gan", 100, stream=stream)
    line.show(start())
    assert stream.getvalue() == ""
    line.show(start(step=40))
    assert stream.getvalue() == "the workers were started again and go on from iteration 40\n"


def test_a_step_that_is_played_again_does_not_turn_the_line_back() -> None:
    line = ProgressLine("gan", 100, stream=Terminal())
    for event in (start(), metrics(60, 6.0), start(step=40, at=20.0), metrics(50, 21.0)):
        line.show(event)
    assert "60/100" in line.text()
    assert line.seconds_left() == pytest.approx(5.0)


class Gone(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_gone_ends_nothing() -> None:
    line = ProgressLine("gan", 100, stream=Gone(), interval=0)
    line.show(start(steps=100))
    line.show(metrics(10, 1.0))
    line.say("stopping: a checkpoint is written")
    line.close()
