"""The feature extractors that users choose by name."""

from __future__ import annotations

from pathlib import Path

from gan_core.data.examples import Examples
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.metrics.classifier import ClassifierExtractor
from gan_core.metrics.features import EXTRACTORS, Extractor, ExtractorSetup
from gan_core.metrics.pretrained import InceptionExtractor, MobileNetExtractor

__all__ = [
    "EXTRACTORS",
    "ClassifierExtractor",
    "Extractor",
    "ExtractorSetup",
    "InceptionExtractor",
    "MobileNetExtractor",
    "create_extractor",
]


def create_extractor(
    name: str,
    *,
    world: World,
    train: Examples | None = None,
    test: Examples | None = None,
    weights: Path | None = None,
    download: bool = True,
    cache: Path | None = None,
) -> Extractor:
    """The extractor called ``name`` on ``world.device``; every rank calls this.

    ``train`` and ``test`` (native size, labelled) are what ``classifier`` learns from and is
    judged by (``test`` on rank 0 alone), ``cache`` the folder where it is kept; ``weights`` is the
    file that ``inception`` or ``mobilenet_v2`` loads instead of looking for its own, and without
    ``download`` only what is on the machine is used. Raises ``UserError`` for an unknown name,
    or if the extractor cannot be had.
    """
    setup = ExtractorSetup(world, train, test, weights, download, cache)
    made: object = EXTRACTORS[name].create(setup)
    if not isinstance(made, Extractor):
        raise UserError(
            f"`create` of extractor '{name}' gave {type(made).__name__}: it must return an object "
            "of its class"
        )
    if made.name != name:
        raise UserError(
            f"extractor '{name}' has the name '{made.name}', by which its figures would be called: "
            f'give its class name = "{name}"'
        )
    return made
