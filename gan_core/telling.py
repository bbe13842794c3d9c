"""What a run says of itself as it starts, and what its diagnosis needs to know of it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from gan_core.config import RunConfig
from gan_core.data.examples import Examples
from gan_core.diagnostics.findings import Facts
from gan_core.diagnostics.mode_collapse import expected_modes
from gan_core.engine.game import Game
from gan_core.judging import count_modes, mode_shares


def start_info(config: RunConfig, game: Game) -> dict[str, Any]:
    """What the journal's ``start`` says of the ``game`` of ``config``."""
    spec = game.train.spec
    return {
        "steps": game.steps,
        "workers": game.world.size,
        "device": str(game.world.device),
        "engine": game.engine.mode,
        "precision": game.engine.precision,
        "memory_format": game.engine.memory_format,
        "parameters": count_parameters(game),
        "examples": len(game.train),
        "variant": config.variant,
        "source": config.data,
        "target": spec.target,
        "modes_in_data": count_modes(config, spec),
        "samples": count_asked(config, game),
        "real": len(_reference(game)),
        **_modes_shown(config, game),
        "options": config.to_dict()["options"],
        "decided": _decided(config, game),
        "refused": sorted(game.variant.refused_options()),
        "unopposed": sorted(_unopposed(game)),
    }


def diagnosed_facts(config: RunConfig, game: Game) -> Facts:
    """What the diagnosis is to know of the ``game`` of ``config``."""
    variant, spec = game.variant, game.train.spec
    options = dataclasses.asdict(variant.recipe)
    for name in variant.refused_options():
        options.pop(name, None)
    return Facts(
        modes=count_modes(config, spec),
        steps=game.steps,
        samples=count_asked(config, game),
        **_modes_shown(config, game),
        real=len(_reference(game)),
        target=spec.target,
        options=options,
        loss_scales=variant.loss_scales(),
        unopposed=_unopposed(game),
    )


def _unopposed(game: Game) -> frozenset[int]:
    """The iterations after which stages of one player begin."""
    begun = itertools.accumulate((stage.steps for stage in game.stages), initial=0)
    return frozenset(
        start for start, stage in zip(begun, game.stages, strict=False) if len(stage.players) == 1
    )


def count_asked(config: RunConfig, game: Game) -> int:
    """How many samples an evaluation makes."""
    if not game.variant.asks_held_out:
        return config.samples
    return min(config.samples, game.held_out.shortest)


def count_parameters(game: Game) -> dict[str, int]:
    """The parameters of each network of the present stage."""
    return {
        name: sum(p.numel() for p in getattr(game.variant, name).parameters())
        for name in game.networks_of(game.stage)
    }


def _reference(game: Game) -> Examples:
    """The real examples that samples are compared with."""
    return game.held_out if game.variant.asks_held_out else game.train


def _modes_shown(config: RunConfig, game: Game) -> dict[str, Any]:
    """How rare the rarest mode is in these, and how many as many of them as samples show."""
    shares = mode_shares(config, _reference(game))
    return {
        "least_share": min(shares, default=None),
        "expected_modes": expected_modes(shares, count_asked(config, game)) if shares else None,
    }


def _decided(config: RunConfig, game: Game) -> dict[str, Any]:
    """Options that were left to the variant, with what it made of them for these data."""
    recipe = game.variant.recipe
    left = [name for name, value in config.options.items() if value is None]
    return {name: getattr(recipe, name) for name in left if hasattr(recipe, name)}
