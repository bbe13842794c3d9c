"""The best model in MLflow's registry, under the alias "champion"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.judging import comparable
from pipelines.database import UnusableDatabase
from pipelines.mlflow_client import connect, reason
from pipelines.models import log_generator
from pipelines.parcels import metric_name
from pipelines.tracking import State
from pipelines.tuning.objective import Objective

ALIAS = "champion"


class NotRegistered(RuntimeError):
    """The registry has not answered: who is the champion is not known."""


def crown(
    name: str,
    folder: Path,
    objective: Objective,
    figures: Mapping[str, float],
    protocol: Mapping[str, str],
    *,
    generator: str = "last",
    again: str = "the same command tries again",
) -> str:
    """Register a generator of the run in ``folder`` as ``name``; a line about it.

    ``generator``: "last" or "best", that of which ``figures`` are.

    It becomes the champion if there is none, or if it beats the present one by ``objective``. A
    champion that was measured by another metric or protocol cannot be compared: it stays, and the
    line says so. The run must have been sent to MLflow; raises ``NotRegistered`` if that does not
    answer, and says how it is tried ``again``.
    """
    from mlflow.exceptions import MlflowException

    state = State.load(folder)
    if state is None or state.run_id is None:
        return f"not registered as {name}: the run is not in MLflow (send it with sync)"
    tags = {
        "metric": objective.metric,
        "value": repr(objective.value(figures)),
        "protocol": "; ".join(f"{k}: {v}" for k, v in sorted(protocol.items()))[:4000],
        **{metric_name(k): repr(v) for k, v in figures.items()},
    }
    try:
        return _challenge(name, folder / "generator" / generator, objective, state, tags)
    except (MlflowException, UnusableDatabase, OSError) as error:
        why = reason(error)
        raise NotRegistered(f"not registered as {name}: MLflow failed ({why}); {again}") from error


def _challenge(
    name: str, generator: Path, objective: Objective, state: State, tags: Mapping[str, str]
) -> str:
    """Compare ``generator`` with the champion, and register it if it wins; a line about it."""
    client = connect(state.tracking_uri)
    value = float(tags["value"])
    present = _champion(client, name)
    own = present is not None and present.run_id == state.run_id
    if own and _same(present.tags, tags, objective.metric):
        return f"{name}: {objective.metric} {value:.4g} is the {ALIAS} already"
    told, wins = _compare(name, objective, value, tags, present)
    if wins:
        version = _register(client, name, generator, state, tags)
        client.set_registered_model_alias(name, ALIAS, version)
        told = f"{told} (version {version})"
    return told


def _same(present: Mapping[str, str], tags: Mapping[str, str], metric: str) -> bool:
    """Whether the same was measured, in the same way: another generator of a run has others."""
    alike = all(present.get(name) == tags[name] for name in ("metric", "value"))
    protocols = (comparable(metric, of.get("protocol", "")) for of in (present, tags))
    return alike and len(set(protocols)) == 1


def _compare(
    name: str, objective: Objective, value: float, tags: Mapping[str, str], present: Any
) -> tuple[str, bool]:
    """What to say about the challenger, and whether it wins."""
    this = f"{name}: {objective.metric} {value:.4g}"
    if not math.isfinite(value):
        return f"not registered as {name}: {objective.metric} is not finite", False
    if present is None:
        return f"{this} is the first {ALIAS}", True
    was = float(present.tags.get("value", "nan"))
    for key in ("metric", "protocol"):
        its, own = (comparable(objective.metric, of.get(key, "")) for of in (present.tags, tags))
        if its != own:
            return (
                f"{this} does not compare with the present {ALIAS} (version {present.version}), "
                f"which was measured by another {key}: that stays",
                False,
            )
    if objective.better(value, was):
        return f"{this} beats the {ALIAS}'s {was:.4g} and takes its place", True
    return f"{this} does not beat the {ALIAS}'s {was:.4g} (version {present.version})", False


def _champion(client: Any, name: str) -> Any:
    """The version that has the alias; ``None`` if none has."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _register(
    client: Any, name: str, generator: Path, state: State, tags: Mapping[str, str]
) -> str:
    """A new version of the registered model ``name`` from the run's ``generator``."""
    from mlflow.exceptions import MlflowException

    logged = log_generator(
        generator, f"generator_{generator.name}", state.tracking_uri, str(state.run_id)
    )
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name, logged.uri, run_id=state.run_id, tags=dict(tags), model_id=logged.model_id
    )
    return str(version.version)
