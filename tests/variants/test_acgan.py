"""AC-GAN against its paper."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import Batch, DataSpec, TensorSpec
from gan_core.errors import UserError
from gan_core.variant import Variant, create

TINY = {"latent": 6, "width_g": 4, "width_d": 4, "image_size": 16, "dropout": 0.0}


def pictures(classes: int = 10, size: int = 32) -> DataSpec:
    tensors = {"image": TensorSpec((3, size, size), -1.0, 1.0)}
    if classes:
        tensors["label"] = TensorSpec((), classes=classes)
    return DataSpec(tensors)


def small(**options: object) -> Variant:
    return create("acgan", pictures(5), TINY | options)


def batch(n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand((n, 3, 16, 16), generator=generator) * 2 - 1,
        "label": torch.arange(n) % 5,
        "latent": torch.randn((n, 6), generator=generator),
    }


def test_the_networks_are_the_papers_for_cifar() -> None:
    variant = create("acgan", pictures(), {})
    assert variant.generator.project.in_features == 110
    ups = [m for m in variant.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in ups] == [(384, 192), (192, 96), (96, 3)]
    assert {(m.kernel_size, m.stride) for m in ups} == {((5, 5), (2, 2))}
    downs = [m for m in variant.discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.stride[0]) for m in downs] == [
        *((16, 2), (32, 1), (64, 2), (128, 1), (256, 2), (512, 1))
    ]
    kinds = [type(m).__name__ for m in variant.discriminator.layers]
    assert kinds[:7] == ["Conv2d", "LeakyReLU", "Dropout", "Conv2d", "BatchNorm2d", *kinds[1:3]]
    assert {m.p for m in variant.modules() if isinstance(m, nn.Dropout)} == {0.5}
    assert not variant.one_pass  # batch normalisation in the discriminator


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, nn.BatchNorm2d),
        ({"norm_d": "none"}, None),
        ({"loss": "wasserstein"}, nn.GroupNorm),
        ({"gradient_penalty": 1}, nn.GroupNorm),
        ({"loss": "wasserstein", "gradient_penalty": 0}, nn.BatchNorm2d),
        ({"r1": 1.0}, nn.BatchNorm2d),
    ],
)
def test_a_gradient_penalty_replaces_batch_normalisation_unless_told(
    options: dict[str, object], kind: type | None
) -> None:
    variant = small(**options)
    found = {type(m) for m in variant.discriminator.modules()} & {nn.GroupNorm, nn.BatchNorm2d}
    assert found == ({kind} if kind else set())
    if kind is not nn.BatchNorm2d:  # then no logit depends on another picture
        images = batch()["image"].requires_grad_()
        (slopes,) = torch.autograd.grad(variant.discriminator(images)[0].sum(), images)
        assert slopes[0].abs().max() > 0
        assert (slopes[1:] == 0).all()


@pytest.mark.parametrize("options", [{"loss": "wasserstein"}, {"gradient_penalty": 0.5}])
def test_batch_normalisation_under_a_gradient_penalty_is_refused(
    options: dict[str, object],
) -> None:
    with pytest.raises(UserError, match="--norm-d batch mixes examples") as caught:
        small(norm_d="batch", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_every_size_makes_pictures_of_that_size(size: int) -> None:
    variant = create("acgan", pictures(3), {"image_size": size, "width_g": 2, "width_d": 2})
    image = variant.generator(torch.randn(2, 100), torch.tensor([0, 2]))
    assert image.shape == (2, 3, size, size)
    assert variant.discriminator(image).shape == (2, 4)


def test_a_uniform_head_is_wrong_by_the_logarithm_of_the_classes() -> None:
    variant = small()
    for parameter in variant.discriminator.parameters():
        nn.init.zeros_(parameter)
    found = variant.discriminator_loss(batch())
    named = found.diagnostics
    assert named["loss/class_real"].item() == pytest.approx(math.log(5))
    assert named["loss/class_fake"].item() == pytest.approx(math.log(5))
    assert found.total.item() == pytest.approx(2 * math.log(2) + 2 * math.log(5))
    generator = variant.generator_loss(batch())
    assert generator.total.item() == pytest.approx(math.log(2) + math.log(5))


def test_both_players_want_the_right_class_for_real_and_for_fake() -> None:
    variant, data = small(class_weight=0.3), batch()
    with torch.no_grad():
        fake = variant.generate(data)
        outputs = [variant.discriminator(x) for x in (data["image"], fake)]
    expected = [F.cross_entropy(o[:, 1:], data["label"]) for o in outputs]
    loss = variant.discriminator_loss(data)
    for name, value in zip(("real", "fake"), expected, strict=True):
        torch.testing.assert_close(loss.diagnostics[f"loss/class_{name}"], value)
    adversarial = loss.diagnostics["loss/discriminator"]
    torch.testing.assert_close(loss.total.detach(), adversarial + 0.3 * (expected[0] + expected[1]))
    turn = variant.generator_loss(data)
    torch.testing.assert_close(turn.diagnostics["loss/class_generator"], expected[1])
    torch.testing.assert_close(
        turn.total.detach(), F.softplus(-outputs[1][:, 0]).mean() + 0.3 * expected[1]
    )


def test_the_verdict_does_not_depend_on_the_label_but_the_picture_does() -> None:
    variant, data = small().eval(), batch()
    other = data | {"label": (data["label"] + 1) % 5}
    with torch.no_grad():
        assert torch.equal(variant.judge(data)["real"], variant.judge(other)["real"])
        pictures_differ = (variant.generate(data) - variant.generate(other)).flatten(1).norm(dim=1)
    assert pictures_differ.min() > 1e-4


def test_the_discriminator_can_see_the_deviation_of_groups() -> None:
    variant, data = small(minibatch_stddev=2).eval(), batch()
    variant.generator_loss(data)
    other = data["image"].clone()
    other[1] = -other[1]
    with torch.no_grad():
        before, after = (variant.outputs(images, data) for images in (data["image"], other))
    assert [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if (a != b).any()] == [
        *(0, 1)
    ]


def test_the_recipe_is_the_papers() -> None:
    variant = create("acgan", pictures(), {"width_g": 2, "width_d": 2})
    discriminator, generator = variant.stages()[0].players
    assert (variant.options.batch_size, variant.options.steps, discriminator.turns) == (
        *(100, 50_000, 1),
    )
    for player in (discriminator, generator):
        assert (player.optimizer.learning_rate, player.optimizer.betas) == (2e-4, (0.5, 0.999))
    assert (discriminator.reads, generator.reads) == (("image", "label"), ("label",))


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UserError, match="acgan needs a source with labels"):
        create("acgan", pictures(0), TINY)
    with pytest.raises(UserError, match="--image-size must be one of 16, 32, 64, 128, not 40"):
        create("acgan", pictures(), {"image_size": 40})
