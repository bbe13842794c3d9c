"""A search in MLflow: a parent run for the study, a child run for every trial.

One thread of the driver follows all journals and sends them, so there is one writer however many
trials play at once, and training never waits for it. A server that is away stops nothing: what
could not be sent stays in the folders, and ``python -m pipelines sync`` sends it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from gan_core.journal import last_status
from pipelines.mlflow_client import connect, tracking_uri
from pipelines.sender import Sender
from pipelines.tracking import Busy, State, Tracker, Unkept, code_version, send_all
from pipelines.tuning.records import trial_folders
from pipelines.tuning.study import CONFIG, Study


class Family(Sender):
    """Sends the study and its trials in the background until :meth:`end`."""

    def __init__(
        self,
        study: Study,
        base: Path,
        say: Callable[[str], None],
        *,
        source: str = "python -m pipelines tune",
        interval: float = 1.0,
    ) -> None:
        super().__init__(
            "the trials", "the search goes on, they are kept in its folder", say, interval
        )
        self.study = study
        self._tags = {
            "variant": study.run.variant,
            "dataset": study.run.data,
            "code_version": code_version(),
            "mlflow.source.name": source,
        }
        self.parent = Tracker(
            study.folder,
            uri=tracking_uri(base),
            tags={**self._tags, "kind": "search"},
            models=False,
            look_up=True,
            say=say,
        )
        self._children: dict[str, Tracker] = {}
        self._closed: set[str] = set()
        self._status: str | None = None

    @property
    def where(self) -> str:
        """The address of the tracking server."""
        return str(self.parent.state.tracking_uri)

    def run(self) -> None:
        """Follow the journals; at the end send the rest and end the runs."""
        super().run()
        self._close()

    def end(self, status: str, timeout: float = 300.0) -> bool:
        """Send the rest and end the parent run with ``status``; whether all of it was sent."""
        self._status = status
        self._done.set()
        self.join(timeout)
        return self.complete

    def send(self) -> None:
        """Send what the study's journal and those of its trials have."""
        self.parent.connect()  # first: the children name it
        self.parent.reopen()
        self.parent.send()
        for folder in trial_folders(self.study.folder):
            if folder.name in self._closed or not (folder / CONFIG).exists():
                continue
            child = self._child(folder)
            if child is None:
                continue
            status = last_status(folder)  # before sending: what follows an end is sent as well
            if status is None:
                child.reopen()
            child.send()
            if status is not None:
                child.finish(status)
                self._forget(folder.name)

    def _child(self, folder: Path) -> Tracker | None:
        """The tracker of the trial in ``folder``; ``None`` while another process sends it."""
        if folder.name not in self._children:
            tags = trial_tags(self.parent.state, str(self.study.run.name))
            try:
                self._children[folder.name] = Tracker(
                    folder, uri=self.where, tags=tags, models=False, look_up=self.parent.renewed
                )
            except Busy:
                return None
        return self._children[folder.name]

    def _forget(self, name: str) -> None:
        self._children.pop(name).close()
        self._closed.add(name)

    def finish(self) -> None:
        """Send the rest; trials that are still open were stopped with the search.

        All are ended, too, where their folders cannot keep how much was sent.
        """
        try:
            self._finish_trials()
        except Unkept:
            for child in self._children.values():
                with contextlib.suppress(Unkept):
                    child.finish(last_status(child.folder) or "stopped")
            self.parent.finish(self._status or "stopped")
            raise
        self.parent.finish(self._status or "stopped")

    def _finish_trials(self) -> None:
        self.send()
        for name, child in list(self._children.items()):
            child.finish("stopped")
            self._forget(name)
        self.parent.send()

    def _close(self) -> None:
        for child in self._children.values():
            child.close()
        self.parent.close()


def trial_tags(parent: State, study: str) -> dict[str, str]:
    """The tags of a trial's run: those of the parent, and whose child it is."""
    own = {"mlflow.parentRunId": str(parent.run_id), "study": study, "kind": "trial"}
    return {**parent.tags, **own}


def sync_trials(folder: Path, *, look_up: bool = False) -> int:
    """Send what the trials of the search in ``folder`` have kept, when the search itself has been
    sent; the number of values and pictures. ``look_up``: those, too, that MLflow had once. May
    raise what MLflow raises.
    """
    parent = State.load(folder)
    assert parent is not None, "sent before its trials"
    count = 0
    for trial in trial_folders(folder):
        if (trial / CONFIG).exists():
            tags = trial_tags(parent, folder.name)
            tracker = Tracker(
                trial, uri=parent.tracking_uri, tags=tags, models=False, look_up=look_up
            )
            count += send_all(tracker)
    return count


def forget_lost_trials(study: Study, known: set[str]) -> list[str]:
    """Remove trials that a killed driver began but never noted, in MLflow too; their names.

    Tune begins them anew under another name. A server that is away keeps what it has of them.
    """
    lost = [folder for folder in trial_folders(study.folder) if folder.name not in known]
    for folder in lost:
        tracker = Tracker(folder) if (folder / CONFIG).exists() else None
        if tracker is not None:
            with contextlib.suppress(Exception):
                if tracker.state.run_id is not None:  # one that is not there is not made for this
                    connect(tracker.address).delete_run(tracker.state.run_id)
            tracker.close()
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in lost]
