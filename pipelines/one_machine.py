"""Ray Train on a Ray of this machine alone, that one run has for itself.

Ray Train starts two processes beside its controller and workers that only a shared cluster needs:
one tells the autoscaler what the workers want, one gives their places back should the controller
die. Here there is nothing to scale, and Ray ends with the run. Without them the first iteration
comes 2 to 3 s sooner, and two processes less wake 100 times a second.

Needs Ray to be imported, and classes that are no part of its interface: ``ImportError`` where
another version has moved them.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.torch.torch_trainer import TorchTrainer


class UnscaledPolicy(FixedScalingPolicy):
    """As many workers as were asked for, of which no autoscaler is told."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing: the resources are there."""

    def _maybe_send_resource_request(self) -> None:
        pass


class OneMachineTrainer(TorchTrainer):
    """A ``TorchTrainer`` whose controller starts the workers and what they need, no more."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if not isinstance(c, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        scaling: Any = self.scaling_config
        policy = UnscaledPolicy(scaling)
        return super()._initialize_and_run_controller(**{**arguments, "scaling_policy": policy})
