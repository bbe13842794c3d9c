"""Figures that a variant has of its own: what it makes of held-out examples."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch

from gan_core.data.examples import Batch
from gan_core.engine.sampling import Sampler
from gan_core.engine.world import World
from gan_core.metrics.ranks import on_leader
from gan_core.metrics.sampling import windows

log = logging.getLogger(__name__)

BATCH_SIZE = 100
"""Examples at once on each rank."""


def held_out_figures(
    sampler: Sampler, held_out: Batch, count: int, world: World
) -> dict[str, float]:
    """The variant's figures by name, of ``count`` samples; every rank calls it.

    ``held_out``: the held-out examples as the networks see them, on ``world.device``; sample i is
    made for example i (of each series: i modulo its length). All ranks get the same figures.
    If a sample is not finite all are NaN, and a warning says so.
    """
    generated = _generate(sampler, count, world)
    examples = {n: t[torch.arange(count, device=t.device) % len(t)] for n, t in held_out.items()}
    variant, stage = sampler.variant, sampler.stage
    figures = on_leader(world, lambda: _numbers(variant.figures(stage, generated, examples)))
    if all(bool(values.isfinite().all()) for values in generated.values()):
        return figures
    if world.leads:
        log.warning("samples are not finite: all figures of held-out examples are NaN")
    return dict.fromkeys(figures, math.nan)


def _numbers(figures: Mapping[str, object]) -> dict[str, float]:
    """A variant's figures as plain numbers, where it gives tensors."""
    return {name: float(value) for name, value in figures.items()}  # type: ignore[arg-type]


def _generate(sampler: Sampler, count: int, world: World) -> Batch:
    """All samples by name, each rank having made its share."""
    parts: dict[str, list[torch.Tensor]] = {}
    for window, new in windows(world, count, BATCH_SIZE):
        made = sampler(torch.arange(window.start, window.stop, device=world.device))
        for name, values in made.items():
            parts.setdefault(name, []).append(values[new])
    return {name: world.gather(torch.cat(p), count) for name, p in parts.items()}
