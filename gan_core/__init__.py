"""The game of generative adversarial nets: PyTorch, and nothing of Ray or MLflow.

::

    import torch
    from gan_core import Game, create, load_examples

    train, held_out = (load_examples("ring", None, s) for s in ("train", "validation"))
    game = Game(create("gan", train.spec, {"k": 2}), train, held_out, batch_size=128)
    game.play(1000)
    points = game.sampler()(torch.arange(2500))["point"]

docs/extending.md has the rest: whole runs, and variants, sources, losses, extractors of one's own.
Names are imported when they are used, so that ``import gan_core`` costs nothing.
"""

from __future__ import annotations

import importlib
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_core.config import RunConfig, make_config
    from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
    from gan_core.data.loading import check_examples, create_source, load_examples
    from gan_core.data.sources import Source
    from gan_core.data.sources import register as register_source
    from gan_core.data.views import SquareView, View
    from gan_core.engine.checkpoint import find_checkpoint
    from gan_core.engine.game import Game
    from gan_core.engine.sampling import Sampler
    from gan_core.engine.world import World
    from gan_core.errors import UserError
    from gan_core.journal import read_standing as read_journal
    from gan_core.losses import LOSSES, AdversarialLoss
    from gan_core.metrics.features import EXTRACTORS, Extractor, ExtractorSetup
    from gan_core.observers import FolderObserver, Observer
    from gan_core.options import option
    from gan_core.priors import Gaussian, Integers, Uniform
    from gan_core.release import ReleasedGenerator, load_generator
    from gan_core.run import play
    from gan_core.variant import (
        GameOptions,
        Loss,
        NoiseSpec,
        OptimizerSpec,
        Player,
        Stage,
        Variant,
        create,
        list_variants,
    )
    from gan_core.variant import register as register_variant
    from gan_core.variants.adversarial import AdversarialOptions, AdversarialVariant

    register_extractor = EXTRACTORS.register
    register_loss = LOSSES.register

_HOMES = {
    "gan_core.config": ("RunConfig", "make_config"),
    "gan_core.data.examples": ("Batch", "DataSpec", "Examples", "TensorSpec"),
    "gan_core.data.loading": ("check_examples", "create_source", "load_examples"),
    "gan_core.data.sources": ("Source",),
    "gan_core.data.views": ("SquareView", "View"),
    "gan_core.engine.checkpoint": ("find_checkpoint",),
    "gan_core.engine.game": ("Game",),
    "gan_core.engine.sampling": ("Sampler",),
    "gan_core.engine.world": ("World",),
    "gan_core.errors": ("UserError",),
    "gan_core.losses": ("AdversarialLoss",),
    "gan_core.metrics.features": ("Extractor", "ExtractorSetup"),
    "gan_core.observers": ("FolderObserver", "Observer"),
    "gan_core.options": ("option",),
    "gan_core.priors": ("Gaussian", "Integers", "Uniform"),
    "gan_core.release": ("ReleasedGenerator", "load_generator"),
    "gan_core.run": ("play",),
    "gan_core.variant": (
        "GameOptions",
        "Loss",
        "NoiseSpec",
        "OptimizerSpec",
        "Player",
        "Stage",
        "Variant",
        "create",
        "list_variants",
    ),
    "gan_core.variants.adversarial": ("AdversarialOptions", "AdversarialVariant"),
}
_HOME_OF = {name: (home, name) for home, names in _HOMES.items() for name in names} | {
    "read_journal": ("gan_core.journal", "read_standing"),
    "register_extractor": ("gan_core.metrics.features", "EXTRACTORS.register"),
    "register_loss": ("gan_core.losses", "LOSSES.register"),
    "register_source": ("gan_core.data.sources", "register"),
    "register_variant": ("gan_core.variant", "register"),
}

__all__ = [
    "AdversarialLoss",
    "AdversarialOptions",
    "AdversarialVariant",
    "Batch",
    "DataSpec",
    "Examples",
    "Extractor",
    "ExtractorSetup",
    "FolderObserver",
    "Game",
    "GameOptions",
    "Gaussian",
    "Integers",
    "Loss",
    "NoiseSpec",
    "Observer",
    "OptimizerSpec",
    "Player",
    "ReleasedGenerator",
    "RunConfig",
    "Sampler",
    "Source",
    "SquareView",
    "Stage",
    "TensorSpec",
    "Uniform",
    "UserError",
    "Variant",
    "View",
    "World",
    "check_examples",
    "create",
    "create_source",
    "find_checkpoint",
    "list_variants",
    "load_examples",
    "load_generator",
    "make_config",
    "option",
    "play",
    "read_journal",
    "register_extractor",
    "register_loss",
    "register_source",
    "register_variant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gan_core' has no attribute '{name}'")
    home, what = _HOME_OF[name]
    return operator.attrgetter(what)(importlib.import_module(home))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
