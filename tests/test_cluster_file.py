from __future__ import annotations

import copy
import os
import re
import socket
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ON_PREMISE = re.compile(r"^#   (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def validate(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(cluster)))


def on_premise(cluster: dict[str, Any]) -> dict[str, Any]:
    """The cluster as the comment at the end of the file turns it into an on-premise one."""
    text = (ROOT / "cluster.yaml").read_text().partition("# On-premise:")[2]
    changes = yaml.safe_load("\n".join(ON_PREMISE.findall(text)))
    left_out = ("available_node_types", "head_node_type", "initialization_commands", "docker")
    return {k: v for k, v in cluster.items() if k not in left_out} | changes


@pytest.mark.integration
def test_rays_validator_takes_the_file(cluster: dict[str, Any]) -> None:
    validate(cluster)
    with pytest.raises(Exception, match="idle_timeout_hours"):
        validate({**cluster, "idle_timeout_hours": 1})


@pytest.mark.integration
def test_rays_validator_takes_the_on_premise_form(cluster: dict[str, Any]) -> None:
    local = on_premise(cluster)
    assert local["provider"]["type"] == "local"
    validate(local)


def test_gpu_machines_come_only_when_they_are_needed(cluster: dict[str, Any]) -> None:
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] >= 1
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] >= 1
    assert "GPU" not in cluster["available_node_types"][cluster["head_node_type"]]["resources"]


def test_nothing_listens_to_the_world_and_ray_asks_for_the_token(cluster: dict[str, Any]) -> None:
    head = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "mlflow server --host 127.0.0.1" in head
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    (first, second) = [line for line in starts if "ray start" in line]
    assert "RAY_AUTH_MODE=token" in first
    assert "RAY_AUTH_MODE=token" in second
    assert "/home/ray/.ray/auth_token" in cluster["file_mounts"]


def test_the_tracking_server_is_started_where_none_listens(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    (line,) = [c for c in cluster["head_start_ray_commands"] if "mlflow server" in c]
    stub = tmp_path / "mlflow"
    stub.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/started\n")
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        command = line.replace("5000", str(server.getsockname()[1])).replace(
            "/tmp/", f"{tmp_path}/"
        )
        for listens in (True, False):
            if listens:
                server.listen()
            else:
                server.close()
            # As Ray has it run: its text is in the command line of the shell that runs it.
            subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=20)
            deadline = time.monotonic() + (1 if listens else 20)
            while not (tmp_path / "started").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert (tmp_path / "started").exists() == (not listens)


def test_a_stopped_job_has_time_for_its_checkpoint(cluster: dict[str, Any]) -> None:
    """Ray reads it in what `ray start` has started: its own shell runs every command."""
    (line,) = [c for c in cluster["head_start_ray_commands"] if "ray start" in c]
    seconds = re.search(r"export [^;]*RAY_JOB_STOP_WAIT_TIME_S=(\d+)", line)
    assert seconds is not None
    assert int(seconds[1]) >= 60


def test_all_of_the_project_goes_to_the_machines(cluster: dict[str, Any]) -> None:
    """rsync tries a pattern after every slash of a path, but for one that begins with a slash."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    )
    parts = {part for path in listed.stdout.split() for part in Path(path).parts}
    for pattern in cluster["rsync_exclude"]:
        assert pattern.startswith("/") or pattern.strip("*/") not in parts, pattern


def test_the_image_has_the_ray_that_the_project_asks_for(cluster: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ray,) = [d for d in project["dependencies"] if d.startswith("ray[")]
    wanted = re.search(r">=(\d+\.\d+)", ray)
    assert wanted is not None
    images = [
        cluster["docker"]["image"],
        cluster["available_node_types"]["gpu"]["docker"]["worker_image"],
    ]
    for image in images:
        assert image.startswith(f"rayproject/ray:{wanted[1]}.")
