"""The search space of ``gan`` (Goodfellow et al. 2014), for pictures and for points."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

RATES = Dimension(
    tune.loguniform(1e-4, 0.3),
    "from Adam's 2e-4 to the code's 0.1 for sgd (section 5): which of them fits goes with the "
    "optimiser",
)

SPACE = SearchSpace(
    dimensions=adversarial(
        optimizer=Dimension(
            tune.choice(["sgd", "adam"]), "the paper's sgd, and adam, which nearly all took since"
        ),
        lr_d=RATES,
        lr_g=RATES,
        batch_size=Dimension(
            tune.choice([50, 100, 200, 400]), "the code's 100, and half, twice, four times as many"
        ),
        dropout=Dimension(
            tune.choice([0.0, 0.3, 0.5]), "0.5 in the paper; with Adam less was better on MNIST"
        ),
        dropout_input=Dimension(tune.choice([0.0, 0.2]), "0.2 in the paper's code, or none"),
    ),
    settings=(
        Setting(
            "Goodfellow et al. 2014, mnist.yaml",
            {
                "optimizer": "sgd",
                "lr_d": 0.05,
                "lr_g": 0.1,
                "dropout": 0.5,
                "dropout_input": 0.2,
            },
        ),
        Setting(
            "the same networks as later papers train theirs",
            {
                "optimizer": "adam",
                "lr_d": 2e-4,
                "lr_g": 2e-4,
                "dropout": 0.3,
                "dropout_input": 0.0,
                "prior": "gaussian",
                "r1": 0.1,
            },
        ),
    ),
)

POINT_RATES = Dimension(
    tune.loguniform(1e-4, 1e-2),
    "1e-3 is common for such small networks (PacGAN, Unrolled GAN): a decade either way",
)

POINTS = SearchSpace(
    dimensions=adversarial(
        lr_d=POINT_RATES,
        lr_g=POINT_RATES,
        batch_size=Dimension(
            tune.choice([100, 256, 512]), "PacGAN 100, Unrolled GAN 512: each mode needs examples"
        ),
        latent=Dimension(
            tune.choice([2, 8, 32, 100]),
            "PacGAN feeds 2 numbers, Unrolled GAN 256, the default is 100",
        ),
        lr_decay_to=Dimension(
            tune.choice([1.0, 0.2, 0.02]),
            "none, as in the papers, or down to a fifth or 2 %: narrow modes are only hit by small "
            "steps",
        ),
        instance_noise=Dimension(
            tune.choice([0.0, 0.1, 0.3, 1.0]),
            "none, or up to the distance of the modes, falling to nothing (Soenderby et al. 2017): "
            "modes far apart are one at first",
        ),
        instance_noise_until=Dimension(
            tune.choice([0.25, 0.5]),
            "half of the steps, or a quarter, so that a search which stops early sees it gone",
        ),
        packing=Dimension(tune.choice([1, 2]), "PacGAN's 2, which shows missing modes to D"),
    ),
    settings=(
        Setting("the default for points", {"lr_d": 1e-3, "lr_g": 1e-3}),
        Setting(
            "Mescheder et al. 2018: R1 makes training converge locally",
            {
                "lr_d": 1e-3,
                "lr_g": 1e-3,
                "r1": 1.0,
                "prior": "gaussian",
                "batch_size": 512,
                "ema": 0.999,
            },
        ),
        Setting(
            "Soenderby et al. 2017: noise on what D sees, which falls to nothing",
            {
                "lr_d": 1e-3,
                "lr_g": 1e-3,
                "beta2": 0.99,
                "prior": "gaussian",
                "batch_size": 256,
                "ema": 0.999,
                "instance_noise": 0.3,
                "instance_noise_until": 0.25,
                "lr_decay_to": 0.02,
            },
        ),
    ),
)

TARGETS = {"point": POINTS}
