"""Released generators as MLflow models."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import gan_core
from gan_core.errors import UserError

REQUIREMENTS = ("torch", "numpy", "safetensors", "PyYAML")
"""What using a generator needs; this project's own code travels with the model."""


def check_model_name(name: str) -> None:
    """Raises ``UserError`` for a name that MLflow's registry of models refuses."""
    if not name.strip() or name in (".", "..") or set(name) & set("/:"):
        raise UserError(
            f"--register '{name}' is no name for MLflow's registry, which takes neither '/' nor "
            "':' in one: give another"
        )


class Logged(NamedTuple):
    """A model in MLflow: where it is, and what it is known by."""

    uri: str
    model_id: str


def log_generator(folder: Path, name: str, tracking_uri: str, run_id: str) -> Logged:
    """Log the released generator in ``folder`` as the model ``name`` of an MLflow run.

    Its signature: a frame with ``index`` (sample numbers) and, for conditional variants,
    optionally ``label``; the answer is float32 of the source's own shape.
    """
    import mlflow

    description = json.loads((folder / "generator.json").read_text())
    here = Path(__file__).parent
    with _packed_code() as code, _run(tracking_uri, run_id):
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(here / "generator_model.py"),
            artifacts={"generator": str(folder)},
            code_paths=[str(code)],
            signature=_signature(description),
            pip_requirements=_requirements(),
            step=int(description["step"]),
            metadata={"step": description["step"], "figures": description["figures"]},
        )
    return Logged(str(logged.model_uri), str(logged.model_id))


@contextmanager
def _packed_code() -> Iterator[Path]:
    """This project's own code in one file: MLflow asks a server once for each."""
    package = Path(gan_core.__file__).parent
    with tempfile.TemporaryDirectory(prefix="gan-code-") as scratch:
        path = Path(scratch) / f"{package.name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(package.rglob("*.py")):
                packed.write(file, file.relative_to(package.parent))
        yield path


def _requirements() -> list[str]:
    return [f"{name}=={metadata.version(name)}" for name in REQUIREMENTS]


def _signature(description: dict[str, Any]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = [ColSpec("long", "index")]
    if "label" in description["conditions"]:
        columns.append(ColSpec("long", "label", required=False))
    spec = description["spec"]
    shape = (-1, *spec["tensors"][spec["target"]]["shape"])
    outputs = Schema([TensorSpec(np.dtype("float32"), shape)])
    return ModelSignature(inputs=Schema(columns), outputs=outputs)


@contextmanager
def _run(tracking_uri: str, run_id: str) -> Iterator[None]:
    """MLflow's fluent functions on that run, without their advice; afterwards it has ended when it
    had before, and the address is as it was.
    """
    import mlflow

    before = mlflow.get_tracking_uri()
    client = mlflow.MlflowClient(tracking_uri)
    run = client.get_run(run_id).info
    mlflow.set_tracking_uri(tracking_uri)
    try:
        with (
            warnings.catch_warnings(record=True),
            mlflow.start_run(run_id=run_id, log_system_metrics=False),
        ):
            yield
    finally:
        mlflow.set_tracking_uri(before)
        if run.end_time is not None:
            client.set_terminated(run_id, run.status, run.end_time)
