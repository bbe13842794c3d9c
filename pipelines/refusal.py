"""Part of Ray Train's controller; a module of its own because it needs Ray to be imported."""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

from gan_core.errors import UserError
from pipelines.full_disk import full_disk


class RefusalEndsTraining(UserCallback):
    """Ends the run when a worker refuses its input, or finds its disk full, instead of starting it
    three times more.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise it in the controller, which passes it on to the driver."""
        for error in worker_exceptions.values():
            if isinstance(error, UserError) or full_disk(error):
                raise error
