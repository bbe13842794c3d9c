"""DCGAN as a feature extractor (Radford et al. 2015, section 5.1), on labelled pictures.

    python -m benchmarks.dcgan_features --data-root FOLDER_WITH_train_AND_test

A DCGAN is trained on the training pictures without their labels. All of its discriminator's
convolutional layers, max-pooled to 4 x 4 places and laid side by side, are then the features of a
linear L2-SVM (scikit-learn), whose C is chosen on a tenth of its training examples. Beside it stand
the same features of the discriminator before training, and the pixels themselves: what the training
adds is the difference. The paper: 82.8 % on CIFAR-10 with a discriminator trained on ImageNet-1k,
80.6 % by K-means features (Coates and Ng 2011).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.kept import check_run
from benchmarks.settings import read_settings
from benchmarks.stopping import UntilDeadline, stoppable
from gan_core.config import RunConfig, make_config
from gan_core.data.examples import Examples, to_unit_range
from gan_core.engine.averaging import STATISTICS_BATCHES, measure_batch_statistics
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.run import Run
from gan_core.splits import load_split
from gan_core.variants.dcgan import Discriminator

PLACES = 4
"""Places a side to which every layer's maps are pooled."""
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
"""The SVM's C among which a tenth of its training examples chooses."""
_BATCH = 500
Array = npt.NDArray[np.float32]


@torch.no_grad()
def pooled_features(discriminator: Discriminator, images: Tensor) -> Tensor:
    """All convolutional layers' activations (N, 16 times their channels) of images in [-1, 1].

    28,672 numbers for the six layers of the paper's network.
    """
    found = []
    for layer in discriminator.layers:
        images = layer(images)
        if isinstance(layer, nn.LeakyReLU):
            found.append(F.adaptive_max_pool2d(images, PLACES).flatten(1))
    return torch.cat(found, dim=1)


def features_of(discriminator: Discriminator | None, examples: Examples, run: Run) -> Array:
    """Features (N, d) of ``examples``; without a discriminator their pixels."""
    view, device = run.game.stage.view, run.world.device
    stored = view.prepare(examples).tensors["image"]
    parts = []
    for part in stored.split(_BATCH):
        images = to_unit_range(part.to(device))
        seen = (
            images.flatten(1) if discriminator is None else pooled_features(discriminator, images)
        )
        parts.append(seen.cpu())
    return torch.cat(parts).numpy()


@torch.no_grad()
def untrained_state(run: Run) -> dict[str, Tensor]:
    """The discriminator's state before training, with batch statistics of training pictures.

    Fresh ones are 0 and 1, those of a trained one measured: that is no merit of its weights.
    """
    discriminator = copy.deepcopy(run.game.variant.discriminator)
    assert isinstance(discriminator, Discriminator)
    size = run.config.game.batch_size
    seen = chosen(run.train, size * STATISTICS_BATCHES)
    stored = run.game.stage.view.prepare(seen).tensors["image"].split(size)
    batches = [to_unit_range(part.to(run.world.device)) for part in stored]
    measure_batch_statistics(discriminator, lambda i: discriminator(batches[i]), len(batches))
    return discriminator.state_dict()


def svm_accuracy(train: Array, labels: Tensor, test: Array, test_labels: Tensor) -> dict[str, Any]:
    """Test accuracy of a linear L2-SVM on standardised features, and the C that was chosen."""
    from sklearn.svm import LinearSVC

    mean: Array = train.mean(0)
    deviation: Array = np.maximum(train.std(0), 1e-6)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    answers, kept = labels.numpy(), len(train) - len(train) // 10

    def fitted(strength: float, count: int) -> Any:
        machine = LinearSVC(C=strength, dual=False, tol=1e-3, max_iter=200)
        return machine.fit(train[:count], answers[:count])

    scores = {c: fitted(c, kept).score(train[kept:], answers[kept:]) for c in STRENGTHS}
    strength = max(scores, key=lambda c: scores[c])
    accuracy = fitted(strength, len(train)).score(test, test_labels.numpy())
    return {"accuracy": float(accuracy), "C": strength, "dimensions": train.shape[1]}


def config_of(arguments: argparse.Namespace) -> RunConfig:
    """The DCGAN's run."""
    extra = read_settings(arguments.set)
    return make_config(
        {
            "variant": "dcgan",
            "data": "folder",
            "data_root": str(arguments.data_root),
            "workers": 0,
            "log_every": 100,
            "evaluate_every": 0,
            "checkpoint_every": 100,
            "extractor": "none",
            "storage": str(arguments.out),
            "name": "dcgan",
            "steps": arguments.steps,
            **extra,
        }
    )


def chosen(examples: Examples, count: int) -> Examples:
    """``count`` of the ``examples``, the same ones always."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    return examples.select(order[:count])


def main() -> None:
    """Train (or go on), extract, fit, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="class folders by split")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so many")
    parser.add_argument("--train", type=int, default=50_000, help="examples the SVM learns from")
    parser.add_argument("--test", type=int, default=10_000, help="examples it is judged by")
    parser.add_argument("--out", type=Path, default=Path("runs/dcgan_features"))
    parser.add_argument("--set", nargs="*", default=[], help="DCGAN's options, as name=value")
    arguments = parser.parse_args()
    config = config_of(arguments)
    check_run(config)
    world = World.current(None)
    deadline = time.time() + 60 * arguments.minutes
    run = Run(config, world, UntilDeadline(config.folder, world, deadline))
    before = run.game.variant.discriminator
    assert isinstance(before, Discriminator)
    initial = untrained_state(run)
    with stoppable(config):
        summary = run.play(find_checkpoint(config.folder))
    if summary["status"] != "finished":
        print(f"at step {summary['step']}: give the command again to go on")
        return
    trained = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    train = chosen(load_split(config, "train+validation"), arguments.train)
    test = chosen(load_split(config, "test"), arguments.test)
    report: dict[str, Any] = {"steps": summary["step"], "train": len(train), "test": len(test)}
    discriminator = before.eval().requires_grad_(False)
    for name, state in {"trained": trained, "untrained": initial, "pixels": None}.items():
        if state is not None:
            discriminator.load_state_dict(state)
        network = None if state is None else discriminator
        made = [features_of(network, examples, run) for examples in (train, test)]
        report[name] = svm_accuracy(made[0], train.tensors["label"], made[1], test.tensors["label"])
        print(name, report[name], flush=True)
    (arguments.out / "result.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
