"""Cheap signals at every logging point: read from what is there, disturbing nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from gan_core.data.examples import Batch
from gan_core.engine.game import Game
from gan_core.engine.sampling import copy_networks, undisturbed
from gan_core.metrics.diversity import distances_of_pairs
from gan_core.priors import draw
from gan_core.randomness import stream_key
from gan_core.variant import Variant

JUDGED = 48
"""Training examples, and as many held-out ones, that D is asked about; others each time."""
COMPARED = 48
"""Samples that are compared with each other."""
VALUES = COMPARED * 3 * 64 * 64
"""Values in as many pictures of 64 pixels: of larger ones there are fewer, but 16."""
FOLLOWED = 32
"""Samples at fixed noise whose movement is followed."""
Memory = dict[str, Tensor]
"""What signals keep from one logging point to the next; part of a run's state."""


def norms(game: Game) -> dict[str, Tensor]:
    """Norms of each player's weights and of the gradient of its last update."""
    found: dict[str, Tensor] = {}
    for seat in game.seats:
        weights = [p.detach() for p in seat.parameters]
        gradients = [p.grad for p in seat.parameters if p.grad is not None]
        found[f"weight_norm/{seat.player.name}"] = get_total_norm(weights)
        if gradients:
            found[f"grad_norm/{seat.player.name}"] = get_total_norm(gradients)
    return found


def looked_at(game: Game) -> int:
    """How many examples are looked at most: few where each takes much time and memory."""
    shape = game.stage.view.through(game.train.spec).target_shape
    return max(16, VALUES // math.prod(shape))


def mean_pairwise_distance(samples: Tensor) -> Tensor:
    """Mean Euclidean distance between two different of the ``samples`` (N, ...)."""
    return distances_of_pairs(samples.flatten(1)).mean()


def mean_nearest_distance(samples: Tensor) -> Tensor:
    """Mean Euclidean distance of each of the ``samples`` (N, ...) to the nearest other one."""
    flat = samples.flatten(1).double()
    distances = torch.cdist(flat, flat).fill_diagonal_(torch.inf)
    return distances.amin(1).mean()


def diversity(game: Game, memory: Memory) -> dict[str, Tensor]:
    """How different samples at fixed noise are from each other and from what they were.

    All are distances of pixels or points over those of real examples, of which there are as many
    unless the training split holds fewer (then the nearest are sought among so few samples):

    - ``diversity``: mean distance of two samples over that of two real ones; a collapse to few
      pictures shows as a fall towards 0; noise of high contrast shows as more than 1
    - ``neighbour_distance``: mean distance to the nearest other sample over that of real ones to
      their nearest; 0 if all appear twice
    - ``movement``: how far the first :data:`FOLLOWED` samples have moved since ``memory`` was last
      used (not at first), over the mean distance of two real ones

    There are none where there is one example to make a sample for, or to learn from.
    """
    sampler = game.sampler(averaged=False, for_now=True)
    target, count = game.train.spec.target, min(COMPARED, looked_at(game))
    if game.variant.asks_held_out:  # another sample of the same example is none of its own
        count = min(count, len(game.held_out))
    if count < 2:
        return {}
    fake = sampler(torch.arange(count))[target]
    real = game.examples_for_judgement(count, held_out=False)[target]
    if len(real) < 2:
        return {}
    scale = mean_pairwise_distance(real).clamp_min(1e-12)
    found = {
        "diversity": mean_pairwise_distance(fake) / scale,
        "neighbour_distance": mean_nearest_distance(fake[: len(real)])
        / mean_nearest_distance(real).clamp_min(1e-12),
    }
    before = memory.get("samples")
    memory["samples"] = fake[:FOLLOWED]
    if before is not None and before.shape == memory["samples"].shape:
        moved = (memory["samples"] - before).flatten(1).double()
        found["movement"] = torch.linalg.vector_norm(moved, dim=1).mean() / scale
    return found


def judging_copy(game: Game, *, share_weights: bool = False) -> Variant:
    """Copies of all networks without dropout; batch normalisation normalises by the batch.

    So training and held-out examples are judged on the same footing. With ``share_weights`` no
    weight of the copies may be changed.
    """
    clone = copy_networks(game.variant, game.networks_of(game.stage), share_weights=share_weights)
    for name in game.networks_of(game.stage):
        network: nn.Module = getattr(clone, name)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.train()
    return clone


def judged_examples(game: Game, held_out: bool) -> Batch:
    """The examples that D is asked about at this step.

    They are others at each step: of the same few, what is chance would be so at every logging
    point, and no median over several would tell.
    """
    start = stream_key(game.seed, "judged", str(game.step))
    return game.examples_for_judgement(min(JUDGED, looked_at(game)), held_out, start)


@torch.no_grad()
def judgement(game: Game) -> dict[str, Tensor]:
    """What D thinks of training, held-out and generated examples, all judged in one batch.

    ``accuracy/train``, ``accuracy/held_out``: D's share of right decisions on real examples that it
    has and has not learned from (a gap is overfitting); ``accuracy/fake`` on generated ones.
    ``overfitting/rv``: how much of what D sees between training and generated examples it does
    not see in held-out ones, (E D(train) - E D(held-out)) / (E D(train) - E D(fake)) of logits:
    0 without overfitting (or where D takes fakes for real), 1 at its worst (Karras et al. 2020,
    arXiv:2006.06676, equation 1).
    ``slope/generator``: mean size of the generator's loss's derivative at the logits; beside it
    what the minimax and the non-saturating loss would have there: sigmoid(a), 1 - sigmoid(a).
    """
    train, held_out = (judged_examples(game, held_out=h) for h in (False, True))
    batch = {name: torch.cat((train[name], held_out[name])) for name in train}
    first = len(next(iter(train.values())))
    index = torch.arange(len(next(iter(batch.values()))), device=game.world.device)
    for spec in game.variant.noise(game.stage.name):
        key = stream_key(game.seed, "judgement", spec.name)
        batch[spec.name] = draw(spec.prior, key, index, spec.shape)
    logits = judging_copy(game, share_weights=True).judge_stage(game.stage.name, batch)
    if not logits:
        return {}
    known, unknown, fake = logits["real"][:first], logits["real"][first:], logits["fake"]
    span = known.mean() - fake.mean()
    seen = ((known.mean() - unknown.mean()) / span).clamp(-1, 1)
    found = {
        "accuracy/train": (known > 0).float().mean(),
        "accuracy/held_out": (unknown > 0).float().mean(),
        "accuracy/fake": (fake < 0).float().mean(),
        "overfitting/rv": seen.where(span > 0, 0.0),  # a constant D leaves 0 / 0
    }
    if "slope" in logits:
        minimax = torch.sigmoid(fake).mean()
        found["slope/generator"] = logits["slope"].mean()
        found |= {"slope/minimax": minimax, "slope/non_saturating": 1 - minimax}
    return found


def measure(game: Game, memory: Memory | None = None) -> dict[str, float]:
    """All signals by name; means over the time since the last call for what objectives report.

    ``memory``: what the last call with it has left there, to compare with; it is renewed.

    The values are rank 0's where ranks differ in nothing but rounding.
    """
    values = game.take_diagnostics()
    with undisturbed():
        found = norms(game) | diversity(game, {} if memory is None else memory) | judgement(game)
    # Read together: the host waits for the device once.
    device = game.world.device
    numbers = torch.stack([v.to(device, torch.float64) for v in found.values()]).tolist()
    return values | dict(zip(found, numbers, strict=True))
