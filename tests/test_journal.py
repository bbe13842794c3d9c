"""The journal: nothing twice, nothing half, read from anywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gan_core.journal import FILE, Journal, finite, read, read_standing


def events(folder: Path) -> list[dict[str, Any]]:
    return [event for event, _ in read(folder / FILE)]


def pairs(folder: Path) -> list[tuple[int, str]]:
    return [(e["step"], n) for e in events(folder) if e["kind"] == "metrics" for n in e["values"]]


def test_what_is_written_is_read_in_its_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "run")
    journal.write("start", 0, workers=2)
    journal.write("metrics", 5, values={"x": 1.5, "y": float("nan")})
    journal.write("end", 5, status="finished", summary={"best": None})
    first, second, third = events(tmp_path / "a" / "run")
    assert (first["kind"], first["step"], first["workers"]) == ("start", 0, 2)
    assert second["values"]["x"] == 1.5
    assert math.isnan(second["values"]["y"])
    assert third["summary"] == {"best": None}
    assert first["time"] <= second["time"] <= third["time"]


def test_events_are_on_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("message", 1, text="so far", level="info")
    assert [e["text"] for e in events(tmp_path)] == ["so far"]
    journal.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_what_is_played_from_anothers_state_takes_the_place_of_what_was_said(
    tmp_path: Path, reopened: bool
) -> None:
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.write("metrics", step, values={"loss": float(step)})
        journal.write("picture", step, name="samples", path=f"{step}.png")
    journal.write("rewind", 2, source="another", point={"k": 2})
    if reopened:
        journal.close()
        journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.write("metrics", step, values={"loss": -float(step)})
        journal.write("picture", step, name="samples", path=f"{step}.png")
    journal.close()
    assert [step for step, _ in pairs(tmp_path)] == [1, 2, 3, 2, 3], "all of it is there"
    standing = read_standing(tmp_path / FILE)
    losses = [(e["step"], e["values"]["loss"]) for e in standing if e["kind"] == "metrics"]
    assert losses == [(1, 1.0), (2, -2.0), (3, -3.0)]
    assert [e["step"] for e in standing if e["kind"] == "picture"] == [1, 2, 3]
    assert sum(e["kind"] == "rewind" for e in standing) == 1


def test_steps_that_are_played_again_are_not_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.write("metrics", step, values={"loss": float(step)})
    journal.write("metrics", 2, values={"fid": 9.0})
    journal.write("picture", 2, name="samples", path="a.png")
    journal.close()
    again = Journal(tmp_path)
    for step in (2, 3, 4):
        again.write("metrics", step, values={"loss": -float(step), "fid": 1.0})
        again.write("picture", step, name="samples", path="a.png")
    assert pairs(tmp_path) == [
        *((1, "loss"), (2, "loss"), (3, "loss"), (2, "fid")),
        *((3, "fid"), (4, "loss"), (4, "fid")),
    ]
    assert [e["step"] for e in events(tmp_path) if e["kind"] == "picture"] == [2, 3, 4]


@pytest.mark.parametrize("reopened", [False, True])
def test_a_figure_of_an_earlier_step_is_written_once_however_late(
    tmp_path: Path, reopened: bool
) -> None:
    journal = Journal(tmp_path)
    journal.write("metrics", 10, values={"fid": 9.0})
    if reopened:
        journal.close()
        journal = Journal(tmp_path)
    for _ in range(2):
        journal.write("metrics", 5, values={"fid": 7.0})
        journal.write("picture", 5, name="samples", path="a.png")
    assert pairs(tmp_path) == [(10, "fid"), (5, "fid")]
    assert [e["step"] for e in events(tmp_path) if e["kind"] == "picture"] == [5]


def test_a_step_written_twice_by_the_same_process_counts_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("metrics", 1, values={"loss": 1.0})
    journal.write("metrics", 1, values={"loss": 2.0})
    assert [e["values"] for e in events(tmp_path)] == [{"loss": 1.0}]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_last_line_that_a_crash_cut_off_is_removed(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.write("metrics", 1, values={"loss": 1.0})
    journal.write("metrics", 2, values={"loss": 2.0})
    journal.close()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    assert pairs(tmp_path) == [(1, "loss")]
    again = Journal(tmp_path)
    again.write("metrics", 2, values={"loss": 2.0})
    assert pairs(tmp_path) == [(1, "loss"), (2, "loss")]
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    "rubbish", [b"\0\0\0\0\n", b'{"kind": "me\xe2\x82\n', b"7\n", b"[]\n", b"\n"]
)
def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, rubbish: bytes) -> None:
    journal = Journal(tmp_path)
    journal.write("metrics", 1, values={"loss": 1.0})
    journal.close()
    with (tmp_path / FILE).open("ab") as file:
        file.write(rubbish)
    again = Journal(tmp_path)
    again.write("metrics", 1, values={"loss": 1.0})
    again.write("metrics", 2, values={"loss": 2.0})
    assert pairs(tmp_path) == [(1, "loss"), (2, "loss")]


def test_reading_goes_on_from_an_offset_and_waits_for_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    path = tmp_path / FILE
    for step in range(4):
        journal.write("message", step, text="ä" * step, level="info")
    whole = list(read(path))
    assert whole[-1][1] == path.stat().st_size
    for number, (_, offset) in enumerate(whole):
        assert [e["step"] for e, _ in read(path, offset)] == [0, 1, 2, 3][number + 1 :]
    end = whole[-1][1]
    line = b'{"kind": "message", "step": 9, "text": "x"}\n'
    with path.open("ab") as file:
        file.write(line[:20])
    assert list(read(path, end)) == []
    with path.open("ab") as file:
        file.write(line[20:])
    assert [(e["step"], o) for e, o in read(path, end)] == [(9, end + len(line))]


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(read(tmp_path / "none.jsonl")) == []


def test_finite_leaves_out_what_is_no_number() -> None:
    assert finite(1.5) == 1.5
    assert [finite(v) for v in (float("nan"), float("inf"), -float("inf"))] == [None] * 3
