"""Textbook loops of the systems that translate pictures: a part of `benchmarks.speed`."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.textbook import DroppingUNet
from benchmarks.textbook_data import Jitter, Pairs, TwoDomains
from benchmarks.textbook_loop import Loop, chosen_loss
from gan_core.data.examples import Examples
from gan_core.layers.unet import UNet

TRANSLATION = {
    *("steps", "batch_size", "image_size", "width", "width_d", "patch_layers", "enlarged", "flip"),
    *("loss", "lr_d", "lr_g", "beta1", "beta2", "constant", "ema"),
}


def set_requires_grad(network: nn.Module, wanted: bool) -> None:
    """Whether gradients of the network's weights are made: the authors freeze D in G's turn."""
    for parameter in network.parameters():
        parameter.requires_grad = wanted


class PairsLoop(Loop):
    """pix2pix, as junyanz/pytorch-CycleGAN-and-pix2pix's ``pix2pix_model.py``.

    D is frozen while G learns, fakes are carried to D, whose loss is halved, real and fake seen one
    after another. There D learns before G, here after it, as in the project (and in
    eriklindernoren/PyTorch-GAN's ``pix2pix.py``): the same work in another order.
    """

    heeded = frozenset({*TRANSLATION, "l1", "adversarial", "dropout"})

    def prepare(self) -> None:
        network: UNet = self.variant.generator
        self.generator = DroppingUNet(network).to(self.device)
        self.optimizer_g = self.optimizer("generator", self.generator)
        if "discriminator" in self.players:
            self.discriminator = self.variant.discriminator.to(self.device)
            self.optimizer_d = self.optimizer("discriminator", self.discriminator)
        self.loss = chosen_loss(self.recipe)

    def dataset(self, train: Examples) -> Dataset[Any]:
        recipe = self.recipe
        return Pairs(train, Jitter(recipe.image_size, recipe.enlarged, recipe.flip))

    def update_generator(self) -> float:
        """One update by what D says and by the difference from the truth; its loss."""
        self.given, self.real = self.next_batch()
        self.fake = self.generator(self.given)
        self.optimizer_g.zero_grad()
        loss = self.recipe.l1 * F.l1_loss(self.fake, self.real)
        if "discriminator" in self.players:
            set_requires_grad(self.discriminator, False)
            logits = self.discriminator(torch.cat((self.given, self.fake), 1))
            loss = loss + self.recipe.adversarial * self.loss.generator(logits)
        loss.backward()
        self.optimizer_g.step()
        return loss.item()

    def update_discriminator(self) -> float:
        """One update on that batch's pairs and on the fakes made of it; its loss."""
        set_requires_grad(self.discriminator, True)
        self.optimizer_d.zero_grad()
        fake = self.discriminator(torch.cat((self.given, self.fake), 1).detach())
        real = self.discriminator(torch.cat((self.given, self.real), 1))
        loss = 0.5 * self.loss.discriminator(real, fake)
        loss.backward()
        self.optimizer_d.step()
        return loss.item()


class Pool:
    """Up to ``size`` past pictures: when it is full, one in two given is exchanged for one of it.

    A list, as ``util/image_pool.py`` of the authors' code has it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """Pictures (N, ...) for as many."""
        if self.size == 0:
            return images
        found = []
        for image in images.detach().unsqueeze(1):
            if len(self.images) < self.size:
                self.images.append(image)
                found.append(image)
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                found.append(self.images[place].clone())
                self.images[place] = image
            else:
                found.append(image)
        return torch.cat(found)


class TwoWayLoop(Loop):
    """cyclegan, as junyanz/pytorch-CycleGAN-and-pix2pix's ``cycle_gan_model.py``.

    Both generators with both discriminators frozen, each picture translated by itself, then both
    discriminators on pictures from pools. The project's weights of least squares are its own (it
    halves them, and doubles the generators'), the objective is the authors'.
    """

    heeded = frozenset(
        {*TRANSLATION, "blocks", "kernel", "network", "adversarial", "cycle", "identity", "pool"}
    )

    def prepare(self) -> None:
        variant = self.variant.to(self.device)
        self.generator, self.inverse = variant.generator, variant.inverse
        self.discriminator = variant.discriminator
        self.inverse_discriminator = variant.inverse_discriminator
        self.judges = (self.discriminator, self.inverse_discriminator)
        self.optimizer_g = self.optimizer("generator", self.generator, self.inverse)
        self.optimizer_d = self.optimizer("discriminator", *self.judges)
        self.pools = [Pool(self.recipe.pool) for _ in self.judges]
        self.loss = chosen_loss(self.recipe)
        self.halved = 1.0 if self.recipe.loss == "least-squares" else 0.5  # is so already

    def dataset(self, train: Examples) -> Dataset[Any]:
        recipe = self.recipe
        return TwoDomains(train, Jitter(recipe.image_size, recipe.enlarged, recipe.flip))

    def update_generator(self) -> float:
        """One update of both generators; their loss."""
        recipe = self.recipe
        given, image = self.next_batch()
        fake_image, fake_given = self.generator(given), self.inverse(image)
        again_given, again_image = self.inverse(fake_image), self.generator(fake_given)
        for judge in self.judges:
            set_requires_grad(judge, False)
        self.optimizer_g.zero_grad()
        loss = recipe.cycle * (F.l1_loss(again_given, given) + F.l1_loss(again_image, image))
        if recipe.identity > 0:
            same = F.l1_loss(self.generator(image), image) + F.l1_loss(self.inverse(given), given)
            loss = loss + recipe.identity * recipe.cycle * same
        for judge, fake in zip(self.judges, (fake_image, fake_given), strict=True):
            loss = loss + recipe.adversarial * self.loss.generator(judge(fake))
        loss.backward()
        self.optimizer_g.step()
        self.made = ((image, fake_image), (given, fake_given))
        return loss.item()

    def update_discriminator(self) -> float:
        """One update of both discriminators, on past and present fakes; their loss."""
        for judge in self.judges:
            set_requires_grad(judge, True)
        self.optimizer_d.zero_grad()
        total = 0.0
        for judge, pool, (real, made) in zip(self.judges, self.pools, self.made, strict=True):
            fake = pool.query(made)
            loss = self.halved * self.loss.discriminator(judge(real), judge(fake.detach()))
            loss.backward()
            total += loss.item()
        self.optimizer_d.step()
        return total
