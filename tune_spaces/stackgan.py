"""The search space of ``stackgan`` (Zhang et al. 2016)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

_SHARED = adversarial(loss=None, prior=None, beta2=None, latent=None)

SPACE = SearchSpace(
    dimensions={
        **_SHARED,
        "kl": Dimension(
            tune.choice([0.5, 1.0, 2.0, 5.0]),
            "2 in the code; too much makes all texts one, too little leaves nothing to sample",
        ),
        "averaged_captions": Dimension(
            tune.choice([1, 2, 4]), "4 of CUB's 10 in the code; 1 is what a user types"
        ),
        "contrast": Dimension(
            tune.choice([0.0, 0.3, 1.0, 2.0]),
            "none in the paper; XMC-GAN's weight of finding a picture's text among others is 1",
        ),
        "l1": Dimension(
            tune.choice([0.0, 20.0, 50.0]),
            "none in the paper, 100 in pix2pix; holds each picture to the real one of its text",
        ),
        "diffaug": Dimension(
            tune.choice(["none", "translation,cutout", "color,translation,cutout"]),
            "none in the paper; Zhao et al. 2020 need it for a few thousand pictures",
        ),
    },
    settings=(
        Setting("Zhang et al. 2016, section 4.3 and the code", {}),
        Setting(
            "Zhao et al. 2020 and an average of weights, for a few thousand pictures",
            {"diffaug": "translation,cutout", "ema": 0.999, "lr_d": 5e-4, "lr_g": 5e-4},
        ),
        Setting(
            "did best on OpenMoji (docs/results.md), with an average of 0.995",
            {
                "diffaug": "translation,cutout",
                "ema": 0.99,
                "lr_d": 5e-4,
                "lr_g": 5e-4,
                "kl": 1.0,
                "contrast": 2.0,
                "l1": 50.0,
            },
        ),
    ),
)
