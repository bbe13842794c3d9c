"""A plain GAN loop as any tutorial has it: the baseline of `benchmarks.speed`.

A DataLoader over a Dataset of PIL pictures with torchvision's transforms, float32 networks in
torch's default layout and precision, one pass of the discriminator for real and one for fake
pictures, Adam as it comes, the losses read by ``.item()`` after every update. It plays the same
game as the project's engine: the same losses, batches, k and rates, new noise for every update.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.textbook import networks
from gan_core.data.examples import Examples
from gan_core.errors import UserError
from gan_core.options import flag
from gan_core.variants.adversarial import AdversarialVariant

PLAYED = {
    *("steps", "batch_size", "loss", "k", "lr_d", "lr_g", "beta1", "beta2", "lr_decay_to"),
    *("prior", "latent", "ema", "batch_scale_g", "image_size", "width", "width_g", "width_d"),
    *("kernel", "norm_d", "dequantise", "embedding", "orthogonality"),
}
"""The options that the loop heeds; others must be left at what the recipe says."""
LARGEST_FRAME = 8
"""Pictures that lack at most this part (an eighth) of the size are padded, others resized."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures one by one, each through PIL and ``transform``, and their classes (0 for none)."""

    def __init__(self, examples: Examples, transform: Callable[[Any], Tensor]) -> None:
        self.pixels = examples.tensors["image"].permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.labels, self.transform = examples.tensors.get("label"), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = 0 if self.labels is None else int(self.labels[index])
        return self.transform(Image.fromarray(self.pixels[index])), label


class Dequantise:
    """Adds uniform noise of one grey level, as SN-GAN's authors do in their data set."""

    def __call__(self, image: Tensor) -> Tensor:
        return image + torch.rand_like(image) / 128


def transform(examples: Examples, size: int, dequantise: bool) -> Callable[[Any], Tensor]:
    """A PIL picture to floats (C, ``size``, ``size``) in [-1, 1], by torchvision."""
    channels, rows, columns = examples.spec.target_shape
    steps: list[Any] = []
    if all(0 < size - n <= size // LARGEST_FRAME for n in (rows, columns)):
        top, left = (size - rows) // 2, (size - columns) // 2
        steps.append(transforms.Pad((left, top, size - columns - left, size - rows - top)))
    elif (rows, columns) != (size, size):
        bicubic = transforms.InterpolationMode.BICUBIC
        steps.append(transforms.Resize((size, size), bicubic))
    half = (0.5,) * channels
    steps += [transforms.ToTensor(), transforms.Normalize(half, half)]
    return transforms.Compose([*steps, Dequantise()] if dequantise else steps)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Pass after pass over ``loader``."""
    while True:
        yield from loader


def check(variant: AdversarialVariant) -> None:
    """Raises ``UserError`` for options that the loop does not heed."""
    fields = {f.name: f.default for f in dataclasses.fields(variant.options)}
    for name, recipe in fields.items():
        if name not in PLAYED and getattr(variant.options, name) != recipe:
            raise UserError(f"no textbook loop is written for {flag(name)}")
    if variant.loss.paired or variant.second_order:
        raise UserError(f"no textbook loop is written for --loss {variant.recipe.loss}")


class TextbookLoop:
    """The loop. ``variant`` has been built, and says what is played; ``train`` is as its source
    gives it. ``loaders`` are the DataLoader's processes: none on a CPU, two beside a GPU.
    """

    def __init__(
        self,
        variant: AdversarialVariant,
        train: Examples,
        batch_size: int,
        device: torch.device,
        loaders: int | None = None,
    ) -> None:
        self.generator, self.discriminator = (n.to(device) for n in networks(variant))
        check(variant)
        self.recipe, self.loss, self.device = variant.recipe, variant.loss, device
        self.batch_size, self.classes = batch_size, variant.data.classes
        self.conditional, self.bounds = variant.conditional, variant.uniform_bounds
        self.average = copy.deepcopy(self.generator) if self.recipe.ema else None
        updates = self.recipe.steps
        self.optimizer_d, self.schedule_d = self._adam(
            self.discriminator, self.recipe.lr_d, updates * self.recipe.k
        )
        self.optimizer_g, self.schedule_g = self._adam(self.generator, self.recipe.lr_g, updates)
        self.history: list[tuple[float, float]] = []
        self.loss_d = 0.0
        loaders = (2 if device.type == "cuda" else 0) if loaders is None else loaders
        self.batches = self._batches(train, loaders)

    def _batches(self, train: Examples, loaders: int) -> Iterator[Any]:
        if len(train) < self.batch_size:
            raise UserError(f"{len(train)} pictures are less than a batch of {self.batch_size}")
        dequantise = getattr(self.recipe, "dequantise", False)
        loader = DataLoader(
            Pictures(train, transform(train, self.recipe.image_size, dequantise)),
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=loaders,
            persistent_workers=loaders > 0,  # else small sets would pay for new ones all the time
        )
        return endless(loader)

    def _adam(
        self, network: nn.Module, rate: float, updates: int
    ) -> tuple[optim.Optimizer, optim.lr_scheduler.LRScheduler | None]:
        """Adam, and what lets its rate fall over so many updates, if it shall."""
        recipe = self.recipe
        adam = optim.Adam(network.parameters(), lr=rate, betas=(recipe.beta1, recipe.beta2))
        if recipe.lr_decay_to == 1:
            return adam, None
        return adam, optim.lr_scheduler.LinearLR(adam, 1.0, recipe.lr_decay_to, updates)

    def iterate(self) -> None:
        """k updates of the discriminator, one of the generator, and its average of weights."""
        for _ in range(self.recipe.k):
            self.loss_d = self.update_discriminator()
        self.history.append((self.loss_d, self.update_generator()))
        if self.average is not None:
            self.update_average(self.average)

    def update_discriminator(self) -> float:
        """One update on real pictures and as many fakes; its loss."""
        real, label = next(self.batches)
        real, label = real.to(self.device), label.to(self.device)
        given = (label,) if self.conditional else ()
        self.optimizer_d.zero_grad()
        real_logits = self.discriminator(real, *given).flatten()
        fake = self.generator(self.noise(len(real)), *given)
        fake_logits = self.discriminator(fake.detach(), *given).flatten()
        loss = self.loss.discriminator(real_logits, fake_logits)
        loss.backward()
        self.optimizer_d.step()
        if self.schedule_d is not None:
            self.schedule_d.step()
        return loss.item()

    def update_generator(self) -> float:
        """One update on new fakes; its loss."""
        count = self.batch_size * self.recipe.batch_scale_g
        label = torch.randint(max(1, self.classes), (count,), device=self.device)
        given = (label,) if self.conditional else ()
        self.optimizer_g.zero_grad()
        fake = self.generator(self.noise(count), *given)
        loss = self.loss.generator(self.discriminator(fake, *given).flatten())
        weight = getattr(self.recipe, "orthogonality", 0.0)
        if weight > 0:
            loss = loss + weight * self.orthogonality()
        loss.backward()
        self.optimizer_g.step()
        if self.schedule_g is not None:
            self.schedule_g.step()
        return loss.item()

    def noise(self, count: int) -> Tensor:
        """The generator's noise (``count``, latent)."""
        shape = (count, self.recipe.latent)
        if self.recipe.prior == "gaussian":
            return torch.randn(shape, device=self.device)
        low, high = self.bounds
        return low + (high - low) * torch.rand(shape, device=self.device)

    def orthogonality(self) -> Tensor:
        """BigGAN's penalty on the generator's weights but the embedding: a scalar."""
        total = torch.zeros((), device=self.device)
        for name, weight in self.generator.named_parameters():
            if weight.dim() > 1 and not name.startswith("embed."):
                matrix = weight.flatten(1)
                others = 1 - torch.eye(len(matrix), device=self.device)
                total = total + (matrix @ matrix.t() * others).square().sum()
        return total

    @torch.no_grad()
    def update_average(self, average: nn.Module) -> None:
        """Move the average towards the generator's weights."""
        pairs = zip(average.parameters(), self.generator.parameters(), strict=True)
        for slow, live in pairs:
            slow.mul_(self.recipe.ema).add_(live, alpha=1 - self.recipe.ema)
