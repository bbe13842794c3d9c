"""Overfitting: D knows its training examples by heart, or G copies them."""

from __future__ import annotations

import math

from gan_core.diagnostics.findings import Advice, Facts, Sign, Threshold
from gan_core.diagnostics.history import History

WINDOW = 5
"""Logging points whose median is judged."""

LEARNT_BY_HEART = Threshold(0.35, 0.6)
"""r_v: how much of what D sees between training and generated examples it does not see between
held-out and generated ones."""
GAP = Threshold(0.25, 0.45)
"""D's accuracy on training examples above that on held-out ones."""
SURE = 0.8
"""The least share of right decisions on training and generated examples: a D that cannot tell
these has learned nothing by heart, and differences of its outputs mean nothing."""
COPIES = Threshold(0.3, 0.6)
"""The share of samples nearer to a training example than these are to each other."""

ADVICE = (
    Advice("diffaug", ("none",), "--diffaug color,translation: D never sees the same picture"),
    Advice("r1", (0, 0.0), "--r1 1: a smoother D"),
    Advice("instance_noise", (0, 0.0), "--instance-noise 0.1: nothing exact to remember"),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of overfitting in what was measured so far."""
    signs = _of_the_discriminator(history)
    for name in history.names("copied_share") if facts.tells_near else ():
        copied = history.latest(name)
        text = f"{copied:.0%} of samples are training examples again"
        signs.append(COPIES.sign(copied, text, name, evaluated=True))
    return signs


def _of_the_discriminator(history: History) -> list[Sign]:
    train = history.median("accuracy/train", WINDOW)
    right = (train + history.median("accuracy/fake", WINDOW)) / 2
    if not right >= SURE:
        known = not math.isnan(right)
        return [Sign(0, "", name, known) for name in ("accuracy/held_out", "overfitting/rv")]
    held_out = history.median("accuracy/held_out", WINDOW)
    share = history.median("overfitting/rv", WINDOW)
    text = f"D is right on {train:.0%} of training and {held_out:.0%} of held-out examples"
    seen = f"{share:.0%} of what D sees in training examples it does not see in held-out ones"
    return [
        GAP.sign(train - held_out, text, "accuracy/held_out"),
        LEARNT_BY_HEART.sign(share, seen, "overfitting/rv"),
    ]
