"""Reflecting borders: torch's numbers, gradients and second gradients, in either layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.layers.reflection import ReflectingConv2d, reflected


def pictures(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(2, 3, rows, columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("rows", "columns", "border"), [(7, 5, 1), (4, 6, 3), (9, 9, 3)])
def test_reflections_are_torchs_and_so_is_their_gradient(
    rows: int, columns: int, border: int, layout: torch.memory_format
) -> None:
    values = pictures(rows, columns).to(memory_format=layout).requires_grad_()
    weights = pictures(rows + 2 * border, columns + 2 * border)
    found, expected = reflected(values, border), F.pad(values, (border,) * 4, mode="reflect")
    assert torch.equal(found, expected)
    gradients = [
        torch.autograd.grad((padded.square() * weights).sum(), values)[0]
        for padded in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_the_gradient_can_be_differentiated() -> None:
    values = pictures(4, 5)[:1, :1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reflected(x.square(), 2), values)
    assert torch.autograd.gradgradcheck(lambda x: reflected(x.square(), 2), values)


@pytest.mark.parametrize("compiling", [False, True])
def test_the_convolution_is_torchs(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    layer, values = ReflectingConv2d(3, 4, 5).double(), pictures(8, 6)
    plain = nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect").double()
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(values), plain(values))
