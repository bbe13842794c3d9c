"""Whether trials will have the figures that a search is told to look at.

It is asked three times, each as early as can be: by the variant's and the source's names alone,
when the data have been seen, and when what judges has been made. A name of which it is not known
whether there is one is let through, and tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from gan_core.config import RunConfig
from gan_core.data.mixtures import MIXTURES
from gan_core.errors import UserError
from gan_core.judging import extractor_names
from gan_core.metrics.names import FigureNames, declared_figures, evaluation_names
from gan_core.variant import VARIANTS
from pipelines.tuning.objective import MIXTURE_SCORE, parse_requirement


@dataclasses.dataclass(frozen=True)
class Asked:
    """The user's words: ``metric`` to search by, requirements ``require``."""

    metric: str | None = None
    require: tuple[str, ...] = ()

    def names(self) -> list[tuple[str, str]]:
        """Every option that names a figure, with the name."""
        found = [("--require", parse_requirement(text).figure) for text in self.require]
        return found if self.metric is None else [("--metric", self.metric), *found]

    def check(self, config: RunConfig, names: FigureNames | None) -> None:
        """Raises ``UserError`` for a figure that is not among ``names`` (``None``: unknown), and
        for a requirement that it can never meet.
        """
        if names is None:
            return
        for option, name in self.names():
            known = names
            if option == "--metric" and config.data in MIXTURES:
                # What trials are compared by, though it is no figure that they are judged by.
                known = dataclasses.replace(names, plain=(*names.plain, MIXTURE_SCORE))
            if name not in known.all():
                raise _unknown(option, name, config, known)
        for requirement in map(parse_requirement, self.require):
            least, most = names.limits(requirement.figure)
            if not requirement.possible(least, most):
                raise UserError(
                    f"--require {requirement} can never be met: {requirement.figure} is between "
                    f"{least:g} and {most:g} on {config.data}"
                )


def declared_mode(config: RunConfig, metric: str) -> str | None:
    """ "min" or "max" where the run's variant says by ``best_by`` what is good, else ``None``."""
    good = dict(VARIANTS[config.variant].best_by).get(metric)
    return None if good is None else "min" if good == "low" else "max"


def _unknown(option: str, name: str, config: RunConfig, known: FigureNames) -> UserError:
    meant = known.nearest(name)
    hint = f": did you mean '{meant}'? There" if meant else "; there"
    return UserError(
        f"{option} {name} is no figure of {config.variant} on {config.data} with --extractor "
        f"{config.extractor}{hint} are {str(known) or 'none'}"
    )


def names_before_data(config: RunConfig) -> FigureNames | None:
    """All that the run ``config`` may give, whatever its data are."""
    return names_to_come(config, extractor_names(config, None), labels=True)


def names_of_data(config: RunConfig, facts: Mapping[str, Any]) -> FigureNames | None:
    """All that it may give of data with ``facts``: what ``gan_core.preparing.check_data`` finds."""
    pictures = facts["target"] == "image" and len(facts["shape"]) == 3
    labels = facts["classes"] > 1  # one class tells nothing apart
    extractors = extractor_names(config, labels) if pictures else ()
    modes = facts["classes"] if labels else math.inf
    return names_to_come(config, extractors, labels=labels, modes=modes)


def names_to_come(
    config: RunConfig,
    extractors: Collection[str],
    *,
    labels: bool,
    own: Collection[str] | None = None,
    modes: float = math.inf,
) -> FigureNames | None:
    """What it gives by ``extractors``; ``None`` if the variant may give any.

    ``own``: the variant's own figures, ``modes``: classes of the data, where known by now.
    """
    variant = VARIANTS[config.variant](config.game)
    known = declared_figures(type(variant)) if own is None else own
    if known is None:
        return None
    names = evaluation_names(
        extractors,
        labels=labels,
        mixture=config.data in MIXTURES,
        conditions=variant.conditions(),
        own=known,
        held_out=variant.asks_held_out,
    )
    if config.data in MIXTURES:
        modes = len(MIXTURES[config.data].modes)
    return dataclasses.replace(names, modes=modes)
