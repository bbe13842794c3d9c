"""Textbook loops of LAPGAN, StackGAN, SRGAN and MidiNet: a part of `benchmarks.speed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.textbook import plain
from benchmarks.textbook_data import Bars, Captioned, PyramidLevel, Squares
from benchmarks.textbook_loop import Loop, TextbookLoop, chosen_loss
from benchmarks.textbook_translation import PairsLoop, TwoWayLoop
from gan_core.data.examples import Examples
from gan_core.errors import UserError
from gan_core.layers.conditioning import gaussian_divergence
from gan_core.variant import Variant
from gan_core.variants.stackgan import SIZE_1, matching_loss


class PyramidLevelLoop(Loop):
    """A level of lapgan, as facebook/eyescream's ``train.lua``, in PyTorch's words.

    The data set cuts each picture into the coarser one and the whole; D sees the enlarged picture
    with the true difference (which is the picture) and then with the generator's.
    """

    heeded = frozenset(
        {
            *("steps", "batch_size", "levels", "level", "conditional", "latent", "hidden", "width"),
            *("hidden_d", "dropout", "loss", "k", "optimizer", "lr_d", "lr_g", "lr_decay"),
            *("momentum", "momentum_end", "momentum_updates", "ema"),
        }
    )

    def prepare(self) -> None:
        self.level = int(self.stage.name.removeprefix("level_"))
        self.generator, self.discriminator = (
            getattr(self.variant, f"{kind}_{self.level}").to(self.device)
            for kind in ("generator", "discriminator")
        )
        self.optimizer_d = self.optimizer("discriminator", self.discriminator)
        self.optimizer_g = self.optimizer("generator", self.generator)
        self.loss = chosen_loss(self.recipe)

    def dataset(self, train: Examples) -> Dataset[Any]:
        return PyramidLevel(train, self.recipe.levels - 1 - self.level, self.level == 0)

    def noise(self, image: Tensor) -> Tensor:
        """Uniform noise: a vector for each of the coarsest pictures, a plane for each other one."""
        rows, columns = image.shape[2:]
        shape = (self.recipe.latent,) if self.level == 0 else (1, rows, columns)
        return torch.rand((len(image), *shape), device=self.device) * 2 - 1

    def generate(self, image: Tensor, coarse: Tensor, label: Tensor | None) -> Tensor:
        """Fakes of the size of ``image``: the coarser pictures and what is generated."""
        noise = self.noise(image)
        if self.level == 0:
            return self.generator(noise, None, label)
        return coarse + self.generator(noise, coarse, label)

    def _drawn(self) -> tuple[Tensor, Tensor, Tensor | None]:
        image, coarse, label = self.next_batch()
        return image, coarse, label if self.recipe.conditional else None

    def update_discriminator(self) -> float:
        """One update on real pictures and fakes; its loss."""
        image, coarse, label = self._drawn()
        self.optimizer_d.zero_grad()
        real_logits = self.discriminator(image, label)
        fake = self.generate(image, coarse, label).detach()
        loss = self.loss.discriminator(real_logits, self.discriminator(fake, label))
        loss.backward()
        self.optimizer_d.step()
        return loss.item()

    def update_generator(self) -> float:
        """One update on fakes of new pictures; its loss."""
        image, coarse, label = self._drawn()
        self.optimizer_g.zero_grad()
        logits = self.discriminator(self.generate(image, coarse, label), label)
        loss = self.loss.generator(logits)
        loss.backward()
        self.optimizer_g.step()
        return loss.item()


class TextsLoop(Loop):
    """A stage of stackgan, as hanzhanggit/StackGAN-Pytorch's ``trainer.py``.

    Real pictures go once through D's convolutions, for their own text and for a wrong one; Stage-I
    is frozen in Stage-II. G learns from the texts of D's batch, as there, where the project draws
    others; from new pictures of them, or with ``same_fakes`` from D's, as there. A wrong text is
    another picture's, where that code takes the batch's next.
    """

    heeded = frozenset(
        {
            *("steps", "steps_2", "batch_size", "image_size", "latent", "condition", "width"),
            *("width_2", "width_d", "kl", "averaged_captions", "k", "lr_d", "lr_g", "halve_every"),
            *("beta1", "ema", "residual"),
        }
    )
    may_share_fakes = True

    def prepare(self) -> None:
        variant: Any = plain(self.variant).to(self.device)
        self.refines = self.stage.name == "stage2"
        if self.refines:
            self.sketch = variant.generator.eval().requires_grad_(False)
            self.generator, self.discriminator = variant.generator_2, variant.discriminator_2
        else:
            self.generator, self.discriminator = variant.generator, variant.discriminator
        self.optimizer_d = self.optimizer("discriminator", self.discriminator)
        self.optimizer_g = self.optimizer("generator", self.generator)
        self.latest: tuple[Tensor, Tensor, Tensor] | None = None

    def dataset(self, train: Examples) -> Dataset[Any]:
        size = self.recipe.image_size if self.refines else SIZE_1
        return Captioned(train, size, self.recipe.averaged_captions)

    def generate(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures of ``text`` (N, d) from new noise, and their conditions' mean and log sigma."""
        recipe, count = self.recipe, len(text)
        noise = self.gaussian(count, recipe.latent)
        if not self.refines:
            return self.generator(noise, text, self.gaussian(count, recipe.condition))
        sketch, _, _ = self.sketch(noise, text, self.gaussian(count, recipe.condition))
        return self.generator(sketch.detach(), text, self.gaussian(count, recipe.condition))

    def update_discriminator(self) -> float:
        """One update on right and wrong texts and on fakes; its loss."""
        image, self.text, wrong_text, counts = self.next_batch()
        text = self.text
        made = self.generate(text)
        self.latest = made if self.same_fakes else None
        fake = made[0]
        self.optimizer_d.zero_grad()
        judge: Any = self.discriminator
        maps, fake_maps = judge.see(image), judge.see(fake.detach())
        logits = judge(maps, text), judge(maps, wrong_text), judge(fake_maps, text)
        loss = matching_loss(*logits, counts)
        loss.backward()
        self.optimizer_d.step()
        return loss.item()

    def update_generator(self) -> float:
        """One update on fakes of the same texts; its loss."""
        text = self.text
        fake, mean, log_sigma = self.latest or self.generate(text)
        self.optimizer_g.zero_grad()
        judge: Any = self.discriminator
        logits = judge(judge.see(fake), text)
        divergence = gaussian_divergence(mean, log_sigma).mean() / mean.shape[1]
        real = torch.ones_like(logits)
        loss = F.binary_cross_entropy_with_logits(logits, real) + self.recipe.kl * divergence
        loss.backward()
        self.optimizer_g.step()
        return loss.item()


class SuperResolutionLoop(Loop):
    """A stage of srgan, as eriklindernoren/PyTorch-GAN's ``srgan.py``, with the paper's losses.

    G learns from D's word and from features; then D, with real and fake one after another, from the
    same fakes. Nothing is frozen but the network of the features.
    """

    heeded = frozenset(
        {
            *("steps", "pretrain_steps", "batch_size", "scale", "crop", "width", "blocks"),
            *("kernel_end", "norm_g", "upsampling", "skip", "width_d", "hidden_d", "content"),
            *("content_weights", "pixel_weight", "adversarial_weight", "loss", "lr_pretrain"),
            *("decay_pretrain", "lr_g", "lr_d", "beta1", "ema"),
        }
    )

    def prepare(self) -> None:
        variant = self.variant
        variant.load_pretrained()
        variant.to(self.device)
        self.generator, self.discriminator = variant.generator, variant.discriminator
        self.optimizer_g = self.optimizer("generator", self.generator)
        if "discriminator" in self.players:
            self.optimizer_d = self.optimizer("discriminator", self.discriminator)
        self.loss = chosen_loss(self.recipe)

    def dataset(self, train: Examples) -> Dataset[Any]:
        return Squares(train, self.recipe.crop, self.recipe.scale)

    def content(self, fake: Tensor, real: Tensor) -> Tensor:
        """The mean squared error of features, or of pixels where there are none."""
        if self.recipe.content == "pixels":
            return F.mse_loss(fake, real)
        features: nn.Module = self.variant.content
        loss = F.mse_loss(features(fake), features(real).detach())
        if self.recipe.pixel_weight > 0:
            loss = loss + self.recipe.pixel_weight * F.mse_loss(fake, real)
        return loss

    def update_generator(self) -> float:
        """One update, by pixels alone in the first stage; its loss."""
        self.real, low = self.next_batch()
        self.optimizer_g.zero_grad()
        self.fake = self.generator(low)
        if "discriminator" in self.players:
            fooled = self.loss.generator(self.discriminator(self.fake))
            loss = self.content(self.fake, self.real) + self.recipe.adversarial_weight * fooled
        else:
            loss = F.mse_loss(self.fake, self.real)
        loss.backward()
        self.optimizer_g.step()
        return loss.item()

    def update_discriminator(self) -> float:
        """One update on that batch's squares and on the fakes made of it; its loss."""
        self.optimizer_d.zero_grad()
        real, fake = self.discriminator(self.real), self.discriminator(self.fake.detach())
        loss = self.loss.discriminator(real, fake)
        loss.backward()
        self.optimizer_d.step()
        return loss.item()


class BarsLoop(Loop):
    """midinet, as annahung31/MidiNet-by-pytorch's ``main.py``: D once, then G twice on the batch.

    G's losses of matched features are as there; each of its turns makes new fakes, as the project's
    do (and the authors' TensorFlow code), where that code keeps D's.
    """

    heeded = frozenset(
        {
            *("steps", "batch_size", "loss", "k", "lr_d", "lr_g", "beta1", "beta2", "lr_decay_to"),
            *("latent", "ema", "norm_d", "generator_turns", "label_smoothing"),
            *("match_features", "match_bars", "hidden", "width_g", "width_d", "features_d"),
            *("chord_d", "keys"),
        }
    )

    def prepare(self) -> None:
        variant = self.variant.to(self.device)
        self.generator, self.discriminator = variant.generator, variant.discriminator
        self.optimizer_d = self.optimizer("discriminator", self.discriminator)
        self.optimizer_g = self.optimizer("generator", self.generator)
        self.loss = variant.loss
        if self.loss.paired or variant.second_order:
            raise UserError(f"no textbook loop is written for --loss {self.recipe.loss}")
        if self.recipe.keys not in ("random", "given"):
            raise UserError(f"no textbook loop is written for --keys {self.recipe.keys}")

    def dataset(self, train: Examples) -> Dataset[Any]:
        return Bars(train, self.recipe.keys == "random")

    def generate(self) -> Tensor:
        """New bars (N, 1, T, 128) for the batch's chords and the bars before."""
        noise = self.gaussian(len(self.bar), self.recipe.latent)
        return torch.sigmoid(self.generator(noise, self.previous, self.chord))

    def update_discriminator(self) -> float:
        """One update on a new batch and as many fakes; its loss."""
        self.bar, self.previous, self.chord = self.next_batch()
        self.optimizer_d.zero_grad()
        real_logits = self.discriminator(self.bar, self.chord)
        fake_logits = self.discriminator(self.generate().detach(), self.chord)
        loss = self.loss.discriminator(real_logits, fake_logits)
        loss.backward()
        self.optimizer_d.step()
        return loss.item()

    def update_generator(self) -> float:
        """One update on the same batch, by D's word, its features and the bars; its loss."""
        self.optimizer_g.zero_grad()
        judge: Any = self.discriminator
        fake = self.generate()
        wanted, features = judge.features(self.bar, self.chord), judge.features(fake, self.chord)
        loss = self.loss.generator(judge.judge(features, self.chord))
        matched = F.mse_loss(features.mean(0), wanted.mean(0), reduction="sum") / 2
        bars = F.mse_loss(fake.mean(0), self.bar.mean(0), reduction="sum") / 2
        loss = loss + self.recipe.match_features * matched + self.recipe.match_bars * bars
        loss.backward()
        self.optimizer_g.step()
        return loss.item()


LOOPS: dict[str, Callable[..., Loop]] = {
    **dict.fromkeys(("gan", "cgan", "dcgan", "acgan", "sngan", "sagan", "biggan"), TextbookLoop),
    "lapgan": PyramidLevelLoop,
    "stackgan": TextsLoop,
    "pix2pix": PairsLoop,
    "cyclegan": TwoWayLoop,
    "srgan": SuperResolutionLoop,
    "midinet": BarsLoop,
}
"""The textbook's loop of each system."""


def make_textbook(variant: Variant, *arguments: Any, **words: Any) -> Loop:
    """The loop of ``variant``, which has been built; the rest is :class:`Loop`'s."""
    if variant.name not in LOOPS:
        raise UserError(
            f"no textbook loop is written for {variant.name}, only for {', '.join(LOOPS)}"
        )
    return LOOPS[variant.name](variant, *arguments, **words)
