"""Attention, conditional normalisation, residual blocks and labels against plain references."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_core.layers.attention import SelfAttention, _pooled
from gan_core.layers.init import glorot_weights, orthogonal_weights
from gan_core.layers.labels import class_weights
from gan_core.layers.normalisation import ConditionalBatchNorm2d
from gan_core.layers.residual import DownBlock, UpBlock
from gan_core.layers.spectral import SpectralConv2d, SpectralLinear


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def test_attention_begins_as_the_identity_and_can_begin_to_learn() -> None:
    layer, values = SelfAttention(16), torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(values), values)
    (layer(values) * torch.randn_like(values)).sum().backward()
    assert layer.gamma.grad.abs() > 1e-3
    assert layer.query.weight.grad.abs().max() == 0  # behind a gain of zero


@pytest.mark.parametrize("second_order", [False, True])
def test_attention_is_its_definition(second_order: bool) -> None:
    layer = SelfAttention(16, second_order=second_order).double().eval()
    nn.init.constant_(layer.gamma, 0.7)
    values = torch.randn(2, 16, 6, 4, dtype=torch.float64) * 3
    query, key, value = layer.query(values), layer.key(values), layer.value(values)
    assert [t.shape[1] for t in (query, key, value)] == [2, 2, 8]
    key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
    result = torch.zeros(2, 8, 6, 4, dtype=torch.float64)
    for n in range(2):
        for i in range(6):
            for j in range(4):
                scores = torch.einsum("c,cyx->yx", query[n, :, i, j], key[n])
                weights = torch.softmax(scores.flatten(), 0)
                assert weights.sum().item() == pytest.approx(1)
                result[n, :, i, j] = value[n].flatten(1) @ weights
    torch.testing.assert_close(layer(values), values + 0.7 * layer.output(result))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_attention_finds_channels_together_and_copies_only_where_they_are_not(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    attend = F.scaled_dot_product_attention

    def noted(*heads: torch.Tensor, scale: float) -> torch.Tensor:
        seen.extend(heads)
        return attend(*heads, scale=scale)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    layer, values = SelfAttention(16).eval(), torch.randn(2, 16, 6, 4)
    maps = [torch.randn(2, c, h, 4).to(memory_format=layout) for c, h in ((2, 6), (2, 3), (8, 3))]
    given = [one.flatten(2).transpose(1, 2) for one in maps]
    found = layer._attend(*given)
    assert all(one.stride(-1) == 1 for one in seen)
    copied = [one.data_ptr() != own.data_ptr() for one, own in zip(seen, given, strict=True)]
    assert copied == [layout == torch.contiguous_format] * 3
    torch.testing.assert_close(found, attend(*(one[:, None] for one in given), scale=1.0)[:, 0])
    layer.to(memory_format=layout)(values.to(memory_format=layout))
    assert all(one.stride(-1) == 1 for one in seen)


def test_written_out_attention_has_a_second_derivative() -> None:
    layer, values = SelfAttention(8, second_order=True), torch.randn(1, 8, 4, 4)
    nn.init.constant_(layer.gamma, 0.5)
    values.requires_grad_()
    (slope,) = torch.autograd.grad(layer(values).square().sum(), values, create_graph=True)
    slope.square().sum().backward()
    assert layer.query.weight.grad.abs().max() > 0


def test_conditional_normalisation_has_a_gain_and_a_bias_for_each_class() -> None:
    layer = ConditionalBatchNorm2d(3, 4)
    values, label = torch.randn(8, 3, 5, 5) * 2 + 1, torch.arange(8) % 4
    plain = F.batch_norm(values, None, None, training=True)
    condition = class_weights(label, 4, values)
    torch.testing.assert_close(layer(values, condition), plain)
    gains, biases = torch.randn(3, 4), torch.randn(3, 4)
    with torch.no_grad():
        layer.gain.weight.copy_(gains)
        layer.bias.weight.copy_(biases)
    expected = torch.stack(
        [
            plain[i] * (1 + gains[:, c])[:, None, None] + biases[:, c][:, None, None]
            for i, c in enumerate(label.tolist())
        ]
    )
    torch.testing.assert_close(layer(values, condition), expected)


def test_spectral_conditions_have_no_bias_and_a_norm_of_one() -> None:
    layer = ConditionalBatchNorm2d(6, 4, spectral=True)
    values, condition = torch.randn(8, 6, 3, 3), torch.randn(8, 4)
    for _ in range(100):
        layer(values, condition)
    assert isinstance(layer.gain, SpectralLinear)
    assert layer.gain.bias is None
    norm = torch.linalg.matrix_norm(layer.gain.normalised_weight(), 2)
    assert norm.item() == pytest.approx(1, abs=1e-5)


@pytest.fixture(params=[False, True], ids=["", "compiled"])
def compiling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Layers take the way that is for compiled code, which is played as it stands."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("compiling")
def test_pooled_keys_are_the_largest_of_squares_and_of_equal_ones_the_first() -> None:
    values = torch.randint(3, (2, 5, 6, 4), dtype=torch.float64).requires_grad_()
    pooled, weights = _pooled(values), torch.randn(2, 5, 3, 2, dtype=torch.float64)
    (pooled * weights).sum().backward()
    expected = torch.zeros_like(values)
    for n, c, h, w in itertools.product(range(2), range(5), range(3), range(2)):
        square = values.detach()[n, c, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        place = int(square.argmax())
        expected[n, c, 2 * h + place // 2, 2 * w + place % 2] = weights[n, c, h, w]
        assert pooled[n, c, h, w] == square.max()
    assert torch.equal(values.grad, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.usefixtures("compiling")
def test_the_up_block_is_its_definition(conditional: bool, layout: torch.memory_format) -> None:
    block = UpBlock(4, 6, conditions=3 * conditional).double()
    condition = torch.randn(5, 3, dtype=torch.float64) if conditional else None
    if conditional:
        nn.init.normal_(block.norm1.gain.weight)
        nn.init.normal_(block.norm2.bias.weight)
    values = torch.randn(5, 4, 6, 6, dtype=torch.float64).to(memory_format=layout)
    given = () if condition is None else (condition,)
    enlarge = nn.Upsample(scale_factor=2)
    hidden = block.conv1(enlarge(F.relu(block.norm1(values, *given))))
    hidden = block.conv2(F.relu(block.norm2(hidden, *given)))
    expected = hidden + block.shortcut(enlarge(values))
    made = block.to(memory_format=layout)(values, condition)
    torch.testing.assert_close(made, expected)
    assert made.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("inputs", "outputs", "halve", "first"),
    [(3, 8, True, True), (8, 8, True, False), (8, 8, False, False), (8, 12, False, False)],
)
def test_the_down_block_is_its_definition(
    inputs: int, outputs: int, halve: bool, first: bool
) -> None:
    block = DownBlock(inputs, outputs, 5, halve=halve, first=first).double().eval()
    values = torch.randn(2, inputs, 8, 8, dtype=torch.float64)
    hidden = block.conv2(F.relu(block.conv1(values if first else F.relu(values))))
    straight = values
    if inputs != outputs or halve:
        straight = block.shortcut(values)  # the paper's order: first the convolution
    else:
        assert block.shortcut is None
    expected = hidden + straight
    torch.testing.assert_close(block(values), F.avg_pool2d(expected, 2) if halve else expected)
    assert all(isinstance(m, SpectralConv2d) for m in block.children())


def test_labels_are_one_hot_and_mixtures_stay() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    label = torch.tensor([2, 0])
    expected = torch.tensor([[0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    assert torch.equal(class_weights(label, 3, like), expected)
    mixture = torch.tensor([[0.25, 0.75, 0.0]])
    assert torch.equal(class_weights(mixture, 3, like), mixture.double())


def test_glorots_bound_and_orthogonal_rows() -> None:
    layer = nn.Conv2d(20, 30, 3)
    glorot_weights(layer, 2.0)
    bound = 2 * (6 / (9 * 20 + 9 * 30)) ** 0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert (layer.bias == 0).all()
    orthogonal_weights(layer)
    matrix = layer.weight.flatten(1).double()
    torch.testing.assert_close(
        matrix @ matrix.t(), torch.eye(30, dtype=torch.float64), atol=1e-5, rtol=0
    )
