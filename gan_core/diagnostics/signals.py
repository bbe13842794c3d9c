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

JUDGED = 128
"""Training examples, and as many held-out ones, that the discriminator is asked about."""
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
def judgement(game: Game) -> dict[str, Tensor]:
    """What D thinks of training, held-out and generated examples, all judged in one batch.

    ``accuracy/train``, ``accuracy/held_out``: D's share of right decisions on real examples that it
    has and has not learned from (a gap is overfitting); ``accuracy/fake`` on generated ones.
    ``overfitting/rv``: how much of what D sees between training and generated examples it does
    not see in held-out ones, (E D(train) - E D(held-out)) / (E D(train) - E D(fake)) of logits:
    0 without overfitting (or where D takes fakes for real), 1 at its worst (Karras et al. 2020,
    arXiv:2006.06676, equation 1).
    ``slope/generator``: mean size of the generator's loss's derivative at the logits.
    """
    train, held_out = (game.examples_for_judgement(JUDGED, held_out=h) for h in (False, True))
    batch = {name: torch.cat((train[name], held_out[name])) for name in train}
    first = len(next(iter(train.values())))
    index = torch.arange(len(next(iter(batch.values()))), device=game.world.device)
    for spec in game.variant.noise(game.stage.name):
        key = stream_key(game.seed, "judgement", spec.name)
        batch[spec.name] = draw(spec.prior, key, index, spec.shape)
    logits = _judging_copy(game).judge(batch)
    if not logits:
        return {}
    known, unknown, fake = logits["real"][:first], logits["real"][first:], logits["fake"]
    span = known.mean() - fake.mean()
    found = {
        "accuracy/train": (known > 0).float().mean(),
        "accuracy/held_out": (unknown > 0).float().mean(),
        "accuracy/fake": (fake < 0).float().mean(),
        "overfitting/rv": ((known.mean() - unknown.mean()) / span).clamp(-1, 1) * (span > 0),
    }
    if "slope" in logits:
        found["slope/generator"] = logits["slope"].mean()
    return found


def measure(game: Game) -> dict[str, float]:
    """All signals by name; means over the time since the last call for what objectives report.

    The values are rank 0's where ranks differ in nothing but rounding.
    """
    values = game.take_diagnostics()
    with undisturbed():
        found = norms(game) | {"diversity": diversity(game)} | judgement(game)
    numbers = torch.stack([value.double().cpu() for value in found.values()]).tolist()
    return values | dict(zip(found, numbers, strict=True))
