"""What a run is judged by: extractors, the evaluator, the figure that decides."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gan_core.config import RunConfig
from gan_core.data.examples import DataSpec, Examples
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.splits import load_test_split

TRACKED = ("fid", "fid_classifier", "fid_mobilenet_v2")
"""The figures that decide which generator is the best, the first that there is; then ``fid_...``
by an extractor of the user's."""


def check_extractor(config: RunConfig, spec: DataSpec) -> None:
    """Raises ``UserError`` if an extractor asked for by name can see nothing in data of ``spec``.

    Under auto and none there is nothing to refuse.
    """
    from gan_core.metrics.classifier import check_spec

    if config.extractor in ("auto", "none"):
        return
    if not spec.pictures:
        raise UserError(
            f"--extractor {config.extractor} needs pictures and '{config.data}' has "
            f"{spec.target} data: leave it out"
        )
    if config.extractor == "classifier":
        check_spec(spec, config.data)


def count_modes(config: RunConfig, spec: DataSpec) -> int:
    """The modes in the run's data: Gaussians, else classes, 0 where there are no two of them."""
    from gan_core.data.mixtures import MIXTURES

    if config.data in MIXTURES:
        return len(MIXTURES[config.data].modes)
    return spec.classes if spec.labelled else 0


def mode_shares(config: RunConfig, examples: Examples) -> list[float]:
    """The shares of those modes that there are among ``examples``; none where none are known."""
    modes = count_modes(config, examples.spec)
    if not examples.spec.labelled or not modes:
        return [1 / modes] * modes if modes else []
    counts = torch.bincount(examples.tensors["label"].flatten())
    return (counts[counts > 0].double() / counts.sum()).tolist()


def tracked_figure(
    figures: dict[str, float], best_by: tuple[tuple[str, str], ...] = ()
) -> tuple[str, float] | None:
    """The figure that decides which generator is best, and a score: the lower, the better.

    Infinity where the figure is not finite; such a generator is none of the best.
    ``best_by``: the variant's own, see :class:`~gan_core.variant.Variant`.
    """
    for name, good in best_by:
        if name in figures:
            return name, _score(figures[name] if good == "low" else -figures[name])
    for name in (*TRACKED, *(name for name in figures if name.startswith("fid_"))):
        if name in figures:
            return name, _score(figures[name])
    if "high_quality_share" in figures:
        share = figures["high_quality_share"]
        return "high_quality_share", _score(-(figures["modes_covered"] + share))
    return None


def _score(value: float) -> float:
    return value if math.isfinite(value) else math.inf


_FAMILIES = {"fid": "inception", "kid": "inception", "high_quality_share": "modes"}


def tracked_protocol(metric: str, protocol: Mapping[str, str], own: str) -> str | None:
    """Which line of ``protocol`` is about the figure that decides; ``None`` where none is.

    ``own``: the name under which the variant's own figures are told.
    """
    of_extractor = (name for name in protocol if metric.endswith(f"_{name}"))
    return protocol.get(_FAMILIES.get(metric) or next(of_extractor, own))


_OWN_SIZE = re.compile(r"(?<=resized to native): [^;]*")
_CLASS_RECALL = re.compile(r"class recall by [^,;]*, ")
_OF_NEIGHBOURS = re.compile(r", precision and recall k=[^;]*")


def comparable(figure: str, protocol: str) -> str:
    """What must be the same of the ``protocol`` of a ``figure`` for two of them to compare.

    All samples are judged at the data's own size, from whatever size a system has brought them to
    it. Which examples are compared one by one does not matter to distances between distributions;
    whether it is conditional matters to the recall of single classes alone.
    """
    text = _OWN_SIZE.sub("", protocol)
    if figure.startswith(("fid", "kid", "inception_score")):
        return _OF_NEIGHBOURS.sub("", text)
    return text if figure.startswith("min_class_recall") else _CLASS_RECALL.sub("", text)


def told_of_training(config: RunConfig, split: str, protocol: dict[str, str]) -> dict[str, str]:
    """``protocol`` of figures on ``split``, which says so where the run has learned from that."""
    if split != "validation" or config.train_split == "train":
        return protocol
    return {name: f"{text}; trained on validation as well" for name, text in protocol.items()}


def check_reference(real: Examples) -> None:
    """Raises ``UserError`` if there are too few pictures for figures that compare with them."""
    from gan_core.metrics.manifold import DENSITY_NEIGHBOURS

    fewest = DENSITY_NEIGHBOURS + 1  # else balls reach to a nearer neighbour than is said
    if len(real) < fewest:
        held = "1 picture" if len(real) == 1 else f"{len(real)} pictures"
        raise UserError(
            f"the {real.split} split of '{real.source}' holds {held}, and figures that compare "
            f"with pictures need {fewest}: give more, or choose another --split"
        )


def make_evaluator(
    config: RunConfig,
    train: Examples,
    world: World,
    *,
    reference: Examples | None = None,
    conditional: bool,
    resizer: str,
    say: Callable[[str, str], None],
) -> Any:
    """The evaluator of ``config``, or False where there is none.

    Generated examples are compared with the training split, or with ``reference``, where samples
    are made for its examples: then with as many samples as it has, if ``config`` wants more (of
    unpaired ones as many as either side has).
    ``say`` (text and level) is told what is used, and what cannot be had under ``--extractor
    auto``; asked for by name that is a ``UserError``. Every rank calls this.
    """
    from gan_core.data.mixtures import MIXTURES
    from gan_core.metrics.evaluation import Evaluator

    extractors = make_extractors(config, train, world, say)
    mixture = MIXTURES.get(config.data)
    if not extractors and mixture is None:
        return False
    real = train if reference is None else reference
    if extractors:
        check_reference(real)
    for extractor in extractors:
        say(f"figures by {extractor.name}, against {len(real)} real pictures", "info")
    return Evaluator(
        reference=real,
        extractors=extractors,
        samples=config.samples if reference is None else min(config.samples, real.shortest),
        world=world,
        cache=config.cache_folder,
        mixture=mixture,
        conditional=conditional,
        resizer=resizer,
        matcher=_make_matcher(config, train, world, extractors, say),
    )


def _make_matcher(
    config: RunConfig,
    train: Examples,
    world: World,
    extractors: list[Any],
    say: Callable[[str, str], None],
) -> Any:
    """Who says whether pictures match their texts, by the first extractor; ``None`` without."""
    if "text" not in train.spec.tensors or not extractors:
        return None
    from gan_core.metrics.retrieval import create_matcher

    say(f"texts are matched with the features of {extractors[0].name}", "info")
    return create_matcher(train, extractors[0], world, config.cache_folder)


def extractor_names(config: RunConfig, labels: bool | None) -> tuple[str, ...]:
    """The extractors that ``config`` may come to use for pictures, in the order of preference.

    ``labels``: whether the source has some, of two classes or more; ``None`` where that is not
    known yet.
    """
    if config.extractor == "none":
        return ()
    if config.extractor != "auto":
        return (config.extractor,)
    learned, found = ("classifier",), ("inception", "mobilenet_v2")
    return (*learned, *found) if labels is None else learned if labels else found


def make_extractors(
    config: RunConfig, train: Examples, world: World, say: Callable[[str, str], None]
) -> list[Any]:
    """The feature extractors that ``config`` asks for; see :func:`make_evaluator`.

    Under auto: the classifier of a labelled source, else the first whose weights are at hand.
    """
    check_extractor(config, train.spec)
    names = extractor_names(config, train.spec.labelled) if train.spec.pictures else ()
    if config.extractor != "auto":
        made = [_make_extractor(name, config, train, world) for name in names]
        _tell_weak(made, say)
        return made
    missing: list[str] = []
    found: list[Any] = []
    for name in names:
        try:
            found = [_make_extractor(name, config, train, world)]
            break
        except UserError as error:
            missing.append(f"no figures by {name}: {error}")
    for text in missing:
        say(text, "info" if found else "warning")
    _tell_weak(found, say)
    return found


def _tell_weak(extractors: Sequence[Any], say: Callable[[str, str], None]) -> None:
    """Say of a classifier that has not learned to tell classes apart that it has not."""
    from gan_core.metrics.classifier import ClassifierExtractor

    for extractor in extractors:
        if not isinstance(extractor, ClassifierExtractor):
            continue
        accuracy, guess = extractor.test_accuracy, extractor.guess
        if accuracy <= guess:
            say(
                f"the classifier recognises {accuracy:.0%} of the test split, of which its largest "
                f"class is {guess:.0%}: figures of classes (modes, class accuracy) say nothing; "
                "give more pictures of each, or --extractor mobilenet_v2",
                "warning",
            )


def _make_extractor(name: str, config: RunConfig, train: Examples, world: World) -> Any:
    """Every rank gets the extractor or the same error: rank 0 alone looks for what it needs."""
    from gan_core.metrics.extractors import create_extractor
    from gan_core.metrics.ranks import on_leader

    loaded: list[Examples] = []
    if name == "classifier":
        on_leader(world, lambda: loaded.append(load_test_split(config)))
    return create_extractor(
        name,
        world=world,
        train=train,
        test=loaded[0] if loaded else None,
        weights=None if config.extractor_weights is None else Path(config.extractor_weights),
        download=config.extractor != "auto",
        cache=config.cache_folder,
    )
