"""A thread of the driver that tells MLflow, and tries again as long as MLflow does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipelines.mlflow_client import import_mlflow, reason
from pipelines.tracking import Unkept


class Sender(threading.Thread):
    """Calls :meth:`send` every ``interval`` s until it is told to end, then :meth:`finish`.

    Training never waits for it. What fails is tried again after 2, 4, 8 ... intervals, at most
    60 s; ``say`` gets one line when MLflow stops answering, with ``what`` it does not take and what
    happens ``meanwhile``, and one when it is back. ``complete``: everything was sent.
    """

    def __init__(
        self, what: str, meanwhile: str, say: Callable[[str], None], interval: float
    ) -> None:
        super().__init__(name=f"mlflow: {what}", daemon=True)
        self.complete = False
        self._what, self._meanwhile = what, meanwhile
        self._say, self._interval = say, interval
        self._done = threading.Event()
        self._failed: Exception | None = None

    @property
    def where(self) -> str:
        """The address of the tracking server."""
        raise NotImplementedError

    def send(self) -> None:
        """Send what there is; may raise anything."""
        raise NotImplementedError

    def finish(self) -> None:
        """Send the rest and end what was begun; may raise anything."""
        raise NotImplementedError

    def run(self) -> None:
        """Follow until the end."""
        delay = self._interval
        import_mlflow()  # takes seconds, better spent while the workers start
        while not self._done.is_set():
            delay = self._interval if self._attempt(self.send) else min(60.0, 2 * delay)
            self._done.wait(delay)
        self.complete = self._attempt(self.finish)

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            if self._failed is None:
                self._say(f"warning: {self._told(error)}; {self._meanwhile}")
            self._failed = error
            return False
        if self._failed is not None:
            back = isinstance(self._failed, Unkept)
            what = "there is room again" if back else "MLflow answers again"
            self._say(f"{what}: what was kept has been sent")
        self._failed = None
        return True

    def _told(self, error: Exception) -> str:
        """Whose fault it is that nothing is sent."""
        if isinstance(error, Unkept):
            return f"{self._what} are not sent to MLflow: {error}"
        return f"MLflow at {self.where} does not take {self._what} ({reason(error)})"
