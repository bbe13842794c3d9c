"""SAGAN and BigGAN against their papers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.errors import UserError
from gan_core.layers.attention import SelfAttention
from gan_core.layers.normalisation import ConditionalBatchNorm2d
from gan_core.layers.orthogonality import orthogonality
from gan_core.layers.spectral import SpectralConv2d, SpectralLinear
from gan_core.variant import Variant, create

TINY = {"width_g": 4, "width_d": 4, "latent": 24, "image_size": 16}


def pictures(classes: int = 3, channels: int = 3) -> DataSpec:
    tensors = {"image": TensorSpec((channels, 32, 32), -1.0, 1.0)}
    if classes:
        tensors["label"] = TensorSpec((), classes=classes)
    return DataSpec(tensors)


def maps_with_attention(network: nn.Module, *inputs: torch.Tensor) -> list[int]:
    """Sizes of the feature maps that go into attention."""
    sizes: list[int] = []
    layers = [m for m in network.modules() if isinstance(m, SelfAttention)]
    for layer in layers:
        layer.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[2]))
    network(*inputs)
    return sizes


@pytest.mark.parametrize(("size", "maps"), [(16, 8), (32, 16), (64, 32), (128, 32)])
def test_sagan_attends_once_in_each_network_where_the_paper_does(size: int, maps: int) -> None:
    small = {"image_size": size, "width_g": 8 if size < 64 else 1, "width_d": 2}
    variant = create("sagan", pictures(), small)
    label = torch.tensor([0, 1])
    assert maps_with_attention(variant.generator, torch.randn(2, 128), label) == [maps]
    image = torch.rand(2, 3, size, size)
    assert maps_with_attention(variant.discriminator, image, label) == [maps]


def test_attention_can_be_placed_elsewhere_or_left_out() -> None:
    image = torch.rand(2, 3, 32, 32)
    for attention in (0, 8):
        options = TINY | {"image_size": 32, "attention": attention, "conditional": False}
        for name in ("sagan", "sngan"):
            network = create(name, pictures(0), options).discriminator
            assert maps_with_attention(network, image) == [attention] * (attention > 0)


def test_sagans_recipe_is_the_papers() -> None:
    variant = create("sagan", pictures(), {"width_g": 8, "width_d": 8})
    discriminator, generator = variant.stages()[0].players
    assert (discriminator.turns, variant.options.batch_size) == (1, 256)
    assert (discriminator.optimizer.learning_rate, generator.optimizer.learning_rate) == (
        4e-4,
        1e-4,
    )
    assert {p.optimizer.betas for p in (discriminator, generator)} == {(0.0, 0.9)}
    assert variant.conditions() == ("label",)
    plain = create("sagan", pictures(0), TINY | {"conditional": False})
    assert plain.conditions() == ()
    assert not hasattr(plain.discriminator, "embedding")


@pytest.mark.parametrize("name", ["sagan", "biggan"])
def test_both_networks_are_spectral_but_for_what_the_papers_leave_out(name: str) -> None:
    variant = create(name, pictures(), TINY)
    plain = [
        layer_name
        for layer_name, m in variant.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
        and not isinstance(m, (SpectralConv2d, SpectralLinear))
    ]
    if name == "biggan":
        assert plain == ["generator.embed"]
    else:  # tables of gains and biases
        assert plain
        assert all(n.endswith((".gain", ".bias")) for n in plain)


def test_second_derivatives_go_through_attention() -> None:
    variant = create("sagan", pictures(), TINY | {"r1": 1.0})
    (attention,) = [m for m in variant.discriminator.modules() if isinstance(m, SelfAttention)]
    assert attention.second_order
    nn.init.ones_(attention.gamma)
    batch = {
        "image": torch.rand(4, 3, 16, 16),
        "label": torch.tensor([0, 1, 2, 0]),
        "latent": torch.randn(4, 24),
    }
    variant.discriminator_loss(batch).total.backward()
    assert attention.query.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["sagan", "biggan", "sngan"])
@pytest.mark.parametrize("unrolled", [0, 2])
def test_an_unrolled_discriminator_s_attention_has_second_derivatives(
    name: str, unrolled: int
) -> None:
    variant = create(name, pictures(), TINY | {"attention": 8, "unrolled": unrolled})
    attentions = {
        network: [m for m in getattr(variant, network).modules() if isinstance(m, SelfAttention)]
        for network in ("discriminator", "generator")
    }
    assert [m.second_order for m in attentions["discriminator"]] == [unrolled > 0]
    assert [m.second_order for m in attentions["generator"]] == [False]  # fused: it is faster


def reference_penalty(matrix: torch.Tensor) -> torch.Tensor:
    mask = 1 - torch.eye(len(matrix), dtype=matrix.dtype)
    return ((matrix @ matrix.t()) * mask).square().sum()


def test_the_orthogonal_penalty_and_its_gradient_are_the_papers() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(s, dtype=torch.float64) for s in [(5, 7), (6, 2, 3, 3), (9, 4)]]
    for weight in weights:
        weight.requires_grad_()
    penalty = orthogonality(weights)
    expected = sum(reference_penalty(w.flatten(1)) for w in weights)
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    for weight in weights:
        matrix = weight.detach().flatten(1)
        mask = 1 - torch.eye(len(matrix), dtype=torch.float64)
        by_hand = 4 * ((matrix @ matrix.t()) * mask) @ matrix
        torch.testing.assert_close(weight.grad.flatten(1), by_hand)


def test_the_orthogonal_penalty_leaves_the_lengths_of_rows_alone() -> None:
    rows = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q[:4]
    lengths = torch.tensor([0.1, 1.0, 3.0, 20.0], dtype=torch.float64)
    assert orthogonality([rows * lengths[:, None]]).item() == pytest.approx(0, abs=1e-9)


def biggan(**options: object) -> Variant:
    return create("biggan", pictures(), TINY | {"embedding": 5} | options)


def test_the_penalty_is_on_the_generators_weights_but_the_shared_embedding() -> None:
    variant = biggan(orthogonality=0.5)
    with torch.no_grad():
        variant.generator.embed.weight.normal_()
        variant.generator.project.weight.normal_()
    batch = {"label": torch.tensor([0, 1]), "latent": torch.randn(2, 24)}
    loss = variant.generator_loss(batch)
    expected = sum(
        reference_penalty(p.detach().flatten(1))
        for n, p in variant.generator.named_parameters()
        if p.dim() > 1 and n != "embed.weight"
    )
    torch.testing.assert_close(loss.diagnostics["penalty/orthogonality"], expected)
    torch.testing.assert_close(
        loss.total.detach(), loss.diagnostics["loss/generator"] + 0.5 * expected
    )
    assert "penalty/orthogonality" not in biggan(orthogonality=0).generator_loss(batch).diagnostics


def test_weights_begin_orthogonal() -> None:
    variant = create("biggan", pictures(), {"width_g": 8, "width_d": 8})
    weights = [p for p in variant.parameters() if p.dim() > 1]
    assert len(weights) > 20
    for weight in weights:
        values = torch.linalg.svdvals(weight.detach().flatten(1))
        torch.testing.assert_close(values, torch.ones_like(values))


@pytest.mark.parametrize(
    ("size", "width", "attention", "theirs"),
    [
        (64, 64, 32, 31_969_540),
        (64, 96, 32, 70_377_348),
        (128, 64, 64, 31_978_628),
        (128, 96, 64, 70_433_988),
    ],
)
def test_biggan_s_generator_has_the_parameters_of_its_authors_code(
    size: int, width: int, attention: int, theirs: int
) -> None:
    """At 1,000 classes; its convolutions of attention have no bias there."""
    image = TensorSpec((3, size, size), -1, 1)
    spec = DataSpec({"image": image, "label": TensorSpec((), classes=1000)})
    options = {"image_size": size, "attention": attention, "width_g": width}
    with torch.device("meta"):
        generator = create("biggan", spec, {**options, "width_d": 4}).generator
    biases = sum(
        value.numel()
        for name, value in generator.named_parameters()
        if "attention" in name and name.endswith("bias")
    )
    assert biases > 0
    assert sum(value.numel() for value in generator.parameters()) - biases == theirs


@pytest.mark.parametrize(("size", "parts"), [(16, 3), (32, 4), (64, 5), (128, 6)])
def test_the_noise_is_cut_into_a_part_to_begin_with_and_one_for_each_block(
    size: int, parts: int
) -> None:
    variant = create("biggan", pictures(), {"image_size": size, "width_g": 1, "width_d": 1})
    latent = torch.randn(2, 120)
    found = variant.generator.parts(latent)
    assert [p.shape for p in found] == [(2, 120 // parts)] * parts
    assert torch.equal(torch.cat(found, dim=1), latent)
    assert variant.generator.project.in_features == 120 // parts
    norms = [m for m in variant.modules() if isinstance(m, ConditionalBatchNorm2d)]
    assert len(norms) == 2 * (parts - 1)
    assert {m.gain.in_features for m in norms} == {128 + 120 // parts}


def test_every_part_of_the_noise_reaches_the_picture_through_its_own_block() -> None:
    variant = biggan().eval()
    latent, label = torch.randn(1, 24), torch.tensor([1])
    seen: list[list[torch.Tensor]] = []
    for part in (None, 0, 1, 2):
        changed = latent.clone()
        if part is not None:
            changed[:, 8 * part : 8 * part + 8] += 1.0
        outputs: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _, __, out, to=outputs: to.append(out))
            for block in variant.generator.trunk.blocks
        ]
        with torch.no_grad():
            variant.generator(changed, label)
        for hook in hooks:
            hook.remove()
        seen.append(outputs)
    plain, start, first, second = seen
    assert not torch.equal(start[0], plain[0])
    assert not torch.equal(first[0], plain[0])
    assert torch.equal(second[0], plain[0])
    assert not torch.equal(second[1], plain[1])


def test_a_latent_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match=r"--latent 25 cannot be cut into 3 .* multiple of 3"):
        biggan(latent=25)


def test_bigganss_recipe_is_that_of_the_authors_script() -> None:
    variant = create("biggan", pictures(), {"width_g": 2, "width_d": 2})
    discriminator, generator = variant.stages()[0].players
    assert (discriminator.turns, variant.options.batch_size) == (4, 50)
    for player in (discriminator, generator):
        assert (player.optimizer.learning_rate, player.optimizer.betas) == (2e-4, (0.0, 0.999))
    assert (generator.ema, generator.ema_decay) == (("generator",), 0.9999)
    assert variant.recipe.orthogonality == 1e-4
    papers = {"batch_size": 2048, "accumulate": 8, "k": 2, "lr_g": 5e-5}
    changed = dataclasses.replace(variant.options, **papers)
    assert create("biggan", pictures(), changed).stages()[0].players[0].accumulate == 8


def test_at_32_pixels_both_networks_have_256_channels() -> None:
    variant = create("biggan", pictures(), {})
    assert {b.conv2.out_channels for b in variant.generator.trunk.blocks} == {256}
    assert {b.conv2.out_channels for b in variant.discriminator.blocks} == {256}
    assert [b.halve for b in variant.discriminator.blocks] == [True, True, False, False]
