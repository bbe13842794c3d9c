"""Non-convergence: the players chase each other, or run away altogether (divergence)."""

from __future__ import annotations

import math

from gan_core.diagnostics.findings import Advice, Facts, Sign, Threshold
from gan_core.diagnostics.history import History
from gan_core.losses import LOSSES

WATCHED = ("loss/", "weight_norm/", "grad_norm/", "diversity")
"""The beginnings of the names of metrics that must be finite."""
WINDOW = 3
"""Logging points whose median is judged for divergence."""
LONG_WINDOW = 8
"""Logging points whose median is judged for movement, beside that of the last :data:`WINDOW`: one
alone would call a game restless that has come to rest since."""
GAPS = 2
"""Evaluations whose largest duality gap is judged."""
WARM_UP = 0.3
"""The share of a stage's iterations in which samples may move about."""

LOSS = Threshold(30, 100)
"""The size of a player's loss: logits beyond any that a probability needs. Of a weighted sum, its
mean by the weights. A Wasserstein critic's values have no scale: there samples that move about tell
of divergence, and values not finite."""
MOVEMENT = Threshold(0.5, 0.65)
"""How far samples at fixed noise move between logging points, over the distance of two real
examples: they are somewhere else each time."""
GAP = Threshold(2, 4)
"""How much a few steps of each player alone change the value of the game, which is -2 log 2 = -1.39
where nothing can be told apart: with more than that at stake in ten steps, the steps are too large.
The Wasserstein loss has no such scale."""

LOWER_RATES = Advice("lr_g", None, "a tenth of --lr-g and of --lr-d: smaller steps")
ADVICE = (
    Advice("r1", (0, 0.0), "--r1 1: damps the rotation of the game (Mescheder et al. 2018)"),
    LOWER_RATES,
    Advice("beta1", (0.5, 0.9), "--beta1 0: momentum feeds oscillation", "adam"),
    Advice(
        "momentum", (0.5, 0.9), "--momentum 0 --momentum-end 0: momentum feeds oscillation", "sgd"
    ),
    Advice("lr_decay_to", (1, 1.0), "--lr-decay-to 0.1: the game comes to rest at last"),
    Advice(
        "ema",
        (0, 0.0),
        "--ema 0.999: the average of a rotation is its centre (samples are made by it; what is "
        "judged here is the game itself)",
    ),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of non-convergence in what was measured so far."""
    signs = [*_not_finite(history), *_huge(history, facts)]
    if history.younger_than(WARM_UP, facts.steps):
        return signs
    return [*signs, *_moving(history), *_unsettled(history, facts)]


def _not_finite(history: History) -> list[Sign]:
    names = [name for prefix in WATCHED for name in history.names(prefix)]
    bad = [n for n in names if not all(map(math.isfinite, history.recent(n, 1)))]
    text = f"{', '.join(bad)} not finite"
    return [Sign(2, text, form="divergence", advice=(LOWER_RATES,))] if bad else []


def _without_bound(facts: Facts) -> bool:
    """Whether the values of the game's loss have no bound of their own, as a Lipschitz critic's."""
    name = facts.options.get("loss")
    return name in LOSSES and LOSSES[str(name)].lipschitz


def _huge(history: History, facts: Facts) -> list[Sign]:
    if _without_bound(facts):
        return []
    signs = []
    for name in history.names("loss/"):
        size = abs(history.median(name, WINDOW))
        level = LOSS.level(size / facts.loss_scales.get(name, 1.0))
        form = "divergence" if level == 2 else ""
        told = not math.isnan(size)
        text = f"{name} at {size:.3g}"
        signs.append(Sign(level, text, name, told, form=form, advice=(LOWER_RATES,)))
    return signs


def _moving(history: History) -> list[Sign]:
    moved = min(history.median("movement", window) for window in (LONG_WINDOW, WINDOW))
    text = (
        f"samples at fixed noise move {moved:.2f} times the distance of two real examples from one "
        "logging point to the next"
    )
    rotation = history.latest("rotation")
    if not math.isnan(rotation):
        text += f", rotation of the game {rotation:.2g}"
    return [MOVEMENT.sign(moved, text, "movement")]


def _unsettled(history: History, facts: Facts) -> list[Sign]:
    if _without_bound(facts):
        return []
    gaps = [abs(gap) for gap in history.recent("duality_gap", GAPS)]
    gap = max(gaps, default=math.nan)
    when = f"one of the last {len(gaps)} evaluations" if len(gaps) > 1 else "the last evaluation"
    text = f"the duality gap was {gap:.2g} at {when}"
    return [GAP.sign(gap, text, "duality_gap", evaluated=True)]
