"""What is otherwise in a process that `ray job submit` has started."""

from __future__ import annotations

import pytest

from pipelines import cluster


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
