"""Rows of samples that go from one point of the latent space, or one class, to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gan_core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.data.examples import Batch
    from gan_core.priors import Prior
    from gan_core.release import ReleasedGenerator


def latent_walks(generator: ReleasedGenerator, ends: Batch, columns: int) -> Batch:
    """Noise (R * columns, ...) by name: each row goes from one sample's to another's.

    ``ends`` is the noise of 2 R samples: row r goes from the sample 2 r to 2 r + 1.
    """
    import torch

    from gan_core.priors import Integers

    share = torch.linspace(0, 1, columns, dtype=torch.float64)
    priors = {spec.name: spec.prior for spec in generator.variant.noise(generator.info["stage"])}
    paths = {}
    for name, values in ends.items():
        first, last = values[0::2], values[1::2]
        if isinstance(priors[name], Integers):
            paths[name] = first.repeat_interleave(columns, dim=0)
        else:
            paths[name] = path_between(first, last, share, priors[name])
    return paths


def path_between(first: Tensor, last: Tensor, share: Tensor, prior: Prior) -> Tensor:
    """From ``first`` to ``last`` (R, ...), each row in the steps ``share`` (C,): (R * C, ...).

    For a gaussian prior the path is spherical (White 2016, arXiv:1609.04468, section 2.1), for
    others straight: inner points then look as likely to the generator as the ends. The ends are
    exact.
    """
    import torch

    from gan_core.priors import Gaussian

    a, b = first.double().flatten(1)[:, None], last.double().flatten(1)[:, None]
    t = share.to(a.device)[None, :, None]
    points = (1 - t) * a + t * b
    if isinstance(prior, Gaussian):
        cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1) * b.norm(dim=-1))[..., None]
        angle = torch.arccos(cosine.clamp(-1, 1))
        round_way = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        # Parallel ends have no great circle between them, or no single one.
        points = torch.where(torch.sin(angle) > 1e-6, round_way, points)
    return points.reshape(-1, *first.shape[1:]).to(first.dtype)


def class_walks(classes: Sequence[int], count: int, rows: int, columns: int) -> Tensor:
    """Mixtures (rows * columns, ``count``) of ``count`` classes.

    Each row goes evenly from one of ``classes`` to the next, the last of them to the first.
    Raises ``UserError`` for fewer than two classes.
    """
    import torch
    import torch.nn.functional as F

    if len(classes) < 2:
        raise UserError("--interpolate-classes needs at least two classes")
    share = torch.linspace(0, 1, columns)[None, :, None]
    first = F.one_hot(torch.tensor([classes[r % len(classes)] for r in range(rows)]), count)
    last = F.one_hot(torch.tensor([classes[(r + 1) % len(classes)] for r in range(rows)]), count)
    return ((1 - share) * first[:, None] + share * last[:, None]).flatten(0, 1)
