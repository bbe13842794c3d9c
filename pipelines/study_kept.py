"""Whether what a study finds under the names of its steps is what its command asks for.

A step that was finished is passed over by its name alone, which says little of its options: what
another command has left there would be told as this one's.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.config import RunConfig
from gan_core.errors import UserError
from gan_core.options import flag
from pipelines.run_folder import kept_config
from pipelines.tuning.study import Study, load_study

_PLACE = {"name", "storage", "cache"}
"""Of a run: where it is."""
_DECIDED = {"metric", "mode", "gpus_per_trial"}
"""Options of a search that are decided as it begins where they are left open."""


def check_search(folder: Path, asked: Study) -> None:
    """``UserError`` if the search in ``folder`` is not the one that is ``asked`` for."""
    kept = load_study(folder)
    own, its = vars(asked.options), vars(kept.options)
    open_names = {name for name in _DECIDED if own[name] is None} | {"max_steps"}
    _compare(folder, _without(its, open_names), _without(own, open_names))
    if kept.max_steps != asked.max_steps:  # the length of stages, --max-steps, is not the user's
        raise _other(
            folder,
            f"a trial had {kept.max_steps:,} iterations and would now have {asked.max_steps:,}, by "
            f"--budget or by what --{asked.run.variant} says",
        )
    _compare_runs(folder, kept.run, asked.run)
    fixed = set(kept.fixed) - set(asked.fixed)
    if fixed:  # a --config has values that are kept as well, a system options that it refuses
        from pipelines.tuning.schedulers import outside_space, refused_names

        study = dataclasses.replace(asked, target=kept.target)
        fixed -= {*outside_space(study), *refused_names(study)}
    for name in sorted(fixed):
        raise _other(folder, f"{flag(name)} was given and is now searched")
    for name in sorted(set(asked.fixed) - set(kept.fixed)):
        raise _other(folder, f"{flag(name)} was searched and is now given")


def check_training(folder: Path, asked: RunConfig) -> None:
    """``UserError`` if the run in ``folder`` is not the one that is ``asked`` for."""
    _compare_runs(folder, kept_config(folder), asked)


def _compare_runs(folder: Path, kept: RunConfig, asked: RunConfig) -> None:
    from pipelines.cluster import absolute

    was, now = (_flat(absolute(config)) for config in (kept, asked))
    _compare(folder, was, now)


def _flat(config: RunConfig) -> dict[str, Any]:
    """All that decides about a run, by the names of the options."""
    values = _without(config.to_dict(), _PLACE)
    options, source = values.pop("options"), values.pop("data_options")
    first = {"variant": values["variant"], "data": values["data"]}
    return {**first, **source, **options, **values}


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _compare(folder: Path, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """``UserError`` for the first difference; what only one of them has was added later."""
    for name, now in asked.items():
        if name in kept and kept[name] != now:
            was, is_now = (textwrap.shorten(str(value), 80) for value in (kept[name], now))
            raise _other(folder, f"{flag(name)} was {was} and is now {is_now}")


def _other(folder: Path, difference: str) -> UserError:
    return UserError(
        f"{folder} is of another study ({difference}): give another --name, or the words that it "
        "was begun with"
    )
