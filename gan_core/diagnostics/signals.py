"""Cheap signals at every logging point: read from what is there, disturbing nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_core.engine.game import Game
from gan_core.engine.sampling import copy_networks, undisturbed
from gan_core.priors import draw
from gan_core.randomness import stream_key
from gan_core.variant import Variant

JUDGED = 256
"""Real examples (and as many generated ones) that the discriminator's accuracy is measured on."""
COMPARED = 128
"""Samples whose mean pairwise distance is the diversity."""


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all ``tensors`` as one vector."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


def norms(game: Game) -> dict[str, Tensor]:
    """Norms of each player's weights and of the gradient of its last update."""
    found: dict[str, Tensor] = {}
    for seat in game.seats:
        weights = [p.detach() for p in seat.parameters]
        gradients = [p.grad for p in seat.parameters if p.grad is not None]
        found[f"weight_norm/{seat.player.name}"] = total_norm(weights)
        if gradients:
            found[f"grad_norm/{seat.player.name}"] = total_norm(gradients)
    return found


def mean_pairwise_distance(samples: Tensor) -> Tensor:
    """Mean Euclidean distance between two different of the ``samples`` (N, ...)."""
    flat = samples.flatten(1).double()
    return torch.nn.functional.pdist(flat).mean()


def diversity(game: Game) -> Tensor:
    """Mean pairwise distance of samples over that of real examples: 1 is as diverse as real.

    Pixel distance: cheap, and a collapse to few pictures shows as a fall towards 0; noise of
    high contrast shows as more than 1.
    """
    sampler = game.sampler(averaged=False)
    target = game.train.spec.target
    fake = sampler(torch.arange(COMPARED))[target]
    real = game.examples_for_judgement(COMPARED, held_out=False)[target]
    return mean_pairwise_distance(fake) / mean_pairwise_distance(real).clamp_min(1e-12)


def _judging_copy(game: Game) -> Variant:
    """Copies of all networks without dropout; batch normalisation normalises by the batch.

    So training and held-out examples are judged on the same footing.
    """
    clone = copy_networks(game.variant, game.networks_of(game.stage))
    for name in game.networks_of(game.stage):
        network: nn.Module = getattr(clone, name)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.train()
    return clone


@torch.no_grad()
def accuracies(game: Game) -> dict[str, Tensor]:
    """D's share of right decisions on training and on held-out examples, and on samples.

    ``accuracy/train`` and ``accuracy/held_out`` are on real examples that D has and has not
    learned from (a gap is overfitting), ``accuracy/fake`` on generated ones.
    """
    judge = _judging_copy(game)
    found: dict[str, Tensor] = {}
    for name, held_out in (("train", False), ("held_out", True)):
        batch = game.examples_for_judgement(JUDGED, held_out)
        index = torch.arange(len(next(iter(batch.values()))), device=game.world.device)
        for spec in game.variant.noise(game.stage.name):
            key = stream_key(game.seed, "judgement", spec.name)
            batch[spec.name] = draw(spec.prior, key, index, spec.shape)
        logits = judge.judge(batch)
        if not logits:
            return {}
        found[f"accuracy/{name}"] = (logits["real"] > 0).float().mean()
        found["accuracy/fake"] = (logits["fake"] < 0).float().mean()
    return found


def measure(game: Game) -> dict[str, float]:
    """All signals by name; means over the time since the last call for what objectives report.

    The values are rank 0's where ranks differ in nothing but rounding.
    """
    values = game.take_diagnostics()
    with undisturbed():
        found = norms(game) | {"diversity": diversity(game)} | accuracies(game)
    numbers = torch.stack([value.double().cpu() for value in found.values()]).tolist()
    return values | dict(zip(found, numbers, strict=True))
