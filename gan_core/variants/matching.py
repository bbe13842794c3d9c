"""Matching-aware discriminators: a real example with another's condition counts as fake.

Reed et al. 2016 (arXiv:1605.05396, section 4.2 and algorithm 1); StackGAN (Zhang et al. 2016,
arXiv:1612.03242) plays by it too. A conditional discriminator that is only shown right pairs has
to find out by itself that the condition matters, and on MNIST it does not: real and generated
pictures are told apart without. Real pictures under wrong labels teach it before the generator
makes anything.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from gan_core.data.examples import Batch, DataSpec
from gan_core.errors import UserError
from gan_core.losses import precise
from gan_core.options import option
from gan_core.priors import Integers
from gan_core.variant import NoiseSpec
from gan_core.variants.adversarial import AdversarialVariant, undecided


@dataclasses.dataclass(frozen=True)
class MatchingOptions:
    """The option of variants with a :class:`MatchingAware` discriminator."""

    wrong_label: float = option(
        0.0,
        "share of the discriminator's fakes that are real examples with a wrong label; 0.5 is "
        "the matching-aware discriminator of Reed et al. 2016",
        kind="schedule",
        minimum=0,
        below=1,
    )


def other_class(label: Tensor, shift: Tensor, classes: int) -> Tensor:
    """Another class for each label (int64, (N,)): never its own.

    ``shift`` (int64, (N,)) uniform in 0 .. classes - 2 makes all the others equally likely.
    """
    return (label + 1 + shift) % classes


class MatchingAware(AdversarialVariant):
    """A conditional variant whose discriminator also judges real examples with wrong labels."""

    conditional = True

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        if self.options.wrong_label > 0 and spec.classes < 2:
            raise UserError("--wrong-label needs at least 2 classes, this source has 1")

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        if self.recipe.wrong_label == 0:
            return super().noise(stage)
        others = Integers(self.data.classes - 1)
        shift = NoiseSpec("label_shift", (), others, players=self.real_readers)
        return (*super().noise(stage), shift)

    def adversarial_loss(
        self, real_logits: Tensor, fake_logits: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss against fakes of which a share are real examples with wrong labels.

        With s for the share: (1 - s) L(real, fake) + s L(real, mismatched); s = 1/2 is Reed et
        al.'s log D(real) + 1/2 (log(1 - D(mismatched)) + log(1 - D(fake))).
        """
        loss, diagnostics = super().adversarial_loss(real_logits, fake_logits, batch)
        share = self.recipe.wrong_label
        if share == 0:
            return loss, diagnostics
        wrong = other_class(batch["label"], batch["label_shift"], self.data.classes)
        logits = self.discriminate(self.real_targets(batch), {**batch, "label": wrong})
        known, made, wrongly = (precise(a.detach()) for a in (real_logits, fake_logits, logits))
        mismatch = self.loss.discriminator(real_logits, logits)
        believed = torch.sigmoid(wrongly - undecided(self.loss, known, made)).mean()
        loss = (1 - share) * loss + share * mismatch
        return loss, {**diagnostics, "prob/wrong_label": believed}
