"""Mode collapse: the generator makes few of the things that the data hold."""

from __future__ import annotations

import math

from gan_core.diagnostics.findings import Advice, Facts, Sign, Threshold
from gan_core.diagnostics.history import History

WARM_UP = 0.1
"""The share of the run's iterations in which a generator may still be poor without a word."""
WINDOW = 3
"""Logging points whose median is judged."""

DIVERSITY = Threshold(0.6, 0.35)
"""Mean distance between two samples over that between two real examples."""
MODES = Threshold(0.95, 0.7)
"""The share of the data's modes that have a sample."""

ADVICE = (
    Advice("packing", (1,), "--packing 2: D judges two samples together (PacGAN)"),
    Advice("minibatch_stddev", (0, False), "--minibatch-stddev 4: D sees how alike samples are"),
    Advice("unrolled", (0,), "--unrolled 5: G looks at what D will answer"),
    Advice("r1", (0, 0.0), "--r1 1: a smoother D gives G no reason to flee"),
    Advice("loss", ("minimax",), "--loss non-saturating"),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of mode collapse in what was measured so far."""
    if history.step < WARM_UP * facts.steps:
        return []
    signs = []
    diversity = history.median("diversity", WINDOW)
    signs.append(DIVERSITY.sign(diversity, f"sample diversity down to {diversity:.2f} of real"))
    covered = history.latest("modes_covered")
    if facts.modes and not math.isnan(covered):
        what = "classes" if facts.target == "image" else "modes"
        signs.append(MODES.sign(covered / facts.modes, f"{covered:.0f} of {facts.modes} {what}"))
    return signs
