"""The Parzen window log-likelihood, by the protocol of the first GAN."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from gan_core.data.examples import Examples
from gan_core.engine.world import World
from gan_core.metrics.numerics import squared_distances
from gan_core.metrics.sampling import Generate, generated

log = logging.getLogger(__name__)

SIGMAS = tuple(float(s) for s in torch.logspace(-1, 0, 10, dtype=torch.float64))
VALIDATION_IMAGES = 1_000
SAMPLES = 10_000
_TILE = 1 << 22  # distances in memory at once


@torch.no_grad()
def log_likelihoods(examples: Tensor, samples: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Log density (S, N), float64 in nats, of each example under each bandwidth.

    Examples (N, d) and samples (M, d) in the same units. The density is a Gaussian of standard
    deviation sigma on every sample: logmeanexp(-||(x - mu) / sigma||^2 / 2) - d log(sigma
    sqrt(2 pi)). All bandwidths share the distances, which are float64: the squared distance of
    near pictures is a small difference of large numbers.
    """
    examples, samples = examples.flatten(1).double(), samples.flatten(1).double()
    count, dimension = samples.shape
    parts = []
    for rows in examples.split(max(1, _TILE // count)):
        distances = squared_distances(rows, samples)
        terms = [
            torch.logsumexp(distances / (-2 * sigma**2), 1)
            - math.log(count)
            - dimension * math.log(sigma * math.sqrt(2 * math.pi))
            for sigma in sigmas
        ]
        parts.append(torch.stack(terms))
    return torch.cat(parts, 1)


def _shared_log_likelihoods(
    world: World, examples: Tensor, samples: Tensor, sigmas: tuple[float, ...]
) -> Tensor:
    mine = examples[world.slice_of(len(examples))].to(world.device)
    return world.gather(log_likelihoods(mine, samples, sigmas).t().contiguous(), len(examples)).t()


def _pixels(examples: Examples) -> Tensor:
    stored = examples.tensors[examples.spec.target].flatten(1)
    return stored.double() / 255 if stored.dtype == torch.uint8 else (stored.double() + 1) / 2


def parzen_figures(
    generate: Generate,
    *,
    validation: Examples,
    test: Examples | None,
    world: World,
    samples: int = SAMPLES,
    batch_size: int = 500,
) -> dict[str, float]:
    """Parzen log-likelihood, Goodfellow et al. 2014 (arXiv:1406.2661, section 5 and their code).

    10,000 samples; sigma by the likelihood of the first 1,000 validation images, among ten from
    0.1 to 1; then the mean over all test images and its standard error. Pixels are in [0, 1].

    Gives ``parzen_validation`` and ``parzen_sigma``, which may choose a step, and, with ``test``,
    ``parzen_log_likelihood`` and ``parzen_standard_error``. All ranks call it, work on it
    together, and get the same figures: NaN if a sample is not finite. ``generate`` as in
    :class:`~gan_core.metrics.evaluation.Evaluator`, with indices in 0..samples.
    """
    shape = validation.spec.target_shape
    made = list(generated(generate, world, samples, batch_size, shape))
    images = torch.cat([images for images, _ in made]).clamp_(-1, 1).flatten(1).add(1).div(2)
    finite = world.gather(torch.cat([finite for _, finite in made]).to(torch.uint8), samples)
    images = world.gather(images, samples)
    tuning = _pixels(validation)[:VALIDATION_IMAGES]
    scores = _shared_log_likelihoods(world, tuning, images, SIGMAS).mean(1)
    best = int(scores.argmax())
    figures = {"parzen_validation": scores[best].item(), "parzen_sigma": SIGMAS[best]}
    if test is not None:
        (values,) = _shared_log_likelihoods(world, _pixels(test), images, (SIGMAS[best],))
        figures["parzen_log_likelihood"] = values.mean().item()
        figures["parzen_standard_error"] = values.std().item() / math.sqrt(len(values))
    if not bool(finite.all()):
        log.warning(
            "%d of %d samples are not finite: the Parzen figures are NaN",
            int((finite == 0).sum()),
            samples,
        )
        return dict.fromkeys(figures, math.nan)
    return figures


def parzen_protocol(validation: Examples, test: Examples | None, samples: int = SAMPLES) -> str:
    """One line that says what the figures of :func:`parzen_figures` mean."""
    tuned = min(len(validation), VALIDATION_IMAGES)
    judged = "no test images" if test is None else f"{len(test)} images of {test.told}"
    return (
        f"Parzen window (Goodfellow et al. 2014): {samples} generated, sigma of 10 from 0.1 to 1 "
        f"by {tuned} images of {validation.told}, {judged}, pixels in [0, 1]"
    )
