"""Overfitting: D knows its training pictures by heart, or G copies them."""

from __future__ import annotations

from gan_core.diagnostics.findings import Advice, Facts, Sign, Threshold
from gan_core.diagnostics.history import History

WINDOW = 5
"""Logging points whose median is judged."""

GAP = Threshold(0.2, 0.4)
"""D's accuracy on training examples above that on held-out ones."""

ADVICE = (
    Advice("diffaug", ("", None, False, "none"), "--diffaug: D sees every picture otherwise"),
    Advice("r1", (0, 0.0), "--r1 1: a smoother D"),
    Advice("k", (), "fewer discriminator updates (--k)"),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of overfitting in what was measured so far."""
    train = history.median("accuracy/train", WINDOW)
    held_out = history.median("accuracy/held_out", WINDOW)
    text = f"D is right on {train:.0%} of training and {held_out:.0%} of held-out examples"
    return [GAP.sign(train - held_out, text)]
