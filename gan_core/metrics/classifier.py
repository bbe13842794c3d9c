"""A small classifier, trained once on the labelled source: the extractor that fits any size."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.examples import DataSpec, Examples, to_unit_range
from gan_core.data.stacked import STACKED, unstack
from gan_core.errors import UserError
from gan_core.metrics.cache import load_tensors, save_tensors
from gan_core.metrics.features import EXTRACTORS, Extractor, ExtractorSetup
from gan_core.metrics.numerics import exact_float32, private_randomness
from gan_core.metrics.ranks import share_state

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the network or its training changes: cached classifiers are then not found."""


def _stage(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ClassifierNetwork(nn.Module):
    """Five convolutions and a mean over places: images (N, C, H, W) to features and logits (N, K).

    64 features for gray pictures, 128 for colour. Pictures larger than about 48 pixels pass a
    first layer with a stride, so that the cost stays that of 32 pixels.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        stride = max(1, round(min(height, width) / 32))
        narrow = 16 if channels == 1 else 32
        self.features = 4 * narrow
        self.body = nn.Sequential(
            _stage(channels, narrow, 3 if stride == 1 else 2 * stride + 1, stride),
            nn.MaxPool2d(2),
            _stage(narrow, 2 * narrow),
            _stage(2 * narrow, 2 * narrow),
            nn.MaxPool2d(2, ceil_mode=True),
            _stage(2 * narrow, 4 * narrow),
            _stage(4 * narrow, 4 * narrow),
        )
        self.head = nn.Linear(self.features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images).mean((2, 3))
        return features, self.head(features)


class StackedNetwork(nn.Module):
    """A network of gray pictures on each channel of stacked ones.

    Images (N, C, H, W) to features (N, C d) and logits (N, 10^C): the sums of the channels' log
    probabilities, of which the largest is the number that the most likely digits make.
    """

    def __init__(self, single: nn.Module) -> None:
        super().__init__()
        self.single = single

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.single(images.flatten(0, 1).unsqueeze(1))
        parts = F.log_softmax(logits, 1).unflatten(0, images.shape[:2]).unbind(1)
        joint = parts[0]
        for part in parts[1:]:
            joint = (joint[:, :, None] + part[:, None, :]).flatten(1)
        return features.reshape(len(images), -1), joint


@dataclasses.dataclass(frozen=True)
class _Budget:
    epochs: int
    batch: int = 128
    rate: float = 0.01
    weight_decay: float = 0.01

    @classmethod
    def for_examples(cls, count: int, channels: int) -> _Budget:
        """Enough passes: 25 for a small set, 3 for a large gray one, 6 for a large colour one."""
        least = 3 if channels == 1 else 6
        return cls(max(least, min(25, math.ceil(60_000 / count))), min(128, count))


def _images(examples: Examples, index: Tensor | slice, device: torch.device) -> Tensor:
    stored = examples.tensors[examples.spec.target][index].to(device)
    images = to_unit_range(stored) if stored.dtype == torch.uint8 else stored
    return images.to(memory_format=torch.channels_last)


def _new_network(examples: Examples, seed: int, device: torch.device) -> ClassifierNetwork:
    shape = examples.spec.target_shape
    with private_randomness(seed):
        network = ClassifierNetwork((shape[0], shape[1], shape[2]), examples.spec.classes)
    return network.to(device)


@contextmanager
def _repeatable() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        with exact_float32(), torch.enable_grad():
            yield
    finally:
        torch.backends.cudnn.deterministic = before


def train_classifier(train: Examples, device: torch.device, seed: int = 0) -> ClassifierNetwork:
    """A classifier of the labelled pictures ``train``, by AdamW and a one-cycle schedule.

    Uses a generator of its own: the global ones are as before. Exact float32 and deterministic
    algorithms: the same data and seed give the same network on the same kind of device.
    """
    budget = _Budget.for_examples(len(train), train.spec.target_shape[0])
    network = _new_network(train, seed, device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=budget.weight_decay)
    batches = len(train) // budget.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.rate, total_steps=budget.epochs * batches
    )
    generator = torch.Generator().manual_seed(seed)
    with _repeatable():
        for epoch in range(budget.epochs):
            order = torch.randperm(len(train), generator=generator)
            for index in order[: batches * budget.batch].split(budget.batch):
                _, logits = network(_images(train, index, device))
                loss = F.cross_entropy(logits, train.tensors["label"][index].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
            log.info("training the classifier: epoch %d of %d", epoch + 1, budget.epochs)
    return network.eval()


@torch.no_grad()
def accuracy(network: ClassifierNetwork, examples: Examples, device: torch.device) -> float:
    """The share of ``examples`` that ``network`` (in evaluation mode) labels rightly."""
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with exact_float32():
        for index in torch.arange(len(examples)).split(500):
            _, logits = network(_images(examples, index, device))
            correct += (logits.argmax(1) == examples.tensors["label"][index].to(device)).sum()
    return correct.item() / len(examples)


def check_spec(spec: DataSpec, source: str) -> None:
    """Raises ``UserError`` if no classifier can be made for data like ``spec``."""
    if not spec.classes:
        raise UserError(
            f"--extractor classifier needs labels and '{source}' has none: "
            "choose mobilenet_v2 or inception"
        )
    if not spec.labelled:
        raise UserError(
            f"--extractor classifier needs two classes or more and '{source}' has one: "
            "choose mobilenet_v2 or inception"
        )
    if not spec.pictures or min(spec.target_shape[1:]) < 4:
        raise UserError(
            f"--extractor classifier needs pictures of at least 4 x 4 pixels; "
            f"'{source}' has {spec.target_shape}: choose no extractor"
        )


@EXTRACTORS.register("classifier")
class ClassifierExtractor(Extractor):
    """The penultimate layer of a small network trained on the source itself.

    Its logits are over the source's own classes, which is what mode coverage counts.
    """

    name = "classifier"
    summary = "a small network trained once on the labelled source and cached; any picture size"

    @classmethod
    def create(cls, setup: ExtractorSetup) -> ClassifierExtractor:
        """Rank 0 trains it, or finds it in the cache by the content of the train split.

        Raises ``UserError`` for a source without labels, or of anything but pictures.
        """
        train = setup.train
        if train is None or (setup.test is None and setup.world.leads):
            raise ValueError("the classifier is made from labelled train and test examples")
        check_spec(train.spec, train.source)
        stacked = train.source == STACKED
        if stacked:
            test = None if setup.test is None else unstack(setup.test)
            setup = dataclasses.replace(setup, train=unstack(train), test=test)
            train = setup.train
            assert train is not None
        state, facts = share_state(setup.world, lambda: _with_guess(setup, train))
        network = _new_network(train, setup.seed, setup.world.device)
        network.load_state_dict(state)
        protocol = {
            "weights": facts["weights"],
            "test accuracy": f"{float(facts['accuracy']):.4f}",
            "resizer": "none",
            "precision": "fp32",
            "layer": f"penultimate, {network.features}-d",
        }
        if stacked:
            protocol["layer"] += " a channel, classified by itself"
        whole = StackedNetwork(network) if stacked else network
        extractor = cls(whole, protocol, setup.world.device)
        extractor.test_accuracy = float(facts["accuracy"])
        extractor.guess = float(facts["guess"])
        return extractor

    test_accuracy: float = math.nan
    guess: float = math.nan
    """The share of the test split's largest class: what always to name that would get right."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network(images.contiguous(memory_format=torch.channels_last))


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _with_guess(
    setup: ExtractorSetup, train: Examples
) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """The network and its facts, with what always to name the largest class would get right."""
    state, facts = _load_or_train(setup, train)
    assert setup.test is not None, "rank 0 has the test split"
    counts = torch.bincount(setup.test.tensors["label"].flatten().cpu())
    return state, {**facts, "guess": repr(counts.max().item() / counts.sum().item())}


def _load_or_train(
    setup: ExtractorSetup, train: Examples
) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    path, test = None, setup.test
    assert test is not None, "rank 0 has the test split"
    if setup.cache is not None:
        key = f"{train.fingerprint}-v{VERSION}-s{setup.seed}"
        path = setup.cache / f"classifier-{key}.safetensors"
        found = _load(path, train, setup)
        if found is not None:
            return _judged_by(test, *found, train, setup)
    log.info("training the classifier on %d examples of %s", len(train), train.source)
    started = time.monotonic()
    network = train_classifier(train, setup.world.device, setup.seed)
    share = accuracy(network, test, setup.world.device)
    seconds = time.monotonic() - started
    log.info("the classifier reads %.2f %% of the test split (%.1f s)", 100 * share, seconds)
    state = network.state_dict()
    facts = {"weights": _digest(state), "accuracy": repr(share), "test": test.fingerprint}
    if path is not None:
        save_tensors(path, state, facts)
    return state, facts


def _judged_by(
    test: Examples,
    state: Mapping[str, Tensor],
    facts: dict[str, str],
    train: Examples,
    setup: ExtractorSetup,
) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """A kept classifier with its accuracy on ``test``, which may have changed since it was kept.

    The file stays as it is: runs on another test split may share the cache.
    """
    now = test.fingerprint
    if facts.get("test") == now:
        return state, facts
    network = _new_network(train, setup.seed, setup.world.device)
    network.load_state_dict(state)
    share = accuracy(network.eval(), test, setup.world.device)
    return state, {**facts, "accuracy": repr(share), "test": now}


def _load(
    path: Path, train: Examples, setup: ExtractorSetup
) -> tuple[Mapping[str, Tensor], dict[str, str]] | None:
    """What an earlier run has kept, if it is whole: the right tensors with the right hash."""
    found = load_tensors(path)
    if found is None:
        return None
    state, facts = found
    expected = _new_network(train, setup.seed, torch.device("cpu")).state_dict()
    fits = {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in expected.items()}
    if not fits or facts.get("weights") != _digest(state) or "accuracy" not in facts:
        log.warning("the cached classifier %s is damaged: training it again", path)
        return None
    return state, facts
