"""SN-GAN against its papers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import DataSpec, TensorSpec, to_pixels, to_unit_range
from gan_core.errors import UserError
from gan_core.layers.normalisation import ConditionalBatchNorm2d
from gan_core.layers.spectral import SpectralConv2d, SpectralLinear
from gan_core.priors import Gaussian
from gan_core.variant import Variant, create
from gan_core.variants.resnet import WIDTHS
from gan_core.variants.sngan import SNGAN, SNGANOptions, dequantised

TINY = {"width_g": 4, "width_d": 4, "latent": 8, "image_size": 16}


def pictures(size: int = 32, classes: int = 0, channels: int = 3) -> DataSpec:
    tensors = {"image": TensorSpec((channels, size, size), -1.0, 1.0)}
    if classes:
        tensors["label"] = TensorSpec((), classes=classes)
    return DataSpec(tensors)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_residual_networks_at_32_pixels_have_the_papers_parameters() -> None:
    variant = create("sngan", pictures(), {})
    assert count(variant.generator) == 4_276_739
    assert count(variant.discriminator) == 1_053_824


def test_the_labels_add_their_tables_and_the_embedding() -> None:
    plain = create("sngan", pictures(), {})
    by_class = create("sngan", pictures(classes=10), {"conditional": True})
    # 6 normalisations: 10 gains and biases a channel in place of one.
    assert count(by_class.generator) - count(plain.generator) == 6 * 256 * 2 * 9
    assert count(by_class.discriminator) - count(plain.discriminator) == 10 * 128


@pytest.mark.parametrize("architecture", ["resnet", "cnn"])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_every_size_makes_pictures_of_that_size(architecture: str, size: int) -> None:
    options = {"image_size": size, "width_g": 2, "width_d": 2, "architecture": architecture}
    variant = create("sngan", pictures(28, channels=1), options)
    image = variant.generator(torch.randn(2, 128))
    assert image.shape == (2, 1, size, size)
    assert variant.discriminator(image).numel() == 2


def test_the_large_networks_have_the_papers_channels() -> None:
    variant = create("sngan", pictures(), {"image_size": 128, "width_g": 1, "width_d": 1})
    blocks = variant.generator.trunk.blocks
    assert [b.conv1.in_channels for b in blocks] + [blocks[-1].conv2.out_channels] == [
        *(16, 16, 8, 4, 2, 1)
    ]
    seen = [(b.conv1.out_channels, b.conv2.out_channels) for b in variant.discriminator.blocks]
    assert seen == [(1, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 16)]
    assert [b.halve for b in variant.discriminator.blocks] == [True] * 5 + [False]


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
def test_at_64_pixels_sngans_discriminator_halves_in_every_block(name: str) -> None:
    """As ``snresnet_64.py`` of its authors; BigGAN's code keeps the last maps at 4 pixels."""
    options = {"image_size": 64, "width_g": 1, "width_d": 1}
    discriminator = create(name, pictures(64, classes=2), options).discriminator
    assert [b.conv2.out_channels for b in discriminator.blocks if hasattr(b, "halve")] == [
        *(1, 2, 4, 8, 16)
    ]
    last = 2 if name == "sngan" else 4
    assert discriminator.blocks(torch.rand(3, 3, 64, 64)).shape == (3, 16, last, last)


def test_attention_may_be_at_the_maps_of_a_systems_own_networks() -> None:
    class Shallow(SNGAN):
        widths = {64: dataclasses.replace(WIDTHS[64], halvings=1)}  # noqa: RUF012

    for attention in (8, 32):
        SNGAN(SNGANOptions(image_size=64, attention=attention)).check(pictures(64))
    Shallow(SNGANOptions(image_size=64, attention=32)).check(pictures(64))
    with pytest.raises(UserError, match="--attention must be 0 or 32 at 64 pixels, not 8"):
        Shallow(SNGANOptions(image_size=64, attention=8)).check(pictures(64))
    with pytest.raises(UserError, match="--image-size must be 64, not 32"):
        Shallow(SNGANOptions(image_size=32)).check(pictures(64))


def test_the_convolutional_networks_are_table_3() -> None:
    variant = create("sngan", pictures(), {"architecture": "cnn"})
    layers = [m for m in variant.discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.stride[0], m.out_channels) for m in layers] == [
        *((3, 1, 64), (4, 2, 64), (3, 1, 128), (4, 2, 128)),
        *((3, 1, 256), (4, 2, 256), (3, 1, 512)),
    ]
    assert {m.negative_slope for m in variant.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    ups = [m for m in variant.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in ups] == [(512, 256), (256, 128), (128, 64)]


@pytest.mark.parametrize("options", [{}, {"architecture": "cnn"}, {"conditional": True}])
def test_every_layer_of_the_discriminator_is_spectral_and_none_of_the_generator(
    options: dict[str, object],
) -> None:
    variant = create("sngan", pictures(classes=3), TINY | options)
    weighted = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
    spectral = (SpectralConv2d, SpectralLinear)
    layers = [m for m in variant.discriminator.modules() if isinstance(m, weighted)]
    assert layers
    assert all(isinstance(m, spectral) for m in layers)
    assert not any(isinstance(m, spectral) for m in variant.generator.modules())
    assert variant.one_pass


def test_the_recipe_is_the_papers() -> None:
    variant = create("sngan", pictures(), {"width_g": 4, "width_d": 4})
    (stage,) = variant.stages()
    discriminator, generator = stage.players
    assert (discriminator.turns, variant.options.batch_size) == (5, 64)
    assert (discriminator.batch_scale, generator.batch_scale) == (1, 2)
    for player in stage.players:
        spec = player.optimizer
        assert (spec.kind, spec.learning_rate, spec.betas) == ("adam", 2e-4, (0.0, 0.9))
        falling = [spec.annealing(50_000 * share) for share in (0, 0.25, 0.5, 1, 2)]
        assert falling == [1, 0.75, 0.5, 0, 0]
    latent = variant.noise("train")[0]
    assert (latent.prior, latent.shape) == (Gaussian(), (128,))
    assert variant.recipe.loss == "hinge"


def test_weights_begin_by_glorots_rule() -> None:
    variant = create("sngan", pictures(), {})
    block = variant.discriminator.blocks[1]
    assert block.conv1.weight.abs().max().item() == pytest.approx(
        math.sqrt(2) * math.sqrt(6 / (9 * 256)), rel=1e-3
    )
    assert block.shortcut.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 256), rel=1e-3)
    assert all((p == 0).all() for n, p in variant.named_parameters() if n.endswith("conv1.bias"))
    by_class = create("sngan", pictures(classes=3), TINY | {"conditional": True})
    norms = [m for m in by_class.modules() if isinstance(m, ConditionalBatchNorm2d)]
    assert norms
    assert all((m.gain.weight == 0).all() for m in norms)


def test_the_projection_adds_the_product_of_embedding_and_features() -> None:
    variant = create("sngan", pictures(classes=3), TINY | {"conditional": True}).eval()
    network = variant.discriminator
    image, label = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        features = torch.relu(network.blocks(image)).sum((2, 3))
        plain = network.output(features).flatten()
        table = network.embedding.normalised_weight().t()  # (classes, features)
        expected = plain + torch.stack([f @ table[c] for f, c in zip(features, label, strict=True)])
        torch.testing.assert_close(network(image, label), expected)
        torch.testing.assert_close(network(image), plain)
    assert not torch.allclose(expected, plain)


def test_the_picture_depends_on_the_class_once_it_has_learned() -> None:
    variant = create("sngan", pictures(classes=3), TINY | {"conditional": True}).eval()
    for module in variant.modules():
        if isinstance(module, ConditionalBatchNorm2d):
            nn.init.normal_(module.gain.weight)
    latent = torch.randn(1, 8).expand(3, 8)
    with torch.no_grad():
        images = variant.generate({"latent": latent, "label": torch.arange(3)})
        between = torch.tensor([[0.5, 0.5, 0.0]])
        mixed = variant.generate({"latent": latent[:1], "label": between})
    assert torch.pdist(images.flatten(1)).min() > 1e-3
    assert (mixed - images[:2]).flatten(1).norm(dim=1).min() > 1e-3


def test_dequantisation_spreads_every_level_over_its_own_share() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    levels = torch.arange(256).reshape(16, 16)
    for words, share in ((0, 0.5 / 256), ((1 << 24) - 1, 255.5 / 256)):
        noisy = dequantised(to_unit_range(pixels), torch.full((1, 16, 16), words))
        expected = (levels + share) / 128 - 1
        torch.testing.assert_close(noisy[0], expected.expand(3, 16, 16), atol=1e-6, rtol=0)
        assert (to_pixels(noisy).long() - pixels.long()).abs().max() <= 1
    words = torch.tensor([[[0x0040FF]]])
    red, green, blue = dequantised(torch.zeros(1, 3, 1, 1), words).flatten().tolist()
    assert (red, green, blue) == pytest.approx(
        [(2 * (b + 0.5) / 256 - 1) / 256 for b in (0xFF, 0x40, 0x00)]
    )


def test_the_discriminator_learns_from_dequantised_pictures_only_if_told() -> None:
    def loss(variant: Variant, words: int) -> float:
        torch.manual_seed(0)
        batch = {
            "image": torch.zeros(4, 3, 16, 16),
            "latent": torch.zeros(4, 8),
            "dequantisation": torch.full((4, 16, 16), words),
        }
        return variant.eval().discriminator_loss(batch).total.item()

    noisy = create("sngan", pictures(), TINY)
    assert loss(noisy, 0) != loss(noisy, (1 << 24) - 1)
    plain = create("sngan", pictures(), TINY | {"dequantise": False})
    assert loss(plain, 0) == loss(plain, (1 << 24) - 1)
    assert [n.name for n in plain.noise("train")] == ["latent"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"image_size": 48}, "--image-size must be 16, 32, 64, 128, not 48"),
        ({"architecture": "cnn", "conditional": True}, "--conditional is for --architecture"),
        ({"attention": 7}, "--attention must be 0 or 16, 8 at 32 pixels, not 7"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        create("sngan", pictures(classes=3), options)


def test_labels_are_wanted_only_by_the_conditional_one() -> None:
    create("sngan", pictures(), TINY)
    with pytest.raises(UserError, match="sngan needs a source with labels"):
        create("sngan", pictures(), TINY | {"conditional": True})
