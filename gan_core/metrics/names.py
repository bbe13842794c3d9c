"""The names of the figures that an evaluation gives, known before there is anything to evaluate.

So a wrong name is answered at once, not when the first generator is judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from difflib import get_close_matches

from gan_core.variant import Variant

_OF_FEATURES = (
    "fid", "kid", "inception_score", "precision", "recall", "density", "coverage", "ndb",
    "bin_divergence", "vendi_ratio", "distance_ratio", "birthday_support", "copied_share",
)  # fmt: skip
_OF_TEXTS = ("retrieval", "retrieval_real", "retrieval_excess")
_OF_MODES = ("modes_covered", "mode_kl", "least_mode_ratio")
_OF_CLASSES = (*_OF_MODES, "ms_ssim", "ms_ssim_real")
_OF_MIXTURES = (*_OF_MODES, "high_quality_share", "smallest_mode_share")


@dataclasses.dataclass(frozen=True)
class FigureNames:
    """``plain`` names, and ``stems`` which the extractor in use ends by one of ``endings``."""

    plain: tuple[str, ...]
    stems: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()

    def all(self) -> set[str]:
        """Every name."""
        return {*self.plain, *(stem + ending for stem in self.stems for ending in self.endings)}

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
        return FigureNames((*own, *_OF_MIXTURES))
    plain, stems = list(own), list(_OF_FEATURES if extractors else ())
    if held_out and extractors:
        stems.remove("copied_share")
    if labels and extractors:
        stems.append("min_class_recall")
    if labels and "classifier" in extractors:
        plain += [*_OF_CLASSES, *(["class_accuracy"] if "label" in conditions else [])]
    if "text" in conditions and extractors:
        stems += _OF_TEXTS
    return FigureNames(tuple(plain), tuple(stems), tuple(map(ending_of, extractors)))


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
