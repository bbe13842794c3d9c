"""The search space of ``sngan`` (Miyato et al. 2018)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

# The six settings that the paper compares (table 1).
SIX = {
    "A": {"lr_d": 1e-4, "lr_g": 1e-4, "beta1": 0.5, "beta2": 0.9, "k": 5},
    "B": {"lr_d": 1e-4, "lr_g": 1e-4, "beta1": 0.5, "beta2": 0.999, "k": 1},
    "C": {"lr_d": 2e-4, "lr_g": 2e-4, "beta1": 0.5, "beta2": 0.999, "k": 1},
    "D": {"lr_d": 1e-3, "lr_g": 1e-3, "beta1": 0.5, "beta2": 0.9, "k": 5},
    "E": {"lr_d": 1e-3, "lr_g": 1e-3, "beta1": 0.5, "beta2": 0.999, "k": 5},
    "F": {"lr_d": 1e-3, "lr_g": 1e-3, "beta1": 0.9, "beta2": 0.999, "k": 5},
}

SPACE = SearchSpace(
    dimensions=adversarial(
        r1=None,  # the spectral norm bounds the gradient already
        prior=None,
        loss=Dimension(
            tune.choice(["hinge", "non-saturating"]),
            "the two that section 4 compares: hinge scored a little better",
        ),
        lr_decay_to=Dimension(
            tune.choice([0.0, 1.0]), "the authors' code lets rates fall to 0; short runs may not"
        ),
        batch_scale_g=Dimension(
            tune.choice([1, 2]), "the authors' code gives the generator twice the examples"
        ),
    ),
    settings=(
        Setting("Miyato et al. 2018, appendix B.4 and the authors' code for ResNets", {}),
        *(Setting(f"Miyato et al. 2018, setting {n}", values) for n, values in SIX.items()),
    ),
)
