"""A player at the table: objective, optimiser, batches and averages, and how it takes a turn."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gan_core.data.examples import Batch
from gan_core.engine.averaging import MovingAverage
from gan_core.engine.batches import BatchStream
from gan_core.engine.capture import CapturedTurn
from gan_core.engine.execution import Engine
from gan_core.engine.gradients import SharedGradients
from gan_core.engine.optimizers import apply_schedule, create_optimizer, load_optimizer_state
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.variant import Loss, Player, Variant


class Objective(nn.Module):
    """A player's loss as a module that owns the player's networks and nothing else.

    This is what DistributedDataParallel wraps: one forward and one backward a turn, gradients
    averaged over workers for just the networks that the turn updates.
    """

    def __init__(self, variant: Variant, player: Player) -> None:
        super().__init__()
        self.networks = nn.ModuleList([getattr(variant, name) for name in player.networks])
        self._player, self._loss = player.name, player.objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Batch]:
        """The scalar to minimise, diagnostics and carried tensors."""
        try:
            loss = self._loss(batch)
        except KeyError as error:
            if not error.args or error.args[0] in batch:
                raise
            raise LookupError(self._not_found(error, batch)) from error
        _check_loss(loss, self._player)
        return loss.total, loss.diagnostics, loss.carry

    def _not_found(self, error: KeyError, batch: Batch) -> str:
        return (
            f"KeyError {error} in the objective of {self._player}, whose batch has "
            f"{', '.join(sorted(batch))} (of the data what its Player.reads names, and noise)"
        )


def _check_loss(loss: object, player: str) -> None:
    """Raises ``UserError`` if ``loss`` is not what the objective of ``player`` is to return."""
    what = f"the objective of {player}"
    if not isinstance(loss, Loss):
        raise UserError(
            f"{what} returned a {type(loss).__name__}: it must return Loss(total, diagnostics), "
            "total a scalar tensor"
        )
    for name, value in {"total": loss.total, **loss.diagnostics}.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{what} returned a Loss whose '{name}' is no scalar tensor, but {kind}"
            )
    if not loss.total.requires_grad:
        raise UserError(
            f"{what} returned a total without a gradient: it depends on none of the player's "
            "networks, is detached, or is played under torch.no_grad or inference_mode"
        )


def _data_parallel(objective: Objective, world: World) -> nn.Module:
    """``objective`` with its gradients averaged over the workers of ``world``."""
    if world.size == 1:
        return objective
    # Buffers stay a worker's own: synchronising them in the forward breaks networks with batch
    # normalisation that are called twice before one backward. The option's name changed in 2.14.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    keep = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, keep: False}
    return DistributedDataParallel(objective, **options)


def averages_apart(engine: Engine, world: World) -> bool:
    """Whether gradients are averaged after the backward pass, not within it."""
    return engine.captures and world.size > 1


def _alike(objective: Objective, world: World) -> Objective:
    """``objective`` as rank 0 has it, on every rank: what wrapping it for data parallelism does."""
    for values in objective.state_dict().values():
        world.broadcast(values)
    return objective


class Seat:
    """A player at the table: objective, optimiser, batches, counts, sums of diagnostics."""

    def __init__(
        self,
        variant: Variant,
        player: Player,
        world: World,
        stream: BatchStream,
        engine: Engine,
    ) -> None:
        self.player, self.stream = player, stream
        self._autocast = functools.partial(engine.autocast, world.device)
        self.turns = player.turns
        self.updates = 0
        objective = Objective(variant, player)
        self.parameters = list(objective.parameters())
        if not self.parameters:
            raise UserError(
                f"player {player.name} has nothing to learn: its networks "
                f"({', '.join(player.networks)}) have no parameters"
            )
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        by_hand = averages_apart(engine, world)
        self._gradients = SharedGradients(self.parameters, world) if by_hand else None
        self.objective = _alike(objective, world) if by_hand else _data_parallel(objective, world)
        self.optimizer = create_optimizer(
            player.optimizer, self.parameters, capturable=engine.captures
        )
        self._compiled = engine.compiles
        self._refusals: list[str] = []
        # It is given the turn each time, so that nothing here leads back to this seat: the memory
        # of optimiser and graph is free as soon as a stage has ended.
        self._captured = CapturedTurn(self._refusals.append) if engine.captures else None
        self._captured_step = CapturedTurn(self._refusals.append) if by_hand else None
        self.averages = {
            name: MovingAverage(getattr(variant, name), player.ema_decay) for name in player.ema
        }
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._count = 0

    def set_optimizer(self, **values: Any) -> None:
        """Go on by another specification of the optimiser: of its kind, with these ``values``."""
        before = self.player.optimizer
        spec = dataclasses.replace(before, **values)
        self.player = dataclasses.replace(self.player, optimizer=spec)
        if spec.betas != before.betas:  # numbers, which a recording keeps
            self._forget_recording()

    def freeze(self, frozen: bool) -> None:
        """Whether gradients stop at this player's networks."""
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)

    def update(self, batch: Batch, iterations: float) -> Batch:
        """One update on ``batch``, after so many ``iterations`` of the stage; returns what the
        objective carries to the next players.
        """
        apply_schedule(self.optimizer, self.player.optimizer, self.updates, iterations)
        try:
            carry = self._play(batch)
        except RuntimeError as error:
            if self._compiled and "double backward" in str(error):
                raise UserError(self._differentiated_twice()) from error
            raise
        self.updates += 1
        self._count += self.player.accumulate
        return carry

    def _differentiated_twice(self) -> str:
        return (
            f"the objective of {self.player.name} differentiates the gradient of a network, which "
            "compiled code cannot do, and does not say so: name the network in Player.second_order "
            "(an AdversarialVariant overrides its property second_order), or use --engine eager"
        )

    def take_notes(self) -> list[str]:
        """A line, once, if the turn cannot be recorded as the engine wishes."""
        notes = [
            f"the {self.player.name}'s turn cannot be recorded as a CUDA graph ({reason}): it is "
            "played kernel by kernel"
            for reason in self._refusals
        ]
        self._refusals.clear()
        return notes

    def _play(self, batch: Batch) -> Batch:
        if self._captured is None:
            return self._learn(batch)
        if self._gradients is None or self._captured_step is None:
            return self._captured.play(self._learn, batch)
        carry = self._captured.play(self._differentiate, batch)
        self._gradients.average()
        self._captured_step.play(self._step, {})
        return carry

    def _learn(self, batch: Batch) -> Batch:
        """Gradient and step: what a CUDA graph can replay."""
        carry = self._differentiate(batch)
        self.optimizer.step()
        return carry

    def _step(self, nothing: Batch) -> Batch:
        """The second half of :meth:`_learn`, where gradients are averaged before it."""
        self.optimizer.step()
        return nothing

    def _differentiate(self, batch: Batch) -> Batch:
        """The gradient of the objective; returns what that carries to the next players."""
        if self._gradients is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self._gradients.clear()
        carried: list[Batch] = []
        parts = _parts(batch, self.player.accumulate)
        for number, part in enumerate(parts):
            with _gradients_stay_here(self.objective, number < len(parts) - 1):
                with self._autocast():
                    total, diagnostics, carry = self.objective(part)
                (total / len(parts)).backward()
            self._note(diagnostics)
            carried.append(carry)
        return {name: torch.cat([c[name].detach() for c in carried]) for name in carried[0]}

    def _note(self, diagnostics: dict[str, Tensor]) -> None:
        if not diagnostics:
            return
        values = torch.stack([value.detach().float() for value in diagnostics.values()])
        names = list(diagnostics)
        if self._sums is None or names != self._names:  # a resumed run may ask for others
            self._names, self._sums, self._count = names, torch.zeros_like(values), 0
        self._sums.add_(values)  # in place: a captured turn adds to this very tensor

    def take_diagnostics(self) -> tuple[list[str], Tensor | None]:
        """Names and means (still on the device) since the last call."""
        if self._sums is None or self._count == 0:
            return [], None
        means = self._sums / self._count
        self._sums.zero_()
        self._count = 0
        return self._names, means

    def state_dict(self) -> dict[str, Any]:
        """What all ranks share."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "averages": {name: a.state_dict() for name, a in self.averages.items()},
            "updates": self.updates,
            "position": self.stream.position,
            "turns": {"planned": self.player.turns, "live": self.turns},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; rates stay those of the present schedule."""
        self._forget_recording()
        load_optimizer_state(self.optimizer, state["optimizer"])
        turns = state["turns"]
        if turns["planned"] == self.player.turns:  # else the user asks for another k now
            self.turns = turns["live"]
        self.begin_averages(state["averages"])
        self.updates = state["updates"]
        self.stream.position = state["position"]

    def begin_averages(self, saved: dict[str, Any]) -> None:
        """Go on with the ``saved`` averages; those of other networks begin at their weights."""
        for name, average in self.averages.items():
            if name in saved:
                average.load_state_dict(saved[name])
            else:
                average.restart()

    def take_over(self, averages: dict[str, MovingAverage]) -> None:
        """Go on with the averages of an earlier stage, of the networks that are still averaged."""
        for name in self.averages.keys() & averages.keys():
            self.averages[name].load_state_dict(averages[name].state_dict())

    def window(self) -> dict[str, Any]:
        """The running sums of diagnostics, which are a rank's own."""
        sums = None if self._sums is None else self._sums.clone()
        return {"names": list(self._names), "sums": sums, "count": self._count}

    def load_window(self, window: dict[str, Any], device: torch.device) -> None:
        """The inverse of :meth:`window`."""
        self._forget_recording()
        sums = window["sums"]
        self._names, self._count = list(window["names"]), window["count"]
        self._sums = None if sums is None else sums.to(device, copy=True)

    def _forget_recording(self) -> None:
        """A recorded turn goes on with the moments and sums of before, whatever is loaded."""
        for captured in (self._captured, self._captured_step):
            if captured is not None:
                captured.restart()


def _parts(batch: Batch, count: int) -> list[Batch]:
    if count == 1:
        return [batch]
    length = len(next(iter(batch.values())))
    if length % count:
        raise UserError(
            f"a worker's batch of {length} cannot be cut into {count} equal parts: "
            "give another --batch-size"
        )
    chunks = {name: values.chunk(count) for name, values in batch.items()}
    return [{name: chunks[name][i] for name in chunks} for i in range(count)]


def _gradients_stay_here(
    objective: nn.Module, here: bool
) -> contextlib.AbstractContextManager[None]:
    """A context without averaging over workers, for all but the last part of a batch."""
    if here and isinstance(objective, DistributedDataParallel):
        return objective.no_sync()
    return contextlib.nullcontext()
