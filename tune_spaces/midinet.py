"""The search space of ``midinet`` (Yang et al. 2017)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

SPACE = SearchSpace(
    dimensions=adversarial(
        k=None,  # generator_turns says who learns more often
        loss=None,  # the paper's smoothed labels have a meaning in cross-entropies alone
        prior=None,
        batch_size=Dimension(
            tune.choice([32, 64, 72, 128]),
            "72 in the paper; small ones take more steps in a time",
        ),
        r1=Dimension(
            tune.choice([0.0, 0.1, 0.3, 1.0, 10.0]),
            "none in the paper; on folk tunes 0.3 left fewer wrong intervals than 1",
        ),
        generator_turns=Dimension(
            tune.choice([1, 2]), "2 in the paper, against a discriminator that wins"
        ),
        label_smoothing=Dimension(tune.choice([0.0, 0.1]), "0.1 in the paper, none elsewhere"),
        match_features=Dimension(
            tune.choice([0.0, 0.1, 1.0, 3.0]), "0.1 in the paper; more steadies a quick generator"
        ),
        match_bars=Dimension(
            tune.choice([0.0, 0.01, 0.1]), "0.01 in the paper, which tries more for other melodies"
        ),
        output=Dimension(
            tune.choice(["sigmoid", "softmax", "straight-through", "held"]),
            "sigmoid in the paper; real bars are ones and zeros, as the last two's are, and held's "
            "notes last as real ones do",
        ),
        chord_d=Dimension(
            tune.choice(["planes", "vector"]),
            "planes in the paper; under high rates they drown the bar",
        ),
        keys=Dimension(
            tune.choice(["random", "root", "root-shown"]),
            "12 random ones in the paper; from the root, all are one; which root it is tells more",
        ),
        norm_d=Dimension(
            tune.choice(["batch", "layer"]), "batch in the paper; layer is what R1 asks for"
        ),
    ),
    settings=(
        Setting("Yang et al. 2017, section 4, and the authors' code", {"norm_d": "batch"}),
        Setting(
            "what benchmarks.melodies found best on folk tunes",
            {
                "batch_size": 64,
                "generator_turns": 1,
                "label_smoothing": 0.0,
                "match_features": 1.0,
                "match_bars": 0.0,
                "output": "held",
                "keys": "root-shown",
                "chord_d": "vector",
                "norm_d": "layer",
                "r1": 0.3,
                "lr_d": 5e-4,
                "lr_g": 5e-4,
            },
        ),
    ),
)
