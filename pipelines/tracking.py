"""Everything said to MLflow.

Training never waits for the tracking server: a :class:`Tracker` follows the journal of a run and
sends what is new, a :class:`~pipelines.shipper.Shipper` does so in a thread and keeps trying. What
could not be sent stays in the journal and is sent by the next run with ``--resume`` or by
``python -m pipelines sync``. How far the journal was sent is kept in ``<run>/mlflow.json``.

MLflow is imported when a tracker connects, never by importing this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gan_core import journal
from gan_core.checksums import sha256_of
from gan_core.errors import UserError
from pipelines.database import file_of
from pipelines.mlflow_client import connect, tracking_uri
from pipelines.parcels import BATCH, OPTION, Parcel, flat_params, flat_tags, parcels
from pipelines.run_folder import unwritten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run, RunTag

FILE = "mlflow.json"
PARAMS_BATCH = 100
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def code_version() -> str:
    """The commit of this code (with ``-dirty`` if files were changed), else the package version."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # else the commit is another project's
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        return metadata.version("gan-pipelines")
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclasses.dataclass
class State:
    """What a run folder remembers of its tracking server, in ``mlflow.json``.

    ``key`` marks the MLflow run, so that one whose creation was never answered is found again.
    ``tags`` are set as the run is made, ``notes`` as it ends; another server gets both as well.
    ``unsure`` is true while something is being sent: after a crash the server may have it already.
    ``stopping``: the server has been told that the run stops, though it has not ended.
    """

    tracking_uri: str
    experiment: str
    key: str
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    experiment_id: str | None = None
    run_id: str | None = None
    params_sent: bool = False
    offset: int = 0
    unsure: bool = False
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    models: dict[str, str] = dataclasses.field(default_factory=dict)
    log_models: bool = True
    ended: str | None = None
    stopping: bool = False

    @classmethod
    def load(cls, folder: Path) -> State | None:
        """The state kept in ``folder``; ``None`` if there is none that can be read."""
        try:
            values = json.loads((folder / FILE).read_text())
            known = {f.name for f in dataclasses.fields(cls)}
            return cls(**{k: v for k, v in values.items() if k in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def save(self, folder: Path) -> None:
        """Replace the file in one step: it is whole at any moment. Raises ``Unkept``."""
        lost = unwritten(folder / FILE, json.dumps(dataclasses.asdict(self), indent=1))
        if lost:
            raise Unkept(f"cannot write {folder / FILE} ({lost})")


class Unkept(UserError):
    """A run's folder cannot keep what has been sent: its disk is full, or it may only be read."""


class Busy(RuntimeError):
    """Another process is sending this run."""


class Tracker:
    """Sends the journal of the run in ``folder`` to MLflow, each event once.

    ``uri``: the tracking server of a run that has none yet. A run that has one keeps it, unless
    ``MLFLOW_TRACKING_URI`` names another: there the run is looked up, or sent from its beginning.
    One that was deleted there is brought back, and one that is there no more (its database was
    removed) is sent from its beginning: ``renewed`` is true then, and ``say`` gets a line.
    Methods that talk to the server raise whatever MLflow raises; nothing is lost by that.
    Only one process at a time may have a tracker of a run (``Busy``). ``models``: whether the
    generators are logged as models at the end, which takes seconds. ``look_up``: ask for the run
    even where there is nothing new to send.
    """

    def __init__(
        self,
        folder: Path,
        *,
        uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        models: bool = True,
        look_up: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder
        self.renewed = False
        self._say = say
        self._lock = _lock_file(folder)
        self._client: MlflowClient | None = None
        self.config = yaml.safe_load((folder / "config.yaml").read_text())
        self.state = State.load(folder) or self._fresh(uri or tracking_uri())
        if self.state.run_id is None:
            self.state.tracking_uri = self.address
        self._look_up = look_up or self.address != self.state.tracking_uri
        self.state.tags.update(tags or {})
        self.state.log_models = self.state.log_models and models
        self.state.save(folder)

    def _fresh(self, uri: str) -> State:
        return State(uri, str(self.config.get("experiment") or "gan"), uuid.uuid4().hex)

    @property
    def address(self) -> str:
        """Where the run is looked up, or made."""
        return os.environ.get("MLFLOW_TRACKING_URI") or self.state.tracking_uri

    def close(self) -> None:
        """Let other processes send this run."""
        self._lock.close()

    def connect(self) -> MlflowClient:
        """The client, with the experiment and the run made on the server."""
        if self._client is not None:
            return self._client
        if self.state.run_id is not None:
            self._find_run(self.address)
        self._look_up = False
        client = connect(self.state.tracking_uri)
        if self.state.run_id is None:
            self._create_run(client)
        if not self.state.params_sent:
            self._send_params(client)
        self._client = client
        return client

    def _find_run(self, uri: str) -> None:
        """Look the run up at ``uri``: the same server has it, a new one gets all of it."""
        client = connect(uri)  # first: it sees to it that MLflow is imported quietly
        from mlflow.exceptions import MlflowException

        try:
            run = client.get_run(str(self.state.run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            if uri == self.state.tracking_uri:
                self._renew("is not in MLflow any more: it is sent from its beginning")
            carried = {name: getattr(self.state, name) for name in ("tags", "notes", "log_models")}
            self.state = dataclasses.replace(self._fresh(uri), **carried)
        else:
            self.state.tracking_uri = uri
            if run.info.lifecycle_stage == "deleted":
                _restore(client, run)
                self._renew("had been deleted in MLflow: it is brought back")
        self.state.save(self.folder)

    def _renew(self, told: str) -> None:
        self.renewed = True
        if self._say is not None:
            self._say(f"{self.folder.name} {told}")

    def _create_run(self, client: MlflowClient) -> None:
        experiment_id = _experiment(client, self.state.experiment, self.state.tracking_uri)
        self.state.experiment_id = experiment_id
        if self.state.unsure:
            found = client.search_runs([experiment_id], f"tags.run_key = '{self.state.key}'")
            self.state.run_id = found[0].info.run_id if found else None
        if self.state.run_id is None:
            self._mark(unsure=True)
            tags = {**self.state.tags, "run_key": self.state.key}
            name = str(self.config.get("name") or self.folder.name)
            begun = _begun(self.folder / journal.FILE)
            run = client.create_run(experiment_id, start_time=begun, tags=tags, run_name=name)
            self.state.run_id = run.info.run_id
        self._mark(unsure=False)

    def _send_params(self, client: MlflowClient) -> None:
        from mlflow.entities import Param

        params = [Param(k, v) for k, v in flat_params(self.config).items()]
        for first in range(0, len(params), PARAMS_BATCH):
            client.log_batch(str(self.state.run_id), params=params[first : first + PARAMS_BATCH])
        self._mark(params_sent=True)

    def _mark(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)
        self.state.save(self.folder)

    def send(self) -> int:
        """Send what the journal has beyond what was sent; the number of values and pictures."""
        path = self.folder / journal.FILE
        if not path.exists() or (path.stat().st_size <= self.state.offset and not self._look_up):
            return 0
        client = self.connect()
        count = 0
        for parcel in parcels(path, self.state.offset):
            again = self.state.unsure
            if not again:
                self._mark(unsure=True)
            count += self._send(client, parcel, again)
            # What has begun anew is to end anew: its last files are others.
            ended = None if parcel.starts else self.state.ended
            self._mark(offset=parcel.end, unsure=False, ended=ended)
        return count

    def _send(self, client: MlflowClient, parcel: Parcel, again: bool) -> int:
        from mlflow.entities import Metric, RunTag

        run_id = str(self.state.run_id)
        metrics = [Metric(*values) for values in parcel.metrics]
        pictures = parcel.pictures
        if again:
            metrics, pictures = self._not_there_yet(client, metrics, pictures)
        tags = [RunTag(k, v) for k, v in parcel.tags.items()]
        self._log(client, run_id, metrics, tags)
        self._send_options(client, parcel)
        for picture in pictures:
            self._send_picture(client, run_id, picture)
        return len(metrics) + len(pictures)

    def _send_options(self, client: MlflowClient, parcel: Parcel) -> None:
        """Parameters that were decided when the data were known; MLflow lets none change.

        So options that a resumed run has otherwise than its parameters say are told by tags.
        """
        from mlflow.entities import Param, RunTag

        if not (parcel.params or parcel.options):
            return
        run_id = str(self.state.run_id)
        known = client.get_run(run_id).data
        new = [Param(k, v) for k, v in parcel.params.items() if k not in known.params]
        client.log_batch(run_id, params=new)
        told = {**parcel.params, **known.params}
        told |= {k.removeprefix(OPTION): v for k, v in known.tags.items() if k.startswith(OPTION)}
        others = {f"{OPTION}{k}": v for k, v in parcel.options.items() if told.get(k) != v}
        self._log(client, run_id, [], [RunTag(k, v) for k, v in flat_tags(others).items()])

    @staticmethod
    def _log(client: MlflowClient, run_id: str, metrics: list[Metric], tags: list[RunTag]) -> None:
        size = BATCH - PARAMS_BATCH
        for first in range(0, len(tags), PARAMS_BATCH):
            client.log_batch(run_id, tags=tags[first : first + PARAMS_BATCH])
        for first in range(0, len(metrics), size):
            client.log_batch(run_id, metrics=metrics[first : first + size])

    def _not_there_yet(
        self, client: MlflowClient, metrics: list[Metric], pictures: list[dict[str, Any]]
    ) -> tuple[list[Metric], list[dict[str, Any]]]:
        """What the server lacks of a parcel whose sending was interrupted."""
        run_id = str(self.state.run_id)
        known = {
            name: {(m.step, m.timestamp) for m in client.get_metric_history(run_id, name)}
            for name in {m.key for m in metrics}
        }
        files = {Path(f.path).name for f in client.list_artifacts(run_id, "images")}
        return (
            [m for m in metrics if (m.step, m.timestamp) not in known[m.key]],
            [p for p in pictures if not any(_shows(file, p) for file in files)],
        )

    def _send_picture(self, client: MlflowClient, run_id: str, picture: dict[str, Any]) -> None:
        from PIL import Image

        path = self.folder / picture["path"]
        if not path.exists():  # deleted by the user: no reason to stop here for ever
            return
        with Image.open(path) as image:
            client.log_image(
                run_id,
                image.convert("RGB"),
                key=_image_key(picture["name"]),
                step=picture["step"],
                timestamp=picture["milliseconds"],
                synchronous=True,
            )

    def note(self, changes: Mapping[str, str]) -> None:
        """Set tags on the run as it ends (kept in the state)."""
        with contextlib.suppress(Unkept):  # this tracker has them still
            self._mark(notes={**self.state.notes, **changes})

    def finish(self, status: str) -> None:
        """Send files and models and end the MLflow run; ``status`` as in the journal's ``end``.

        Can be repeated: what was sent already is not sent again. Whatever cannot be sent or kept,
        the run is ended first.
        """
        if self._look_up:
            self.connect()
        if self.state.ended == status:
            return
        client, run_id = self.connect(), str(self.state.run_id)
        try:
            self._send_last(client, run_id)
        finally:
            ended = _ended(self.folder / journal.FILE)
            client.set_terminated(run_id, STATUS.get(status, "FAILED"), end_time=ended)
        self._mark(ended=status, stopping=False)

    def _send_last(self, client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import RunTag

        self._log(
            client, run_id, [], [RunTag(k, v) for k, v in flat_tags(self.state.notes).items()]
        )
        for name in ("config.yaml", "summary.json", "failure.txt", "best.yaml", "report.html"):
            if (self.folder / name).exists():
                client.log_artifact(run_id, str(self.folder / name))
        if self.state.log_models:
            self._send_models()

    def stopping(self) -> None:
        """The run has been asked to stop: it is ended in MLflow, in case nobody can do it later.

        What it still has to say, its files and how it really ends are sent as ever.
        """
        if not self.state.stopping:
            self.connect().set_terminated(str(self.state.run_id), STATUS["stopped"])
            self._mark(stopping=True, ended=None)

    def reopen(self) -> None:
        """The run goes on after it had ended, or after it was to."""
        if self.state.ended is not None or self.state.stopping:
            self.connect().update_run(str(self.state.run_id), status="RUNNING")
            self._mark(ended=None, stopping=False)

    def _send_models(self) -> None:
        from pipelines.models import log_generator

        for which in ("best", "last"):
            folder = self.folder / "generator" / which
            fingerprint = _fingerprint(folder)
            if fingerprint and self.state.models.get(which) != fingerprint:
                log_generator(
                    folder, f"generator_{which}", self.state.tracking_uri, str(self.state.run_id)
                )
                self._mark(models={**self.state.models, which: fingerprint})


def how_to_see(state: State) -> list[str]:
    """The lines for a user who wants to see the run in MLflow, to be pasted into a shell."""
    uri, page = state.tracking_uri, f"#/experiments/{state.experiment_id}/runs/{state.run_id}"
    if uri.startswith("http"):
        return [f"MLflow {uri.rstrip('/')}/{page}"]
    return [
        f"MLflow mlflow ui --backend-store-uri {shlex.quote(uri)} --host 127.0.0.1 --port 5000",
        f"       then open http://127.0.0.1:5000/{page}",
    ]


def send_all(tracker: Tracker, *, over: bool = True) -> int:
    """Send a run, and end it where it is ``over``: no process plays it any more. The number of
    values and pictures sent.

    Afterwards others may send it.
    """
    try:
        count = tracker.send()
        if over:
            tracker.finish(journal.last_status(tracker.folder) or "stopped")
    finally:
        tracker.close()
    return count


def _fingerprint(folder: Path) -> str | None:
    weights = folder / "generator.safetensors"
    if not weights.exists():
        return None
    return sha256_of(weights)


def _begun(path: Path) -> int | None:
    """When the run of the journal at ``path`` began, in ms since 1970: it may be sent much later.

    ``None`` if it has not.
    """
    starts = (event["time"] for event, _ in journal.read(path) if event["kind"] == "start")
    return next((int(1000 * time) for time in starts), None)


def _ended(path: Path) -> int | None:
    """When it ended the last time, in ms since 1970, or was last heard of, where it was killed."""
    ended: float | None = None
    last: float | None = None
    for event, _ in journal.read(path):
        last = event.get("time", last)
        if event["kind"] in ("start", "end"):
            ended = last if event["kind"] == "end" else None
    when = last if ended is None else ended
    return None if when is None else int(1000 * when)


def _image_key(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", name)


def _shows(file: str, picture: Mapping[str, Any]) -> bool:
    """Whether ``file`` is what MLflow's ``log_image`` made of ``picture`` (its small copy)."""
    key = _image_key(picture["name"]).replace("/", "~")
    return file.startswith(f"{key}+step+{picture['step']}+") and file.endswith("+compressed.webp")


def _lock_file(folder: Path) -> Any:
    file = (folder / ".mlflow.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Busy(f"{folder.name} is being sent by another process") from None
    except OSError:  # a file system without locks
        pass
    return file


def _artifact_location(uri: str, experiment: str) -> str | None:
    """Files stand beside the SQLite database, wherever this process was started; a server knows."""
    database = file_of(uri)
    if database is None:
        return None
    folder = re.sub(r"[^\w\-.]", "_", experiment)
    return str(database.parent / "mlartifacts" / folder)


def _restore(client: MlflowClient, run: Run) -> None:
    """Bring back a deleted run, with its experiment where that was deleted."""
    experiment = client.get_experiment(run.info.experiment_id)
    if experiment.lifecycle_stage == "deleted":  # and all of its runs with it
        client.restore_experiment(experiment.experiment_id)
    if client.get_run(run.info.run_id).info.lifecycle_stage == "deleted":
        client.restore_run(run.info.run_id)


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The id of the experiment ``name``, made if there is none (perhaps by another at the time)."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, _artifact_location(uri, name)))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)
