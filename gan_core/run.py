"""A run: play a game to its end, looking at it, judging it and saving it on the way."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gan_core.beginning import (
    begin,
    beginning_in_words,
    begun_as,
    renamed_classes,
    with_beginning,
)
from gan_core.best import best_of, note_doubled, replaces
from gan_core.config import (
    RunConfig,
    check_resumable,
    import_plugins,
    make_config,
    write_config,
)
from gan_core.diagnostics import dynamics, signals
from gan_core.diagnostics.diagnosis import Diagnosis
from gan_core.diagnostics.findings import Finding
from gan_core.diagnostics.history import BEGUN, LENGTH
from gan_core.engine import checkpoint as checkpoints
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.execution import Engine, choose_engine
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.sampling import Sampler, undisturbed
from gan_core.engine.taking_turns import Place
from gan_core.engine.world import World
from gan_core.errors import UserError, named_line
from gan_core.host_memory import keep_freed_memory
from gan_core.judging import (
    count_modes,
    make_evaluator,
    told_of_training,
)
from gan_core.observers import FolderObserver, Observer
from gan_core.preparing import build_variant, check_counts
from gan_core.sample_pictures import SamplePictures
from gan_core.saving import Judged, Record, Saver
from gan_core.splits import load_training_data
from gan_core.telling import count_asked, count_parameters, diagnosed_facts, start_info
from gan_core.variant import Variant

_log = logging.getLogger(__name__)
T = TypeVar("T")
COMPILING = "compiling the networks: the first iterations take up to minutes, less the next time"
MADE_UP_FOR = "the evaluation failed; what was played is saved, and --resume begins with it"
MEET_WITHIN = 20.0
"""Seconds that workers wait for each other after an error, to save what they have."""
STOP_WITHIN = 2.0
"""Seconds after which a run knows that it is to stop, or one iteration where that takes longer."""


class Run:
    """A game with everything around it: what to log, when to judge, what to keep.

    ``place``: where it shares its process with other games. ``seconds`` of training are then on
    a CPU those of its own turns alone. On a GPU, which plays on what was launched while others
    have their turns, they are the seconds that went by; with N games up to N times as many as
    alone, and what others took to be judged is among them.
    """

    def __init__(
        self, config: RunConfig, world: World, observer: Observer, place: Place | None = None
    ) -> None:
        import_plugins(config.plugins)
        import gan_core.data
        import gan_core.variants  # noqa: F401

        self.config, self.world, self.observer = config, world, observer
        self._place = place or Place()
        self.train, held_out = load_training_data(config)
        self.fingerprint = self.train.fingerprint
        variant, engine = self._build()
        check_counts(config, variant, self.train.spec, held_out.shortest, world.size)
        self._check_same_data()
        self.game = Game(
            variant,
            self.train,
            held_out,
            batch_size=config.game.batch_size,
            seed=config.seed,
            world=world,
            engine=engine,
            examples_on=config.examples_on,
        )
        seed_rank(config.seed, world)  # last: making networks seeds a GPU's generator
        self._saver = Saver(config, self.game, self.fingerprint, observer)
        self._pictures = SamplePictures(
            self.game,
            count_asked(self.config, self.game),
            lambda text: self.observer.message(self.game.step, text),
        )
        self.history: list[dict[str, float]] = []
        self.diagnosis = Diagnosis(diagnosed_facts(config, self.game))
        self._stopped_by: Finding | None = None
        self._memory: signals.Memory = {}
        self.best: dict[str, Any] | None = None
        self.figures: dict[str, float] = {}
        self.protocol: dict[str, str] = {}
        self.seconds = 0.0
        self._since = time.perf_counter()
        self._evaluator: Any = None
        self._saved_at, self._judged_at = -1, -1
        self._last_ask, self._ask_at = (0, 0.0), 0
        self._last_seen, self._last_seconds = 0, 0.0
        self._grid: str | None = None
        self._owes_evaluation = False
        self._given_up: set[str] = set()

    def _build(self) -> tuple[Variant, Engine]:
        """The variant and how it is played; what was asked for and cannot be had is told."""
        config, variant = self.config, build_variant(self.config, self.train)
        wishes = (config.engine, config.precision, config.memory_format)
        engine, refusals = choose_engine(*wishes, variant, self.world)
        self._refusals = refusals
        engine.set_numerics()
        if self.world.device.type == "cpu":
            keep_freed_memory()
        return variant, engine

    def _check_same_data(self) -> None:
        """Raises ``UserError`` if the workers have loaded other examples than the first one."""
        if self.world.broadcast_object(self.fingerprint) != self.fingerprint:
            raise UserError(
                f"worker {self.world.rank} has loaded other training data than worker 0: a source "
                "gives the same examples every time (what it draws, from a fixed seed), on every "
                "node"
            )

    def _tell_notes(self) -> None:
        """What the engine has to say, once, by the one rank that speaks."""
        for line in [*self._refusals, *self.game.take_notes()]:
            self.observer.message(self.game.step, line, "warning")
        self._refusals = []

    # -- the whole -----------------------------------------------------------------------------

    def play(self, checkpoint: Path | None = None) -> dict[str, Any]:
        """Play to the end or to a stop; returns the summary.

        Raises ``UserError`` where the run is to go on otherwise than before, but has come to its
        end already: nothing would be played so.
        """
        self._settle_beginning(checkpoint)
        changes = [] if checkpoint is None else self._take_up(checkpoint)
        self._keep_config()
        self.observer.start(self.game.step, self._start_info(checkpoint))
        if checkpoint is None and self.config.begin_from is not None:
            self._tell_beginning()
        if changes:
            step = self.game.step
            self.observer.tag(step, f"resumed_with.{step}", "; ".join(changes))
        self._tell_notes()
        if not self.game.finished:
            with undisturbed():
                self._make_evaluator()
            if self.game.engine.compiles:
                self.observer.message(self.game.step, COMPILING)
        self._last_seen, self._last_seconds = self.game.examples_seen, self.seconds
        status = "finished"
        self._since = time.perf_counter()
        if self._owes_evaluation:
            self._evaluate_what_failed()
        self._last_ask, self._ask_at = (self.game.step, self._since), self.game.step + 1
        with self._kept_if_interrupted():
            while not self.game.finished:
                self.game.iterate()
                if self._look_on():
                    status = "stopped"
                    break
                self._let_others_play()
        if self._saved_at != self.game.step:
            self._pause(lambda: self._checkpoint(last=True))
        for finding in self.diagnosis.verdicts.values():
            self._tag(finding)
        summary = self._summary(status)
        self.observer.end(self.game.step, status, summary)
        return summary

    def _settle_beginning(self, checkpoint: Path | None) -> None:
        """Take over the networks that the configuration names, if it does; or once it did."""
        if checkpoint is None:
            self.config = self.world.broadcast_object(with_beginning(self.config))
            if self.config.begin_from is not None:
                begin(self.game, self.config)
        elif self._is_own(checkpoint):
            self.config = begun_as(checkpoint, self.config)
        self._saver.config = self.config

    def _tell_beginning(self) -> None:
        """Say what it begins from, and save that: who resumes the run does not need the other."""
        words = beginning_in_words(self.config)
        self.observer.tag(0, "begun_from", words)
        self.observer.message(0, f"begun with the networks of {words} ({self.config.begin_from})")
        if renamed := renamed_classes(self.config, self.train.spec):
            self.observer.message(0, renamed, "warning")
        self._checkpoint(last=False)

    def _keep_config(self) -> None:
        """The configuration beside what is kept in a folder: the command line knows a run by it,
        wherever it was started. Who has an observer of his own may have written it himself.
        """
        if isinstance(self.observer, FolderObserver) and self.world.leads:
            path = self.observer.folder / "config.yaml"
            if type(self.observer) is FolderObserver or not path.exists():
                write_config(self.config, path)

    def join(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """End the game with what other runs, in ``folders`` by stage, have played of it apart.

        It is judged, saved and released; returns the summary. Every rank calls this.
        """
        states = {}
        for stage, folder in folders.items():
            checkpoint = find_checkpoint(folder)
            if checkpoint is None:
                raise UserError(f"no whole checkpoint of {stage} in {folder}: play it first")
            self._saver.check_data(checkpoint, checkpoints.verify(checkpoint))
            shared = checkpoints.read_shared(checkpoint, self.world.device)
            states[stage] = shared["game"]
            self.seconds += shared["clock"]["seconds"]
        self.game.join(states)
        self._keep_config()
        self.observer.start(self.game.step, self._start_info(None))
        self.observer.metrics(self.game.step, self._timing())
        self._checkpoint(last=True, sampler=self._evaluate())
        summary = self._summary("finished")
        self.observer.end(self.game.step, "finished", summary)
        return summary

    def _look_on(self) -> bool:
        """What is due after an iteration, off the clock; whether to stop."""
        if self._wants_a_look():
            return bool(self._pause(self._look))
        return self.game.step >= self._ask_at and bool(self._pause(self._stops_here))

    def _wants_a_look(self) -> bool:
        config = self.config
        return any(
            map(self._due, (config.log_every, config.evaluate_every, config.checkpoint_every))
        )

    def _look(self) -> bool:
        self._tell_notes()  # a stage that has begun may have some
        if self._due(self.config.log_every):
            self._log_metrics()
        sampler = None
        if self._due(self.config.evaluate_every):
            self._probe()
            with self._kept_if_it_fails():
                sampler = self._evaluate()
        asked = self._agreed(lambda: self._hopeless() or self.observer.should_stop())
        stop = asked and not self.game.finished
        if stop or self._due(self.config.checkpoint_every):
            self._checkpoint(last=stop or self.game.finished, sampler=sampler)
        return stop

    @contextlib.contextmanager
    def _kept_if_it_fails(self) -> Iterator[None]:
        """Save everything before an error in an evaluation ends the run: what was played is no part
        of it. Who goes on from there begins with the evaluation.

        Where not all workers have the error, others wait for this one somewhere in the evaluation,
        and nothing can be saved.
        """
        try:
            yield
        except Exception:
            if self.world.meets(MEET_WITHIN):
                self._owes_evaluation, self.figures, self.protocol = True, {}, {}
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    self._checkpoint(last=False)
                    self.observer.message(self.game.step, MADE_UP_FOR, "warning")
            raise

    @contextlib.contextmanager
    def _kept_if_interrupted(self) -> Iterator[None]:
        """Save everything before a Ctrl-C ends the run, where nobody has asked it to stop before:
        in a notebook, say. The iteration that is interrupted may have played some turns already.
        """
        try:
            yield
        except KeyboardInterrupt:
            asked = self.world.size > 1 or self.observer.should_stop()
            if not asked and self._saved_at != self.game.step > 0:
                self._pause(lambda: self._checkpoint(last=True))
            raise

    def _evaluate_what_failed(self) -> None:
        """What the run that this one goes on with failed in."""
        self._pause(self._evaluate)
        self._owes_evaluation = False
        self._saved_at = -1  # what was saved knows nothing of it

    def _stops_here(self) -> bool:
        """Whether somebody wants a stop, between two looks; then everything is saved."""
        stop = self._agreed(self.observer.should_stop)
        if stop:
            self._checkpoint(last=True)
        return stop

    def _agreed(self, asked: Callable[[], bool]) -> bool:
        """Rank 0's answer, on every rank; and after which iteration to ask next.

        That is as many as take :data:`STOP_WITHIN` seconds at the pace since the last time.
        """
        step, now = self.game.step, time.perf_counter()
        before, then = self._last_ask
        pace = max(now - then, 1e-9) / max(1, step - before)
        wait = max(1, int(STOP_WITHIN / pace))
        answer, wait = self.world.broadcast_object((self.world.leads and asked(), wait))
        self._last_ask, self._ask_at = (step, now), step + wait
        return bool(answer)

    def _due(self, every: int) -> bool:
        """At multiples of ``every`` and at the end."""
        return self.game.finished or (every > 0 and self.game.step % every == 0)

    def _let_others_play(self) -> None:
        before = time.perf_counter()
        self._place.pass_on()
        if self.world.device.type != "cuda":  # a GPU has played on
            self._since += time.perf_counter() - before

    def _pause(self, work: Callable[[], Any]) -> Any:
        """``work()`` with the training clock stopped."""
        if self.world.device.type == "cuda":  # what this game has launched, not what others have
            played = torch.cuda.Event(blocking=True)
            played.record(torch.cuda.current_stream(self.world.device))
            with self._place.aside():
                played.synchronize()
        self.seconds += time.perf_counter() - self._since
        try:
            return work()
        finally:
            self._since = time.perf_counter()

    # -- looking -------------------------------------------------------------------------------

    def _log_metrics(self) -> None:
        values = signals.measure(self.game, self._memory) | self._stage_played()
        self._remember(values)
        self.observer.metrics(self.game.step, values | self._timing())

    def _timing(self) -> dict[str, float]:
        """How much has been played, and how fast since it was last asked for."""
        seen, seconds = self.game.examples_seen, self.seconds
        elapsed = max(seconds - self._last_seconds, 1e-9)
        timing = {
            "images_per_second": (seen - self._last_seen) / elapsed,
            "images_seen": float(seen),
            "seconds": seconds,
        }
        self._last_seen, self._last_seconds = seen, seconds
        return timing

    def _stage_played(self) -> dict[str, float]:
        """Of a game of several stages: when the present one began, and how long it is to be."""
        game = self.game
        if len(game.stages) == 1:
            return {}
        return {BEGUN: float(game.stage_start), LENGTH: float(game.stage.steps)}

    def _remember(self, values: dict[str, float]) -> None:
        self.history.append({"step": float(self.game.step), **values})
        for finding in self.diagnosis.take(self.game.step, values):
            self._announce(finding)

    def _probe(self) -> None:
        """Signals that are too costly for every logging point."""
        values = self._tried("signals of the game's dynamics", lambda: dynamics.measure(self.game))
        if values:
            self._remember(values)
            self.observer.metrics(self.game.step, values)

    def _tried(self, what: str, work: Callable[[], T]) -> T | None:
        """``work()``, or ``None`` where it fails: then it is told once, and not tried again.

        For what a run can do without: training goes on. ``what``: in the plural.
        """
        if what in self._given_up:
            return None
        try:
            return work()
        except Exception as error:
            self._given_up.add(what)
            self.observer.message(
                self.game.step, f"no {what} from here on: {named_line(error)}", "warning"
            )
            _log.debug("no %s", what, exc_info=True)
            return None

    def _evaluate(self) -> Sampler:
        """Look at samples and judge them; returns what made them."""
        with undisturbed():
            sampler = self.game.sampler()
            self._show(sampler)
            evaluator = self._make_evaluator()
            own = self._own_figures(sampler)
            if evaluator is None and not own:
                return sampler
            self.figures, self.protocol = own, self._own_protocol() if own else {}
            seen: dict[str, float] = {}
            if evaluator is not None:
                evaluator.resizer = self._resizer()  # a later stage may see the data otherwise
                asked = sampler.conditions(torch.arange(evaluator.samples))
                evaluation = evaluator(
                    lambda index: self._native(sampler, index),
                    asked.get("label"),
                    asked.get("text"),
                )
                self.figures |= {n: float(value) for n, value in evaluation.figures.items()}
                self.protocol |= evaluation.protocol
                seen = evaluation.signals
            if self.game.variant.asks_held_out:
                self.protocol = told_of_training(self.config, "validation", self.protocol)
        self._judged_at = self.game.step
        self._remember(self.figures | seen)
        self.observer.metrics(self.game.step, self.figures | seen)
        for family, text in self.protocol.items():
            self.observer.tag(self.game.step, f"protocol.{family}", text)
        self._keep_if_best(sampler)
        return sampler

    def _own_figures(self, sampler: Sampler) -> dict[str, float]:
        """The variant's own figures of the held-out examples, where it asks for them."""
        if not self.game.variant.asks_held_out:
            return {}
        from gan_core.metrics.held_out import held_out_figures

        count = count_asked(self.config, self.game)
        return held_out_figures(sampler, self.game.held_out_examples(count), count, self.world)

    def _own_protocol(self) -> dict[str, str]:
        held_out = self.game.held_out
        where = f"{count_asked(self.config, self.game)} examples of {held_out.told}"
        text = self.game.variant.protocol(self.game.stage.name)
        return {self.config.variant: f"{text}: {where}" if text else where}

    def _native(self, sampler: Sampler, index: Tensor) -> Tensor:
        """Samples at the source's own size, so that figures of all variants compare."""
        spec = self.train.spec
        return self.game.stage.view.restore(sampler(index)[spec.target], spec.target_shape)

    def _show(self, sampler: Sampler) -> None:
        if self.world.leads:
            image = self._tried("pictures of samples", lambda: self._pictures.draw(sampler))
            if image is not None:
                self._grid = self.observer.picture(self.game.step, "samples", image)

    def _make_evaluator(self) -> Any:
        """The evaluator or ``None``; made before the first turn, so that what cannot be had is
        known at once (its statistics are cached).
        """
        if self._evaluator is None:
            held_out = self.game.held_out if self.game.variant.asks_held_out else None
            self._evaluator = make_evaluator(
                self.config,
                self.train,
                self.world,
                reference=held_out,
                conditional="label" in self.game.variant.conditions(),
                resizer=self._resizer(),
                say=lambda text, level: self.observer.message(self.game.step, text, level),
            )
        return self._evaluator or None

    def _resizer(self) -> str:
        return self.game.stage.view.describe(self.train.spec.target_shape)

    def _keep_if_best(self, sampler: Sampler) -> None:
        variant, step = self.game.variant, self.game.step
        own = variant.best_by, self.config.variant
        found = best_of(self.figures, self.protocol, *own, step)
        now = self.world.broadcast_object(found)  # all keep it, or none
        if now is None:
            return
        if self.best is None or replaces(now, self.best, *self._stage_bounds()):
            self.best = now
            self._saver.keep_best(sampler, self._record(), self._judged())
        elif text := note_doubled(self.best, now):
            self.observer.message(step, f"{text}; that generator is kept as the best", "warning")
            self.observer.tag(step, "doubled_since_best", text)

    def _stage_bounds(self) -> tuple[int, float]:
        """The iterations after which the present stage begins and ends; the last has no end, as it
        may have been planned for more before.
        """
        start = self.game.stage_start
        end = start + self.game.stage.steps
        return start, end if end < self.game.steps else math.inf

    def _judged(self) -> Judged:
        """The figures, if they are of the networks as they are."""
        if self._judged_at != self.game.step:
            return {"figures": {}, "protocol": {}}
        return {"figures": self.figures, "protocol": self.protocol}

    # -- diagnosing ----------------------------------------------------------------------------

    def _announce(self, finding: Finding) -> None:
        """One line when a failure begins, gets worse or is over, and the run's tags."""
        step = self.game.step
        text = f"iteration {step:,}: {finding.line()}"
        if finding.advice:
            text += f" (try {finding.advice[0]})"
        self.observer.message(step, text, "info" if finding.state == "none" else "warning")
        self._tag(finding, changed=True)

    def _tag(self, finding: Finding, *, changed: bool = False) -> None:
        """Its state, and the evidence: what there is, or why there is none any more."""
        name = f"diagnosis.{finding.failure}"
        self.observer.tag(self.game.step, name, finding.state)
        if changed or finding.state != "none":
            self.observer.tag(self.game.step, f"{name}.evidence", finding.line())

    def _hopeless(self) -> bool:
        """Whether the diagnosis has confirmed what ``stop_on`` names; told in one line."""
        found = self.diagnosis.wants_stop(self.config.stop_on, self.config.stop_patience)
        if found is None or self.game.finished:
            return False
        self._stopped_by = found
        self.observer.tag(self.game.step, "stopped_by", found.form or found.failure)
        words = ",".join(self.config.stop_on)
        self.observer.message(
            self.game.step,
            f"stopped at iteration {self.game.step:,} by --stop-on {words}: {found.line()}",
            "warning",
        )
        return True

    # -- keeping -------------------------------------------------------------------------------

    def _checkpoint(self, last: bool, sampler: Sampler | None = None) -> None:
        """Save everything; the ``last`` of the run, or before a stop, is released as well.

        ``sampler``: of the networks as they are, where there is one: making another would measure
        their batch statistics again.
        """
        with undisturbed():
            made = sampler or self.game.sampler()
        if last:
            self._saver.release("last", made, self._judged())
        self._saver.checkpoint(made, self._record(), self._judged())
        self._saved_at = self.game.step

    def _record(self) -> Record:
        """What it remembers beside its game."""
        return {
            "history": self.history,
            "best": self.best,
            "figures": self.figures,
            "protocol": self.protocol,
            "signals": self._memory,
            "clock": {"seconds": self.seconds},
            **({"owes_evaluation": True} if self._owes_evaluation else {}),
        }

    def _take_up(self, checkpoint: Path) -> list[str]:
        """Go on from ``checkpoint``; what is done otherwise than before, in words."""
        self._restore(checkpoint)
        if self._is_own(checkpoint):
            self.best = self._saver.later_best(self.best)
        changes = _changes_since(checkpoint, self.config, self._is_own(checkpoint))
        if changes and self.game.finished and self._is_own(checkpoint):
            raise nothing_left(self.config, self.game.step, changes)
        return changes

    def _is_own(self, checkpoint: Path) -> bool:
        """Whether the run goes on with itself, and not from the state of another."""
        name, folder = self.config.name, checkpoint.resolve()
        return name is not None and folder.is_relative_to(self.config.folder.resolve())

    def _restore(self, checkpoint: Path) -> None:
        record = self._saver.restore(checkpoint)
        self.history, self.best = record["history"], record["best"]
        self._memory = record.get("signals", {})  # those of earlier versions have none
        self.diagnosis.replay(self.history)
        self.figures, self.protocol = record["figures"], record["protocol"]
        self.seconds = record["clock"]["seconds"]
        self._saved_at = self.game.step
        self._owes_evaluation = record.get("owes_evaluation", False)

    # -- telling -------------------------------------------------------------------------------

    def _start_info(self, checkpoint: Path | None) -> dict[str, Any]:
        resumed_from = None if checkpoint is None else str(checkpoint)
        return {
            **start_info(self.config, self.game),
            "data": self.fingerprint,
            "resumed_from": resumed_from,
            "begun_from": self.config.begun_from or None,
        }

    def _summary(self, status: str) -> dict[str, Any]:
        best = self.best and {k: v for k, v in self.best.items() if k not in ("score", "protocol")}
        if best and (state := self._saver.kept_best(best)):
            best["state"] = state
        return {
            "status": status,
            "step": self.game.step,
            "seconds": self.seconds,
            "images_per_second": self.game.examples_seen / max(self.seconds, 1e-9),
            "figures": self.figures,
            "protocol": self.protocol,
            "modes_in_data": count_modes(self.config, self.train.spec),
            "best": best,
            "diagnosis": self.diagnosis.to_dict(),
            "stopped_by": self._stopped_by and self._stopped_by.failure,
            "grid": self._grid,
            "parameters": count_parameters(self.game),
        }


def nothing_left(config: RunConfig, step: int, changes: Sequence[str]) -> UserError:
    """Why the run ``config``, played up to ``step``, is not resumed with ``changes``."""
    return UserError(
        f"run {config.name} has been played up to step {step}, so nothing would be played with "
        f"{'; '.join(changes)}: give more --steps, or a new run"
    )


def _changes_since(checkpoint: Path, config: RunConfig, own: bool) -> list[str]:
    """What ``config`` has otherwise than the run that wrote ``checkpoint``, in words.

    None are known where an earlier version wrote it, with options that are no more, or where it is
    another's and not its ``own``. Raises ``UserError`` where its own was of other networks or data.
    """
    try:
        before = make_config(checkpoints.read_manifest(checkpoint)["config"])
    except UserError:
        return []
    try:
        return check_resumable(before, config)
    except UserError:
        if own:
            raise
        return []


def play(
    config: RunConfig,
    world: World,
    observer: Observer,
    checkpoint: Path | None = None,
    place: Place | None = None,
) -> dict[str, Any]:
    """Train by ``config`` to the end (or to a stop), from ``checkpoint`` if given.

    Every rank calls this; ``place`` is as in :class:`Run`. Returns the summary: status, step,
    seconds, images_per_second, figures with their protocol, the best evaluation, the last sample
    grid. Who has the process to himself finds torch's switches and random states as they were.

    Raises ``UserError`` if the folder of a :class:`FolderObserver` holds another run already, and
    if ``checkpoint`` is of this run, but of other networks or data. A ``KeyboardInterrupt`` leaves
    a checkpoint.
    """
    if checkpoint is None and type(observer) is FolderObserver:
        _check_new(observer.folder)
    with _as_it_was() if place is None else contextlib.nullcontext():
        return Run(config, world, observer, place).play(checkpoint)


def _check_new(folder: Path) -> None:
    if find_checkpoint(folder) is not None:
        raise UserError(
            f"{folder} holds a run already: give another name, or go on with it from "
            "find_checkpoint(folder)"
        )


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Leave torch's random states, and its switches for precision, as they are found."""
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    switches = cudnn.allow_tf32, cudnn.deterministic
    try:
        with undisturbed():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32, cudnn.deterministic = switches
