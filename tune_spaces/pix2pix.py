"""The search space of ``pix2pix`` (Isola et al. 2016)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting

SPACE = SearchSpace(
    dimensions={
        "lr_g": Dimension(tune.loguniform(5e-5, 2e-3), "2e-4 for one pair a batch, up for more"),
        "lr_d": Dimension(
            tune.loguniform(5e-5, 2e-3), "apart from the generator's: the paper halves D's loss"
        ),
        "beta1": Dimension(tune.choice([0.0, 0.5, 0.9]), "0.5 in the paper, 0.9 is Adam's own"),
        "l1": Dimension(
            tune.loguniform(10.0, 1000.0),
            "100 in the paper: less gives sharper pictures further from the truth",
        ),
        "loss": Dimension(
            tune.choice(["non-saturating", "least-squares", "hinge", "wasserstein"]),
            "the paper's, and those of its successors",
        ),
        "r1": Dimension(
            tune.choice([0.0, 0.1, 1.0, 10.0]), "none in the paper; keeps D from running ahead"
        ),
        "diffaug": Dimension(
            tune.choice(["none", "translation,cutout", "color,translation,cutout"]),
            "none in the paper beside its jitter; for few pairs (Zhao et al. 2020)",
        ),
        "patch_layers": Dimension(
            tune.choice([1, 2, 3]), "table 2 of the paper: 16 to 70 pixels, larger are no better"
        ),
        "dropout": Dimension(
            tune.choice([0.0, 0.25, 0.5]), "the paper's only noise; it also holds against overfit"
        ),
    },
    settings=(
        Setting("Isola et al. 2016, section 3", {}),
        Setting("the same with patches of 16 pixels (table 2)", {"patch_layers": 1}),
        Setting("least squares, as CycleGAN's authors train it", {"loss": "least-squares"}),
    ),
)
