"""Differentiable augmentation against a picture-by-picture reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gan_core.errors import UserError
from gan_core.layers.augmentation import OPERATIONS, Augmentation

EDGE = 1 - 1e-9


def pictures(n: int, height: int = 40, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((n, 3, height, width), generator=generator, dtype=torch.float64) * 2 - 1


def numbers(n: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand((n, count), generator=generator, dtype=torch.float64)


def colored(image: Tensor, u: list[float]) -> Tensor:
    image = image + u[0] - 0.5
    gray = image.mean(0, keepdim=True)
    image = (image - gray) * 2 * u[1] + gray
    return (image - image.mean()) * (u[2] + 0.5) + image.mean()


def translated(image: Tensor, u: list[float]) -> Tensor:
    height, width = image.shape[1:]
    down, right = (
        int(v * (2 * ((n + 4) // 8) + 1)) - (n + 4) // 8
        for v, n in zip(u, (height, width), strict=True)
    )
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[:, y, x] = image[:, y - down, x - right]
    return result


def cut(image: Tensor, u: list[float]) -> Tensor:
    result, inside = image.clone(), []
    for v, size in zip(u, image.shape[1:], strict=True):
        side = (size + 1) // 2
        first = int(v * (size + (1 - side % 2))) - side // 2
        inside.append(slice(max(first, 0), max(first + side, 0)))
    result[:, inside[0], inside[1]] = 0
    return result


def flipped(image: Tensor, u: list[float]) -> Tensor:
    return image if u[0] < 0.5 else image.flip(2)


REFERENCES = {"color": colored, "translation": translated, "cutout": cut, "flip": flipped}


@pytest.mark.parametrize("name", ["translation", "cutout", "flip"])
def test_pictures_in_bfloat16_are_changed_in_the_same_places(name: str) -> None:
    augmentation = Augmentation((name,))
    chosen = numbers(200, augmentation.numbers).float()
    shown = pictures(200, 256, 256).float()[:, :1].bfloat16()  # a real picture and a generated one
    assert torch.equal(augmentation(shown, chosen), augmentation(shown.float(), chosen).bfloat16())


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("shape", [(16, 16), (40, 24), (20, 23)])
def test_an_operation_is_its_reference(name: str, shape: tuple[int, int]) -> None:
    operation = Augmentation.parse(name)
    images, given = pictures(40, *shape), numbers(40, operation.numbers)
    expected = [REFERENCES[name](i, u) for i, u in zip(images, given.tolist(), strict=True)]
    torch.testing.assert_close(operation(images, given), torch.stack(expected))


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("edge", [0.0, EDGE, 1.0])
def test_the_edges_of_the_random_numbers_are_safe(name: str, edge: float) -> None:
    operation = Augmentation.parse(name)
    images = pictures(1)
    result = operation(images, torch.full((1, operation.numbers), edge, dtype=torch.float64))
    last = [min(edge, EDGE)] * operation.numbers
    torch.testing.assert_close(result[0], REFERENCES[name](images[0], last))


def test_operations_follow_each_other_in_one_order_with_numbers_of_their_own() -> None:
    both, reverse = Augmentation.parse("color, flip"), Augmentation.parse("flip,color")
    assert both == reverse
    assert (both.names, both.numbers) == (("color", "flip"), 4)
    images, given = pictures(8), numbers(8, 4)
    expected = [
        flipped(colored(i, u[:3]), u[3:]) for i, u in zip(images, given.tolist(), strict=True)
    ]
    torch.testing.assert_close(both(images, given), torch.stack(expected))
    assert Augmentation.parse("none").numbers == 0


def test_gradients_flow_twice() -> None:
    operation = Augmentation.parse("color,translation,cutout,flip")
    images, given = pictures(2, 8, 8), numbers(2, operation.numbers)
    assert torch.autograd.gradcheck(
        lambda x: operation(x, given), (images.requires_grad_(),), fast_mode=True
    )
    assert torch.autograd.gradgradcheck(lambda x: operation(x, given), (images,), fast_mode=True)


def test_an_unknown_operation_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown --diffaug 'colour': did you mean 'color'"):
        Augmentation.parse("colour,flip")
