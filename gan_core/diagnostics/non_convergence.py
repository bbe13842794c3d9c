"""Non-convergence: the players chase each other, or run away altogether (divergence)."""

from __future__ import annotations

import math

from gan_core.diagnostics.findings import Advice, Facts, Sign
from gan_core.diagnostics.history import History

WATCHED = ("loss/", "weight_norm/", "grad_norm/", "diversity")
"""The beginnings of the names of metrics that must be finite."""

ADVICE = (
    Advice("r1", (0, 0.0), "--r1 1: damps the rotation of the game (Mescheder et al. 2018)"),
    Advice("ema", (0, 0.0), "--ema 0.999: the average of a rotation is its centre"),
    Advice("beta1", (0.5, 0.9), "--beta1 0: momentum feeds oscillation"),
    Advice("lr_g", (), "lower --lr-g and --lr-d"),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of non-convergence in what was measured so far."""
    return not_finite(history)


def not_finite(history: History) -> list[Sign]:
    """Proof of divergence: what is not a finite number."""
    names = [name for prefix in WATCHED for name in history.names(prefix)]
    bad = [name for name in names if not math.isfinite(history.latest(name))]
    if not bad:
        return []
    return [Sign(2, f"{', '.join(bad)} not finite", form="divergence")]
