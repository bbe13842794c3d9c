"""Stacked MNIST: three digits a picture, and the classifier that reads them one by one."""

from __future__ import annotations

import math

import pytest
import torch
from test_idx_sources import write_set
from torch import Tensor, nn

from gan_core.data import load_examples, stacked
from gan_core.data.stacked import unstack
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.metrics.classifier import StackedNetwork
from gan_core.metrics.coverage import class_shares, mode_figures
from gan_core.metrics.extractors import create_extractor


def test_every_channel_is_a_digit_and_the_class_is_the_number_that_they_make(tmp_path) -> None:
    write_set(tmp_path, train=120, test=40)
    digits = load_examples("mnist", tmp_path, "train").tensors
    made = load_examples("stacked-mnist", tmp_path, "train", examples=300)
    assert made.tensors["image"].shape == (300, 3, 2, 3)
    assert made.spec.classes == 1000
    assert made.spec.class_names[42] == "042"
    for image, label in zip(made.tensors["image"][:50], made.tensors["label"][:50], strict=True):
        found = []
        for channel in image:
            matches = (digits["image"][:, 0] == channel).flatten(1).all(1)
            found.append(digits["label"][matches].unique().tolist())
        assert [[int(d)] for d in f"{label.item():03d}"] == found


def test_the_sizes_are_the_protocols_and_the_seed_decides(tmp_path) -> None:
    write_set(tmp_path, train=120, test=40)
    test = load_examples("stacked-mnist", tmp_path, "test")
    assert len(test) == len(load_examples("stacked-mnist", tmp_path, "validation")) == 26_000
    assert stacked.SIZES["train"] == 128_000
    again = load_examples("stacked-mnist", tmp_path, "test")
    other = load_examples("stacked-mnist", tmp_path, "test", stack_seed=1)
    assert torch.equal(test.tensors["label"], again.tensors["label"])
    assert not torch.equal(test.tensors["label"], other.tensors["label"])
    with pytest.raises(UserError, match="--stack-seed"):
        load_examples("stacked-mnist", tmp_path, "test", stack_seed=-1)


def test_unstacking_gives_the_digits_back(tmp_path) -> None:
    write_set(tmp_path, train=120, test=40)
    made = load_examples("stacked-mnist", tmp_path, "train", examples=40)
    single = unstack(made, limit=30)
    assert single.tensors["image"].shape == (90, 1, 2, 3)
    assert torch.equal(single.tensors["image"][:3, 0], made.tensors["image"][0])
    written = [int(d) for label in made.tensors["label"][:30] for d in f"{label.item():03d}"]
    assert single.tensors["label"].tolist() == written


class Means(nn.Module):
    """Says the digit that the mean of a channel is, times ten."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        means = images.mean((1, 2, 3))
        return means[:, None], -50 * (means[:, None] * 10 - torch.arange(10.0)).abs()


def test_each_channel_is_read_alone_and_the_numbers_are_joint() -> None:
    digits = torch.tensor([[4, 0, 9], [7, 7, 1]])
    images = (digits / 10.0)[:, :, None, None].expand(2, 3, 4, 4)
    features, logits = StackedNetwork(Means())(images)
    torch.testing.assert_close(features, digits / 10.0)
    assert logits.shape == (2, 1000)
    assert logits.argmax(1).tolist() == [409, 771]
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(2))


def test_the_extractor_of_stacked_digits_reads_the_number(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(256, (10, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.randint(1000, (400,), generator=generator)
    lines = shapes[labels[:, None] // torch.tensor([100, 10, 1]) % 10]
    spec = stacked.picture_spec((3, 8, 8), tuple(map(str, range(1000))))
    examples = stacked.Examples({"image": lines, "label": labels}, spec, stacked.STACKED)
    extractor = create_extractor("classifier", world=World(), train=examples, test=examples)
    _, logits = extractor.features(lines / 127.5 - 1)
    assert logits is not None
    assert (logits.argmax(1) == labels).float().mean() > 0.95
    assert "a channel" in extractor.protocol["layer"]


def test_a_perfect_sampler_of_a_thousand_modes_has_the_known_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    balance = class_shares(torch.arange(1000), 1000)
    found = mode_figures(torch.randint(1000, (26_000,), generator=generator), balance)
    assert found["modes_covered"] == 1000
    # (K - 1) / 2N with a standard deviation of sqrt(K / 2) / N
    assert found["mode_kl"] == pytest.approx(999 / 52_000, abs=4 * math.sqrt(500) / 26_000)
