"""Pictures of what a game makes: the variant's own, or the usual grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_core.engine.game import Game
from gan_core.engine.sampling import Sampler
from gan_core.pictures import can_be_drawn, sample_picture
from gan_core.variant import Variant

GRID, POINTS = 64, 2500
"""Samples in a picture: of pictures, and of points."""
SHOWN = 8
"""Held-out examples in a variant's own picture."""
CLASSES, EACH = 10, 10
"""Classes in a picture, where samples are asked for by class, and samples of each."""


class SamplePictures:
    """Draws samples of ``game``: as the variant itself does, or as is usual for its target.

    ``examples``: how many held-out ones an evaluation uses; the variant's own picture shows no
    more. ``say`` is told, once, that there is no picture for such a target.
    """

    def __init__(self, game: Game, examples: int, say: Callable[[str], None]) -> None:
        self._game, self._examples, self._say = game, examples, say
        self._told = False

    def draw(self, sampler: Sampler) -> Tensor | None:
        """The picture, uint8 (C, H, W), or ``None`` where there is none."""
        image = self._own(sampler)
        if image is not None:
            return image
        if can_be_drawn(self._game.train.spec):
            return self._usual(sampler)
        self._tell_no_picture()
        return None

    def _own(self, sampler: Sampler) -> Tensor | None:
        """What the variant makes of the first held-out examples, if it wants to show that."""
        game, variant = self._game, self._game.variant
        if type(variant).picture is Variant.picture:
            return None
        count = min(SHOWN, self._examples)
        index = torch.arange(count, device=game.world.device)
        held_out = {n: t[index % len(t)] for n, t in game.held_out_examples(count).items()}
        asked = {name: held_out[name] for name in variant.conditions()}
        generated = sampler(index, conditions=asked)
        return _checked(variant.picture(game.stage.name, generated, held_out))

    def _usual(self, sampler: Sampler) -> Tensor:
        game, spec = self._game, self._game.train.spec
        if "label" in game.variant.conditions():
            labels = torch.arange(min(spec.classes, CLASSES)).repeat_interleave(EACH)
            index = torch.arange(len(labels))
            conditions = sampler.conditions(index) | {"label": labels.to(game.world.device)}
            samples = sampler(index, conditions=conditions)[spec.target]
            return sample_picture(samples.cpu(), spec, None, EACH)
        points = len(spec.target_shape) == 1
        samples = sampler(torch.arange(POINTS if points else GRID))[spec.target]
        real = game.train.tensors[spec.target][:POINTS] if points else None
        return sample_picture(samples.cpu(), spec, real, 8)

    def _tell_no_picture(self) -> None:
        if not self._told:
            self._told = True
            spec = self._game.train.spec
            self._say(
                f"no picture is drawn of '{spec.target}' of the shape {spec.target_shape}: a "
                "variant's own method `picture` may"
            )


def _checked(image: object) -> Tensor | None:
    """``image``, which a variant has drawn, if it can be kept; ``TypeError`` says what it is."""
    if image is None:
        return None
    if not isinstance(image, Tensor):
        raise TypeError(f"the variant's picture is a {type(image).__name__}, not a tensor")
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise TypeError(
            f"the variant's picture is {image.dtype} of the shape {tuple(image.shape)}, not uint8 "
            "(1 or 3, H, W): gan_core.pictures.image_grid makes one"
        )
    return image
