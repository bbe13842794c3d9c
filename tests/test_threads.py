"""How many threads a worker computes with."""

from __future__ import annotations

import pytest

from pipelines.cluster import THREADS, Cluster, threads_per_worker


@pytest.mark.parametrize(
    ("cluster", "workers", "given", "threads"),
    [
        (Cluster(True, {"CPU": 8.0}, False), 2, None, 4),
        (Cluster(True, {"CPU": 2.0}, False), 3, None, 1),
        (Cluster(True, {"CPU": 8.0}, False), 2, "1", 1),
        (Cluster(True, {"CPU": 8.0}, False), 2, "0", 4),
        (Cluster(True, {"CPU": 8.0}, False), 2, "4,2", 4),
        (Cluster(False, {"CPU": 8.0}, False), 2, "3", 1),
    ],
)
def test_threads_are_the_users_or_a_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, workers: int, given: str | None, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_per_worker(cluster, workers) == threads


def test_a_process_that_plays_for_another_has_the_threads_that_it_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(THREADS, "5")
    assert threads_per_worker(Cluster(False, {"CPU": 16.0}, False), 1) == 5
