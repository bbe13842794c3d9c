"""The search space of ``cgan`` (Mirza and Osindero 2014)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial
from tune_spaces.gan import RATES

SPACE = SearchSpace(
    dimensions=adversarial(
        optimizer=Dimension(
            tune.choice(["sgd", "adam"]), "the paper's sgd, and adam, which nearly all took since"
        ),
        lr_d=RATES,
        lr_g=RATES,
        batch_size=Dimension(
            tune.choice([50, 100, 200, 400]), "the paper's 100, and half, twice, four times as many"
        ),
        dropout_g=Dimension(
            tune.choice([0.0, 0.25, 0.5]),
            "0.5 in the paper, where it is all the noise that the pictures of a class differ by",
        ),
        dropout_d=Dimension(tune.choice([0.0, 0.25, 0.5]), "0.5 in the paper; less with Adam"),
    ),
    settings=(
        Setting(
            "Mirza and Osindero 2014, section 4.1",
            {"optimizer": "sgd", "lr_d": 0.05, "lr_g": 0.1},
        ),
        Setting(
            "the same networks as later papers train theirs",
            {
                "optimizer": "adam",
                "lr_d": 2e-4,
                "lr_g": 2e-4,
                "prior": "gaussian",
                "dropout_g": 0.0,
                "dropout_d": 0.25,
                "r1": 1.0,
            },
        ),
    ),
)
