"""A trial of several workers: a Ray Train run whose reports are passed on to Tune.

Ray Train's own callback for this passes metrics on without checkpoints, with which
population-based training would do nothing and a restored search would begin anew.

Ray Train's workers play on while a report travels to Tune. A trial that Tune pauses or stops would
so be further than Tune knows, or at its end, with settings that were to be replaced. Therefore the
workers wait until Tune has decided.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.util.queue import Empty, Queue

from gan_core.config import RunConfig
from gan_core.errors import UserError
from pipelines.trainer import make_trainer
from pipelines.tuning.study import Study
from pipelines.tuning.trial import Report
from pipelines.worker import STOPPED_BY

_POLL = 0.5  # seconds
_LOOK = 0.05  # seconds between a worker's looks at whether it may play on
_LAST = 60.0  # seconds in which a worker whose trial has ended is ended too


class PassOn(ray.train.UserCallback):
    """Puts what the workers report into a queue: figures, and the folder of the checkpoint."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Called in Ray Train's controller when every worker has reported."""
        if checkpoint is not None:
            self._queue.put((metrics[0], str(checkpoint.path)))


class Decided:
    """An actor that knows up to which step Tune has let a trial play on."""

    def __init__(self) -> None:
        self._step = -1

    def note(self, step: int) -> None:
        """Tune has let it play on after ``step``."""
        self._step = step

    def step(self) -> int:
        """The last such step, -1 before the first."""
        return self._step


class TunesLeave:
    """Leave to play on, which the trial gives when Tune has taken its report.

    What is asked for is a state, and not taken out of a queue: a worker that was lost while it
    waited takes nothing from the one that replaces it.
    """

    def __init__(self) -> None:
        self._decided: Any = ray.remote(Decided).options(num_cpus=0).remote()

    def give(self, step: int) -> None:
        """Let the workers play on after ``step``."""
        ray.get(self._decided.note.remote(step))

    def wait(self, step: int) -> None:
        """Wait for it in a worker. A trial that has no leave is ended from outside."""
        try:
            while ray.get(self._decided.step.remote()) < step:
                time.sleep(_LOOK)
        except RayActorError:  # the trial's process has ended, and this one is about to be
            time.sleep(_LAST)
            raise


def play_on_workers(
    study: Study, config: RunConfig, checkpoint: Path | None, report: Report
) -> dict[str, Any]:
    """Play ``config`` by Ray Train; this thread, which is the trial's, reports to Tune.

    Returns rank 0's summary.
    """
    gpus = study.options.gpus_per_trial or 0.0
    queue = Queue(actor_options={"num_cpus": 0})
    leave = TunesLeave()
    trainer = make_trainer(
        config,
        device="cuda" if gpus else "cpu",
        threads=1,
        checkpoint=checkpoint,
        gpus=gpus,
        callbacks=[PassOn(queue)],
        leave=leave,
    )
    failure: list[BaseException] = []
    summary: dict[str, Any] = {}

    def fit() -> None:
        try:
            summary.update(trainer.fit().return_value)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=fit, name="fit", daemon=True)
    thread.start()
    while thread.is_alive() or not queue.empty():
        try:
            figures, folder = queue.get(timeout=_POLL)
        except Empty:
            continue
        step = int(figures.pop("step"))
        if not figures.pop(STOPPED_BY, None):  # how that ends the summary says
            report(step, figures, Path(folder))
        leave.give(step)
    queue.shutdown()
    if failure:
        raise _cause(failure[0])
    return summary


def _cause(error: BaseException) -> Exception:
    """What a worker or the controller died of, without Ray's wrapping."""
    failures = getattr(error, "worker_failures", None)
    cause = next(iter(failures.values())) if failures else None
    cause = cause or getattr(error, "controller_failure", None) or error
    if isinstance(cause, UserError):
        return UserError(str(cause))
    return cause if isinstance(cause, Exception) else RuntimeError(str(cause))
