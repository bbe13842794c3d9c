"""Does a picture match its text? A matcher of pictures and texts, and what it finds.

The matcher is trained on the training split alone and judges pictures that it has not seen: real
held-out ones, which show how good it is, and generated ones. For every picture and every other
example's text it is asked whether the picture is nearer to its own text: chance is 1/2.
"""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import Examples
from gan_core.engine.world import World
from gan_core.layers.captions import chosen_captions, mean_caption
from gan_core.metrics.cache import load_tensors, save_tensors
from gan_core.metrics.features import Extractor
from gan_core.metrics.numerics import exact_float32, private_randomness
from gan_core.metrics.ranks import share_state
from gan_core.metrics.real import real_features

log = logging.getLogger(__name__)

VERSION = 2
"""Raise it when the matcher or its training changes: cached matchers are then not found."""
_SHARED = 256  # dimensions of the space in which pictures and texts meet
_UPDATES, _BATCH, _RATE, _WEIGHT_DECAY = 600, 256, 1e-3, 0.1
_HOTTEST = 100.0  # of the similarities, as in CLIP
_ROWS = 1_000  # pictures that are asked at once


class MatchingNetwork(nn.Module):
    """Pictures' features (N, F) and texts (M, d) to points on one sphere: cosines are matches."""

    def __init__(self, features: int, text: int) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            nn.BatchNorm1d(features, affine=False), nn.Dropout(0.5), nn.Linear(features, _SHARED)
        )
        self.text = nn.Sequential(nn.Dropout(0.1), nn.Linear(text, _SHARED))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Cosines (N, M)."""
        pictures = F.normalize(self.picture(features), dim=1)
        return pictures @ F.normalize(self.text(text), dim=1).t()


def contrastive_loss(cosines: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of finding each picture's text among all, and each text's picture.

    ``cosines`` (N, N), right pairs on the diagonal. Radford et al. 2021 (arXiv:2103.00020),
    figure 3; log N where all cosines are equal.
    """
    right = torch.arange(len(cosines), device=cosines.device)
    logits = scale.clamp(max=_HOTTEST) * cosines
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.t(), right)) / 2


def preference(cosines: Tensor, texts: Tensor) -> float:
    """The share of pairs of a picture and a wrong text whose right text is nearer: chance 1/2.

    ``cosines`` (N, N): of picture i with text j. Every text but the picture's own (and those equal
    to it, of ``texts`` (N, d)) is wrong once; a tie counts half. NaN if no text is wrong.
    """
    right = cosines.diagonal()
    _, text = texts.unique(dim=0, return_inverse=True)  # equal texts have one number
    wins, asked = 0.0, 0
    for rows in torch.arange(len(cosines), device=cosines.device).split(_ROWS):
        own, found = right[rows, None], cosines[rows]
        wrong = text[rows, None] != text
        won = (own > found).double() + 0.5 * (own == found).double()
        wins += float((won * wrong).sum())
        asked += int(wrong.sum())
    return wins / asked if asked else math.nan


def train_matcher(
    features: Tensor, captions: Tensor, device: torch.device, seed: int = 0
) -> MatchingNetwork:
    """A matcher of pictures' ``features`` (N, F) with the mean of some of their ``captions``
    (N, K, d), drawn anew each time; by AdamW, the rate falling as a cosine.

    Draws from generators of its own; exact float32. It learns on the CPU, whose random numbers (its
    dropout's among them) are the same everywhere, and is then moved to ``device``.
    """
    features, captions = features.cpu(), captions.cpu()
    count, most, size = captions.shape
    with private_randomness(seed), torch.enable_grad(), exact_float32():
        network = MatchingNetwork(features.shape[1], size).train()
        optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _UPDATES)
        for _ in range(_UPDATES):
            index = torch.randperm(count)[:_BATCH]
            numbers = torch.rand(len(index), most + 1)
            text = mean_caption(captions[index], chosen_captions(numbers, most, fewer=True))
            loss = contrastive_loss(network(features[index], text), network.log_scale.exp())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.to(device).eval().requires_grad_(False)


class Matcher:
    """A trained matcher with the extractor whose features it reads.

    ``protocol`` is a line that says how its figures came about.
    """

    def __init__(self, network: MatchingNetwork, extractor: Extractor, pairs: int) -> None:
        self.network, self.extractor = network, extractor.name
        self.protocol = (
            f"a linear matcher of {extractor} with texts, trained on {pairs} training pictures "
            "(contrastive); share of wrong texts (those of all others) that a picture prefers its "
            "own to, chance 0.5; excess: the generated share above chance over the real one's"
        )

    @torch.no_grad()
    def preference(self, features: Tensor, captions: Tensor) -> float:
        """:func:`preference` of pictures' ``features`` (N, F) for the mean of their ``captions``
        (N, K, d) over that of the others.
        """
        device = self.network.log_scale.device
        texts = captions.to(device).mean(dim=1)
        with exact_float32():
            return preference(self.network(features.to(device), texts), texts)


def create_matcher(
    train: Examples, extractor: Extractor, world: World, cache: Path | None, seed: int = 0
) -> Matcher:
    """The matcher of the pictures and texts of ``train``, by rank 0, or from ``cache``.

    Every rank calls it. ``train`` has captions, ``text`` (N, K, d).
    """
    features = real_features(train, extractor, world, cache)
    captions = train.tensors["text"]

    def make() -> tuple[dict[str, Tensor], dict[str, str]]:
        key = f"{train.fingerprint}-{extractor.fingerprint}-v{VERSION}-s{seed}"
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        path = None if cache is None else cache / f"matcher-{name}.safetensors"
        found = load_tensors(path) if path is not None else None
        if found is not None:
            return found
        log.info("training the matcher of pictures and texts on %d pairs", len(train))
        state = train_matcher(features, captions, world.device, seed).state_dict()
        facts = {"features": str(features.shape[1])}
        if path is not None:
            save_tensors(path, state, facts)
        return dict(state), facts

    state, facts = share_state(world, make)
    with private_randomness(seed):
        network = MatchingNetwork(int(facts["features"]), captions.shape[2])
    network.load_state_dict(state)
    return Matcher(network.to(world.device).eval().requires_grad_(False), extractor, len(train))
