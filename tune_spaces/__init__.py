"""What to search for each variant, and why: one module a variant, nothing else is here.

A plugin's variant has its space as an attribute, see :func:`space_of`.

How to write ``tune_spaces/NAME.py`` for the variant NAME
---------------------------------------------------------
The module has one constant, ``SPACE``::

    from ray import tune

    from tune_spaces import Dimension, SearchSpace, Setting
    from tune_spaces.adversarial import adversarial

    SPACE = SearchSpace(
        dimensions=adversarial(
            k=Dimension(tune.choice([1, 5]), "table 1 of the paper compares these"),
            penalty=Dimension(tune.loguniform(0.1, 100.0), "10 in the paper, a decade either way"),
        ),
        settings=(
            Setting("Miyato et al. 2018, setting A", {"lr_d": 1e-4, "lr_g": 1e-4, "k": 5}),
            Setting("Miyato et al. 2018, setting B", {"lr_d": 1e-4, "lr_g": 1e-4, "k": 1}),
        ),
    )

- A dimension's name is an option of the variant (a field of its ``Options``); its ``domain`` is
  ``tune.choice``, ``tune.uniform``, ``tune.loguniform`` or ``tune.quniform``. Whole numbers are
  ``tune.choice`` of the few that matter. ``reason`` says why this range and not another.
- :func:`tune_spaces.adversarial.adversarial` gives the dimensions that every system of one
  generator and one discriminator has; what is given by name replaces or adds, ``name=None``
  takes one away. Other systems write the mapping out.
- ``settings`` are the papers' own, tried before anything else. What a setting leaves out is the
  variant's default, so it must say what defaults to ``None``; all must lie inside the domains.
- A variant that needs another space for another kind of target has ``TARGETS``, a mapping of
  the target's name (``DataSpec.target``, such as "point") to a ``SearchSpace``.
- Numbers among the options of kind "schedule" are what population-based training may change
  while a trial plays; of that nothing need be said here.

``tests/test_tune_spaces.py`` checks every module there is: options exist, settings lie inside,
drawn values make valid options, reasons are given.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gan_core.errors import UserError, named_line, unknown_word

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One option that is searched: its ``domain`` in Ray Tune's terms and why it is that."""

    domain: Domain
    reason: str

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one that a search can draw."""
        listed = getattr(self.domain, "categories", None)
        if listed is not None:
            return value in listed
        return value is not None and bool(self.domain.is_valid(value))


@dataclasses.dataclass(frozen=True)
class Setting:
    """Values from a publication, ``source``: they are tried first."""

    source: str
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The options that are searched, by name, and the settings that are tried first."""

    dimensions: Mapping[str, Dimension]
    settings: tuple[Setting, ...] = ()

    def domains(self) -> dict[str, Domain]:
        """The space as Ray Tune takes it: option name to domain."""
        return {name: dimension.domain for name, dimension in self.dimensions.items()}

    def without(self, fixed: Mapping[str, Any]) -> SearchSpace:
        """The space without the options that the user has ``fixed``.

        A setting that differs from what is fixed is still tried, in what is left of it.
        """
        kept = {name: d for name, d in self.dimensions.items() if name not in fixed}
        settings = tuple(
            Setting(s.source, {n: v for n, v in s.values.items() if n not in fixed})
            for s in self.settings
        )
        return SearchSpace(kept, settings)

    def first_points(self, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The settings as complete points of the space, each once, in their order.

        ``defaults`` (option name to value) fill what a setting leaves out. One that is not of the
        space (its batches, where these are limited) is left out.
        """
        points: list[dict[str, Any]] = []
        for setting in self.settings:
            point = self.filled(setting, defaults)
            inside = all(d.holds(point[name]) for name, d in self.dimensions.items())
            if inside and point not in points:
                points.append(point)
        return points

    def filled(self, setting: Setting, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """``setting`` as a complete point; ``defaults`` are what it leaves out."""
        values = {**defaults, **setting.values}
        return {name: values[name] for name in self.dimensions}

    def with_batches_for(self, workers: int) -> SearchSpace:
        """The space with those batch sizes alone that ``workers`` can share equally.

        ``UserError`` if there is none.
        """
        from ray import tune

        name = "batch_size"
        if name not in self.dimensions:
            return self
        listed = getattr(self.dimensions[name].domain, "categories", ())
        sizes = [size for size in listed if size % workers == 0]
        if not sizes:
            raise UserError(
                f"none of the batch sizes that are searched can be shared by {workers} workers: "
                "fix one with --batch-size, or choose other --workers-per-trial"
            )
        kept = Dimension(tune.choice(sizes), self.dimensions[name].reason)
        return dataclasses.replace(self, dimensions={**self.dimensions, name: kept})


def space_of(variant: str, target: str = "image") -> SearchSpace:
    """The space of ``variant`` for data whose target is ``target``.

    A plugin's variant brings its own: the attribute ``space``, a :class:`SearchSpace`, or a class
    method of that name that makes one for the target's name. Without, a system of one generator and
    one discriminator has that of :mod:`tune_spaces.adversarial`. ``UserError`` if there is none.
    """
    from gan_core.variant import VARIANTS
    from gan_core.variants.adversarial import AdversarialOptions
    from tune_spaces.adversarial import adversarial

    own: Any = VARIANTS[variant].space
    if own is not None:
        return _checked(variant, _made(variant, own, target) if callable(own) else own)
    if VARIANTS[variant].__module__.startswith("gan_core.variants."):
        module = importlib.import_module(f"tune_spaces.{variant}")
        found: SearchSpace = getattr(module, "TARGETS", {}).get(target, module.SPACE)
        return found
    if issubclass(VARIANTS[variant].Options, AdversarialOptions):
        return SearchSpace(adversarial())
    raise UserError(
        f"nothing says what to search for {variant}: give the class an attribute `space`, a "
        f"tune_spaces.SearchSpace (systems that are here have tune_spaces/{variant}.py)"
    )


def _made(variant: str, own: Callable[[str], object], target: str) -> object:
    """What the class method ``own`` of ``variant`` makes for ``target``; ``UserError`` if none."""
    try:
        return own(target)
    except Exception as error:
        raise UserError(
            f"`space` of {variant} fails for the target '{target}': {named_line(error)}"
        ) from error


def _checked(variant: str, space: object) -> SearchSpace:
    """``space`` if it is one of the options of ``variant``, else ``UserError``."""
    from ray.tune.search.sample import Categorical, Float

    from gan_core.variant import VARIANTS

    if not isinstance(space, SearchSpace):
        kind = type(space).__name__
        raise UserError(f"`space` of {variant} is a {kind}, not a tune_spaces.SearchSpace")
    known = [field.name for field in dataclasses.fields(VARIANTS[variant].Options)]
    for name, dimension in space.dimensions.items():
        if name not in known:
            raise unknown_word(f"option of {variant} in its `space`:", name, known)
        if not isinstance(dimension, Dimension) or not isinstance(
            dimension.domain, (Categorical, Float)
        ):
            raise UserError(
                f"{name} in the `space` of {variant} is no Dimension of a tune.choice, "
                "tune.uniform, tune.loguniform or tune.quniform: write "
                'Dimension(tune.choice([1, 2]), "why these")'
            )
    return space
