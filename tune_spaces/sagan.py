"""The search space of ``sagan`` (Zhang et al. 2018)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

SPACE = SearchSpace(
    dimensions=adversarial(
        r1=None,  # the spectral norm bounds the gradient already
        prior=None,
        loss=Dimension(
            tune.choice(["hinge", "non-saturating"]),
            "hinge in the paper, and ever since",
        ),
        attention=Dimension(
            tune.choice([0, 8, 16]),
            "table 1 compares maps of 8 to 64 pixels and none; pictures of 32 have these",
        ),
    ),
    settings=(
        Setting("Zhang et al. 2018, section 4: two rates, one update each", {"attention": 16}),
        Setting(
            "Zhang et al. 2018, table 1: without attention",
            {"attention": 0},
        ),
        Setting(
            "one rate and five updates, as SN-GAN, which section 3.3 replaces",
            {"lr_d": 2e-4, "lr_g": 2e-4, "k": 5, "beta2": 0.9, "batch_size": 64, "attention": 16},
        ),
    ),
)
