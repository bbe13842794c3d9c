from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import events

from gan_core.config import make_config, write_config
from pipelines.tuning.study import Study, TuneOptions

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def test_workers_play_no_further_than_tune_has_decided(tmp_path: Path) -> None:
    from pipelines.tuning.workers import play_on_workers

    values = {
        "variant": "gan", "data": "ring", "storage": str(tmp_path), "name": "search", "steps": 90,
        "evaluate_every": 30, "checkpoint_every": 30, "log_every": 10, "samples": 100,
        "hidden": 8, "maxout_units": 4, "batch_size": 16, "workers": 2, "device": "cpu",
    }  # fmt: skip
    options = TuneOptions(metric="mixture_score", workers_per_trial=2, gpus_per_trial=0.0)
    config = dataclasses.replace(make_config(values), name="trial_0001")
    study = Study(run=make_config(values), options=options, target="point", modes=8)
    config.folder.mkdir(parents=True)
    write_config(config, config.folder / "config.yaml")
    seen: list[tuple[int, int]] = []

    def report(step: int, figures: Mapping[str, float], saved: Path | None) -> None:
        assert saved is not None
        assert "modes_covered" in figures
        time.sleep(1)  # Tune thinks
        seen.append((step, max(event["step"] for event in events(config.folder, "metrics"))))

    summary = play_on_workers(study, config, None, report)
    assert (summary["status"], summary["step"]) == ("finished", 90)
    assert seen == [(30, 30), (60, 60), (90, 90)]
