"""Stages played apart: several processes, a failure that costs the others nothing, put together."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gan_core.config import RunConfig, make_config
from gan_core.engine.checkpoint import find_checkpoint, read_shared
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import FolderObserver
from gan_core.release import load_generator
from gan_core.run import Run
from pipelines.apart import _join, _Parts, parts_of
from pipelines.run_folder import finished

pytestmark = pytest.mark.integration
TINY = {
    "levels": 2, "latent": 3, "hidden": 8, "width": 3, "steps": 4, "dropout": 0.0, "batch_size": 4,
    "log_every": 2, "evaluate_every": 0, "extractor": "none", "ema": 0.9,
}  # fmt: skip


def config_of(folder: Path, **values: Any) -> RunConfig:
    plain = {"variant": "lapgan", "data": "folder", "data_root": str(folder / "pictures")}
    place = {"storage": str(folder / "runs"), "name": "whole", "workers": 2}
    return make_config({**plain, **place, **TINY, **values})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        values = torch.randint(0, 256, (12, 12), generator=generator, dtype=torch.uint8)
        Image.fromarray(values.numpy()).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path


def state_of(config: RunConfig) -> dict[str, Any]:
    checkpoint = find_checkpoint(config.folder)
    assert checkpoint is not None
    return dict(read_shared(checkpoint, torch.device("cpu"))["game"])


def test_which_runs_play_the_stages(tmp_path: Path) -> None:
    def found(workers: int, **values: Any) -> dict[str, tuple[str | None, int]]:
        parts = parts_of(config_of(tmp_path, workers=workers, **values))
        assert all(part.options["level"] is not None for part in parts.values())
        return {stage: (part.name, part.workers) for stage, part in parts.items()}

    assert found(2) == {"level_0": ("whole-level_0", 1), "level_1": ("whole-level_1", 1)}
    assert [w for _, w in found(5).values()] == [2, 2]
    assert [w for _, w in found(5, batch_size=5).values()] == [1, 1]
    assert found(1) == {}
    assert found(2, level=1) == {}
    needing = make_config({"variant": "gan", "data": "digits", "workers": 4, "name": "x"})
    assert parts_of(needing) == {}


def test_a_failed_stage_costs_the_others_nothing_and_all_are_put_together(
    pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = config_of(pictures)
    # Without Ray, which changes nothing here: what is played apart are processes.
    parts = {n: dataclasses.replace(p, workers=0) for n, p in parts_of(config).items()}
    wrong = dataclasses.replace(parts["level_1"], data_root=str(pictures / "nowhere"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert _Parts(parts | {"level_1": wrong}, 2, environment).play() == ["level_1"]
    assert finished(parts["level_0"])
    log = Path(f"{parts['level_1'].folder}.log")
    assert "no folder" in log.read_text()
    with pytest.raises(UserError, match="no whole checkpoint of level_1"):
        _join(config, parts)
    capfd.readouterr()
    assert _Parts(parts, 2, environment).play() == []
    told = capfd.readouterr().err
    assert "level_1: finished" in told
    assert "level_0" not in told
    summary = _join(config, parts)
    assert (summary["status"], summary["step"]) == ("finished", 8)
    assert load_generator(config.folder).info["stage"] == "level_1"

    turn = dataclasses.replace(config, name="turn", workers=0)
    Run(turn, World(), FolderObserver(turn.folder, World())).play()
    joined, played = state_of(config), state_of(turn)
    assert joined["step"] == played["step"] == 8
    for name, value in played["networks"].items():
        assert torch.equal(value, joined["networks"][name]), name
