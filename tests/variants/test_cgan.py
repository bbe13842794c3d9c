"""The conditional GAN against its paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.errors import UserError
from gan_core.priors import Uniform
from gan_core.variant import create

IMAGE = TensorSpec((1, 28, 28), -1.0, 1.0)
MNIST = DataSpec({"image": IMAGE, "label": TensorSpec((), classes=10)})


def test_the_networks_have_the_papers_sizes() -> None:
    variant = create("cgan", MNIST, {})
    sizes = {
        name: tuple(m.weight.shape[::-1])
        for name, m in variant.named_modules()
        if isinstance(m, nn.Linear)
    }
    assert sizes == {
        "generator.from_latent": (100, 200),
        "generator.from_label": (10, 1000),
        "generator.joint": (1200, 1200),
        "generator.output.linear": (1200, 784),
        "discriminator.from_image.linear": (784, 240 * 5),
        "discriminator.from_label.linear": (10, 50 * 5),
        "discriminator.joint.linear": (290, 240 * 4),
        "discriminator.output": (240, 1),
    }
    dropped = {n: m.p for n, m in variant.named_modules() if isinstance(m, nn.Dropout)}
    assert dropped == {"generator.dropout": 0.5, "discriminator.dropout": 0.5}


def test_the_recipe_is_the_papers() -> None:
    variant = create("cgan", MNIST, {})
    assert variant.noise("train")[0].prior == Uniform(0.0, 1.0)
    assert variant.conditions() == ("label",)
    discriminator, generator = variant.stages()[0].players
    assert discriminator.reads == ("image", "label")
    assert generator.reads == ("label",)
    assert generator.optimizer.rate(1000) == pytest.approx(1.00004**-1000)
    assert (generator.optimizer.kind, generator.optimizer.learning_rate) == ("sgd", 0.1)


def test_the_picture_depends_on_the_label_and_on_the_noise() -> None:
    variant = create("cgan", MNIST, {}).eval()
    z = torch.rand(1, 100).expand(10, 100)
    with torch.no_grad():
        by_label = variant.sample("train", {"latent": z, "label": torch.arange(10)})["image"]
        by_noise = variant.sample(
            "train", {"latent": torch.rand(10, 100), "label": torch.full((10,), 3)}
        )["image"]
    for images in (by_label, by_noise):
        distances = torch.cdist(images.flatten(1), images.flatten(1))
        assert distances[~torch.eye(10, dtype=torch.bool)].min() > 0.1


def test_the_verdict_depends_on_the_label() -> None:
    variant = create("cgan", MNIST, {}).eval()
    image = torch.rand(1, 1, 28, 28).expand(10, 1, 28, 28)
    with torch.no_grad():
        logits = variant.discriminate(image, {"label": torch.arange(10)})
    assert len(logits.unique()) == 10


def test_data_without_labels_is_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"cgan needs a source with labels .*labelled source"):
        create("cgan", DataSpec({"image": IMAGE}), {})
