"""Sends a run to MLflow while it is trained, in a thread of the driver."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.run_folder import STOP
from pipelines.sender import Sender
from pipelines.tracking import Tracker, Unkept


class Shipper(Sender):
    """Sends a run to MLflow in the background."""

    def __init__(
        self, tracker: Tracker, say: Callable[[str], None], *, interval: float = 1.0
    ) -> None:
        super().__init__(
            "metrics", "training goes on, they are kept in the run's folder", say, interval
        )
        self.tracker = tracker
        self._status: str | None = None
        self._stopping = False

    @property
    def where(self) -> str:
        """The address of the tracking server."""
        return str(self.tracker.state.tracking_uri)

    def send(self) -> None:
        """Send what the journal has, and at once whether the run has been asked to stop.

        Whoever asked may kill this process before the run has ended (`ray job stop` after 3 s).
        """
        self._stopping = self._stopping or (self.tracker.folder / STOP).exists()
        if self._stopping:
            self.tracker.stopping()
        else:
            self.tracker.reopen()
        self.tracker.send()

    def finish(self) -> None:
        """Send the rest and end the MLflow run, where its status is known.

        It is ended, too, where the run's folder cannot keep how much was sent.
        """
        try:
            self.tracker.send()
        except Unkept:
            self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        if self._status is not None:
            self.tracker.finish(self._status)

    def end(self, status: str | None, timeout: float = 120.0) -> bool:
        """Send the rest and end the MLflow run with ``status``; whether all of it was sent."""
        self._status = status
        self._done.set()
        self.join(timeout)
        if not self.is_alive():
            self.tracker.close()
        return self.complete
