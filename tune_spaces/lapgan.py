"""The search space of ``lapgan`` (Denton et al. 2015); with ``--level N`` that of one level."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting

SPACE = SearchSpace(
    dimensions={
        "optimizer": Dimension(tune.choice(["sgd", "adam"]), "sgd in the paper, adam since"),
        "lr_d": Dimension(
            tune.loguniform(1e-4, 5e-2),
            "0.01 with sgd: the paper's 0.02 on half the loss; adam wants hundredths of it",
        ),
        "lr_g": Dimension(
            tune.loguniform(1e-4, 5e-2), "0.02 with sgd in the paper; adam wants hundredths of it"
        ),
        "momentum": Dimension(
            tune.choice([0.0, 0.5, 0.9]), "0.5 at the start in the paper; it is adam's beta1 too"
        ),
        "k": Dimension(tune.choice([1, 2]), "1 in the paper; levels' discriminators are weak"),
        "r1": Dimension(
            tune.choice([0.0, 0.1, 1.0, 10.0]),
            "a level's discriminator easily knows blur from real",
        ),
        "diffaug": Dimension(
            tune.choice(["none", "translation,cutout", "color,translation,cutout"]),
            "none in the paper; against a D that learns few pictures by heart (Zhao et al. 2020)",
        ),
        "dropout": Dimension(tune.choice([0.0, 0.2, 0.5]), "0.5 in the paper's discriminators"),
    },
    settings=(
        Setting("Denton et al. 2015, appendix A", {"lr_d": 0.01, "lr_g": 0.02}),
        Setting(
            "adam with R1 (benchmarks/lapgan.py)",
            {"optimizer": "adam", "lr_d": 5e-4, "lr_g": 5e-4, "r1": 0.1, "dropout": 0.2},
        ),
    ),
)
