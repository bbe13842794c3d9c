"""What the systems that translate pictures share: PatchGAN, jitter, figures against the truth."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.errors import UserError
from gan_core.layers.jitter import jittered
from gan_core.layers.patchgan import PatchDiscriminator, map_size
from gan_core.metrics.translation import closeness
from gan_core.variant import create
from gan_core.variants.schedules import HoldThenFall


def pairs(channels: int, size: int, series: str = "", inputs: int | None = None) -> DataSpec:
    given = TensorSpec((inputs or channels, size, size), -1.0, 1.0, series=series)
    return DataSpec({"image": TensorSpec((channels, size, size), -1.0, 1.0), "input": given})


@pytest.mark.parametrize(
    ("layers", "field"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)]
)
def test_a_logit_of_the_patchgan_sees_what_the_paper_says(layers: int, field: int) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(1, width=1, layers=layers, affine=False)
    for module in network.modules():  # normalisation sees the whole picture, here only its weights
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    plain = nn.Sequential(*[m for m in network.layers if not isinstance(m, nn.InstanceNorm2d)])
    size = 2 * max(field, 2)
    size += -size % 2**layers
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    logits = plain(image)
    assert logits.shape[-1] == map_size(layers, size)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].abs() > 0
    assert seen.any(0).sum() == field
    assert seen.any(1).sum() == field


def test_the_patchgan_of_256_pixels_gives_a_map_of_30() -> None:
    with torch.device("meta"):
        network = PatchDiscriminator(6)
        assert network(torch.empty(1, 6, 256, 256)).shape == (1, 1, 30, 30)


def test_jitter_is_a_bilinear_enlargement_and_a_crop_of_whole_pixels() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(64, 2, 8, 8, generator=generator)
    crop, flip = torch.rand(64, 2, generator=generator), torch.rand(64, generator=generator)
    found = jittered(images, 11, crop, flip)
    large = F.interpolate(images, size=(11, 11), mode="bilinear", align_corners=False)
    places = set()
    for i in range(64):
        top, left = int(crop[i, 0] * 4), int(crop[i, 1] * 4)
        places.add((top, left, bool(flip[i] < 0.5)))
        expected = large[i, :, top : top + 8, left : left + 8]
        if flip[i] < 0.5:
            expected = expected.flip(2)
        assert torch.allclose(found[i], expected, atol=1e-5)
    assert len(places) > 24  # of 32
    assert torch.allclose(
        jittered(images, 11, torch.ones(64, 2), None), large[:, :, 3:, 3:], atol=1e-5
    )


def test_without_enlargement_jitter_is_exact() -> None:
    images = torch.rand(4, 3, 8, 8)
    flip = torch.tensor([0.1, 0.9, 0.49, 0.51])
    found = jittered(images, 8, torch.rand(4, 2), flip)
    assert torch.equal(found[[0, 2]], images[[0, 2]].flip(3))
    assert torch.equal(found[[1, 3]], images[[1, 3]])
    assert torch.equal(jittered(images, 8, torch.rand(4, 2), None), images)


def test_the_rate_is_held_and_then_falls_to_nothing() -> None:
    rate = HoldThenFall(100, 200)
    assert [rate(u) for u in (0, 99, 100, 150, 199)] == [1.0, 1.0, 1.0, 0.5, 0.01]
    assert rate(200) == rate(500) == 0.0
    assert HoldThenFall(10, 10)(9) == 1.0


def test_figures_are_means_over_all_pictures_whatever_the_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(70, 3, 16, 16, generator=generator) * 2 - 1
    images = (truth + 0.3 * torch.randn(truth.shape, generator=generator)).clamp(-1, 1)
    figures = closeness(images, truth)
    assert figures["l1"] == pytest.approx((images - truth).double().abs().mean().item(), rel=1e-6)
    pairs = zip(images, truth, strict=True)
    mean = sum(closeness(a[None], b[None])["ssim"] for a, b in pairs) / 70
    assert figures["ssim"] == pytest.approx(mean, rel=1e-4)
    assert 0 < figures["ssim"] < 0.99
    assert closeness(truth, truth) == {"l1": 0.0, "ssim": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("variant", "options", "data", "message"),
    [
        ("pix2pix", {}, pairs(3, 64, series="input"), "take --data pairs, or train cyclegan"),
        ("pix2pix", {"image_size": 96}, pairs(3, 96), "power of two .* not 96"),
        (
            "pix2pix",
            {"image_size": 16},
            pairs(3, 16),
            "--patch-layers 3 leave nothing",
        ),
        ("pix2pix", {"l1": 0, "adversarial": 0}, pairs(3, 256), "nothing to learn"),
        ("pix2pix", {"enlarged": 200}, pairs(3, 256), "--enlarged 200 must be at least"),
        ("cyclegan", {"image_size": 66}, pairs(3, 66), "multiple of 4 .* not 66"),
        ("cyclegan", {"kernel": 4}, pairs(3, 64), "--kernel must be odd, not 4"),
        ("cyclegan", {}, pairs(3, 64, inputs=1), "channels, not 1 and 3: give --identity 0"),
        ("cyclegan", {"image_size": 96, "network": "unet"}, pairs(3, 96), "power of two .* not 96"),
        ("pix2pix", {"residual": True}, pairs(3, 256, inputs=1), "channels, not 1 and 3: leave it"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    variant: str, options: dict[str, object], data: DataSpec, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        create(variant, data, options)


def test_a_source_without_inputs_is_refused() -> None:
    plain = DataSpec({"image": TensorSpec((3, 64, 64), -1.0, 1.0)})
    with pytest.raises(UserError, match="needs a source with 'input'"):
        create("pix2pix", plain, {})
