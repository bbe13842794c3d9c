"""DCGAN against its paper, its authors' code, and the smaller networks in common use."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.data.views import SquareView
from gan_core.errors import UserError
from gan_core.priors import Uniform
from gan_core.variant import Variant, create


def pictures(channels: int = 3, size: int = 64) -> DataSpec:
    return DataSpec({"image": TensorSpec((channels, size, size), -1.0, 1.0)})


def shapes_through(network: nn.Module, kinds: tuple[type, ...], *inputs: Tensor) -> list[tuple]:
    """The shapes, without the batch, that layers of those kinds put out."""
    shapes: list[tuple] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return shapes


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("kernel", [4, 5])
def test_feature_maps_at_64_pixels_are_the_papers(kernel: int) -> None:
    variant = create("dcgan", pictures(), {"image_size": 64, "kernel": kernel})
    z, x = torch.rand(2, 100), torch.rand(2, 3, 64, 64)
    assert shapes_through(variant.generator, (nn.BatchNorm2d, nn.Tanh), z) == [
        (1024, 4, 4),
        (512, 8, 8),
        (256, 16, 16),
        (128, 32, 32),
        (3, 64, 64),
    ]
    assert shapes_through(variant.discriminator, (nn.Conv2d, nn.Linear), x) == [
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
        (1024, 4, 4),
        (1,),
    ]


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (16, 3), (32, 1), (32, 3), (64, 1)])
def test_every_size_makes_pictures_of_that_size(size: int, channels: int) -> None:
    variant = create("dcgan", pictures(channels, 28), {"image_size": size, "width": 2})
    assert variant.stages()[0].view == SquareView(size)
    image = variant.generator(torch.rand(3, 100))
    assert image.shape == (3, channels, size, size)
    assert variant.discriminator(image).shape == (3, 1)


def test_the_small_dcgan_in_common_use_has_its_parameters() -> None:
    options = {"image_size": 64, "kernel": 4, "width": 64}
    variant = create("dcgan", pictures(), options)
    assert count(variant.generator) == 3_576_704
    assert count(variant.discriminator) == 2_765_568


def test_weights_and_gains_begin_as_in_the_paper() -> None:
    variant = create("dcgan", pictures(), {"image_size": 64, "width": 64})
    weights = [m for m in variant.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    for layer in (*weights, variant.generator.project, variant.discriminator.output):
        assert layer.bias is None
        assert layer.weight.mean().abs() < 0.002
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    norms = [m for m in variant.modules() if isinstance(m, nn.BatchNorm2d)]
    gains = torch.cat([m.weight for m in norms])
    assert gains.mean().item() == pytest.approx(1, abs=0.003)
    assert gains.std().item() == pytest.approx(0.02, rel=0.1)
    assert all((m.bias == 0).all() for m in norms)


def kinds_of(network: nn.Module) -> list[str]:
    return [type(m).__name__ for m in network.layers]  # type: ignore[union-attr]


def test_the_papers_rules_are_kept() -> None:
    variant = create("dcgan", pictures(), {"image_size": 32, "width": 4})
    assert kinds_of(variant.generator) == [
        *("BatchNorm2d", "ReLU"),
        *("ConvTranspose2d", "BatchNorm2d", "ReLU") * 2,
        *("ConvTranspose2d", "Tanh"),
    ]
    assert kinds_of(variant.discriminator) == [
        *("Conv2d", "LeakyReLU"),
        *("Conv2d", "BatchNorm2d", "LeakyReLU") * 2,
    ]
    slopes = {m.negative_slope for m in variant.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}
    (latent,) = variant.noise("train")
    assert (latent.prior, latent.shape) == (Uniform(-1.0, 1.0), (100,))
    for player in variant.stages()[0].players:
        spec = player.optimizer
        assert (spec.kind, spec.learning_rate, spec.betas) == ("adam", 2e-4, (0.5, 0.999))
        assert spec.rate(10**6) == spec.annealing(10**6) == 1
    assert variant.options.batch_size == 128


def test_the_discriminator_normalises_real_and_fake_apart() -> None:
    """With the statistics of a mixed batch, a logit of a real one would depend on the fakes."""
    variant = create("dcgan", pictures(1, 16), {"image_size": 16, "width": 4})
    real = torch.rand(8, 1, 16, 16) * 2 - 1
    first = variant.discriminator_loss({"image": real, "latent": torch.rand(8, 100)})
    variant_2 = create("dcgan", pictures(1, 16), {"image_size": 16, "width": 4})
    second = variant_2.discriminator_loss({"image": real, "latent": -torch.rand(8, 100)})
    assert torch.equal(first.diagnostics["prob/real"], second.diagnostics["prob/real"])
    assert not torch.equal(first.diagnostics["prob/fake"], second.diagnostics["prob/fake"])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"norm_d": "none"}, None),
        ({"norm_d": "layer"}, nn.GroupNorm),
        ({"loss": "wasserstein"}, nn.GroupNorm),
        ({"gradient_penalty": 1}, nn.GroupNorm),
        ({"loss": "wasserstein", "gradient_penalty": 0}, nn.BatchNorm2d),
        ({"loss": "wasserstein", "norm_d": "batch", "gradient_penalty": 0}, nn.BatchNorm2d),
        ({"r1": 1.0, "norm_d": "batch"}, nn.BatchNorm2d),
    ],
)
def test_a_gradient_penalty_replaces_batch_normalisation_unless_told(
    options: dict[str, object], kind: type | None
) -> None:
    variant: Variant = create("dcgan", pictures(1), {"image_size": 16, "width": 2} | options)
    found = {type(m) for m in variant.discriminator.modules()} & {nn.GroupNorm, nn.BatchNorm2d}
    assert found == ({kind} if kind else set())


@pytest.mark.parametrize("options", [{"loss": "wasserstein"}, {"gradient_penalty": 0.5}])
def test_batch_normalisation_under_a_gradient_penalty_is_refused(
    options: dict[str, object],
) -> None:
    with pytest.raises(UserError, match="--norm-d batch mixes examples") as caught:
        create("dcgan", pictures(1), {"image_size": 16, "norm_d": "batch"} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [8, 28, 128])
def test_other_sizes_are_refused_with_the_ones_there_are(size: int) -> None:
    message = f"^--image-size must be one of 16, 32, 64, not {size}$"
    with pytest.raises(UserError, match=message):
        create("dcgan", pictures(), {"image_size": size})
