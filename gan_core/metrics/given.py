"""Checks of what figures are made of, for who calls them by hand."""

from __future__ import annotations

from torch import Tensor

from gan_core.errors import UserError


def check_features(features: Tensor, fewest: int = 2) -> None:
    """Raises ``UserError`` unless ``features`` are (N, d), N at least ``fewest``, and finite: what
    is made of others is no number, or one that looks good.
    """
    if features.dim() != 2 or len(features) < fewest:
        raise UserError(
            f"a figure wants features (N, d) of {fewest} examples or more, not "
            f"{tuple(features.shape)}"
        )
    bad = int((~features.isfinite()).any(dim=1).sum())
    if bad:
        raise UserError(f"{bad} of {len(features)} features are not finite: leave them out")


def check_pictures(images: Tensor) -> None:
    """Raises ``UserError`` for pixels (whole numbers) where values in [-1, 1] are wanted."""
    if not images.is_floating_point():
        raise UserError(
            f"pictures are floats in [-1, 1] here, not {images.dtype}: "
            "gan_core.data.examples.to_unit_range makes them of pixels"
        )
