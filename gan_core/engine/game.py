"""The game: players take turns. One loop for every variant, on one device or many."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch, Examples
from gan_core.data.views import View
from gan_core.engine.averaging import (
    STATISTICS_BATCH,
    STATISTICS_BATCHES,
    MovingAverage,
    has_batch_statistics,
    measure_batch_statistics,
)
from gan_core.engine.batches import BatchStream
from gan_core.engine.execution import Engine, compile_networks
from gan_core.engine.hosted import EXAMPLES_ON, belongs_on_host
from gan_core.engine.sampling import Sampler, StoredConditions, copy_networks, undisturbed
from gan_core.engine.seat import Seat
from gan_core.engine.world import World
from gan_core.errors import UserError, unknown_word
from gan_core.randomness import stream_key
from gan_core.variant import NoiseSpec, OptimizerSpec, Player, Stage, Variant, check_tuple

_PROMISED = {"stage", "step", "stage_start", "seen_before", "networks", "players"}
"""What a state has at least."""


class Game:
    """A variant being trained: stages in their order, and in each the players in theirs.

    The networks are the variant's own, which the game trains: another game begins with a variant of
    its own (:func:`gan_core.create`), or goes on with what this one has made of them.

    ``train`` and ``held_out`` are as the source gives them. ``batch_size`` is global and must be
    a multiple of the number of workers, each worker's share one that suits the variant, no noise
    has the name of a tensor of the data, and players read what these have: else ``UserError``. What
    else may be wrong with examples, :func:`gan_core.check_examples` tells. Everything random
    follows from ``seed``. ``engine`` says how turns are played; captured ones need a GPU.
    ``examples_on``: "device", "host" (batches are copied ahead of their turn), or "auto": on the
    device, but for the largest tensors of a training split that does not fit there.
    """

    def __init__(
        self,
        variant: Variant,
        train: Examples,
        held_out: Examples,
        *,
        batch_size: int,
        seed: int = 0,
        world: World | None = None,
        engine: Engine | None = None,
        examples_on: str = "auto",
    ) -> None:
        if examples_on not in EXAMPLES_ON:
            raise unknown_word("examples_on", examples_on, EXAMPLES_ON)
        self.world = world or World.current()
        self.engine = engine or Engine()
        self._notes: list[str] = []
        if batch_size < 1:
            raise UserError(f"a batch has at least one example, not {batch_size}")
        if batch_size % self.world.size:
            raise UserError(
                f"--batch-size {batch_size} cannot be shared by {self.world.size} workers: "
                "give a multiple of --workers"
            )
        variant.check_share(batch_size // self.world.size)
        variant.load_pretrained()
        self.variant = variant.to(self.world.device)
        if self.engine.channels_last:
            self.variant.to(memory_format=torch.channels_last)
        self.train, self.held_out = train, held_out
        self._examples_on = examples_on
        self.batch_size, self.seed = batch_size, seed
        self.stages = variant.stages()
        check_tuple(f"`stages` of {type(variant).__name__}", self.stages, Stage)
        for stage in self.stages:
            check_tuple(
                f"`noise` of {type(variant).__name__}", variant.noise(stage.name), NoiseSpec
            )
            self._check_names(stage)
        self.seats: list[Seat] = []
        self._handed_on: dict[str, MovingAverage] = {}
        self._view: View | None = None
        self._shared_stream: BatchStream | None = None
        self._stored: Batch = {}
        self._stored_held_out: Batch = {}
        self._known_orders: dict[tuple[int, tuple[str, ...]], Tensor] = {}
        self.step = 0
        self.stage_start = 0  # the step after which the stage that is being played began
        self._seen_before = 0
        self._look_through(self.stages[0].view)
        variant.initial_values(self._stored)
        self._enter(0)

    def _check_names(self, stage: Stage) -> None:
        """Raises ``UserError`` if noise and data would stand under one name in a batch, or if what
        is read or sampled from is not there.
        """
        seen = stage.view.through(self.train.spec).tensors
        for name in sorted({spec.name for spec in self.variant.noise(stage.name)} & set(seen)):
            raise UserError(
                f"the noise '{name}' has the name of a tensor of the data: give its NoiseSpec "
                "another"
            )
        held = seen.keys() | self.train.tensors.keys()  # some say nothing of what else they hold
        for player in stage.players:
            for name in player.reads:
                if name not in held:
                    raise UserError(
                        f"player {player.name} reads '{name}', which the data lack: they have "
                        f"{', '.join(sorted(held))}"
                    )
        for name in self.variant.sampling_networks(stage.name):
            if not hasattr(self.variant, name):
                raise UserError(
                    f"samples are made by the network '{name}', which there is none of: the "
                    "variant's method sampling_networks says which"
                )

    # -- stages ------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """The stage that is being played."""
        return self.stages[self.stage_index]

    @property
    def steps(self) -> int:
        """The iterations of all stages together: those played, and those that are to come.

        A stage that has been made shorter than what was played of it ends where it is, if others
        follow it, and takes nothing from them.
        """
        own, *following = (stage.steps for stage in self.stages[self.stage_index :])
        if following:
            own = max(own, self.step - self.stage_start)
        return self.stage_start + own + sum(following)

    @property
    def finished(self) -> bool:
        """Whether all iterations have been played."""
        return self.step >= self.steps

    def _enter(self, index: int) -> None:
        """Seat the players of stage ``index``; averages live on where networks go on.

        A network that nobody trains in the stage is used as it was left: in evaluation mode.
        """
        self._notes = self.take_notes()
        self.stage_index, self.stage_start = index, self.step
        stage = self.stage
        averages = {n: a for seat in self.seats for n, a in seat.averages.items()}
        averages = self._handed_on = averages or self._handed_on
        # The last stage's moments and recorded turns make room before this one's are made.
        self._playing: Seat | None = None
        self.seats = []
        self._shared_stream = None
        if stage.view != self._view:
            self._look_through(stage.view)
        self.variant.eval().requires_grad_(False)
        self.variant.zero_grad(set_to_none=True)  # the last stage's, which nobody needs any more
        for name in self.networks_of(stage):
            getattr(self.variant, name).train()
        if self.engine.compiles:
            self._notes += compile_networks(self.variant, stage)
        seats = [
            Seat(self.variant, player, self.world, self._stream(player, stage), self.engine)
            for player in stage.players
        ]
        for seat in seats:
            seat.freeze(True)
            seat.take_over(averages)
        self._shared_stream = self._stream(None, stage) if stage.batch == "iteration" else None
        self.seats = seats  # last: without them, an interrupted beginning is known and made up for
        self._handed_on = {}

    def _settle(self, following: Stage) -> None:
        """Networks that nobody trains any more go on as they are sampled from.

        That is averaged, and on every rank with rank 0's batch statistics: ranks that went on with
        their own would play different games.
        """
        ended = set(self.networks_of(self.stage)) - set(self.networks_of(following))
        for name in sorted(ended):
            for buffer in getattr(self.variant, name).buffers():
                self.world.broadcast(buffer)
        averaged = ended & {name for seat in self.seats for name in seat.averages}
        if not averaged:
            return
        sampler = self.sampler()
        for name in averaged & set(self.variant.sampling_networks(self.stage.name)):
            getattr(self.variant, name).load_state_dict(sampler.network(name).state_dict())

    def join(self, states: Mapping[str, dict[str, Any]]) -> None:
        """Take over stages that other games have played apart, by name; this one is ended then.

        ``states`` are the :meth:`state_dict` of games of the same variant's parts. Raises
        ``UserError`` if their networks are not like these.
        """
        for index, stage in enumerate(self.stages):
            state = states[stage.name]
            if index:
                self._seen_before = self.examples_seen
                self._settle(stage)
            self._enter(index)
            own = {k: v for k, v in self.variant.state_dict().items()
                   if k.partition(".")[0] in self.networks_of(stage)}  # fmt: skip
            _check_networks(own, state["networks"])
            self.variant.load_state_dict(state["networks"], strict=False)
            for seat in self.seats:
                seat.load_state_dict(state["players"][seat.player.name])
            self.step += state["step"]

    def _look_through(self, view: View) -> None:
        """Hold both splits on the device as ``view`` wants to see them."""
        self._view = None
        self._stored, self._stored_held_out = {}, {}  # the last stage's make room before
        train, held_out = (dict(view.prepare(e).tensors) for e in (self.train, self.held_out))
        self.hosted = self._stays_on_host(train)
        self._stored = self._on_device(train)
        self._stored_held_out = self._on_device(held_out)
        self._view = view

    def _stays_on_host(self, stored: Batch) -> frozenset[str]:
        if self._examples_on == "auto":
            return belongs_on_host(stored, self.world.device)
        return frozenset(stored if self._examples_on == "host" else ())

    def _on_device(self, stored: Batch) -> Batch:
        device = self.world.device
        return {n: t if n in self.hosted else t.to(device) for n, t in stored.items()}

    def _stream(self, player: Player | None, stage: Stage) -> BatchStream:
        """The batches of ``player``, or (``None``) the ones that all players share."""
        noise = self.variant.noise(stage.name)
        if player is None:
            reads = {name for p in stage.players for name in p.reads}
            names: tuple[str, ...] = (stage.name,)
            scale = 1
        else:
            reads = set(player.reads)
            noise = tuple(spec for spec in noise if spec.read_by(player.name))
            names, scale = (stage.name, player.name), player.batch_scale
        return BatchStream(
            self._stored,
            stage.view,
            sorted(reads),
            noise,
            batch_size=self.batch_size * scale,
            seed=self.seed,
            names=names,
            world=self.world,
            series=self._series,
            hosted=self.hosted,
        )

    @property
    def _series(self) -> dict[str, str]:
        return {name: spec.series for name, spec in self.train.spec.tensors.items()}

    # -- the loop ----------------------------------------------------------------------------

    def iterate(self) -> None:
        """One iteration: every player's turns, then the averages of weights."""
        if len(self.seats) != len(self.stage.players):  # was interrupted as it began
            self._enter(self.stage_index)
        if self.step - self.stage_start >= self.stage.steps:
            if self.finished:
                raise UserError(f"all {self.steps} iterations of the game are played")
            seen = self.examples_seen
            self._settle(self.stages[self.stage_index + 1])
            self._seen_before = seen
            self._enter(self.stage_index + 1)
        played = self.step - self.stage_start
        self.variant.on_iteration_start(played)
        shared = self._shared_stream.next() if self._shared_stream else None
        for seat in self.seats:
            self._give_turn_to(seat)
            for turn in range(seat.turns):
                batch = seat.stream.next() if shared is None else shared
                carry = seat.update(batch, played + turn / seat.turns)
                if shared is not None:
                    shared = shared | carry
                self.variant.on_turn_end(seat.player.name)
        for seat in self.seats:
            for average in seat.averages.values():
                average.update()
        self.step += 1

    def _give_turn_to(self, seat: Seat) -> None:
        if self._playing is not seat:
            if self._playing is not None:
                self._playing.freeze(True)
            seat.freeze(False)
            self._playing = seat

    @property
    def examples_seen(self) -> int:
        """Real targets that players have drawn, over all workers and all stages so far."""
        target = self.train.spec.target
        streams = [s.stream for s in self.seats if target in s.player.reads]
        if self._shared_stream:
            streams = [self._shared_stream]
        return self._seen_before + sum(stream.position for stream in streams)

    def play(self, steps: int) -> None:
        """``steps`` iterations, or as many as are left.

        Networks that somebody has put into evaluation mode in between, or frozen, are trained as
        before. One who is interrupted may play on: at most an iteration's first turns come twice.
        """
        self._make_ready()
        for _ in range(min(steps, self.steps - self.step)):
            self.iterate()

    def _make_ready(self) -> None:
        """The modes and frozen weights with which a stage begins."""
        for name in self.networks_of(self.stage):
            getattr(self.variant, name).train()
        for seat in self.seats:
            seat.freeze(True)
        self._playing = None

    def set_turns(self, player: str, turns: int) -> None:
        """Change how many turns ``player`` takes in an iteration (k), from the next one on."""
        if not isinstance(turns, int) or turns < 1:
            raise UserError(f"a player takes at least one turn, a whole number, not {turns}")
        self._seat_of(player).turns = turns

    def set_optimizer(self, player: str, **values: Any) -> None:
        """Change fields of the :class:`OptimizerSpec` of ``player`` from its next turn on.

        ``learning_rate``, ``rate``, ``annealing`` and ``momentum`` change in recorded turns as they
        are; with other ``betas`` a turn is recorded anew. Moments and counts stay. The state of the
        game knows nothing of it: a game that goes on from one has its variant's own.
        """
        known = {field.name for field in dataclasses.fields(OptimizerSpec)} - {"kind"}
        if "kind" in values:
            raise UserError("another kind of optimiser has other moments: begin another game")
        for name in values.keys() - known:
            raise unknown_word("field of OptimizerSpec", name, known)
        self._seat_of(player).set_optimizer(**values)

    def _seat_of(self, player: str) -> Seat:
        seats = {seat.player.name: seat for seat in self.seats}
        if player not in seats:
            raise unknown_word("player", player, seats)
        return seats[player]

    # -- looking on --------------------------------------------------------------------------

    def networks_of(self, stage: Stage) -> list[str]:
        """The names of all networks of the players of ``stage``."""
        return [name for player in stage.players for name in player.networks]

    def sampler(
        self, *, averaged: bool = True, seed: int | None = None, for_now: bool = False
    ) -> Sampler:
        """A sampler on copies of the networks as they are now.

        ``for_now``: for use before the next update alone; without averages nothing is copied then
        that need not be.

        With ``averaged``, a network that has a moving average is replaced by it, with batch
        statistics measured for those weights. All ranks get rank 0's batch statistics, so their
        samples agree.
        """
        with undisturbed():
            names = self.variant.sampling_networks(self.stage.name)
            copies = copy_networks(self.variant, names, share_weights=for_now and not averaged)
            sampler = self._sampler_on(
                copies, self.seed if seed is None else seed, self._sampling_conditions()
            )
            for name in names:
                for buffer in getattr(copies, name).buffers():
                    self.world.broadcast(buffer)
            if averaged:
                self._use_averages(copies, names)
        return sampler

    def _sampler_on(self, variant: Variant, seed: int, conditions: StoredConditions) -> Sampler:
        return Sampler(variant, self.stage.name, seed, self.world.device, conditions)

    def _use_averages(self, copies: Variant, names: tuple[str, ...]) -> None:
        averages = {n: a for seat in self.seats for n, a in seat.averages.items()}
        used = [name for name in names if name in averages]
        for name in used:
            averages[name].copy_to(getattr(copies, name))
        if not any(has_batch_statistics(getattr(copies, name)) for name in used):
            return
        statistics = self._sampler_on(
            copies, stream_key(self.seed, "batch statistics") >> 1, self._training_conditions()
        )

        def generate(number: int) -> object:
            start = number * STATISTICS_BATCH
            return statistics(torch.arange(start, start + STATISTICS_BATCH))

        together = nn.ModuleList([getattr(copies, name) for name in used])
        measure_batch_statistics(together, generate, STATISTICS_BATCHES)

    def _sampling_conditions(self) -> StoredConditions:
        """What samples are asked for: held-out examples' conditions in their order, where the
        variant wants these, else training examples'.
        """
        if not self.variant.asks_held_out:
            return self._training_conditions()
        stored = {name: self._stored_held_out[name] for name in self.variant.conditions()}
        return StoredConditions(stored, self.stage.view, self.world.device)

    def _training_conditions(self) -> StoredConditions:
        """Those of all training examples in a fixed shuffled order, so in the real proportions."""
        stored = {name: self._stored[name] for name in self.variant.conditions()}
        orders = self._orders(stored, "conditions")
        return StoredConditions(stored, self.stage.view, self.world.device, orders)

    def held_out_examples(self, count: int | None = None) -> Batch:
        """The first ``count`` (or all) examples of the held-out split, as the networks see them.

        Of a series that has fewer, as many as there are.
        """
        chosen = {n: t[:count].to(self.world.device) for n, t in self._stored_held_out.items()}
        return self.stage.view.present(chosen)

    def examples_for_judgement(self, count: int, held_out: bool, start: int = 0) -> Batch:
        """``count`` real examples, the same at every call, as the networks see them.

        They are those from ``start`` on in an order of their own, which begins again at its end.
        """
        stored = self._stored_held_out if held_out else self._stored
        count = min(count, *map(len, stored.values()))
        orders = self._orders(stored, "judgement", str(held_out))
        places = torch.arange(count)
        rows = {n: order[(places + start % len(order)) % len(order)] for n, order in orders.items()}
        chosen = {n: t[rows[n].to(t.device)].to(self.world.device) for n, t in stored.items()}
        return self.stage.view.present(chosen)

    def _orders(self, stored: Batch, *purpose: str) -> dict[str, Tensor]:
        """An order of the rows of each tensor of ``stored``, fixed by ``purpose``; tensors of one
        length have one order.
        """
        return {name: self._order(len(values), purpose) for name, values in stored.items()}

    def _order(self, length: int, purpose: tuple[str, ...]) -> Tensor:
        """Made once: it is asked for at every logging point, and takes 0.1 s of a million rows."""
        if (length, purpose) not in self._known_orders:
            key = stream_key(self.seed, *purpose) & (2**63 - 1)
            generator = torch.Generator().manual_seed(key)
            self._known_orders[length, purpose] = torch.randperm(length, generator=generator)
        return self._known_orders[length, purpose]

    def take_notes(self) -> list[str]:
        """What the engine has to say since the last call: wishes that it could not grant."""
        notes = self._notes + [note for seat in self.seats for note in seat.take_notes()]
        self._notes = []
        return notes

    def take_diagnostics(self) -> dict[str, float]:
        """Means of the objectives' diagnostics since the last call, over all workers.

        What two players report under one name is each one's NAME/PLAYER; what has no group then is
        objective/NAME, so that nobody takes it for a figure of an evaluation.
        """
        names: list[tuple[str, str]] = []
        means: list[Tensor] = []
        for seat in self.seats:
            seat_names, seat_means = seat.take_diagnostics()
            if seat_means is not None:
                names += [(seat.player.name, name) for name in seat_names]
                means.append(seat_means)
        if not means:
            return {}
        told = Counter(name for _, name in names)
        keys = [name if told[name] == 1 else f"{name}/{player}" for player, name in names]
        keys = [key if "/" in key else f"objective/{key}" for key in keys]
        return dict(zip(keys, self.world.mean(torch.cat(means)).tolist(), strict=True))

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What all ranks share: networks, optimisers, averages, counts, positions.

        Its tensors are the game's own, which go on changing: who wants to come back to it keeps a
        ``copy.deepcopy``. (Dropout draws from torch's random state, which is none of it.)
        """
        return {
            "stage": self.stage.name,
            "step": self.step,
            "stage_start": self.stage_start,
            "seen_before": self._seen_before,
            "networks": self.variant.state_dict(),
            "players": {seat.player.name: seat.state_dict() for seat in self.seats},
            "shared_position": self._shared_stream.position if self._shared_stream else 0,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; ``UserError`` if it is of another game's networks.

        Stages after the one that ``state`` is of may be missing from it; they begin afresh.
        """
        names = [stage.name for stage in self.stages]
        if missing := sorted(_PROMISED - state.keys()):
            raise UserError(f"no state of a game: it has no {', '.join(missing)}")
        state = {**state, "networks": self._with_later_stages(state)}
        self._check_fits(state)
        if names.index(state["stage"]) != self.stage_index:
            self._enter(names.index(state["stage"]))
        self.step, self.stage_start = state["step"], state["stage_start"]
        self._seen_before = state["seen_before"]
        self.variant.load_state_dict(state["networks"])
        for seat in self.seats:
            seat.load_state_dict(state["players"][seat.player.name])
        if self._shared_stream:
            self._shared_stream.position = state["shared_position"]

    def begin_from(self, state: dict[str, Any]) -> None:
        """Begin with the networks of ``state``, the :meth:`state_dict` of another game, and with
        its averages of those that are averaged here; all else begins afresh.

        Every rank takes the buffers of rank 0 there. Networks that are not played here are left
        out; ``UserError`` if one that is has no other there of its shapes.
        """
        found = fitting_networks(self.variant, state["networks"])
        self.variant.load_state_dict(found, strict=False)
        players = state["players"].values()
        averages = {n: a for player in players for n, a in player["averages"].items()}
        for seat in self.seats:
            seat.begin_averages(averages)

    def _with_later_stages(self, state: dict[str, Any]) -> dict[str, Tensor]:
        """The networks of ``state`` and, as they are, those of stages that it knows nothing of.

        Left out is what earlier versions kept there and this one makes anew.
        """
        names = [stage.name for stage in self.stages]
        played = names.index(state["stage"]) if state["stage"] in names else len(names)
        before = {n for stage in self.stages[: played + 1] for n in self.networks_of(stage)}
        later = {n for s in self.stages[played + 1 :] for n in self.networks_of(s)} - before
        own = self.variant.state_dict()
        passing = {name for name, _ in self.variant.named_buffers()} - own.keys()
        saved = {n: value for n, value in state["networks"].items() if n not in passing}
        known = {name.partition(".")[0] for name in saved}
        fresh = {n: value for n, value in own.items() if n.partition(".")[0] in later - known}
        return saved | fresh

    def _check_fits(self, state: dict[str, Any]) -> None:
        """Raises ``UserError`` if ``state`` is not of networks, stages and players like these."""
        _check_networks(self.variant.state_dict(), state["networks"])
        stages = {stage.name: {p.name for p in stage.players} for stage in self.stages}
        if stages.get(state["stage"]) != set(state["players"]):
            players = ", ".join(sorted(state["players"]))
            raise UserError(f"this game has no stage '{state['stage']}' of {players}")

    def rank_state(self) -> dict[str, Any]:
        """What is this rank's own: buffers, random states, running sums of diagnostics."""
        cuda = self.world.device.type == "cuda"
        return {
            "buffers": dict(self.variant.named_buffers()),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.world.device) if cuda else None,
            "windows": {seat.player.name: seat.window() for seat in self.seats},
            "variant": self.variant.rank_state(),
        }

    @torch.no_grad()
    def load_rank_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`rank_state`."""
        buffers = dict(self.variant.named_buffers())
        for name, saved in state["buffers"].items():
            buffers[name].copy_(saved)
        torch.set_rng_state(state["random"].cpu())
        if state["cuda_random"] is not None and self.world.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"].cpu(), self.world.device)
        for seat in self.seats:
            seat.load_window(state["windows"][seat.player.name], self.world.device)
        self.variant.load_rank_state(state["variant"])

    def deal_out(self, states: Iterable[dict[str, Any]]) -> str:
        """Go on from the :meth:`rank_state` of ranks of another number, as far as the variant can.

        Returns what was taken over, for the log. The rest is as :meth:`load_state_dict` left it.
        """
        buffers = (state["buffers"] for state in states)
        return self.variant.deal_out(buffers, self.world.rank, self.world.size)


def fitting_networks(variant: Variant, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``saved``, another game's networks, that are of the networks of ``variant``.

    Those of its players and of sampling: others, which nobody trains, are its own. Raises
    ``UserError`` if they are not the same ones in the same shapes.
    """
    stages = variant.stages()
    names = {name for stage in stages for player in stage.players for name in player.networks}
    names |= {name for stage in stages for name in variant.sampling_networks(stage.name)}
    own, found = (
        {name: value for name, value in tensors.items() if name.partition(".")[0] in names}
        for tensors in (variant.state_dict(), saved)
    )
    _check_networks(own, found)
    return found


def _check_networks(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raises ``UserError`` if the tensors of ``saved`` are not those of ``own`` in shape."""
    for name in [*own, *saved]:
        here, there = (tuple(n[name].shape) if name in n else None for n in (own, saved))
        if here != there:
            was, now = ("missing" if shape is None else shape for shape in (there, here))
            raise UserError(
                f"its networks are of other options or data than this run's: {name} is {was} there "
                f"and {now} here"
            )


def seed_rank(seed: int, world: World, step: int = 0) -> None:
    """Seed this rank's global random state (dropout draws from it) for going on at ``step``."""
    torch.manual_seed(stream_key(seed, "rank", str(world.rank), str(step)) >> 1)
