"""The contract: a GAN is a game of players with networks, objectives and optimisers of their own.

A variant states its networks, its stages and its losses in single-device code. The engine
(:mod:`gan_core.engine`) plays the game: data, noise, freezing, gradients across workers,
averages of weights, checkpoints. Nothing here knows how many workers there are; a loss that is no
mean over examples asks for means over all of them (:func:`gan_core.losses.mean_over_workers`).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.data.views import View
from gan_core.errors import UserError, unknown_word
from gan_core.options import flag, option, parse
from gan_core.priors import Prior
from gan_core.registry import Registry


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """A random tensor that the variant finds in its batch under ``name``: (batch, *shape).

    ``players`` names those that read it; empty means every player and sampling too. No tensor of
    the data may have the name.
    """

    name: str
    shape: tuple[int, ...]
    prior: Prior
    players: tuple[str, ...] = ()

    def read_by(self, player: str) -> bool:
        """Whether ``player`` (or "sample") finds this noise in its batches."""
        return not self.players or player in self.players


@dataclasses.dataclass
class Loss:
    """What an objective returns; everything stays on the device.

    ``total`` is the scalar to minimise; ``diagnostics`` are scalars to log, by name;
    ``carry`` are tensors (N, ...) for the players that come after in an iteration of one batch, in
    the place of what that has by their names.

    Names that mean something: "loss/NAME" is watched for divergence and shown while a run plays
    (one that is no plain loss of logits has an entry in :meth:`Variant.loss_scales`);
    "loss/discriminator", without penalties, is minus the value of a game of :class:`Player`
    "discriminator" against "generator", of which the duality gap is measured. What two players
    report under one name is logged as each one's NAME/PLAYER, and a name without a group ("l1") as
    objective/NAME: names without one are those of an evaluation's figures.
    """

    total: Tensor
    diagnostics: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    carry: Batch = dataclasses.field(default_factory=dict)


MOST_TURNS = 100_000
"""The most updates of a player in an iteration: a run heeds a wish to stop between iterations."""


def constant(_: float) -> float:
    """The schedule that changes nothing."""
    return 1.0


def no_momentum(_: int) -> float:
    """The momentum of plain descent."""
    return 0.0


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """A player's optimiser.

    ``rate`` multiplies ``learning_rate`` as a function of the player's updates so far, and
    ``annealing`` does as one of the stage's iterations so far (2.5 in the middle of the third):
    what is to end with the game belongs there, as k may change on the way. ``momentum`` is the
    momentum of ``sgd`` as a function of updates.
    """

    kind: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    rate: Callable[[int], float] = constant
    annealing: Callable[[float], float] = constant
    momentum: Callable[[int], float] = no_momentum

    def __post_init__(self) -> None:
        if self.kind not in ("adam", "sgd"):
            raise unknown_word("kind of optimiser", self.kind, ("adam", "sgd"))
        if not (self.learning_rate >= 0 and math.isfinite(self.learning_rate)):
            raise UserError(f"a learning rate is 0 or more, and finite, not {self.learning_rate}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas are two numbers from 0 to below 1, not {self.betas}")
        for name in ("rate", "annealing", "momentum"):
            if not callable(getattr(self, name)):
                raise UserError(
                    f"{name} of an OptimizerSpec is a function (of how much was played), not "
                    f"{getattr(self, name)!r}"
                )


def check_tuple(what: str, found: object, kind: type) -> None:
    """Raises ``UserError`` if ``found`` is no tuple (or list) of things of the ``kind``."""
    if not isinstance(found, (tuple, list)) or not all(isinstance(one, kind) for one in found):
        given = kind.__name__ if isinstance(found, kind) else type(found).__name__
        hint = ": a comma makes it one" if isinstance(found, kind) else ""
        raise UserError(f"{what}: a {given} instead of a tuple of {kind.__name__}{hint}")


@dataclasses.dataclass(frozen=True)
class Player:
    """One player: its networks (attribute names of the variant), objective and optimiser.

    ``name``: any, but two are known: a game of just "discriminator" and "generator" is probed at
    evaluations (rotation; duality gap, if it reports "loss/discriminator"), and pictures of a
    diagnosis show the norms of their weights and gradients.
    ``reads``: the names of the data tensors that the objective needs; empty draws no data.
    ``turns``: how many updates in one iteration (the original algorithm's k).
    ``batch_scale``: its batch as a multiple of the run's (SN-GAN's generator: 2), where every
    turn has a batch of its own.
    ``accumulate``: into how many parts a batch is cut, their gradients averaged.
    ``second_order``: the networks whose gradient the objective differentiates (penalties).
    ``ema``: the networks of which a moving average of weights is kept, with ``ema_decay``.
    """

    name: str
    networks: tuple[str, ...]
    objective: Callable[[Batch], Loss]
    optimizer: OptimizerSpec
    reads: tuple[str, ...] = ()
    turns: int = 1
    batch_scale: int = 1
    accumulate: int = 1
    second_order: tuple[str, ...] = ()
    ema: tuple[str, ...] = ()
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        for field in ("networks", "reads", "second_order", "ema"):
            names = getattr(self, field)
            if isinstance(names, str):  # its letters would be taken for names
                raise UserError(
                    f"player {self.name}: {field} is the text '{names}', not a tuple of names: "
                    f"write ('{names}',)"
                )


@dataclasses.dataclass(frozen=True)
class Stage:
    """Players that play together for ``steps`` iterations, on data seen through ``view``.

    ``batch``: "turn" draws a batch for every turn, "iteration" one that all players of an
    iteration share (Pix2Pix, CycleGAN, MidiNet).
    """

    name: str
    players: tuple[Player, ...]
    steps: int
    view: View = View()
    batch: Literal["turn", "iteration"] = "turn"

    def __post_init__(self) -> None:
        check_tuple(f"players of stage {self.name}", self.players, Player)
        if self.batch not in ("turn", "iteration"):
            raise unknown_word("kind of batch", self.batch, ("turn", "iteration"))
        if len({p.name for p in self.players}) < len(self.players):
            raise ValueError(f"stage {self.name}: each player needs a name of its own")
        if self.batch == "iteration" and any(p.batch_scale != 1 for p in self.players):
            raise ValueError(f"stage {self.name}: players that share a batch cannot scale it")


@dataclasses.dataclass(frozen=True)
class GameOptions:
    """Options that every variant has. A variant's subclass states its paper's values."""

    steps: int = option(20_000, "iterations to play (of each stage)", kind="schedule", minimum=1)
    batch_size: int = option(
        64, "examples in a batch, over all workers together", kind="schedule", minimum=1
    )
    stage_lengths: ClassVar[tuple[str, ...]] = ("steps",)
    """The options that say how many iterations the stages have."""
    heading: ClassVar[str] = "the game"
    """What a list of options calls those that a class states first, unless it says otherwise."""

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """The iterations of each of the variant's :meth:`Variant.stages`, before it is built.

        One stage for each of :attr:`stage_lengths` that is given and not 0, in that order, unless a
        subclass says otherwise.
        """
        return tuple(steps for name in self.stage_lengths if (steps := getattr(self, name)))

    @property
    def examples_per_iteration(self) -> int:
        """The examples that the turns of an iteration take together: for networks of one size, what
        the iteration costs. Of players of one turn each, unless a subclass says otherwise.
        """
        return 2 * self.batch_size

    @property
    def unused(self) -> frozenset[str]:
        """The options that nothing has been made of: those of stages that are not played.

        A resumed run that adds such a stage may choose them anew, whatever their kind.
        """
        return frozenset()

    @property
    def decided(self) -> dict[str, Any]:
        """What other options make of those that are left open (``None``), whatever the data are."""
        return {}

    def keeping(self, name: str, value: object) -> str:
        """What a user gives to have ``value`` where others would :attr:`decide <decided>` anew."""
        return f"{flag(name)} {value}"


class Variant(nn.Module, abc.ABC):
    """A system of the article. Networks are attributes, made in :meth:`build`."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    defaults: ClassVar[str] = "the paper's"
    """Whose recipe the defaults are, in a phrase that names what is not the paper's."""
    default_data: ClassVar[str] = "digits"
    """The source that it learns from where none is named."""
    data_help: ClassVar[str] = ""
    """What data the variant wants, in sentences; empty: any source of its targets will do."""
    data_example: ClassVar[str] = ""
    """The options of a command that trains it on data of the user's, where one says too little."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Names of the tensors that the source must have beside the target and the conditions."""
    targets: ClassVar[frozenset[str]] = frozenset({"image"})
    """The kinds of target that the variant can learn."""
    Options: ClassVar[type[GameOptions]] = GameOptions
    asks_held_out: bool = False
    """Whether evaluations give :meth:`sample` the conditions of the held-out examples, each one's
    once (a picture to translate), rather than classes in the training split's proportions."""
    best_by: ClassVar[tuple[tuple[str, Literal["low", "high"]], ...]] = ()
    """The figures that decide which generator is the best, the first that there is, and whether
    low or high is good; before those that every variant has (``fid...``). Stages do not compete:
    the best is one of the last stage that was judged."""
    figure_names: ClassVar[tuple[str, ...]] = ()
    """All that :meth:`figures` may give, by which a wrong name is known before anything begins. A
    class that overrides :meth:`figures` without naming them may give any."""

    unlearnt_networks: ClassVar[tuple[str, ...]] = ()
    """Names of networks that no player learns and objectives call, where the variant has them (of
    :meth:`load_pretrained`): they are compiled with the others."""

    space: ClassVar[Any] = None
    """What a search tries for a variant of one's own: a ``tune_spaces.SearchSpace``, or a class
    method that makes one for the target's name."""

    def __init__(self, options: GameOptions) -> None:
        super().__init__()
        self.options: Any = options
        self.recipe: Any = options
        """The options, with those that were left open filled in (:meth:`fill_in`)."""

    def check(self, spec: DataSpec) -> None:
        """Raises ``UserError`` if the variant cannot learn from data like ``spec``."""
        self.check_options()
        if spec.target not in self.targets:
            wanted = " or ".join(sorted(self.targets))
            raise UserError(
                f"{self.name} learns from {wanted} data, this source has {spec.target}: choose "
                "another --data (see `list`)"
            )
        seen = self.view(spec).through(spec).tensors  # a view may add what is asked for
        for name in sorted((self.needs | set(self.conditions())) - set(seen)):
            what = f"'{name}' (see `train {self.name} --help`)"
            if name == "label":
                what = "labels (class folders, or a labelled source such as digits)"
            raise UserError(f"{self.name} needs a source with {what}, this one has none")

    def check_options(self) -> None:
        """Raises ``UserError`` for options that no data go with: asked before data are read."""
        return

    def refused_options(self) -> frozenset[str]:
        """Names of options that it has and must not be given: nobody is advised to try them."""
        return frozenset()

    def check_share(self, share: int) -> None:
        """Raises ``UserError`` if a worker cannot play with ``share`` examples of each batch."""
        return

    def view(self, spec: DataSpec) -> View:
        """How the data of ``spec`` must look for the networks."""
        return View()

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        """What becomes of options that are left open (``None``), by name, for (viewed) ``data``.

        That of options which are given counts for nothing.
        """
        return dict(self.options.decided)

    def fill_in(self, data: DataSpec) -> None:
        """Make the :attr:`recipe` for ``data``; for :meth:`build` to begin with."""
        left_open = {
            n: v for n, v in self.resolve(data).items() if getattr(self.options, n) is None
        }
        self.recipe = dataclasses.replace(self.options, **left_open)

    @abc.abstractmethod
    def build(self, data: DataSpec) -> None:
        """Make the networks for data of that (viewed) specification."""

    @abc.abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the game, usually one."""

    @abc.abstractmethod
    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        """The random tensors that the objectives and :meth:`sample` find in their batches."""

    @abc.abstractmethod
    def sample(self, stage: str, batch: Batch) -> Batch:
        """Generated tensors by the target's name, from conditions and noise in ``batch``."""

    @classmethod
    def parts(cls, options: Any) -> dict[str, dict[str, Any]]:
        """The options that play a stage alone, by stage, where stages can be played apart.

        Laid over ``options`` they make a variant with the networks of that stage only, named as
        here and with the same initial weights. Empty: the stages need each other.
        """
        return {}

    def load_pretrained(self) -> None:
        """Load the networks of others, from files, that training needs and sampling does not.

        Called when the data are checked and before a game begins, on the CPU. Such a network is
        an :class:`~gan_core.layers.external.External`: frozen, and in checkpoints by its hash.
        Raises ``UserError`` if a file is missing or wrong.
        """
        return

    def initial_values(self, train: Batch) -> None:
        """Set what a recipe initialises from the training data (``train``: stored tensors)."""
        return

    def loss_scales(self) -> Mapping[str, float]:
        """How many times as large as a plain loss of logits each "loss/NAME" may be, by that name.

        1 where a name is missing. A weighted sum has the sum of its weights; infinity is for what
        has no bound, of which only values that are not finite tell of divergence. Asked before
        :meth:`build` too, so a function of the options.
        """
        return {}

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """Logits (N,) of the discriminator for "real" and "fake", for its accuracy.

        Of one that judges P patches of each they are (N, P). "slope" (as many), where it is known:
        the size of the generator's loss's derivative in each of the fake logits, for a batch of
        that one.
        """
        return {}

    def judge_stage(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        """:meth:`judge` in ``stage``: overridden where stages have discriminators of their own."""
        return self.judge(batch)

    def conditions(self) -> tuple[str, ...]:
        """The names of the data tensors that :meth:`sample` needs (such as "label")."""
        return ()

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        """Figures of its own, for variants that ask for held-out examples.

        Which there are depends on the data and the stage, not on how many examples there are.
        ``generated``: all that :meth:`sample` made, (N, ...) by name, from the noise of N samples
        and the conditions of the N held-out examples ``held_out``, as the networks see them.
        """
        return {}

    def protocol(self, stage: str) -> str:
        """How :meth:`figures` measures, in a line; what is left out, the caller adds: N, split."""
        return ""

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor | None:
        """A picture of samples, uint8 (1 or 3, H, W), at every evaluation; ``None``: the usual grid
        of images, scatter or histogram of points will do (of other targets there is none).

        Arguments as for :meth:`figures`, but few: made of the conditions of the held-out ones.
        """
        return None

    def sampling_networks(self, stage: str) -> tuple[str, ...]:
        """The networks that :meth:`sample` uses."""
        return ("generator",)

    def on_turn_end(self, player: str) -> None:
        """Called after a player's update, for constraints on weights."""
        return

    def on_iteration_start(self, played: int) -> None:
        """Called before an iteration, of which the stage has ``played`` so far."""
        return

    def rank_state(self) -> dict[str, Any]:
        """State outside the networks that a rank saves for itself (pools of old images)."""
        return {}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`rank_state`."""
        return

    def deal_out(self, ranks: Iterable[Mapping[str, Tensor]], rank: int, size: int) -> str:
        """Take over what ranks of another number kept for themselves, as rank ``rank`` of ``size``.

        ``ranks``: the buffers of each old rank, by name. Returns what was taken over, for the log;
        empty where nothing is.
        """
        return ""


VARIANTS: Registry[type[Variant]] = Registry("variant")


def register(name: str) -> Callable[[type[Variant]], type[Variant]]:
    """A decorator that enters a variant under ``name``."""
    into = VARIANTS.register(name)

    def enter(cls: type[Variant]) -> type[Variant]:
        cls.name = name
        return into(cls)

    return enter


def list_variants() -> list[str]:
    """The names of all variants."""
    import gan_core.variants  # noqa: F401  # its modules enter themselves in the registry

    return list(VARIANTS)


def create(
    name: str, data: DataSpec, options: Mapping[str, object] | GameOptions, seed: int = 0
) -> Variant:
    """The variant ``name`` with its networks built for ``data`` (as the source gives it).

    Initial weights are a function of ``seed`` alone; the global random state is left as it was.
    Raises ``UserError`` for an unknown name or option, or data that the variant cannot use.
    """
    import gan_core.variants  # noqa: F401

    cls = VARIANTS[name]
    parsed = options if isinstance(options, GameOptions) else parse(cls.Options, options)
    variant = cls(parsed)
    variant.check(data)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        variant.build(variant.view(data).through(data))
    return variant
