"""Costly signals at evaluations: how the game would go on, tried on copies of the networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gan_core.data.examples import Batch
from gan_core.diagnostics.signals import judging_copy
from gan_core.engine.game import Game
from gan_core.engine.optimizers import apply_schedule, create_optimizer
from gan_core.engine.sampling import undisturbed
from gan_core.priors import draw
from gan_core.randomness import stream_key
from gan_core.variant import Player, Variant

STEPS = 10
"""Updates that each player makes alone for the duality gap."""
EXAMPLES, FEWEST = 128, 16
"""Examples in the batches of a probe; fewer of pictures larger than 64 pixels, and where the game
cuts its batches into parts to save memory, but so many."""
VALUES = EXAMPLES * 3 * 64 * 64
"""Numbers in the largest batch of pictures."""
_SHIFT = 1e-3  # of the length of all weights: how far the finite differences reach
VALUE = "loss/discriminator"
"""The diagnostic that is minus the value of the game."""


def measure(game: Game) -> dict[str, float]:
    """``duality_gap`` and ``rotation`` of a game of one generator and one discriminator.

    Other games have neither, and one that does not report :data:`VALUE` has no duality gap, nor has
    one with too few held-out examples to say it of (one, or less than a pack). Every rank computes
    the same, on the same examples.
    """
    if {p.name for p in game.stage.players} != {"discriminator", "generator"}:
        return {}
    if game.stage.batch != "turn":
        return {}
    with undisturbed(), torch.enable_grad():
        found = {"rotation": rotation(game)}
        if len(game.held_out) > 1 and _reports_value(game):
            found["duality_gap"] = duality_gap(game)
        return {name: value for name, value in found.items() if not math.isnan(value)}


def _players(game: Game, variant: Variant) -> dict[str, Player]:
    stage = next(s for s in variant.stages() if s.name == game.stage.name)
    return {player.name: player for player in stage.players}


def _reports_value(game: Game) -> bool:
    """Whether the discriminator's objective says what the game is worth to it."""
    variant = judging_copy(game, share_weights=True)
    player = _players(game, variant)["discriminator"]
    return VALUE in player.objective(_batch(game, player, False, 0)).diagnostics


def batch_size(game: Game, player: Player) -> int:
    """The examples of a probe's batch: as many as there is memory for, by what the game takes."""
    shape = game.stage.view.through(game.train.spec).target_shape
    most = min(EXAMPLES, VALUES // math.prod(shape))
    if player.accumulate > 1:
        most = min(most, game.batch_size // game.world.size // player.accumulate)
    return max(FEWEST, most)


def _batch(game: Game, player: Player, held_out: bool, number: int) -> Batch:
    """Examples and noise for one turn of ``player``: functions of the seed and of ``number``."""
    size = batch_size(game, player)
    batch = game.examples_for_judgement(size, held_out, start=number * size)
    count = len(next(iter(batch.values())))
    index = torch.arange(count, device=game.world.device) + number * size
    for spec in game.variant.noise(game.stage.name):
        if spec.read_by(player.name):
            key = stream_key(game.seed, "probe", player.name, spec.name, str(held_out))
            batch[spec.name] = draw(spec.prior, key, index, spec.shape)
    return batch


def _learn(game: Game, learner: str) -> Variant:
    """A copy in which the player ``learner`` alone has made some updates on training examples."""
    variant = judging_copy(game)
    player = _players(game, variant)[learner]
    parameters = [p for name in player.networks for p in getattr(variant, name).parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    seat = next(seat for seat in game.seats if seat.player.name == learner)
    # Its optimiser as it may have been changed since, at the rate that has been reached.
    optimizer = create_optimizer(seat.player.optimizer, parameters)
    played = game.step - game.stage_start
    apply_schedule(optimizer, seat.player.optimizer, seat.updates, played)
    for number in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        player.objective(_batch(game, player, False, number)).total.backward()
        optimizer.step()
        variant.on_turn_end(learner)
    return variant


def _value(game: Game, variant: Variant) -> float:
    """The value of the game for the discriminator on held-out examples."""
    player = _players(game, variant)["discriminator"]
    return -float(player.objective(_batch(game, player, True, 0)).diagnostics[VALUE])


def duality_gap(game: Game) -> float:
    """How much better each player could do against the other as it stands: 0 at an equilibrium.

    max over D' of V(G, D') - min over G' of V(G', D), each by :data:`STEPS` updates on a copy, at
    the player's present rate, V on held-out examples (Grnarova et al. 2019, arXiv:1811.05512,
    section 3). V is minus D's loss without penalties, in its unit.
    """
    return _value(game, _learn(game, "discriminator")) - _value(game, _learn(game, "generator"))


def rotation(game: Game) -> float:
    """How much the players turn around each other: the sine between v and its change along itself.

    v is the joint gradient of both players' objectives, J its Jacobian. In a game of pure rotation
    (bilinear, Dirac-GAN) J v is at right angles to v and the sine is 1; where both walk down the
    same even bowl it is 0 (Mescheder et al. 2017, arXiv:1705.10461, section 3). J v is a central
    difference. Where v or J v is 0 nothing turns, and so it is 0.
    """
    variant = judging_copy(game)
    players = list(_players(game, variant).values())
    weights = [p for q in players for n in q.networks for p in getattr(variant, n).parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    batches = [_batch(game, player, False, 0) for player in players]

    def gradient() -> Tensor:
        return torch.cat([g for p, b in zip(players, batches, strict=True) for g in _own(p, b)])

    def _own(player: Player, batch: Batch) -> Iterator[Tensor]:
        own = [p for name in player.networks for p in getattr(variant, name).parameters()]
        found = torch.autograd.grad(player.objective(batch).total, own, allow_unused=True)
        for weight, slope in zip(own, found, strict=True):
            yield (torch.zeros_like(weight) if slope is None else slope).flatten().double()

    centre = gradient()
    direction = centre / centre.norm().clamp_min(1e-300)
    length = torch.stack([w.detach().double().square().sum() for w in weights]).sum().sqrt()
    reach = float(_SHIFT * length)
    ahead = _at(weights, direction * reach, gradient)
    behind = _at(weights, direction * -reach, gradient)
    change = ahead - behind
    if not (centre.any() and change.any()):
        return 0.0
    cosine = (change @ direction) / change.norm().clamp_min(1e-300)
    return float((1 - cosine.square()).clamp_min(0).sqrt())


def _at(weights: list[Tensor], shift: Tensor, gradient: Callable[[], Tensor]) -> Tensor:
    """``gradient()`` with ``weights`` moved by ``shift``; they are back afterwards."""
    kept = [w.detach().clone() for w in weights]
    parts = shift.split([w.numel() for w in weights])
    with torch.no_grad():
        for weight, part in zip(weights, parts, strict=True):
            weight.add_(part.reshape(weight.shape).to(weight.dtype))
    found = gradient()
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
    return found
