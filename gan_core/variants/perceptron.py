"""What the two fully connected systems of 2014, GAN and conditional GAN, share.

Stochastic gradient descent with a slowly falling rate and a rising momentum, as in Goodfellow's
code (github.com/goodfeli/adversarial, ``mnist.yaml``); pixels in [0, 1] inside the networks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gan_core.data.examples import Batch, DataSpec
from gan_core.layers.pixels import PixelOutput
from gan_core.options import option
from gan_core.variant import OptimizerSpec
from gan_core.variants.adversarial import AdversarialOptions, AdversarialVariant, default
from gan_core.variants.schedules import ExponentialDecay, LinearRamp

RATE_FLOOR = 1e-6
"""The lowest learning rate of the schedule."""

# The code's discriminator minimises half of what is its loss here, at a rate of 0.1.
RATES = {"sgd": {"lr_d": 0.05, "lr_g": 0.1}, "adam": {"lr_d": 2e-4, "lr_g": 2e-4}}


@dataclasses.dataclass(frozen=True)
class PerceptronOptions(AdversarialOptions):
    """Options of the fully connected systems; ``None`` is filled in when the data is known."""

    steps: int = default("steps", 50_000)
    batch_size: int = default("batch_size", 100)
    prior: str = default("prior", "uniform")
    optimizer: str | None = option(
        None, "optimiser of both players; not given: the paper's sgd", choices=("sgd", "adam")
    )
    lr_d: float | None = option(  # type: ignore[assignment]
        None,
        "learning rate of the discriminator; not given: 0.05 with sgd (the paper's code takes "
        "0.1 on half the loss), 0.0002 with adam",
        kind="schedule",
        above=0,
    )
    lr_g: float | None = option(  # type: ignore[assignment]
        None,
        "learning rate of the generator; not given: the paper's 0.1 with sgd, 0.0002 with adam",
        kind="schedule",
        above=0,
    )
    lr_decay: float = option(
        1.000004, "what each update divides the learning rates by", kind="schedule", minimum=1
    )
    momentum: float = option(
        0.5, "momentum of sgd at the start", kind="schedule", minimum=0, below=1
    )
    momentum_end: float = option(
        0.7, "momentum of sgd at the end of its rise", kind="schedule", minimum=0, below=1
    )
    momentum_updates: int = option(
        125_000, "updates over which the momentum rises (250 epochs)", kind="schedule", minimum=1
    )


class PerceptronVariant(AdversarialVariant):
    """A fully connected system; ``generator.output`` is its last layer."""

    Options = PerceptronOptions

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        optimizer = self.options.optimizer or "sgd"
        return {**super().resolve(data), "optimizer": optimizer, **RATES[optimizer]}

    def optimizer(self, learning_rate: float) -> OptimizerSpec:
        recipe = self.recipe
        return OptimizerSpec(
            recipe.optimizer,
            learning_rate,
            (recipe.beta1, recipe.beta2),
            rate=ExponentialDecay(recipe.lr_decay, RATE_FLOOR / learning_rate),
            momentum=LinearRamp(recipe.momentum, recipe.momentum_end, recipe.momentum_updates),
        )

    def initial_values(self, train: Batch) -> None:
        """The output's biases from the training pictures' mean pixels (``mnist.yaml``)."""
        output = self.generator.output
        if isinstance(output, PixelOutput):
            output.set_marginals(train[self.target])
