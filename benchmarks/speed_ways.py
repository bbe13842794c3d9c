"""What `benchmarks.speed` plays, in which ways, and how long an iteration takes.

A :class:`Setting` is a game: a variant with its options on some data. A :class:`Way` is how it is
played. :class:`Timed` is a game in one way, warmed up; :func:`alternate` lets several of them play
in turns, because other load on the machine then hits all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from benchmarks.speed_floor import flops
from benchmarks.speed_memory import needed_bytes
from benchmarks.textbook_systems import make_textbook
from gan_core.data.examples import Examples
from gan_core.data.loading import load_examples
from gan_core.engine.capture import WARM_UP_TURNS
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError, first_line, unknown_word
from gan_core.host_memory import give_back_freed_memory, keep_freed_memory
from gan_core.options import parse
from gan_core.variant import VARIANTS, Variant, create

WARM_UPS = {
    "textbook": 2,
    "eager": 2,
    "compile": 3,
    "graph": WARM_UP_TURNS + 2,
    "compiled-graph": WARM_UP_TURNS + 2,
}
"""The modes, and how many iterations a game plays before it is timed."""
PRECISIONS = ("fp32", "tf32", "bf16")
CHANNELS_LAST = "channels-last"
SAME_FAKES = "same-fakes"
ENDLESS = 1_000_000
"""Iterations that a game is planned for; none is played to its end."""
SPECIALISATIONS = 4096
"""How often a network's code may be compiled, before torch gives up and plays it eagerly."""


@functools.cache
def examples(
    data: str, root: str | None, options: tuple[tuple[str, Any], ...] = ()
) -> tuple[Examples, Examples]:
    """The training and the validation split of a source, opened with its ``options``."""
    words: dict[str, Any] = dict(options)
    train = load_examples(data, root, "train", **words)
    return train, load_examples(data, root, "validation", **words)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A game: ``variant`` with ``options`` (the others its paper's) on ``data``, on a device.

    ``device`` is "cpu" or "cuda"; ``most`` bounds the number of training pictures. ``stage``: the
    one that is played, of several the first if not given; networks of earlier ones are as they
    begin. ``data_options`` are the source's. ``loaders``: processes of the textbook's DataLoader.
    """

    variant: str
    options: Mapping[str, Any]
    data: str = "digits"
    root: str | None = None
    device: str = "cpu"
    most: int | None = None
    stage: str | None = None
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loaders: int | None = None

    def but(self, **options: Any) -> Setting:
        """The same with other ``options``."""
        return dataclasses.replace(self, options={**self.options, **options})

    @property
    def played(self) -> Any:
        """All options, those left to the paper too."""
        import gan_core.variants  # noqa: F401  (registers the variants)

        return parse(VARIANTS[self.variant].Options, {"steps": ENDLESS, **self.options})

    @property
    def train(self) -> Examples:
        """What is learned from."""
        found = self._examples[0]
        if self.most is None or self.most >= len(found):
            return found
        return found.select(torch.arange(self.most))

    @property
    def held_out(self) -> Examples:
        """The validation split, which an engine's game asks for."""
        return self._examples[1]

    @property
    def _examples(self) -> tuple[Examples, Examples]:
        return examples(self.data, self.root, tuple(sorted(self.data_options.items())))

    def make(self, seed: int = 0) -> Variant:
        """The variant, built, with the stage alone that is played; weights follow from ``seed``."""
        variant = create(self.variant, self.train.spec, self.played, seed)
        stages = {stage.name: stage for stage in variant.stages()}
        if self.stage is not None:
            if self.stage not in stages:
                raise unknown_word(f"stage of {self.variant}", self.stage, stages)
            variant.stages = lambda: (stages[str(self.stage)],)  # type: ignore[method-assign]
        return variant

    def check(self) -> None:
        """Raises ``UserError`` where the data is missing or the variant cannot be played on it."""
        played = self.played
        VARIANTS[self.variant](played).check(self.train.spec)
        if self.stage is not None:
            self.make()

    @property
    def images(self) -> int:
        """Real pictures that the discriminator draws in an iteration."""
        return int(self.played.batch_size * getattr(self.played, "k", 1))

    def machine(self) -> str:
        """What it is played on."""
        return machine(self.device)

    def describe(self) -> str:
        """In a few words: the pictures are those of the source."""
        shape = " x ".join(map(str, self.train.spec.target_shape))
        told = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in self.options.items())
        batch = f"batch {self.played.batch_size}, k {getattr(self.played, 'k', 1)}"
        name = f"{self.variant} {self.stage}" if self.stage else self.variant
        return f"{name} on {self.data} ({shape}), {batch}{f' ({told})' if told else ''}"


@dataclasses.dataclass(frozen=True)
class Way:
    """How a game is played: the ``mode``, and for the engine's own precision and layout.

    Written as "graph+bf16+channels-last". The mode "textbook" is that of :mod:`textbook_loop`, in
    the precision that torch begins with: float32, on a GPU with convolutions in TF32; of it there
    is "textbook+same-fakes", whose generator learns from what the discriminator has just seen.
    """

    mode: str = "eager"
    precision: str = "fp32"
    channels_last: bool = False
    same_fakes: bool = False

    @classmethod
    def read(cls, text: str) -> Way:
        """The inverse of ``str``; ``UserError`` for an unknown word."""
        mode, *words = text.split("+")
        if mode not in WARM_UPS:
            raise unknown_word("way", mode, WARM_UPS)
        known = (SAME_FAKES,) if mode == "textbook" else (*PRECISIONS, CHANNELS_LAST)
        for word in words:
            if word not in known:
                raise unknown_word(f"word after '{mode}'", word, known)
        precision = next((word for word in words if word in PRECISIONS), "fp32")
        return cls(mode, precision, CHANNELS_LAST in words, SAME_FAKES in words)

    def __str__(self) -> str:
        words = [self.mode]
        words += [self.precision] if self.precision != "fp32" else []
        words += [CHANNELS_LAST] if self.channels_last else []
        words += [SAME_FAKES] if self.same_fakes else []
        return "+".join(words)

    def multiplies_in(self, device: str) -> str:
        """The precision of its convolutions, whose ceiling is its own."""
        return "tf32" if self.mode == "textbook" and device == "cuda" else self.precision

    def check(self, device: str) -> None:
        """Raises ``UserError`` for what only a GPU can do."""
        if device == "cpu" and ("graph" in self.mode or self.precision == "tf32"):
            raise UserError(f"the way {self} needs --device cuda")

    @property
    def engine(self) -> Engine:
        """The engine that plays so."""
        words: dict[str, Any] = {"mode": self.mode, "precision": self.precision}
        return Engine(**words, channels_last=self.channels_last)

    def set_numerics(self) -> None:
        """Let this process multiply, convolve and keep freed memory as the way wants it."""
        if self.mode != "textbook":
            self.engine.set_numerics()
            keep_freed_memory()
            return
        give_back_freed_memory()
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.deterministic = False


class Loop(Protocol):
    """What plays iterations: the textbook's loop, or a game of the engine."""

    def iterate(self) -> None:
        """One iteration."""


def make_game(setting: Setting, way: Way, world: World, seed: int = 0) -> Game:
    """A game of the engine's, played in ``way``; its networks and batches follow from ``seed``."""
    if way.engine.compiles:  # all games of this process count together
        torch._dynamo.config.recompile_limit = SPECIALISATIONS
        torch._dynamo.config.accumulated_recompile_limit = SPECIALISATIONS
    game = Game(
        setting.make(seed),
        setting.train,
        setting.held_out,
        batch_size=setting.played.batch_size,
        seed=seed,
        world=world,
        engine=way.engine,
    )
    for note in game.take_notes():
        print(f"{way}: {note}", file=sys.stderr)
    return game


def check_recorded(loop: Loop, way: Way) -> None:
    """Raises ``UserError`` if ``loop``, warmed up, plays turns that ``way`` wants recorded.

    The engine plays them kernel by kernel then, and what is timed would be another way.
    """
    refusals = loop.take_notes() if isinstance(loop, Game) and way.engine.captures else []
    if refusals:
        raise UserError("; ".join(refusals))


def make_loop(setting: Setting, way: Way) -> Loop:
    """The loop of ``setting`` in ``way``; initial weights are the same every time."""
    way.check(setting.device)
    torch.manual_seed(0)
    world = World.current(setting.device)
    if way.mode != "textbook":
        return make_game(setting, way, world)
    words: dict[str, Any] = {"loaders": setting.loaders, "same_fakes": way.same_fakes}
    size = setting.played.batch_size
    return make_textbook(setting.make(), setting.train, size, world.device, **words)


class Timed:
    """The loop of ``setting`` in ``way``, made and warmed up; ``UserError`` if it cannot be so.

    ``rounds``: milliseconds an iteration, a number a round. ``warm_up``: seconds that making it and
    its first iterations took beyond what as many later ones would. ``memory``: bytes that it has
    reserved on a GPU. ``needed``: those of an iteration on a CPU, once they were measured.
    """

    def __init__(self, name: str, setting: Setting, way: Way) -> None:
        self.name, self.setting, self.way = name, setting, way
        self.rounds: list[float] = []
        self.needed: int | None = None
        assert setting.train is not None  # loaded now, not while the clock runs
        before = _forget_peak(setting.device)
        way.set_numerics()
        begun = time.perf_counter()
        self.loop = make_loop(setting, way)
        self._played = WARM_UPS[way.mode]
        for _ in range(self._played):
            self._latest = self.play(1)
        check_recorded(self.loop, way)
        self._warming = time.perf_counter() - begun
        self.memory = _peak(setting.device) - before

    def play(self, iterations: int) -> float:
        """The seconds that an iteration takes, of so many."""
        self.way.set_numerics()
        wait(self.setting.device)
        begun = time.perf_counter()
        for _ in range(iterations):
            self.loop.iterate()
        wait(self.setting.device)
        return (time.perf_counter() - begun) / iterations

    def look_at_memory(self) -> None:
        """Measure what an iteration needs on a CPU, beyond what lay there before it."""
        if self.setting.device == "cpu":
            self.way.set_numerics()
            self.needed = needed_bytes(self.loop.iterate)

    def operations(self) -> int:
        """Floating-point operations of an iteration, where Python plays it."""
        return flops(self.loop.iterate)

    def round(self, seconds: float) -> None:
        """Play for about ``seconds``, at least an iteration, and note the time."""
        self._latest = self.play(max(1, round(seconds / self._latest)))
        self.rounds.append(1000 * self._latest)

    @property
    def milliseconds(self) -> float:
        """An iteration's: the median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def warm_up(self) -> float:
        """Seconds of compiling, recording and the like."""
        return max(0.0, self._warming - self._played * self.milliseconds / 1000)

    @property
    def images(self) -> int:
        """Real pictures that the discriminator draws in an iteration."""
        return self.setting.images


def make_all(wanted: Mapping[str, tuple[Setting, Way]], kind: type[Timed] = Timed) -> list[Timed]:
    """Those of ``wanted`` (name: setting and way) that can be played; the others are told.

    Each is made as one of ``kind``.
    """
    made = []
    for name, (setting, way) in wanted.items():
        try:
            made.append(kind(name, setting, way))
        except (UserError, RuntimeError) as problem:  # what a compiler or a GPU could not do
            print(f"{name} is left out: {first_line(problem)}", file=sys.stderr)
    return made


def alternate(
    loops: Sequence[Timed],
    rounds: int,
    seconds: float,
    between: Callable[[], None] = lambda: None,
) -> None:
    """``rounds`` in which each plays for ``seconds``, in an order that turns round every time.

    ``between`` is called before each round.
    """
    for number in range(rounds):
        between()
        for loop in loops if number % 2 == 0 else reversed(loops):
            loop.round(seconds)


def machine(device: str) -> str:
    """This machine's ``device`` and torch, for the head of a table."""
    threads = f"{torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads}"
    return f"{name}, torch {torch.__version__}"


def wait(device: str) -> None:
    """Until ``device`` has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(device: str) -> int:
    """Begin a new peak; the bytes reserved now."""
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_reserved()


def _peak(device: str) -> int:
    return torch.cuda.max_memory_reserved() if device == "cuda" else 0
