"""A search in MLflow: a parent run for the study, a child run for every trial.

One thread of the driver follows all journals and sends them, so there is one writer however many
trials play at once, and training never waits for it. A server that is away stops nothing: what
could not be sent stays in the folders, and ``python -m pipelines sync`` sends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from pipelines.mlflow_client import import_mlflow, reason, tracking_uri
from pipelines.sync import last_status
from pipelines.tracking import Busy, Tracker, code_version
from pipelines.tuning.records import trial_folders
from pipelines.tuning.study import CONFIG, Study


class Family(threading.Thread):
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
        super().__init__(name="mlflow-family", daemon=True)
        self.study, self._say, self._interval = study, say, interval
        self._uri = tracking_uri(base)
        self._tags = {
            "variant": study.run.variant,
            "dataset": study.run.data,
            "code_version": code_version(),
            "mlflow.source.name": source,
        }
        self.parent = Tracker(
            study.folder, uri=self._uri, tags={**self._tags, "kind": "search"}, models=False
        )
        self._children: dict[str, Tracker] = {}
        self._closed: set[str] = set()
        self._done = threading.Event()
        self._status: str | None = None
        self._silent = False
        self.complete = False

    def run(self) -> None:
        """Follow the journals; at the end send the rest and end the runs."""
        import_mlflow()
        delay = self._interval
        while not self._done.is_set():
            delay = self._interval if self._attempt(self._send) else min(60.0, 2 * delay)
            self._done.wait(delay)
        self.complete = self._attempt(self._finish)
        self._close()

    def end(self, status: str, timeout: float = 300.0) -> bool:
        """Send the rest and end the parent run with ``status``; whether all of it was sent."""
        self._status = status
        self._done.set()
        self.join(timeout)
        return self.complete

    def _send(self) -> None:
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
            parent = str(self.parent.state.run_id)
            tags = {
                **self._tags,
                "mlflow.parentRunId": parent,
                "study": str(self.study.run.name),
                "kind": "trial",
            }
            try:
                self._children[folder.name] = Tracker(
                    folder, uri=self._uri, tags=tags, models=False
                )
            except Busy:
                return None
        return self._children[folder.name]

    def _forget(self, name: str) -> None:
        self._children.pop(name).close()
        self._closed.add(name)

    def _finish(self) -> None:
        """The rest; trials that are still open were stopped with the search."""
        self._send()
        for name, child in list(self._children.items()):
            child.finish("stopped")
            self._forget(name)
        self.parent.send()
        self.parent.finish(self._status or "stopped")

    def _close(self) -> None:
        for child in self._children.values():
            child.close()
        self.parent.close()

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            if not self._silent:
                self._say(
                    f"warning: MLflow at {self._uri} does not take the trials ({reason(error)}); "
                    "the search goes on, they are kept in its folder"
                )
            self._silent = True
            return False
        if self._silent:
            self._say("MLflow answers again: what was kept has been sent")
        self._silent = False
        return True


def forget_lost_trials(study: Study, known: set[str]) -> list[str]:
    """Remove trials that a killed driver began but never noted, in MLflow too; their names.

    Tune begins them anew under another name.
    """
    import shutil

    lost = [folder for folder in trial_folders(study.folder) if folder.name not in known]
    for folder in lost:
        tracker = Tracker(folder) if (folder / CONFIG).exists() else None
        if tracker is not None:
            if tracker.state.run_id is not None:
                tracker.connect().delete_run(tracker.state.run_id)
            tracker.close()
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in lost]
