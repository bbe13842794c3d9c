"""PSNR and SSIM of super-resolution: luma, shaving, closed forms, SSIM by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from gan_core.data.examples import to_unit_range
from gan_core.metrics.super_resolution import PROTOCOL, SMALLEST, luma, psnr, ssim
from gan_core.metrics.translation import closeness


def pixels(*values: int) -> torch.Tensor:
    """One picture of one colour."""
    return to_unit_range(torch.tensor(values, dtype=torch.uint8)[None, :, None, None]).expand(
        1, -1, 30, 26
    )


def test_luma_is_that_of_bt_601() -> None:
    # MATLAB's rgb2ycbcr of these colours.
    known = {
        (0, 0, 0): 16, (255, 255, 255): 235, (255, 0, 0): 81, (0, 255, 0): 145, (0, 0, 255): 41,
        (128, 128, 128): 126, (10, 200, 77): 127,
    }  # fmt: skip
    for colour, value in known.items():
        assert luma(pixels(*colour)).unique().tolist() == [value]
    for gray in (0, 3, 99, 255):
        assert torch.equal(luma(pixels(gray)), luma(pixels(gray, gray, gray)))


def test_psnr_has_its_closed_form() -> None:
    white, gray = pixels(255, 255, 255), pixels(128, 128, 128)
    expected = 20 * math.log10(255 / (235 - 126))
    assert psnr(white, gray).item() == pytest.approx(expected, abs=1e-9)
    assert psnr(gray, white).item() == pytest.approx(expected, abs=1e-9)
    # Equal: as if only the last of 8 bits were rounded, which is finite in a mean of pictures.
    assert psnr(white, white).item() == pytest.approx(10 * math.log10(12 * 255**2))
    assert f"at most {psnr(white, white).item():.1f}" in PROTOCOL


def test_four_pixels_of_each_border_do_not_count() -> None:
    truth = to_unit_range(torch.full((2, 3, 30, 26), 90, dtype=torch.uint8))
    damaged = truth.clone()
    damaged[..., :4, :], damaged[..., -4:, :] = 1, 1
    damaged[..., :, :4], damaged[..., :, -4:] = 1, 1
    best = 10 * math.log10(12 * 255**2)
    assert psnr(damaged, truth).tolist() == pytest.approx([best, best])
    assert ssim(damaged, truth).tolist() == pytest.approx([1.0, 1.0])
    damaged[1, :, 4, 4] = 1
    found = psnr(damaged, truth)
    # One pixel of 22 x 18 is white instead of luma 93.
    expected = 10 * math.log10(255**2 * 22 * 18 / (235 - 93) ** 2)
    assert found.tolist() == pytest.approx([best, expected])


def brute_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, where the window lies wholly inside."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = correlate1d(values, window, axis)
        return values[5:-5, 5:-5]

    a, b = mean(first), mean(second)
    spread_a, spread_b = mean(first**2) - a**2, mean(second**2) - b**2
    together = mean(first * second) - a * b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * a * b + c1) * (2 * together + c2)
    return float((value / ((a**2 + b**2 + c1) * (spread_a + spread_b + c2))).mean())


def test_ssim_is_that_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 40, 33, generator=generator) * 2 - 1
    images = (truth + 0.3 * torch.randn(2, 3, 40, 33, generator=generator)).clamp(-1, 1)
    found = ssim(images, truth)
    for one, image, real in zip(found, luma(images), luma(truth), strict=True):
        shaved = (p[0, 4:-4, 4:-4].numpy() for p in (image, real))
        assert one.item() == pytest.approx(brute_ssim(*shaved), abs=1e-9)


def test_the_smallest_pictures_of_which_there_is_a_similarity() -> None:
    images = torch.rand(3, 1, SMALLEST, SMALLEST) * 2 - 1
    assert ssim(images, images).tolist() == pytest.approx([1.0] * 3)
    smaller = images[..., :-1, :]
    assert not ssim(smaller, smaller).isfinite().any()


def test_ssim_of_translations_is_that_of_the_definition_on_every_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 20, 17, generator=generator) * 2 - 1
    images = (truth + 0.3 * torch.randn(2, 3, 20, 17, generator=generator)).clamp(-1, 1)
    mine, true = (((p.double() + 1) * 127.5).flatten(0, 1).numpy() for p in (images, truth))
    expected = np.mean([brute_ssim(a, b) for a, b in zip(mine, true, strict=True)])
    assert closeness(images, truth)["ssim"] == pytest.approx(expected, abs=1e-5)


def test_two_greys_that_no_eye_tells_apart_are_alike() -> None:
    grey, other = (torch.full((1, 1, 16, 16), v / 127.5 - 1) for v in (126.0, 129.0))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 126 * 129 + c1) / (126**2 + 129**2 + c1)
    assert closeness(grey, other)["ssim"] == pytest.approx(expected, abs=1e-5)
    small = (grey[..., :8, :8], other[..., :8, :8])  # less than the window
    assert closeness(*small)["ssim"] == pytest.approx(expected, abs=1e-5)


def test_even_pictures_are_equal_to_themselves_whatever_their_grey() -> None:
    for grey in (-0.3, 0.7, 0.9):
        even = torch.full((1, 3, 40, 40), grey)
        assert closeness(even, even)["ssim"] == pytest.approx(1, abs=1e-6)
