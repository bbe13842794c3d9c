"""Vanishing gradient: the discriminator is so sure that the generator learns nothing from it."""

from __future__ import annotations

import math

from gan_core.diagnostics.findings import Advice, Facts, Sign, Threshold
from gan_core.diagnostics.history import History

WINDOW = 3
"""Logging points whose median is judged."""

SLOPE = Threshold(0.05, 0.02)
"""Mean size of the generator's loss's derivative at D's logits, of at most 1."""
SURE = 0.9
"""The least share of generated examples that D must recognise: it is D who is sure, not G."""
DEAD = 1e-7
"""Norm of a generator's gradient, of all its weights together, that changes none of them: Adam
divides by 1e-8 more than its size. Games that learn at all have more than a hundredth."""

ADVICE = (
    Advice("loss", ("minimax",), "--loss non-saturating: a strong gradient where D is sure"),
    Advice("r1", (0, 0.0), "--r1 1: keeps D's slope between real and generated"),
    Advice("instance_noise", (0, 0.0), "--instance-noise 0.1: real and generated overlap"),
    Advice("label_smoothing", (0, 0.0), "--label-smoothing 0.1: D is never quite sure"),
)


LOWER_RATE = Advice(
    "lr_d", None, "a tenth of --lr-d: steps too large leave a D whose answers no sample changes"
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of a vanishing gradient in what was measured so far."""
    return [_slope(history), *_dead(history)]


def _slope(history: History) -> Sign:
    """How little the loss changes with what D says."""
    slope = history.median("slope/generator", WINDOW)
    right = history.median("accuracy/fake", WINDOW)
    if not right >= SURE:
        return Sign(0, "", "slope/generator", known=not math.isnan(right))
    text = f"G's loss has a slope of {slope:.1e} at D's logits, D recognises {right:.0%} of samples"
    other = history.median("slope/non_saturating", WINDOW)
    if not math.isnan(other):
        text += f" (the non-saturating loss would have {other:.2f} there)"
    return SLOPE.sign(slope, text, "slope/generator")


def _dead(history: History) -> list[Sign]:
    """Generators that get no gradient at all, whatever the loss: what D says depends on nothing."""
    norms = {n: history.median(n, WINDOW) for n in history.names("grad_norm/generator")}
    return [
        Sign(
            2 if norm < DEAD else 0,
            f"{name} is {norm:.1e}: nothing that is generated changes what D says",
            name,
            known=not math.isnan(norm),
            advice=(LOWER_RATE,),
        )
        for name, norm in norms.items()
    ]
