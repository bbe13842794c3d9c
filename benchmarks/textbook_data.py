"""Data sets as tutorials write them: an example at a time, pictures through PIL and torchvision.

Each gives what one of the textbook's loops learns from. They are made from the splits that the
project's sources have read, so that decoding files, which a tutorial does for every picture of
every epoch, costs the textbook nothing either.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import functional as pictures

from gan_core.data.examples import Examples
from gan_core.data.midi import PITCHES, ROOM

LARGEST_FRAME = 8
"""Pictures that lack at most this part (an eighth) of the size are padded, others resized."""
BICUBIC = transforms.InterpolationMode.BICUBIC


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Pass after pass over ``loader``."""
    while True:
        yield from loader


def pixels(examples: Examples, name: str = "image") -> Any:
    """The pictures ``name`` as arrays (N, H, W) or (N, H, W, C), as PIL takes each."""
    return examples.tensors[name].permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()


def to_floats(channels: int) -> Callable[[Any], Tensor]:
    """A PIL picture to floats (``channels``, H, W) in [-1, 1], by torchvision."""
    half = (0.5,) * channels
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])


class Dequantise:
    """Adds uniform noise of one grey level, as SN-GAN's authors do in their data set."""

    def __call__(self, image: Tensor) -> Tensor:
        return image + torch.rand_like(image) / 128


def squared(examples: Examples, size: int) -> list[Any]:
    """The transforms that make pictures of ``size`` x ``size`` pixels of PIL's."""
    _, rows, columns = examples.spec.target_shape
    if all(0 < size - n <= size // LARGEST_FRAME for n in (rows, columns)):
        top, left = (size - rows) // 2, (size - columns) // 2
        return [transforms.Pad((left, top, size - columns - left, size - rows - top))]
    return [] if (rows, columns) == (size, size) else [transforms.Resize((size, size), BICUBIC)]


def transform(examples: Examples, size: int | None, dequantise: bool) -> Callable[[Any], Tensor]:
    """A PIL picture to floats in [-1, 1], by torchvision, of ``size`` pixels a side if given."""
    steps = [] if size is None else squared(examples, size)
    steps.append(to_floats(examples.spec.target_shape[0]))
    return transforms.Compose([*steps, Dequantise()] if dequantise else steps)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures one by one, each through PIL and ``transform``, and their classes (0 for none)."""

    def __init__(self, examples: Examples, transform: Callable[[Any], Tensor]) -> None:
        self.pixels = pixels(examples)
        self.labels, self.transform = examples.tensors.get("label"), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = 0 if self.labels is None else int(self.labels[index])
        return self.transform(Image.fromarray(self.pixels[index])), label


class PyramidLevel(Dataset[tuple[Tensor, Tensor, int]]):
    """A level's picture, the enlarged coarser one and the class, as LAPGAN's code cuts them.

    ``halvings``: how often a picture is halved to be of the level; the ``coarsest`` level has no
    coarser pictures, and gets its own in their place.
    """

    def __init__(self, examples: Examples, halvings: int, coarsest: bool) -> None:
        self.whole = Pictures(examples, transform(examples, None, False))
        self.halvings, self.coarsest = halvings, coarsest

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image, label = self.whole[index]
        for _ in range(self.halvings):
            image = F.avg_pool2d(image, 2)
        if self.coarsest:
            return image, image, label
        coarse = F.avg_pool2d(image, 2)[None]
        return image, F.interpolate(coarse, scale_factor=2, mode="bilinear")[0], label


class Jitter:
    """Enlarges PIL pictures, crops them to ``size`` and mirrors half of them: all given alike."""

    def __init__(self, size: int, enlarged: int, flip: bool) -> None:
        self.size, self.enlarged, self.flip = size, enlarged, flip

    def __call__(self, *images: Any) -> list[Tensor]:
        top, left = (random.randint(0, self.enlarged - self.size) for _ in range(2))
        mirrored = self.flip and random.random() < 0.5
        found = []
        for image in images:
            seen = pictures.resize(image, [self.enlarged] * 2, BICUBIC)
            seen = pictures.crop(seen, top, left, self.size, self.size)
            seen = pictures.hflip(seen) if mirrored else seen
            found.append(to_floats(len(image.getbands()))(seen))
        return found


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """An input and the picture that it is to become, cropped and mirrored alike."""

    def __init__(self, examples: Examples, jitter: Jitter) -> None:
        self.inputs, self.images = (pixels(examples, name) for name in ("input", "image"))
        self.jitter = jitter

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        both = (Image.fromarray(each[index]) for each in (self.inputs, self.images))
        given, image = self.jitter(*both)
        return given, image


class TwoDomains(Pairs):
    """A picture of each domain: the larger one's in turn, of the other one a random one."""

    def __len__(self) -> int:
        return max(len(self.inputs), len(self.images))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        found = []
        for domain in (self.inputs, self.images):
            own = index if len(domain) == len(self) else random.randrange(len(domain))
            found += self.jitter(Image.fromarray(domain[own]))
        return found[0], found[1]


class Squares(Dataset[tuple[Tensor, Tensor]]):
    """A random square of a large picture, turned one of eight ways, and the same reduced by PIL."""

    def __init__(self, examples: Examples, size: int, scale: int) -> None:
        self.pixels, self.scale, self.size = pixels(examples), scale, size
        self.to_floats = to_floats(examples.spec.target_shape[0])
        self.cut = transforms.Compose(
            [
                transforms.RandomCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        high = self.cut(Image.fromarray(self.pixels[index]))
        if random.random() < 0.5:
            high = high.transpose(Image.Transpose.TRANSPOSE)
        low = pictures.resize(high, [self.size // self.scale] * 2, BICUBIC)
        return self.to_floats(high), self.to_floats(low)


class Captioned(Dataset[tuple[Tensor, Tensor, Tensor, bool]]):
    """A picture, the mean of some of its captions, one of another's, and whether that one counts.

    As in StackGAN's code captions are drawn anew each time; a wrong text that the picture has as
    well does not count.
    """

    def __init__(self, examples: Examples, size: int, averaged: int) -> None:
        self.pictures = Pictures(examples, transform(examples, size, False))
        self.captions, self.averaged = examples.tensors["text"].numpy(), averaged

    def __len__(self) -> int:
        return len(self.pictures)

    def _drawn(self, index: int) -> Any:
        own = self.captions[index]
        return own[random.sample(range(len(own)), min(self.averaged, len(own)))]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, bool]:
        image, _ = self.pictures[index]
        text, wrong = self._drawn(index), self._drawn(random.randrange(len(self)))
        shared = all(any(np.array_equal(w, own) for own in self.captions[index]) for w in wrong)
        own, other = (torch.from_numpy(drawn.mean(axis=0)) for drawn in (text, wrong))
        return image, own, other, not shared


class Bars(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A bar, the one before (1, T, 128) and the chord (13,), in a ``random_key`` or as given."""

    def __init__(self, examples: Examples, random_key: bool) -> None:
        names = ("bar", "previous", "chord")
        self.bars, self.before, self.chords = (examples.tensors[n].numpy() for n in names)
        self.random_key = random_key

    def __len__(self) -> int:
        return len(self.bars)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        key = random.randrange(12) - ROOM if self.random_key else 0
        chord = self.chords[index].copy()
        chord[:12] = np.roll(chord[:12], key)
        bar, before = (self._roll(pitches[index], key) for pitches in (self.bars, self.before))
        return bar, before, torch.from_numpy(chord)

    @staticmethod
    def _roll(pitches: Any, key: int) -> Tensor:
        """Pitches (1, T), ``PITCHES`` for silence, as a piano roll (1, T, 128) moved by ``key``."""
        roll = np.zeros((*pitches.shape, PITCHES), np.float32)
        places = np.nonzero(pitches < PITCHES)
        roll[(*places, (pitches[places] + key) % PITCHES)] = 1
        return torch.from_numpy(roll)
