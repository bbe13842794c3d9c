"""Every ingredient of the systems can be recorded in a CUDA graph, and lives on when replayed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gan_core.data.loading import load_examples
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.variant import create

SMALL = {"width_g": 8, "width_d": 8, "image_size": 16}
AUGMENTED = {"diffaug": "color,translation,cutout,flip"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sngan", SMALL | AUGMENTED | {"conditional": True, "k": 2}),
        ("sngan", SMALL | {"architecture": "cnn", "r1": 0.1}),
        ("sagan", SMALL | {"gradient_penalty": 1.0}),
        ("biggan", SMALL | {"k": 1}),
        ("acgan", SMALL | AUGMENTED),
    ],
)
def test_a_replayed_turn_moves_weights_and_spectral_vectors(
    name: str, options: dict[str, Any]
) -> None:
    train, held_out = (load_examples("digits", None, split) for split in ("train", "validation"))
    variant = create(name, train.spec, options)
    world = World.current("cuda")
    game = Game(variant, train, held_out, batch_size=32, world=world, engine=Engine("graph"))
    game.play(14)  # warmed up and recorded
    before = {n: t.clone() for n, t in variant.state_dict().items()}
    game.play(2)
    after = variant.state_dict()
    moving = {n for n, t in variant.named_parameters()} | {n for n in after if n.endswith(".u")}
    still = [n for n in moving if torch.equal(before[n], after[n]) and before[n].numel() > 1]
    assert [n for n in still if not n.endswith("bias")] == []  # biases before a normalisation
    assert all(torch.isfinite(t).all() for t in after.values() if t.is_floating_point())
