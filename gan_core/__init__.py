"""The game of generative adversarial nets: PyTorch, and nothing of Ray or MLflow.

::

    import torch
    from gan_core import Game, create, load_examples

    train, held_out = (load_examples("ring", None, s) for s in ("train", "validation"))
    game = Game(create("gan", train.spec, {"k": 2}), train, held_out, batch_size=128)
    game.play(1000)
    points = game.sampler()(torch.arange(2500))["point"]

Names are imported when they are used, so that ``import gan_core`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_core.config import RunConfig, make_config
    from gan_core.data.examples import DataSpec, Examples, TensorSpec
    from gan_core.data.loading import load_examples
    from gan_core.data.sources import Source
    from gan_core.engine.game import Game
    from gan_core.engine.world import World
    from gan_core.errors import UserError
    from gan_core.observers import FolderObserver, Observer
    from gan_core.release import load_generator
    from gan_core.run import play
    from gan_core.variant import Loss, NoiseSpec, Player, Stage, Variant, create, list_variants

_HOMES = {
    "gan_core.config": ("RunConfig", "make_config"),
    "gan_core.data.examples": ("DataSpec", "Examples", "TensorSpec"),
    "gan_core.data.loading": ("load_examples",),
    "gan_core.data.sources": ("Source",),
    "gan_core.engine.game": ("Game",),
    "gan_core.engine.world": ("World",),
    "gan_core.errors": ("UserError",),
    "gan_core.observers": ("FolderObserver", "Observer"),
    "gan_core.release": ("load_generator",),
    "gan_core.run": ("play",),
    "gan_core.variant": (
        "Loss",
        "NoiseSpec",
        "Player",
        "Stage",
        "Variant",
        "create",
        "list_variants",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DataSpec",
    "Examples",
    "FolderObserver",
    "Game",
    "Loss",
    "NoiseSpec",
    "Observer",
    "Player",
    "RunConfig",
    "Source",
    "Stage",
    "TensorSpec",
    "UserError",
    "Variant",
    "World",
    "create",
    "list_variants",
    "load_examples",
    "load_generator",
    "make_config",
    "play",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gan_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
