"""The TorchTrainer that plays a run on Ray Train's workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.config import RunConfig
from gan_core.observers import KEPT_CHECKPOINTS

if TYPE_CHECKING:
    from pipelines.worker import Leave

FAILURES = 3  # how often Ray Train starts lost workers again
COLLECTIVE_TIMEOUT = 1800  # seconds; longer than any evaluation on one rank


def make_trainer(
    config: RunConfig,
    *,
    device: str,
    threads: int,
    checkpoint: Path | None,
    gpus: float = 1.0,
    callbacks: Sequence[Any] = (),
    leave: Leave | None = None,
    alone: bool = False,
) -> Any:
    """The trainer of one attempt at the run ``config``, with ``config.workers`` workers.

    ``device``: "cuda" (``gpus`` for each worker) or "cpu"; ``threads``: that a worker computes
    with on the CPU; ``checkpoint``: where to start; ``callbacks``: more of Ray Train's; ``leave``:
    what the workers ask before they play on; ``alone``: whether Ray runs here for this run only.
    """
    import ray.train
    from ray.train.torch import TorchConfig

    from pipelines.refusal import RefusalEndsTraining
    from pipelines.worker import Job, work

    cuda = device == "cuda"
    storage = config.folder / "ray"
    job = Job(
        config=config.to_dict(),
        device=device,
        threads=threads,
        checkpoint=None if checkpoint is None else str(checkpoint),
        leave=leave,
    )
    told: list[Any] = [RefusalEndsTraining(), *callbacks]
    return _trainer_class(alone)(
        work,  # its annotation would deny the value that a loop may return
        train_loop_config=dict(vars(job)),
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo", timeout_s=COLLECTIVE_TIMEOUT),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=cuda,
            resources_per_worker={"CPU": 1, "GPU": gpus} if cuda else {"CPU": 1},
        ),
        run_config=ray.train.RunConfig(
            # Ray Train takes up a name that it knows: every start has its own.
            name=next_attempt(storage),
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            callbacks=told,
        ),
    )


def next_attempt(storage: Path) -> str:
    """A name that no attempt in ``storage`` has, also where earlier ones were removed."""
    numbers = (path.name.removeprefix("attempt_") for path in storage.glob("attempt_*"))
    return f"attempt_{1 + max((int(n) for n in numbers if n.isdigit()), default=0):03d}"


def _trainer_class(alone: bool) -> Any:
    from ray.train.torch import TorchTrainer

    if not alone:
        return TorchTrainer
    try:
        from pipelines.one_machine import OneMachineTrainer
    except ImportError:  # another version of Ray: two processes more
        return TorchTrainer
    return OneMachineTrainer
