"""The names of the figures that an evaluation gives, known before there is anything to evaluate.

So a wrong name is answered at once, not when the first generator is judged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from difflib import get_close_matches
from typing import Literal

from gan_core.variant import Variant

_OF_FEATURES = (
    "fid", "kid", "inception_score", "precision", "recall", "density", "coverage", "ndb",
    "bin_divergence", "vendi_ratio", "distance_ratio", "birthday_support", "copied_share",
)  # fmt: skip
_OF_TEXTS = ("retrieval", "retrieval_real", "retrieval_excess")
_OF_MODES = ("modes_covered", "mode_kl", "least_mode_ratio")
_OF_CLASSES = (*_OF_MODES, "ms_ssim", "ms_ssim_real")
_OF_MIXTURES = (*_OF_MODES, "high_quality_share", "smallest_mode_share", "mode_spread")

Good = Literal["low", "high"]
_LOW = (
    "fid", "kid", "mode_kl", "ndb", "bin_divergence", "copied_share", "ms_ssim", "l1", "cycle_l1",
    "melody_distance", "pitch_class_distance", "degree_distance", "interval_distance",
    "length_distance",
)  # fmt: skip
_HIGH = (
    "inception_score", "precision", "recall", "density", "coverage", "birthday_support",
    "min_class_recall", "class_accuracy", "retrieval", "retrieval_excess", "modes_covered",
    "least_mode_ratio", "high_quality_share", "smallest_mode_share", "mixture_score", "psnr",
    "ssim", "chord_share", "unique_share", "parzen_log_likelihood", "parzen_validation",
)  # fmt: skip
_NEITHER = (
    "vendi_ratio", "distance_ratio", "mode_spread", "diversity_inverse", "parzen_sigma",
    "parzen_standard_error",
)  # fmt: skip
OF_DATA = (
    "ms_ssim_real", "retrieval_real", "psnr_bicubic", "ssim_bicubic", "l1_input", "ssim_input",
    "l1_inverse_input", "ssim_inverse_input", "chord_share_real", "unique_share_real",
)  # fmt: skip
"""What real examples, or no network at all, would have: the same for every generator."""
_SHARES = (
    "precision", "recall", "coverage", "ndb", "copied_share", "min_class_recall", "class_accuracy",
    "least_mode_ratio", "high_quality_share", "smallest_mode_share",
)  # fmt: skip
"""Figures between 0 and 1."""
DIRECTIONS: dict[str, Good | None] = {
    **dict.fromkeys(_LOW, "low"),
    **dict.fromkeys(_HIGH, "high"),
    **dict.fromkeys((*_NEITHER, *OF_DATA)),
}
"""How the names of figures begin, and whether low or high is good. ``None``: neither is, as of a
ratio that is best at 1."""


def stem_of(figure: str) -> str | None:
    """The longest of :data:`DIRECTIONS` that ``figure`` is or begins with; ``None`` if none is."""
    found = [stem for stem in DIRECTIONS if figure == stem or figure.startswith(f"{stem}_")]
    return max(found, key=len, default=None)


def direction(figure: str) -> Good | None:
    """Whether a low or a high ``figure`` is good; ``None`` where neither is, or nobody knows."""
    stem = stem_of(figure)
    return None if stem is None else DIRECTIONS[stem]


@dataclasses.dataclass(frozen=True)
class FigureNames:
    """``plain`` names, and ``stems`` which the extractor in use ends by one of ``endings``.

    ``own``: those of ``plain`` that are the variant's. ``modes``: how many the data have.
    """

    plain: tuple[str, ...]
    stems: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    modes: float = math.inf

    def all(self) -> set[str]:
        """Every name."""
        return {*self.plain, *(stem + ending for stem in self.stems for ending in self.endings)}

    def limits(self, name: str) -> tuple[float, float]:
        """The least and the most that the figure ``name`` can be; of one's own, any number."""
        if name in self.own:
            return -math.inf, math.inf
        ends = sorted(self.endings, key=len, reverse=True)
        stem = next((name.removesuffix(end) for end in ends if name.endswith(end)), name)
        if stem == "modes_covered":
            return 0.0, self.modes
        return (0.0, 1.0) if stem in _SHARES else (-math.inf, math.inf)

    def nearest(self, name: str) -> str | None:
        """The name that was meant by ``name``, if one is near."""
        if name in self.stems and self.endings:
            return name + self.endings[0]
        return next(iter(get_close_matches(name, sorted(self.all()), n=1, cutoff=0.5)), None)

    def __str__(self) -> str:
        """In words that stay short with several extractors."""
        if len(self.endings) <= 1:
            return ", ".join([*self.plain, *(s + e for e in self.endings for s in self.stems)])
        said = [", ".join(self.plain)] if self.plain else []
        ends = [ending or "nothing" for ending in self.endings]
        said.append(f"{', '.join(self.stems)}, each with {' or '.join(ends)} behind")
        return "; ".join(said)


def evaluation_names(
    extractors: Collection[str],
    *,
    labels: bool,
    mixture: bool,
    conditions: Collection[str],
    own: Collection[str] = (),
    held_out: bool = False,
) -> FigureNames:
    """What evaluations give of a variant with ``conditions``, by ``extractors``.

    ``labels``: whether the source has them; ``mixture``: it is one of points; ``own``: the
    variant's own figures; ``held_out``: samples are compared with held-out examples.
    """
    if mixture:
        return FigureNames((*own, *_OF_MIXTURES), own=tuple(own))
    plain, stems = list(own), list(_OF_FEATURES if extractors else ())
    if held_out and extractors:
        stems.remove("copied_share")
    if labels and extractors:
        stems.append("min_class_recall")
    if labels and "classifier" in extractors:
        plain += [*_OF_CLASSES, *(["class_accuracy"] if "label" in conditions else [])]
    if "text" in conditions and extractors:
        stems += _OF_TEXTS
    endings = tuple(map(ending_of, extractors))
    return FigureNames(tuple(plain), tuple(stems), endings, own=tuple(own))


def ending_of(extractor: str) -> str:
    """How figures by ``extractor`` end: a bare ``fid`` is the official Inception's."""
    return "" if extractor == "inception" else f"_{extractor}"


def declared_figures(variant: type[Variant]) -> tuple[str, ...] | None:
    """The names of the variant's own figures; ``None`` if they are not known in advance.

    A class that has figures of its own and does not name them may give any, whatever the class
    that it is derived from has named.
    """
    for cls in variant.__mro__:
        if "figure_names" in vars(cls):
            return tuple(vars(cls)["figure_names"])
        if "figures" in vars(cls):
            return None
    return ()
