"""What a run does with its diagnosis: lines, tags, the summary, and a stop."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from engine_toys import Stacked, tiny_config

from gan_core import journal
from gan_core.config import make_config
from gan_core.diagnostics.diagnosis import FAILURES
from gan_core.diagnostics.findings import Finding
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.observers import FolderObserver
from gan_core.run import Run, play
from gan_core.variant import VARIANTS, GameOptions, register
from pipelines.diagnose import diagnose


class Diverging(FolderObserver):
    """Spoils the generator's weights after the step ``at``."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(folder, World())
        self.at = at

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        if step == self.at:
            with torch.no_grad():
                next(self.run.game.variant.generator.parameters()).fill_(math.nan)  # type: ignore[attr-defined]


def diverged(folder: Path, **values: object) -> tuple[dict[str, object], Path]:
    config = tiny_config(folder, "gan", **values)
    observer = Diverging(config.folder, at=6)
    observer.run = Run(config, World(), observer)  # type: ignore[attr-defined]
    return observer.run.play(), config.folder  # type: ignore[attr-defined]


def events(folder: Path, kind: str) -> list[dict[str, object]]:
    return [e for e, _ in journal.read(folder / journal.FILE) if e["kind"] == kind]


def test_stop_on_ends_a_run_with_a_line_and_a_checkpoint(tmp_path: Path) -> None:
    summary, folder = diverged(tmp_path / "run", stop_on=("divergence",), steps=30)
    assert (summary["status"], summary["step"]) == ("stopped", 9)
    assert summary["stopped_by"] == "non_convergence"
    assert find_checkpoint(folder).name == "step_00000009"  # type: ignore[union-attr]
    texts = [str(e["text"]) for e in events(folder, "message")]
    assert len([t for t in texts if "divergence confirmed, since iteration 9" in t]) == 2
    assert any("--stop-on divergence" in t for t in texts)
    tags = {e["name"]: e["value"] for e in events(folder, "tag")}
    assert tags["stopped_by"] == "divergence"
    assert tags["diagnosis.non_convergence"] == "confirmed"
    assert "not finite" in str(tags["diagnosis.non_convergence.evidence"])
    assert tags["diagnosis.overfitting"] == "unknown"  # its window is longer than the run
    # Resumed without the option it goes on.
    config = tiny_config(folder, "gan", steps=12)
    resumed = play(config, World(), FolderObserver(folder, World()), find_checkpoint(folder))
    assert (resumed["status"], resumed["step"]) == ("finished", 12)
    assert resumed["diagnosis"]["non_convergence"]["since"] == 9


def test_a_failure_that_is_over_leaves_no_evidence_that_says_otherwise(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", "gan")
    run = Run(config, World(), FolderObserver(config.folder, World()))
    failed = Finding("mode_collapse", "confirmed", 3, "few modes")
    for finding in (failed, dataclasses.replace(failed, state="none", since=None, evidence="")):
        run._announce(finding)
    run._tag(Finding("overfitting"))
    tags = {e["name"]: e["value"] for e in events(config.folder, "tag")}
    assert tags == {
        "diagnosis.mode_collapse": "none",
        "diagnosis.mode_collapse.evidence": "no mode collapse",
        "diagnosis.overfitting": "none",
    }


def test_the_summary_holds_the_diagnosis_as_plain_values(tmp_path: Path) -> None:
    summary, _ = diverged(tmp_path / "run", steps=12)
    assert summary["status"] == "finished"
    assert summary["stopped_by"] is None
    found = json.loads(json.dumps(summary["diagnosis"]))
    assert set(found) == set(FAILURES)
    assert found["non_convergence"]["form"] == "divergence"
    assert found["non_convergence"]["state"] == "confirmed"


def test_where_a_stage_began_is_known_on_resume_and_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VARIANTS, "_entries", dict(VARIANTS._entries))

    @register("stacked-toy")
    class TwoStages(Stacked):
        def __init__(self, options: GameOptions) -> None:
            super().__init__(options.steps)

    given = {"variant": "stacked-toy", "data": "digits", "extractor": "none", "device": "cpu"}
    places = {"storage": str(tmp_path), "name": "run", "workers": 0, "samples": 40}
    cadence = {"log_every": 3, "evaluate_every": 6, "checkpoint_every": 0}
    config = make_config({**given, **places, **cadence, "steps": 9, "batch_size": 16})
    config.folder.mkdir()
    observer = FolderObserver(config.folder, World())
    run = Run(config, World(), observer)
    run.play()
    assert (run.diagnosis.history.began, run.game.steps) == (9, 18)
    assert run.diagnosis.history.steps("stage/begun") == [3, 6, 9, 12, 15, 18]
    assert run.diagnosis.history.values("stage/begun") == [0.0] * 3 + [9.0] * 3
    resumed = Run(config, World(), observer)
    resumed._restore(find_checkpoint(config.folder))  # type: ignore[arg-type]
    told = diagnose(config.folder)
    assert resumed.diagnosis.findings == run.diagnosis.findings == told.findings
    assert resumed.diagnosis.history.began == told.history.began == 9
