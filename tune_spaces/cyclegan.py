"""The search space of ``cyclegan`` (Zhu et al. 2017)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting

SPACE = SearchSpace(
    dimensions={
        "lr_g": Dimension(tune.loguniform(5e-5, 2e-3), "2e-4 for one picture a batch, up for more"),
        "lr_d": Dimension(tune.loguniform(5e-5, 2e-3), "a discriminator far ahead teaches none"),
        "beta1": Dimension(tune.choice([0.0, 0.5, 0.9]), "0.5 in the paper, 0.9 is Adam's own"),
        "cycle": Dimension(
            tune.loguniform(1.0, 30.0), "10 in the paper: more keeps more of the input"
        ),
        "identity": Dimension(
            tune.choice([0.0, 0.1, 0.5]), "0.5 where colours should stay (section 5.2), else none"
        ),
        "pool": Dimension(tune.choice([0, 50]), "50 in the paper, against oscillation"),
        "patch_layers": Dimension(
            tune.choice([1, 2, 3]), "70 pixels of 256 in the paper; small pictures want fewer"
        ),
        "r1": Dimension(
            tune.choice([0.0, 0.1, 1.0, 10.0]),
            "none in the paper; against oscillation, as the pool",
        ),
        "diffaug": Dimension(
            tune.choice(["none", "translation,cutout", "color,translation,cutout"]),
            "none in the paper beside its jitter; for few pictures (Zhao et al. 2020)",
        ),
        "constant": Dimension(tune.choice([0.5, 1.0]), "half of the steps at the full rate or all"),
    },
    settings=(
        Setting("Zhu et al. 2017, section 4", {}),
        Setting("the same without the identity loss, as for objects", {"identity": 0.0}),
    ),
)
