"""The search space of ``srgan`` (Ledig et al. 2017)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting

SPACE = SearchSpace(
    dimensions={
        "lr_pretrain": Dimension(
            tune.loguniform(5e-5, 2e-3), "1e-4 for a million steps in the paper, up for fewer"
        ),
        "decay_pretrain": Dimension(
            tune.choice(["constant", "cosine"]), "a falling rate is worth more, the shorter the run"
        ),
        "lr_g": Dimension(tune.loguniform(2e-5, 1e-3), "1e-4 in the paper, then a tenth"),
        "lr_d": Dimension(tune.loguniform(2e-5, 1e-3), "apart from the generator's"),
        "adversarial_weight": Dimension(
            tune.loguniform(1e-4, 0.3),
            "1e-3 beside VGG19's features; MobileNetV2's differ by 50 times as much",
        ),
        "pixel_weight": Dimension(
            tune.choice([0.0, 0.1, 1.0, 10.0]), "0 in the paper; pixels hold colours in place"
        ),
        "r1": Dimension(
            tune.choice([0.0, 0.1, 1.0]), "none in the paper, whose D soon tells all squares apart"
        ),
        "norm_g": Dimension(
            tune.choice(["batch", "none"]), "batch in the paper; Lim et al. 2017 found none better"
        ),
        "skip": Dimension(
            tune.choice(["none", "bicubic"]), "from bicubic on, the first steps are not spent on it"
        ),
    },
    settings=(
        Setting("Ledig et al. 2017, section 3.2", {}),
        Setting(
            "Lim et al. 2017: no normalisation, a falling rate",
            {"norm_g": "none", "decay_pretrain": "cosine", "lr_pretrain": 2e-4},
        ),
        Setting(
            "minutes on a processor (benchmarks/super_resolution.py)",
            {
                "norm_g": "none",
                "decay_pretrain": "cosine",
                "lr_pretrain": 1e-3,
                "skip": "bicubic",
                "adversarial_weight": 0.05,
                "pixel_weight": 1.0,
                "lr_g": 2e-4,
                "lr_d": 2e-4,
            },
        ),
    ),
)
