"""Detection and false alarms of the diagnosis, counted on the journals of planted runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from gan_core.diagnostics.diagnosis import FAILURES, Diagnosis
from pipelines.diagnose import diagnose


class Truth(Protocol):
    """What is known of a run."""

    @property
    def name(self) -> str:
        """The run's name."""

    @property
    def part(self) -> str:
        """ "set" or "proof"."""

    @property
    def present(self) -> frozenset[str]:
        """Failures that are in it."""

    @property
    def absent(self) -> frozenset[str]:
        """Failures that are not."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A run's truth, and the states that the diagnosis ends with."""

    truth: Truth
    states: dict[str, str]
    lines: dict[str, str]


def verdicts(truths: Iterable[Truth], out: Path) -> list[Verdict]:
    """The verdicts on those runs that have been played, by the thresholds of today."""
    found = []
    for truth in truths:
        if (out / truth.name / "done.json").exists():
            diagnosis: Diagnosis = diagnose(out / truth.name)
            findings = diagnosis.findings
            states: dict[str, str] = {name: f.state for name, f in findings.items()}
            found.append(Verdict(truth, states, {n: f.line() for n, f in findings.items()}))
    return found


def _count(cases: Sequence[Verdict], failure: str, states: Sequence[str]) -> str:
    hits = sum(case.states[failure] in states for case in cases)
    return f"{hits} of {len(cases)}" + (f" ({100 * hits / len(cases):.0f} %)" if cases else "")


def table(found: Sequence[Verdict], part: str) -> list[str]:
    """A row for each failure: what was found of what is there, and what was seen in its absence."""
    rows = [
        f"| {part} | confirmed where present | confirmed or suspected | confirmed where absent |",
        "|---|---|---|---|",
    ]
    mine = [case for case in found if case.truth.part == part]
    for failure in FAILURES:
        present = [case for case in mine if failure in case.truth.present]
        absent = [case for case in mine if failure in case.truth.absent]
        either = ("suspected", "confirmed")
        rows.append(
            f"| {failure.replace('_', ' ')} | {_count(present, failure, ['confirmed'])} "
            f"| {_count(present, failure, either)} | {_count(absent, failure, ['confirmed'])} |"
        )
    return rows


def mistakes(found: Sequence[Verdict], part: str) -> list[str]:
    """A line for each failure missed, and for each false alarm."""
    said = []
    for case in found:
        if case.truth.part != part:
            continue
        for failure in FAILURES:
            state, line = case.states[failure], case.lines[failure]
            if failure in case.truth.present and state != "confirmed":
                said.append(f"missed: {case.truth.name}: {line}")
            if failure in case.truth.absent and state == "confirmed":
                said.append(f"false alarm: {case.truth.name}: {line}")
    return said


def report(truths: Iterable[Truth], out: Path, parts: Sequence[str]) -> str:
    """The tables of ``parts`` with their mistakes."""
    found = verdicts(truths, out)
    text: list[str] = []
    for part in parts:
        text += [*table(found, part), "", *mistakes(found, part), ""]
    return "\n".join(text)
