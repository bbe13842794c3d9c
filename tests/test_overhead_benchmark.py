from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks.overhead import (
    CHECKPOINT_EVERY,
    FIRST,
    RAY,
    TORCHRUN,
    TURN,
    Contender,
    Turn,
    interval,
    interval_over_starts,
    ratios,
    report,
)

RUN = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1]) / sys.argv[-1]
folder.mkdir()
with (folder / "journal.jsonl").open("w", buffering=1) as file:
    wall, clock = 0.0, 0.0
    for step in range(50, 100_000, 50):
        wall, clock = wall + 0.5, clock + 0.5
        event = {"kind": "metrics", "step": step, "time": wall, "values": {"seconds": clock}}
        file.write(json.dumps(event) + "\\n")
        wall += 0.020 + (0.300 if step % 1000 == 0 else 0)
        time.sleep(0.01)
"""
"""A run of 10 ms an iteration; logging takes 20 ms, a checkpoint 300, by its own clocks."""


@pytest.fixture
def contender(tmp_path: Path) -> Contender:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    return Contender("Made up", [sys.executable, str(script), str(tmp_path)], tmp_path)


def test_a_turn_has_the_runs_own_times_and_a_stopped_run_stands_still(
    contender: Contender, tmp_path: Path
) -> None:
    try:
        contender.play_to(FIRST)
        contender.stop()
        journal = tmp_path / "made" / "journal.jsonl"
        before = journal.stat().st_size
        time.sleep(0.2)
        assert journal.stat().st_size == before
        turn = contender.turn(FIRST, FIRST + TURN)
    finally:
        contender.end()
    assert FIRST < CHECKPOINT_EVERY < FIRST + TURN
    assert turn.logging_point == pytest.approx(20)
    assert turn.checkpoints == pytest.approx([300])
    assert turn.iteration == pytest.approx((9 * (500 + 20) + 300) / 450)


def test_a_run_that_ends_is_told_with_its_output(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with pytest.raises(SystemExit, match=r"(?s)by Made up has ended.*no such option"):
        Contender("Made up", words, tmp_path).play_to(50)


def test_the_interval_of_equal_ratios_is_their_value() -> None:
    assert interval([1.5] * 8) == (1.5, 1.5)
    low, high = interval([0.9, 1.1] * 20)
    assert 0.95 < low < 1 < high < 1.05


def made_up(ratio: float, slower: float = 1.0) -> dict[str, list[Turn]]:
    """The turns of a start in which Ray takes ``ratio`` times as long as torchrun."""
    times = [(10.0, []), (12.0, [30.0])] * 2
    return {
        RAY: [Turn(slower * ratio * t, 1.0, saved) for t, saved in times],
        TORCHRUN: [Turn(slower * t, 1.0, saved) for t, saved in times],
    }


def test_the_interval_over_starts_is_students_and_blind_to_how_fast_a_start_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    means = [0.98, 1.00, 1.02, 1.04]
    error = (sum((m - 1.01) ** 2 for m in means) / 3 / 4) ** 0.5
    wanted = (1.01 - 3.182446 * error, 1.01 + 3.182446 * error)  # t of 3 degrees of freedom
    assert interval_over_starts(means) == pytest.approx(wanted, rel=1e-5)
    assert ratios(made_up(1.02)) == pytest.approx([1.02, 1.02])
    report([made_up(mean, slower) for mean, slower in zip(means, (1, 2, 1, 5), strict=True)])
    said = f"ratio 1.0100, 95 % confidence over 4 starts {wanted[0]:.4f} to {wanted[1]:.4f}"
    assert said in capsys.readouterr().out
