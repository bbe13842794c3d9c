"""Mode collapse: the generator makes few of the things that the data hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from gan_core.diagnostics.findings import Advice, Facts, Sign, Threshold
from gan_core.diagnostics.history import History

WARM_UP = 0.1
"""The share of a stage's iterations in which a generator may be poor without a word."""
WINDOW = 3
"""Logging points whose median is judged."""
FEWEST = 20
"""Samples of the rarest mode, as many as real examples would show, from which on it is no accident
of sampling that there are few."""

DIVERSITY = Threshold(0.6, 0.3)
"""Mean distance between two samples over that between two real examples: all are alike."""
NEIGHBOURS = Threshold(0.35, 0.15)
"""Distance of pictures to the nearest other sample, over real ones': the same come again."""
SUPPORT = Threshold(400, 150)
"""How many different pictures there are, by the birthday paradox: too few for any data
set, but for one of which more than a twentieth is one and the same."""
UNIQUE = Threshold(0.35, 0.15)
"""The share of bars of music that are like no other, over that of real ones: few come again and
again. Trained generators had 0.98 and more, one on its way 0.42 and 0.68, one of ten bars 0.13."""
SPREAD = Threshold(0.25, 0.1)
"""How far the points of a mode of a mixture spread, over the data's: each mode is a point or two.
Games that have learnt a ring (``benchmarks.remedies``) have 0.55 and more."""
PAIRS = 10
"""Pairs of samples, for each picture of the larger :data:`SUPPORT`, from which on the paradox says
anything: of fewer pairs there are as few where none is the same."""
LEAST_MODE = Threshold(0.25, 0.15)
"""The rarest mode's share of the samples over its share of the data: it is hardly made."""
MODES = Threshold(0.9, 0.6)
"""Modes found over those that as many real examples would show: many are missing."""
DEVIATIONS = 3
"""Standard deviations of the number of modes that real examples show: so few less are an accident
of sampling, where modes are rare."""
DENSITY = 0.5
"""The least density of samples among real examples (1 for perfect ones) at which a classifier's
word on them is proof: what looks like nothing that it has learned, it may call anything."""

ADVICE = (
    Advice("packing", (1,), "--packing 2: D judges two samples together (PacGAN)"),
    Advice("minibatch_stddev", (0,), "--minibatch-stddev 4: D sees how alike samples are"),
    Advice("unrolled", (0,), "--unrolled 5: G looks at what D will answer"),
    Advice("r1", (0, 0.0), "--r1 1: a smoother D leaves G no reason to flee from mode to mode"),
    Advice("loss", ("minimax",), "--loss non-saturating"),
)


def examine(history: History, facts: Facts) -> list[Sign]:
    """Signs of mode collapse in what was measured so far.

    There are none in a stage without an opponent: who learns by distances alone begins with what is
    like the mean of all, and is led away from it without a game.
    """
    if history.began in facts.unopposed:
        return []
    if history.younger_than(WARM_UP, facts.steps):
        return []
    return [*_alike(history, facts), *_missing(history, facts)]


def _alike(history: History, facts: Facts) -> list[Sign]:
    """Samples that are too much like each other."""
    diversity = history.median("diversity", WINDOW)
    text = f"sample diversity down to {diversity:.2f} of real"
    signs = [DIVERSITY.sign(diversity, text, "diversity"), *_back(history), *_repeated(history)]
    if facts.target == "image":
        near = history.median("neighbour_distance", WINDOW)
        text = f"samples are {near:.2f} times as far from their nearest as real ones"
        signs.append(NEIGHBOURS.sign(near, text, "neighbour_distance"))
        pairs = facts.samples * (facts.samples - 1) / 2
        if pairs < PAIRS * SUPPORT.suspected or not facts.tells_near:
            return signs
        for name in history.names("birthday_support"):
            support = history.latest(name)
            text = f"about {support:,.0f} different pictures by the birthday paradox"
            signs.append(SUPPORT.sign(support, text, name, evaluated=True))
    return signs


def _back(history: History) -> list[Sign]:
    """Pictures that a second generator makes, which leads back (CycleGAN's)."""
    diversity = history.latest("diversity_inverse")
    text = f"diversity of what is led back down to {diversity:.2f} of real"
    return [DIVERSITY.sign(diversity, text, "diversity_inverse", evaluated=True)]


def _repeated(history: History) -> list[Sign]:
    """Bars of music that come again."""
    unique, real = history.latest("unique_share"), history.latest("unique_share_real")
    if not real > 0:
        return []
    text = f"{unique:.0%} of bars are like no other, of real ones {real:.0%}"
    return [UNIQUE.sign(unique / real, text, "unique_share", evaluated=True)]


def _missing(history: History, facts: Facts) -> list[Sign]:
    """Modes that are not made."""
    signs = _shrunk(history)
    covered, least = history.latest("modes_covered"), history.latest("least_mode_ratio")
    if facts.modes and not math.isnan(covered) and facts.target == "image":
        expected, deviation = _expected(facts)
        seen = history.latest("seen/modes")  # a class that the classifier never sees nobody shows
        expected = expected if math.isnan(seen) else min(expected, seen)
        text = f"{covered:.0f} of {facts.modes} classes"
        if facts.modes - expected > 0.5:
            text += f" ({expected:.1f} among as many real examples)"
        share = (covered + DEVIATIONS * deviation) / expected
        sign = MODES.sign(share, text, "modes_covered", evaluated=True)
        signs.append(_as_classified(sign, history))
    as_seen = history.latest("seen/least_mode_ratio")  # nor more often than in real examples
    least = least if math.isnan(as_seen) else as_seen
    if facts.modes and facts.samples * _least_share(facts) >= FEWEST:
        what = "class" if facts.target == "image" else "mode"
        text = f"the rarest {what} is made {least:.2f} times as often as in the data"
        sign = LEAST_MODE.sign(least, text, "least_mode_ratio", evaluated=True)
        signs.append(_as_classified(sign, history))
    return signs


def _shrunk(history: History) -> list[Sign]:
    """Modes of a mixture that are hardly more than points."""
    spread = history.latest("mode_spread")
    text = f"the points of a mode spread {spread:.2f} times as far as in the data"
    return [SPREAD.sign(spread, text, "mode_spread", evaluated=True)]


def _least_share(facts: Facts) -> float:
    """The rarest mode's share of the data; runs that do not tell it are taken to be balanced."""
    return 1 / facts.modes if facts.least_share is None else facts.least_share


def _as_classified(sign: Sign, history: History) -> Sign:
    """``sign``, which rests on a classifier, no proof where samples are unlike real examples."""
    density = min((history.latest(n) for n in history.names("density_")), default=math.nan)
    if sign.level < 2 or not density < DENSITY:
        return sign
    text = f"{sign.text} (as far as can be told at a density of {density:.2f})"
    return dataclasses.replace(sign, level=1, text=text)


def _expected(facts: Facts) -> tuple[float, float]:
    """How many modes real examples show; of runs that do not tell it, by equally likely modes."""
    if facts.expected_modes is not None:
        return facts.expected_modes
    return expected_modes([1 / facts.modes] * facts.modes, facts.samples)


def expected_modes(shares: Sequence[float], samples: int) -> tuple[float, float]:
    """How many modes of these ``shares`` a perfect generator shows in ``samples``: mean, deviation.

    The sum of 1 - (1 - p)^n. The standard deviation is that of modes drawn each by itself; where
    one is seen others are a little less likely, so it is not larger.
    """
    seen = [1 - (1 - share) ** samples for share in shares]
    return sum(seen), math.sqrt(sum(p * (1 - p) for p in seen))
