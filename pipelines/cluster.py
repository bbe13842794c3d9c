"""Ray: starting it here or joining a cluster, and what the cluster can give."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gan_core import host_memory
from gan_core.config import RunConfig, absolute_option
from gan_core.errors import UserError, first_line
from gan_core.options import flag
from gan_core.paths import user_path
from pipelines import mlflow_client

_OBJECT_STORE = 256 * 1024**2  # bytes; datasets and gradients do not travel through it
THREADS = "GAN_THREADS_PER_WORKER"
"""An environment variable: what the process that started this one, and Ray, has for each worker."""
_API_SERVER = "RAY_API_SERVER_ADDRESS"
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Seconds from ``ray job stop`` until Ray kills the job: 3 by default. Ray reads it where it starts
the job, whose environment is a copy of that."""


def in_job() -> bool:
    """Whether this process was started by ``ray job submit``."""
    return _JOB in os.environ


def on_this_machine() -> bool:
    """Whether Ray's workers will be here, and see this machine's files and devices."""
    return not (in_job() or os.environ.get("RAY_ADDRESS"))


def base_folder() -> Path:
    """Where relative paths start: the current folder, in a Ray job the home folder.

    The folder that a job is started in is a copy that Ray deletes with everything written there.
    """
    return Path.home() if in_job() else Path.cwd()


def absolute(config: RunConfig) -> RunConfig:
    """``config`` with absolute folders, which mean the same in every worker.

    What is written goes below :func:`base_folder`; what is read is looked for in the current one.
    """
    base = base_folder()
    read: dict[str, Any] = {
        name: str(user_path(value, flag(name)).absolute())
        for name in ("data_root", "extractor_weights")
        if (value := getattr(config, name)) is not None
    }
    written: dict[str, Any] = {
        name: str((base / user_path(value, flag(name))).resolve())
        for name in ("storage", "cache")
        if (value := getattr(config, name)) is not None
    }
    options = {
        name: str(user_path(value, flag(name)).absolute())
        if name.endswith("_weights") and value
        else value
        for name, value in config.options.items()
    }
    source = {name: absolute_option(name, v, base) for name, v in config.data_options.items()}
    return dataclasses.replace(config, options=options, data_options=source, **read, **written)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The Ray that training runs on; ``own``: it was started here, on this machine alone."""

    own: bool
    resources: dict[str, float]
    """The most of each resource that there is, or that autoscaling could add."""
    autoscaling: bool


def set_environment(own: bool, *, search: bool = False) -> None:
    """Environment variables that Ray reads as it is imported and started.

    ``search``: Ray Train's runs are a search's trials, which wait for their reports to arrive.
    """
    # The controller finds reports when it looks at the workers, every 2 s by default. Looking
    # costs them time: on two busy cores 0.1 s made every step 15 % slower, 0.5 s 5 %.
    if search:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not own:
        return
    # One machine is not taken away from under a run: a process less that wakes 100 times a second.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray plays its workers at nice 15, so that a cluster's daemons are answered first. On one
    # machine that starves training: beside one busy process a worker got a thirtieth of a core.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Workers begin with the environment of Ray's own processes, which is this one.
    os.environ.update(host_memory.environment())
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        # A token of this process alone: Ray would otherwise leave one in the home folder, which
        # from then on changes what `ray start` and `ray job submit` of this user demand.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def connected(*, search: bool = False) -> Iterator[Cluster]:
    """Ray for the length of the block: the one that is there, else one on this machine.

    There: Ray initialised in this process, ``RAY_ADDRESS``, or the cluster of the job that this
    process is. A Ray started here is quiet and ends with the block. For a ``search`` it has a
    dashboard (which listens on the loopback alone), without which trials that Tune stops keep
    their resources for ever.
    """
    own = on_this_machine()
    set_environment(own, search=search)
    _warn_of_hasty_stops()
    import ray

    started = not ray.is_initialized()
    if started:
        _start(own, dashboard=search)
    try:
        yield _describe(own and started)
    finally:
        if started:
            ray.shutdown()
            if own and search:
                os.environ.pop(_API_SERVER, None)


def _warn_of_hasty_stops() -> None:
    """Say at the start of a job that `ray job stop` would not wait for its checkpoint."""
    if in_job() and _STOP_WAIT not in os.environ:
        print(
            "warning: `ray job stop` kills this job after 3 s, perhaps before its checkpoint is "
            f"written: submit it with {_STOP_WAIT}=120 in env_vars of its --runtime-env-json",
            file=sys.stderr,
            flush=True,
        )


def _start(own: bool, *, dashboard: bool) -> None:
    import ray

    if own:
        _import_ahead()
        port = _free_port() if dashboard else None
        if port is not None:
            # Ray Train asks this address whether a stopped trial's controller is dead, to free
            # its workers' places; it would not know which Ray is meant if there are several.
            os.environ[_API_SERVER] = f"http://127.0.0.1:{port}"
        with _in_groups_of_their_own():
            ray.init(
                address="local",
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                dashboard_port=port,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE,
            )
        return
    variables = host_memory.environment()
    if not in_job():  # a job's working directory comes from its submission
        variables["PYTHONPATH"] = _python_path()
    environment = {"env_vars": variables}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
    except (ConnectionError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS", "the job's cluster")
        raise UserError(
            f"no Ray cluster answers at {address} ({first_line(error)}): start it, or unset "
            "RAY_ADDRESS"
        ) from None


@contextmanager
def _in_groups_of_their_own() -> Iterator[None]:
    """Begin a process group with every process of Ray's that is started meanwhile.

    The shell of a closed terminal, ``timeout`` and batch systems send their signal to the whole
    group of a command: Ray would be gone before its workers could be asked for a checkpoint. It
    shields its processes from Ctrl-C alone. What is replaced is no public part of Ray; where it is
    missing, nothing is. Nor is it but on Linux, whose kernel ends them with their parent: elsewhere
    Ray ends what is in its group, and would leave them behind when this process is killed.
    """
    from ray._private import services

    name = "ConsolePopen"
    popen = getattr(services, name, None)
    if popen is None or not sys.platform.startswith("linux"):
        yield
        return
    setattr(services, name, functools.partial(popen, process_group=0))
    try:
        yield
    finally:
        setattr(services, name, popen)


def _import_ahead() -> None:
    """Import, in a thread, what Ray Train and MLflow stand on, while Ray's processes start.

    Not Ray's own modules: those import each other in circles, which two threads must not enter.
    """

    def imports() -> None:
        with suppress(Exception):  # whoever needs them says what is wrong
            for name in ("pandas", "pyarrow.fs", "pydantic", "mlflow"):
                importlib.import_module(name)

    mlflow_client.set_environment()
    threading.Thread(target=imports, name="imports", daemon=True).start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _python_path() -> str:
    """This process's current folder and path, so that workers find plugins as it does."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(Path.cwd()), *([given] if given else [])])


def _describe(own: bool) -> Cluster:
    import ray

    present = ray.cluster_resources()
    possible = None if own else _autoscaled()
    names = {*present, *(possible or {})}
    most = {n: max(present.get(n, 0.0), float((possible or {}).get(n, 0))) for n in names}
    return Cluster(own, most, autoscaling=possible is not None)


def _autoscaled() -> dict[str, int] | None:
    """What autoscaling may bring the cluster to; ``None`` where there is no autoscaling."""
    try:
        from ray._private.state import state

        return state.get_max_resources_from_cluster_config()
    except Exception:  # not part of Ray's public interface: without it only what is there counts
        return None


def choose_device(config: RunConfig, cluster: Cluster) -> str:
    """ "cuda" or "cpu" for the workers; ``UserError`` if the cluster can never have as many."""
    gpus, cpus = (int(cluster.resources.get(name, 0)) for name in ("GPU", "CPU"))
    cuda = config.device == "cuda" or (config.device == "auto" and gpus > 0)
    have, need = (gpus, "GPU") if cuda else (cpus, "CPU")
    if config.workers <= have:
        return "cuda" if cuda else "cpu"
    where = "this machine has" if cluster.own else "the cluster can have"
    advice = f"use --workers {have}" if have else "use --device cpu"
    if cuda and have:
        advice += " or --device cpu"
    raise UserError(
        f"--workers {config.workers} needs a {need} for each and {where} {have}: {advice}"
    )


def threads_per_worker(cluster: Cluster, workers: int) -> int:
    """How many threads a worker computes with on the CPU.

    Ray starts workers with one. A machine that runs nothing but them divides its cores among
    them, or gives each what the user's ``OMP_NUM_THREADS`` says; on a cluster others may have the
    rest, so it stays at the one core that was asked for.
    """
    if told := os.environ.get(THREADS):
        return int(told)
    if not cluster.own:
        return 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return max(1, int(cluster.resources.get("CPU", 1)) // workers)
