"""A trial of several workers: a Ray Train run whose reports are passed on to Tune.

Ray Train's own callback for this passes metrics on without checkpoints, with which
population-based training would do nothing and a restored search would begin anew.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ray.train
from ray.util.queue import Empty, Queue

from gan_core.config import RunConfig
from gan_core.errors import UserError
from pipelines.trainer import make_trainer
from pipelines.tuning.study import Study
from pipelines.tuning.trial import Report

_POLL = 0.5  # seconds


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


def play_on_workers(
    study: Study, config: RunConfig, checkpoint: Path | None, report: Report
) -> dict[str, Any]:
    """Play ``config`` by Ray Train; this thread, which is the trial's, reports to Tune.

    Returns rank 0's summary.
    """
    gpus = study.options.gpus_per_trial or 0.0
    queue = Queue(actor_options={"num_cpus": 0})
    trainer = make_trainer(
        config,
        device="cuda" if gpus else "cpu",
        threads=1,
        checkpoint=checkpoint,
        gpus=gpus,
        callbacks=[PassOn(queue)],
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
        report(int(figures.pop("step")), figures, Path(folder))
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
