"""What must be known before trials begin: that the data are good, and what judges them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch

from gan_core.config import RunConfig, make_config
from gan_core.data.examples import Examples
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.judging import make_evaluator
from gan_core.metrics.held_out import held_out_figures
from gan_core.preparing import build_variant, check_data
from gan_core.splits import load_training_data
from gan_core.variant import VARIANTS, Variant
from pipelines.tuning.figures import Asked, declared_mode, names_of_data, names_to_come
from pipelines.tuning.objective import MIXTURE_SCORE

_LOOKED_AT = 4  # held-out examples that show which figures there will be


@dataclasses.dataclass(frozen=True)
class Ground:
    """What trials stand on. ``metric``, ``mode``: the figure that decides where the user names
    none; ``own``: the names of the variant's own figures; ``target``, ``modes``: of the source;
    ``stages``: the iterations of each stage of a trial; ``told``: (text, level) about extractors.
    """

    metric: str | None
    mode: str | None
    own: tuple[str, ...]
    target: str
    modes: int
    stages: tuple[int, ...]
    told: tuple[tuple[str, str], ...]


def prepare(
    values: dict[str, Any], asked: Asked | None = None, *, gpu: bool = False, threads: int = 1
) -> Ground:
    """Check the data of the run ``values``; make what all its trials would make again.

    That is the classifier and the real features, which are cached: on a ``gpu`` if the trials
    have one, else on the CPU with ``threads``. Raises ``UserError``, also for figures that are
    ``asked`` for and that trials will not have.
    """
    from gan_core.data.mixtures import MIXTURES

    torch.set_num_threads(threads)
    config = make_config(values)
    asked = asked or Asked()
    facts = check_data(config)
    asked.check(config, names_of_data(config, facts))
    train, held_out = load_training_data(config)
    told: list[tuple[str, str]] = []
    evaluator = make_evaluator(
        config,
        train,
        World.current("cuda" if gpu and torch.cuda.is_available() else "cpu"),
        conditional=False,
        resizer="none",
        say=lambda text, level: told.append((text, level)),
    )
    modes = len(MIXTURES[config.data].modes) if config.data in MIXTURES else 0
    names = list(evaluator.extractors) if evaluator else []
    variant = build_variant(config, train)
    stages = tuple(stage.steps for stage in variant.stages())
    own = own_figures(variant, train, held_out, config)
    come = own if len(stages) == 1 else None  # a later stage may give others
    asked.check(config, names_to_come(config, names, labels=train.spec.labelled, own=come))
    metric, mode = default_metric(config, names, own, modes)
    return Ground(metric, mode, own, str(facts["target"]), modes, stages, tuple(told))


def own_figures(
    variant: Variant, train: Examples, held_out: Examples, config: RunConfig
) -> tuple[str, ...]:
    """The names of the figures that the variant has of its own for these data.

    They are those of what it makes, untrained, of a few examples: they can depend on the data.
    """
    if not variant.asks_held_out:
        return ()
    game = Game(variant, train, held_out, batch_size=config.game.batch_size, seed=config.seed)
    count = min(_LOOKED_AT, len(held_out))
    return tuple(held_out_figures(game.sampler(), game.held_out_examples(count), count, game.world))


def default_metric(
    config: RunConfig, extractors: list[str], own: Collection[str], modes: int
) -> tuple[str | None, str | None]:
    """The figure to search by and which direction is better, from what there is to judge by."""
    for name, good in VARIANTS[config.variant].best_by:
        if name in own or _given_by(extractors, name):
            return name, "min" if good == "low" else "max"
    if modes:
        return MIXTURE_SCORE, "max"
    for name in extractors:
        return ("fid" if name == "inception" else f"fid_{name}"), "min"
    return None, None


def _given_by(extractors: list[str], figure: str) -> bool:
    """Whether one of ``extractors`` gives ``figure``: inception's distances have bare names."""
    bare = figure in ("fid", "kid") and "inception" in extractors
    return bare or figure.endswith(tuple(f"_{name}" for name in extractors))


def with_metric(metric: str | None, ground: Ground, config: RunConfig) -> tuple[str, str | None]:
    """The metric to search by: the user's, or what the data offer; ``UserError`` without any."""
    if metric is not None:
        return metric, declared_mode(config, metric)
    if ground.metric is None:
        own = ", ".join(ground.own)
        otherwise = f", or name a --metric: {config.variant} has {own}" if own else ""
        raise UserError(
            f"nothing can judge trials on '{config.data}' with --extractor {config.extractor}: "
            f"choose another extractor{otherwise}"
        )
    return ground.metric, ground.mode
