"""What is otherwise in a process that `ray job submit` has started."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gan_core.journal import Journal
from pipelines import cluster
from pipelines.compare import compare_command
from pipelines.diagnose import diagnose_command
from pipelines.sample import sample_command


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)


def test_a_job_says_as_it_starts_if_a_stop_would_not_wait_for_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(cluster, "_describe", lambda own: cluster.Cluster(own, {}, False))
    with cluster.connected():
        pass
    assert capsys.readouterr().err.startswith("warning: `ray job stop` kills this job after 3 s")
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "120")
    with cluster.connected():
        pass
    assert capsys.readouterr().err == ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, with a run in it; the current folder is another, which Ray will delete."""
    home, working = tmp_path / "home", tmp_path / "working"
    folder = home / "runs" / "first"
    folder.mkdir(parents=True)
    working.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(working)
    config = {"variant": "gan", "data": "ring", "options": {"k": 1, "steps": 20}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    book = Journal(folder)
    book.write("start", 0, steps=20)
    book.write("metrics", 20, values={"seconds": 2.0, "images_seen": 64.0, "loss/generator": 1.0})
    book.write("metrics", 20, values={"modes_covered": 8.0})
    book.close()
    return home


def test_what_a_job_writes_for_the_user_outlives_the_jobs_folder(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("pipelines.diagnose.draw", lambda _, out, samples: asked.append(out))
    monkeypatch.setattr("pipelines.sample.check_ending", lambda out, translates: asked.append(out))
    monkeypatch.setattr("pipelines.sample.resolve", _refuse)
    compare_command(["first"])
    diagnose_command(["first", "--out", "why.png", "--samples", "0"])
    with pytest.raises(ZeroDivisionError):
        sample_command(["first", "--out", "grid.png"])
    assert (home / "comparison.html").exists()
    assert asked == [home / "why.png", home / "grid.png"]
    told = capsys.readouterr().out
    assert f"1 run compared: {home / 'comparison.html'}" in told
    assert f"picture {home / 'why.png'}" in told


def _refuse(name: str, storage: str) -> Path:
    raise ZeroDivisionError
