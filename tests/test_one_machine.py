"""Ray Train on a machine of its own: the processes that only a cluster needs are not started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ray._private import services
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

from gan_core.config import make_config
from pipelines.cluster import _in_groups_of_their_own
from pipelines.one_machine import OneMachineTrainer, UnscaledPolicy
from pipelines.trainer import make_trainer


def trainer(folder: Path, alone: bool) -> TorchTrainer:
    config = make_config({"variant": "gan", "data": "ring", "storage": str(folder), "name": "run"})
    return make_trainer(config, device="cpu", threads=1, checkpoint=None, alone=alone)


def test_a_run_that_has_ray_for_itself_has_no_cleaner_and_everything_else(tmp_path: Path) -> None:
    alone, shared = (trainer(tmp_path, alone) for alone in (True, False))
    assert isinstance(alone, OneMachineTrainer)
    assert not isinstance(shared, OneMachineTrainer)
    own, usual = (
        [type(callback).__name__ for callback in one._create_default_callbacks()]
        for one in (alone, shared)
    )
    assert [name for name in usual if name not in own] == ["PlacementGroupCleanerCallback"]
    assert [name for name in own if name not in usual] == []


def test_its_policy_decides_as_the_usual_one_and_asks_nobody() -> None:
    scaling = ScalingConfig(num_workers=3, resources_per_worker={"CPU": 1})
    own, usual = UnscaledPolicy(scaling), FixedScalingPolicy(scaling)
    usual._maybe_send_resource_request = lambda: None  # type: ignore[method-assign]
    own.after_controller_start(None)  # type: ignore[arg-type]
    assert own._coordinator_client is None
    decisions = [one.make_decision_for_non_running_worker_group() for one in (own, usual)]
    assert decisions[0] == decisions[1]
    assert decisions[0].num_workers == 3  # type: ignore[attr-defined]


def test_the_controller_is_given_that_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    monkeypatch.setattr(
        TorchTrainer, "_initialize_and_run_controller", lambda self, **found: given.update(found)
    )
    own = OneMachineTrainer(print, scaling_config=ScalingConfig(num_workers=2))
    own._initialize_and_run_controller(scaling_policy="usual", callbacks=[1])
    assert isinstance(given.pop("scaling_policy"), UnscaledPolicy)
    assert given == {"callbacks": [1]}


def test_another_version_of_ray_gets_the_usual_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pipelines.one_machine", None)
    assert type(trainer(tmp_path, alone=True)) is TorchTrainer


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux alone")
def test_what_ends_the_group_of_a_command_does_not_reach_the_processes_of_its_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = services.ConsolePopen
    with _in_groups_of_their_own():
        process = services.ConsolePopen(["cat"], stdin=-1)
    try:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    finally:
        process.communicate()
    assert services.ConsolePopen is before
    with monkeypatch.context() as elsewhere:  # where Ray ends the group of a process that is killed
        elsewhere.setattr(sys, "platform", "darwin")
        with _in_groups_of_their_own():
            assert services.ConsolePopen is before
    monkeypatch.delattr(services, "ConsolePopen")  # another version of Ray
    with _in_groups_of_their_own():
        assert not hasattr(services, "ConsolePopen")
