"""Packing and the standard deviation of a minibatch, against brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.layers.minibatch import (
    group_deviation,
    pack,
    seen_by_discriminator,
    unpack,
    with_deviation,
)


def pictures(count: int, channels: int = 2, size: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)


def test_a_pack_holds_successive_examples_channel_after_channel() -> None:
    images = pictures(7)
    packed = pack(images, 3)
    assert packed.shape == (2, 6, 3, 3)
    for number in range(2):
        members = [images[3 * number + place] for place in range(3)]
        assert torch.equal(packed[number], torch.cat(members))
    points = torch.arange(8.0).reshape(4, 2)
    assert pack(points, 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert pack(images, 1) is images


def test_every_member_gets_its_packs_logit() -> None:
    logits = torch.tensor([1.0, 2.0])
    assert unpack(logits, 3, 6).tolist() == [1, 1, 1, 2, 2, 2]
    assert unpack(logits, 3, 7).tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert unpack(logits, 1, 2) is logits


@pytest.mark.parametrize("group", [2, 4, 5])
def test_the_deviation_is_that_of_each_group_alone(group: int) -> None:
    images = pictures(10)
    found = group_deviation(images, group)
    assert found.shape == (10,)
    for start in range(0, 10, group):
        members = images[start : start + group].flatten(1)
        expected = members.std(0, correction=0).mean() if len(members) > 1 else 1e-4
        for value in found[start : start + group]:
            assert value.item() == pytest.approx(float(expected), abs=1e-6)


def test_the_deviation_is_one_more_channel() -> None:
    images = pictures(8)
    found = with_deviation(images, 4)
    assert found.shape == (8, 3, 3, 3)
    assert torch.equal(found[:, :2], images)
    expected = group_deviation(images, 4)[:, None, None].expand(8, 3, 3)
    assert torch.equal(found[:, 2], expected)
    points = images.flatten(1)
    assert torch.equal(with_deviation(points, 4)[:, -1], group_deviation(points, 4))
    assert with_deviation(images, 0) is images


def test_equal_examples_have_a_finite_gradient() -> None:
    same = torch.ones(4, 1, 2, 2, requires_grad=True)
    group_deviation(same, 4).sum().backward()
    assert same.grad is not None
    assert torch.equal(same.grad, torch.zeros_like(same))


def test_the_discriminator_is_told_the_shape_that_it_sees() -> None:
    data = DataSpec({"image": TensorSpec((2, 3, 3), -1, 1), "label": TensorSpec((), classes=4)})
    for packing, group in ((1, 0), (3, 0), (1, 4), (2, 4)):
        seen = with_deviation(pack(pictures(12), packing), group)
        told = seen_by_discriminator(data, packing, group)
        assert told.target_shape == tuple(seen.shape[1:])
        assert told.classes == 4
