"""The contract of feature extractors, and their registry."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from gan_core.data.examples import Examples
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.metrics.given import check_pictures
from gan_core.metrics.numerics import exact_float32
from gan_core.registry import Registry


@dataclasses.dataclass(frozen=True)
class ExtractorSetup:
    """What an extractor may be made from.

    ``train`` and ``test`` are labelled splits at native size, for those that learn from the
    source (``test`` is needed by rank 0 alone); ``weights`` is a file, for those that come
    trained, and ``download`` whether they may fetch it; ``cache`` is a folder.
    """

    world: World
    train: Examples | None = None
    test: Examples | None = None
    weights: Path | None = None
    download: bool = True
    cache: Path | None = None
    seed: int = 0


class Extractor(abc.ABC):
    """A frozen network that sees what two pictures have in common.

    ``protocol`` says everything that its figures depend on: weights' hash, resizer, precision,
    layer. It is not an ``nn.Module``, so that nobody trains or saves it along with a model.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    chunk: ClassVar[int] = 500  # images at once, bounds the memory of the activations

    def __init__(self, network: nn.Module, protocol: dict[str, str], device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.protocol = protocol
        self.device = device

    @classmethod
    @abc.abstractmethod
    def create(cls, setup: ExtractorSetup) -> Extractor:
        """Load or train it; every rank calls this. Raises ``UserError`` if it cannot be had."""

    @abc.abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and logits of one chunk of images on the right device."""

    @torch.no_grad()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, d) and logits (N, K) or ``None``, float32, of images (N, C, H, W).

        The images' values are in [-1, 1]. Exact float32 whatever the caller's settings. Raises
        ``UserError`` where :meth:`forward` gives something else.
        """
        check_pictures(images)
        with exact_float32():
            parts = [self._seen(c) for c in images.to(self.device).float().split(self.chunk)]
        logits = [part for _, part in parts if part is not None]
        return torch.cat([part for part, _ in parts]), torch.cat(logits) if logits else None

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        found: object = self.forward(images)
        what = f"`forward` of extractor '{self.name}'"
        if not isinstance(found, tuple) or len(found) != 2:
            raise UserError(f"{what} must return features and logits (None, if there are none)")
        features, logits = found
        if features.ndim != 2 or len(features) != len(images):
            raise UserError(
                f"{what} gave features of the shape {tuple(features.shape)} for {len(images)} "
                f"pictures: it must be ({len(images)}, d)"
            )
        return features, logits

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the name and the whole protocol."""
        text = json.dumps([self.name, self.protocol], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{k} {v}' for k, v in self.protocol.items())})"


def check_finite(features: Tensor, extractor: Extractor, kind: str) -> None:
    """Raises ``UserError`` if any of ``features`` (N, d), of pictures of a ``kind``, is not finite:
    figures of it would be NaN, or fail in their linear algebra.
    """
    bad = int((~features.isfinite()).any(dim=1).sum())
    if bad:
        raise UserError(
            f"`forward` of extractor '{extractor.name}' gave features that are not finite for "
            f"{bad} of {len(features)} {kind} pictures: mend it, or choose another --extractor"
        )


EXTRACTORS: Registry[type[Extractor]] = Registry("extractor")
