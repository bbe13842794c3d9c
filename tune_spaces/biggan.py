"""The search space of ``biggan`` (Brock et al. 2018)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

AVERAGED = {"ema": 0.999}
"""What the paper's 0.9999 is for the first 8,990 iterations."""

SPACE = SearchSpace(
    dimensions=adversarial(
        r1=None,  # the spectral norm bounds the gradient already
        prior=None,
        loss=None,
        latent=Dimension(
            tune.choice([60, 120, 240]),
            "120 in the paper; each can be cut for every size",
        ),
        batch_size=Dimension(
            tune.choice([50, 64, 128, 256]),
            "2,048 in the paper, whose table 1 says the larger the better; 50 in the CIFAR script",
        ),
        k=Dimension(tune.choice([1, 2, 4]), "2 in the paper, 4 in the CIFAR script; 1 is SAGAN's"),
        ema=Dimension(
            tune.choice([0.99, 0.999]),
            "0.9999 in the paper; the decay rises to it, and is 0.999 for 8,990 iterations",
        ),
        orthogonality=Dimension(
            tune.choice([0.0, 1e-5, 1e-4, 1e-3]),
            "1e-4 in the paper, where it lets most models be truncated; none in the CIFAR script",
        ),
    ),
    settings=(
        Setting("Brock et al. 2018's script for CIFAR-10, with the paper's penalty", AVERAGED),
        Setting(
            "Brock et al. 2018's script for CIFAR-10",
            {**AVERAGED, "orthogonality": 0.0},
        ),
        Setting(
            "Brock et al. 2018, section 3, but for the batch of 2,048",
            {**AVERAGED, "lr_g": 5e-5, "lr_d": 2e-4, "k": 2, "batch_size": 256},
        ),
    ),
)
