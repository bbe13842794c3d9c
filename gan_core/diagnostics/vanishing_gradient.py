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

ADVICE = (
    Advice("loss", ("minimax",), "--loss non-saturating: a strong gradient where D is sure"),
    Advice("r1", (0, 0.0), "--r1 1: keeps D's slope between real and generated"),
    Advice("instance_noise", (0, 0.0), "--instance-noise 0.1: real and generated overlap"),
    Advice("label_smoothing", (0, 0.0), "--label-smoothing 0.1: D is never quite sure"),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of a vanishing gradient in what was measured so far."""
    slope = history.median("slope/generator", WINDOW)
    right = history.median("accuracy/fake", WINDOW)
    if not right >= SURE:
        return []
    text = f"G's loss has a slope of {slope:.1e} at D's logits, D recognises {right:.0%} of samples"
    other = history.median("slope/non_saturating", WINDOW)
    if not math.isnan(other):
        text += f" (the non-saturating loss would have {other:.2f} there)"
    return [SLOPE.sign(slope, text)]
