"""The search space of ``dcgan`` (Radford et al. 2015)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

SPACE = SearchSpace(
    dimensions=adversarial(
        kernel=Dimension(
            tune.choice([4, 5]), "5 in the paper; 4 divides by the stride, which avoids checkers"
        ),
    ),
    settings=(
        Setting("Radford et al. 2015, section 4", {}),
        Setting(
            "Adam's own values, which section 4 found too high and oscillating",
            {"lr_d": 1e-3, "lr_g": 1e-3, "beta1": 0.9},
        ),
        Setting(
            "Mescheder et al. 2018: R1 against learning small data by heart",
            {"lr_d": 5e-4, "lr_g": 5e-4, "r1": 1.0, "batch_size": 64, "kernel": 4, "ema": 0.999},
        ),
    ),
)
