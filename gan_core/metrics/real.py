"""Features of the real examples: computed once, kept by content."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gan_core.data.examples import Examples, to_unit_range
from gan_core.engine.world import World
from gan_core.metrics.cache import load_tensors, save_tensors
from gan_core.metrics.diversity import RealDiversity
from gan_core.metrics.features import Extractor, check_finite
from gan_core.metrics.manifold import neighbour_search
from gan_core.metrics.ranks import on_leader
from gan_core.metrics.sampling import quantised, windows


def real_features(
    reference: Examples,
    extractor: Extractor,
    world: World,
    cache: Path | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Features (N, d) of all targets of ``reference`` on rank 0; of no use on the others.

    Every rank calls this and computes its share, ``batch_size`` at a time. ``cache`` is a folder
    that keeps them, by content; ``None`` keeps nothing.
    """
    path = None
    if cache is not None:
        key = on_leader(world, lambda: reference.fingerprint)
        path = cache / f"features-{key}-{extractor.fingerprint}.safetensors"
    found = load_tensors(path) if path is not None and world.leads else None
    whole = found is not None and len(found[0].get("features", ())) == len(reference)
    if world.broadcast_object(whole):
        return found[0]["features"].to(world.device) if found else torch.empty(0)
    parts = [extractor.features(images)[0] for images in batches_of(reference, world, batch_size)]
    features = world.gather(torch.cat(parts), len(reference))
    check_finite(features, extractor, "real")
    if path is not None and world.leads:
        save_tensors(path, {"features": features}, {"extractor": str(extractor)})
    return features


def batches_of(reference: Examples, world: World, batch_size: int) -> Iterator[Tensor]:
    """My share of the reference, in windows of one size, as floats on the device."""
    stored = reference.tensors[reference.spec.target]
    for window, new in windows(world, len(reference), batch_size):
        part = stored[window][new].to(world.device)
        yield to_unit_range(part) if part.dtype == torch.uint8 else part


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The real examples that are nearest to each of M generated ones, in feature space.

    ``places``: their positions (M, k), int64, and ``distances`` (M, k), Euclidean, nearest first.
    ``near``: the distance that 1 % of real examples have to another, as ``copied_share`` takes it:
    what lies nearer than that to one of them may be a copy.
    """

    places: Tensor
    distances: Tensor
    near: float


def nearest_examples(
    images: Tensor,
    reference: Examples,
    extractor: Extractor,
    count: int,
    cache: Path | None = None,
) -> Nearest:
    """The ``count`` examples of ``reference`` nearest to each of ``images``, or all if it has less.

    ``images`` (M, C, H, W) in [-1, 1] at native size.
    """
    world = World(device=extractor.device)
    real = real_features(reference, extractor, world, cache)
    fake = extractor.features(quantised(images))[0]
    near = RealDiversity(real, len(images)).near_training
    return Nearest(*neighbour_search(fake, real, count), near)
