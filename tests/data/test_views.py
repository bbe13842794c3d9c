from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gan_core.data import DataSpec, Examples, TensorSpec, load_examples
from gan_core.data.examples import to_pixels, to_unit_range
from gan_core.data.sources import picture_spec
from gan_core.data.views import SquareView, View


def random_pictures(rows: int, columns: int, count: int = 5, channels: int = 1) -> Examples:
    generator = torch.Generator().manual_seed(rows)
    shape = (count, channels, rows, columns)
    image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    label = torch.arange(count)
    names = tuple(map(str, range(count)))
    spec = picture_spec((channels, rows, columns), names)
    return Examples({"image": image, "label": label}, spec, "random")


@pytest.mark.parametrize(("rows", "columns"), [(28, 28), (28, 32), (31, 29), (32, 32)])
def test_padding_and_restoring_give_the_very_same_pictures(rows, columns):
    examples = random_pictures(rows, columns)
    view = SquareView(32)
    prepared = view.prepare(examples)
    assert prepared.tensors["image"].shape == (5, 1, 32, 32)
    floats = view.present(dict(prepared.tensors))["image"]
    restored = view.restore(floats, (1, rows, columns))
    assert torch.equal(to_pixels(restored), examples.tensors["image"])


def test_padding_adds_two_black_pixels_on_each_side_of_28():
    image = torch.full((1, 1, 28, 28), 9, dtype=torch.uint8)
    examples = Examples({"image": image}, picture_spec((1, 28, 28)), "nine")
    padded = SquareView(32).prepare(examples).tensors["image"][0, 0]
    assert padded.sum() == 9 * 28 * 28
    assert (padded[2:30, 2:30] == 9).all()


def test_enlarging_digits_and_restoring_them_gives_nearly_the_same_pictures():
    digits = load_examples("digits", None, "test")
    view = SquareView(32)
    floats = view.present(dict(view.prepare(digits).tensors))["image"]
    assert floats.shape == (360, 1, 32, 32)
    restored = view.restore(floats, (1, 8, 8))
    error = (restored - to_unit_range(digits.tensors["image"])).abs()
    assert error.mean() < 0.02  # of a range of 2: enlarging blurs a little
    assert restored.min() >= -1
    assert restored.max() <= 1


def test_shrinking_averages_a_checkerboard_to_gray():
    # 3 to 1: without antialiasing every third pixel would be taken, a checkerboard again.
    board = (torch.arange(96)[:, None] + torch.arange(96)[None]) % 2 * 255
    image = board.to(torch.uint8)[None, None]
    examples = Examples({"image": image}, picture_spec((1, 96, 96)), "board")
    shrunk = SquareView(32).prepare(examples).tensors["image"].float()
    assert (shrunk[..., 2:-2, 2:-2] - 127.5).abs().max() <= 2


@pytest.mark.parametrize("native", [8, 50])
def test_resized_pixels_are_rounded_to_the_nearest(native):
    examples = random_pictures(native, native)
    found = SquareView(32).prepare(examples).tensors["image"].double()
    exact = F.interpolate(
        examples.tensors["image"].double(), size=(32, 32), mode="bicubic", antialias=True
    ).clamp(0, 255)
    assert (found - exact).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (32, 32), (100, 60)])
@pytest.mark.parametrize("view", [View(), SquareView(32), SquareView(64)])
def test_the_specification_through_a_view_is_that_of_the_prepared_examples(view, size):
    examples = random_pictures(*size, channels=3)
    prepared = view.prepare(examples)
    assert prepared.spec == view.through(examples.spec)
    assert tuple(prepared.tensors["image"].shape[1:]) == prepared.spec.target_shape
    assert torch.equal(prepared.tensors["label"], examples.tensors["label"])


def test_a_plain_view_leaves_points_as_they_are():
    points = torch.tensor([[0.5, -3.0]])
    spec = DataSpec({"point": TensorSpec((2,))}, target="point")
    view = View()
    prepared = view.prepare(Examples({"point": points}, spec, "points"))
    assert torch.equal(view.present(dict(prepared.tensors))["point"], points)
    assert torch.equal(view.restore(points, (2,)), points)


def test_presented_pictures_span_minus_one_to_one():
    stored = {"image": torch.tensor([[0, 255]], dtype=torch.uint8), "label": torch.tensor([3])}
    presented = View().present(stored)
    assert presented["image"].tolist() == [[-1.0, 1.0]]
    assert presented["label"].dtype == torch.int64
