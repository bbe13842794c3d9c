"""The search space of ``acgan`` (Odena et al. 2016)."""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension, SearchSpace, Setting
from tune_spaces.adversarial import adversarial

SPACE = SearchSpace(
    dimensions=adversarial(
        batch_size=Dimension(
            tune.choice([50, 100, 200]), "100 in the paper; both networks normalise by the batch"
        ),
        dropout=Dimension(
            tune.choice([0.0, 0.3, 0.5]), "0.5 in the paper; noise against learning data by heart"
        ),
        class_weight=Dimension(
            tune.choice([0.3, 1.0, 3.0]),
            "1 in the paper; more asks for clearer classes and costs diversity within them",
        ),
    ),
    settings=(
        Setting("Odena et al. 2016, appendix, CIFAR-10", {}),
        Setting("the other rates of that appendix", {"lr_d": 1e-4, "lr_g": 1e-4}),
        Setting("the other rates of that appendix", {"lr_d": 3e-4, "lr_g": 3e-4}),
    ),
)
