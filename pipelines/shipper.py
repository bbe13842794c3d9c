"""Sends a run to MLflow while it is trained, in a thread of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipelines.mlflow_client import import_mlflow, reason
from pipelines.tracking import Tracker


class Shipper(threading.Thread):
    """Sends a run to MLflow in the background, so that training never waits for it.

    A server that does not answer is tried again after 1, 2, 4 ... 60 seconds; ``say`` gets one
    line when it stops answering and one when it is back.
    """

    def __init__(
        self, tracker: Tracker, say: Callable[[str], None], *, interval: float = 1.0
    ) -> None:
        super().__init__(name="mlflow-shipper", daemon=True)
        self.tracker = tracker
        self._say = say
        self._interval = interval
        self._done = threading.Event()
        self._status: str | None = None
        self._silent = False
        self.complete = False

    def run(self) -> None:
        """Follow the journal until :meth:`end`, then send the rest."""
        delay = self._interval
        import_mlflow()  # takes seconds, better spent while the workers start
        while not self._done.is_set():
            delay = self._interval if self._attempt(self._send) else min(60.0, 2 * delay)
            self._done.wait(delay)
        self.complete = self._attempt(self._finish)

    def _send(self) -> None:
        self.tracker.reopen()
        self.tracker.send()

    def _finish(self) -> None:
        self.tracker.send()
        if self._status is not None:
            self.tracker.finish(self._status)

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            if not self._silent:
                where = self.tracker.state.tracking_uri
                self._say(
                    f"warning: MLflow at {where} does not take metrics ({reason(error)}); training "
                    "goes on, they are kept in the run's folder"
                )
            self._silent = True
            return False
        if self._silent:
            self._say("MLflow answers again: what was kept has been sent")
        self._silent = False
        return True

    def end(self, status: str | None, timeout: float = 120.0) -> bool:
        """Send the rest and end the MLflow run with ``status``; whether all of it was sent."""
        self._status = status
        self._done.set()
        self.join(timeout)
        if not self.is_alive():
            self.tracker.close()
        return self.complete
