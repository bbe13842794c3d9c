"""What must be known before trials begin: that the data are good, and what judges them."""

from __future__ import annotations

import dataclasses
from typing import Any

from gan_core.config import RunConfig, make_config
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.judging import make_evaluator
from gan_core.run import build_variant, check_data
from gan_core.splits import load_training_data
from gan_core.variant import VARIANTS
from pipelines.tuning.objective import MIXTURE_SCORE


@dataclasses.dataclass(frozen=True)
class Ground:
    """What trials stand on. ``metric``, ``mode``: the figure that decides where the user names
    none; ``target``, ``modes``: of the source; ``steps``: of all stages of a trial together;
    ``told``: (text, level) about the extractors.
    """

    metric: str | None
    mode: str | None
    target: str
    modes: int
    steps: int
    told: tuple[tuple[str, str], ...]


def prepare(values: dict[str, Any]) -> Ground:
    """Check the data of the run ``values``; make what all its trials would make again.

    That is the classifier and the real features, which are cached. Raises ``UserError``.
    """
    from gan_core.data.mixtures import MIXTURES

    config = make_config(values)
    facts = check_data(config)
    train, _ = load_training_data(config)
    told: list[tuple[str, str]] = []
    evaluator = make_evaluator(
        config,
        train,
        World(),
        conditional=False,
        resizer="none",
        say=lambda text, level: told.append((text, level)),
    )
    modes = len(MIXTURES[config.data].modes) if config.data in MIXTURES else 0
    names = list(evaluator.extractors) if evaluator else []
    metric, mode = default_metric(config, names, modes)
    steps = sum(stage.steps for stage in build_variant(config, train).stages())
    return Ground(metric, mode, str(facts["target"]), modes, steps, tuple(told))


def default_metric(
    config: RunConfig, extractors: list[str], modes: int
) -> tuple[str | None, str | None]:
    """The figure to search by and which direction is better, from what there is to judge by."""
    for name, good in VARIANTS[config.variant].best_by:
        if _extractor_of(name) in (None, *extractors):
            return name, "min" if good == "low" else "max"
    if modes:
        return MIXTURE_SCORE, "max"
    for name in extractors:
        return ("fid" if name == "inception" else f"fid_{name}"), "min"
    return None, None


def _extractor_of(figure: str) -> str | None:
    """The extractor that a distance of features needs; ``None`` for other figures."""
    kind, _, extractor = figure.partition("_")
    return (extractor or "inception") if kind in ("fid", "kid") else None


def with_metric(metric: str | None, ground: Ground, config: RunConfig) -> tuple[str, str | None]:
    """The metric to search by: the user's, or what the data offer; ``UserError`` without any."""
    if metric is not None:
        return metric, None
    if ground.metric is None:
        raise UserError(
            f"nothing can judge trials on '{config.data}' with --extractor {config.extractor}: "
            "choose another extractor, or name a --metric"
        )
    return ground.metric, ground.mode
