"""MLflow in this process: importing it quietly, where it keeps runs, a client that reads them."""

from __future__ import annotations

import importlib
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from gan_core.errors import UserError, named_line
from pipelines.database import make_sure_of, refused

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    # A server that is down must be noticed within seconds; trying again is the shipper's part.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # The terminal belongs to the progress line.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Nor is it everywhere one that can show the pictographs in these lines: writing them raises.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""How MLflow behaves in this process where the user has not said otherwise."""


def import_mlflow() -> Any:
    """The module ``mlflow``, patient for seconds rather than minutes, and quiet."""
    set_environment()
    return importlib.import_module("mlflow")


def set_environment() -> None:
    """What MLflow reads as it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # every retry, otherwise


def tracking_uri(base: Path | None = None) -> str:
    """Where MLflow keeps runs: ``MLFLOW_TRACKING_URI``, else a SQLite file in ``base`` (the cwd).

    The SQLite address is absolute, so it means the same from every folder. Raises ``UserError``
    where the folder's name does not fit into one: all behind a "?" is options there, and the file
    would be another; and for a folder of files, which MLflow does not write to any more.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        check_no_file_store(given)
        return given
    folder = (base or Path.cwd()).resolve()
    if "?" in str(folder):
        raise UserError(
            f"{folder} has a ? in its name, which no address of MLflow's database may have: start "
            "from another folder, or say where runs are kept with MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{folder / 'mlflow.db'}"


def check_no_file_store(uri: str) -> None:
    """Raises ``UserError`` if ``uri`` is a folder of files and the user has not insisted on it."""
    address = urlsplit(uri)
    folder = address.scheme == "file" or not (address.scheme or uri.startswith("databricks"))
    insisted = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    if folder and not insisted:
        database = f"sqlite:///{Path(unquote(address.path)).absolute() / 'mlflow.db'}"
        raise UserError(
            f"MLflow does not write to a folder of files any more ({uri}): name a database by "
            f"MLFLOW_TRACKING_URI, such as {database}, or insist with MLFLOW_ALLOW_FILE_STORE=true"
        )


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server at ``uri``; a SQLite file is made if there is none.

    Raises ``UnusableDatabase`` where that file is at fault, ``UserError`` for a folder of files,
    else whatever MLflow raises.
    """
    check_no_file_store(uri)
    client = import_mlflow().MlflowClient
    make_sure_of(uri, client)
    try:
        return client(uri)
    except Exception as error:
        from mlflow.store.db.utils import _get_latest_schema_revision

        told = refused(uri, error, _get_latest_schema_revision())
        if told is error:
            raise
        _let_go_of(uri)
        raise told from error


def _let_go_of(uri: str) -> None:
    """Close MLflow's connections, which it would use on when the file has been deleted."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.pop(uri, None)
    if engine is not None:
        engine.dispose()


_REFUSED = re.compile(r"error code 40[13]\b")
_CONNECTION = re.compile(
    r"host='(.*?)', port=(\d+)\).*\(Caused by \w+\([\"']?(?:\w+\(.*?\): )?(.*?)[\"']?\)\)$"
)
"""The line of an HTTP request that has failed, which says why at its very end."""


def reason(error: BaseException) -> str:
    """``error`` in one line, without the addresses and advice that libraries add."""
    if isinstance(error, UserError):
        return str(error)
    line = named_line(error)
    if found := _CONNECTION.search(line):
        return "{}:{}: {}".format(*found.groups())
    if _REFUSED.search(line):
        return (
            "it wants to know who asks: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN"
        )
    return line if len(line) <= 200 else line[:200] + "..."
