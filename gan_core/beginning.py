"""A new run that begins with the networks of another: of its best state, else its newest one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from gan_core.config import RunConfig, make_config
from gan_core.data.examples import DataSpec
from gan_core.engine import checkpoint as checkpoints
from gan_core.engine.game import Game, fitting_networks
from gan_core.errors import UserError
from gan_core.options import differences
from gan_core.paths import user_path
from gan_core.release import DESCRIPTION
from gan_core.variant import create

TOLD = 3
"""Classes of other names that are named."""


def find_beginning(place: Path) -> Path:
    """The checkpoint that ``place`` stands for: itself, or of a run's folder the best state, else
    the newest one (of a search's trial too); the folder of best states is that of the last. Raises
    ``UserError`` where there is no whole one.
    """
    if (place / checkpoints.MANIFEST).exists():
        checkpoints.verify(place)
        return place
    if not place.exists() and place.parent.name == checkpoints.BEST:
        place = place.parent  # that run has played on, and has had a better state since
    found = checkpoints.find_best(place) or checkpoints.find_checkpoint(place)
    if found is None and place.name == checkpoints.BEST:
        found = checkpoints.find_best(place.parent)
    found = found or checkpoints.first_whole(checkpoints.trial_checkpoints(place))
    if found is None:
        raise UserError(
            f"cannot begin from {place}: it holds no whole checkpoint (give a run's name, its "
            "folder, or that of a checkpoint; a best state lasts until its run has a better one)"
        )
    return found


def with_beginning(config: RunConfig) -> RunConfig:
    """``config`` with ``begin_from`` as the one checkpoint that is meant, and what that is beside.

    Where it begins from nothing, nothing is told (the configuration may be that of a run which
    did). Raises ``UserError`` as :func:`find_beginning` does.
    """
    if config.begin_from is None:
        return dataclasses.replace(config, begun_from={})
    folder = find_beginning(user_path(config.begin_from, "--begin-from").resolve())
    manifest = checkpoints.read_manifest(folder)
    told = {"run": manifest["config"].get("name"), "step": manifest["step"]}
    best = manifest.get("best")
    if best and best["step"] == manifest["step"]:
        told |= {"metric": best["metric"], "value": best["value"]}
    return dataclasses.replace(config, begin_from=str(folder), begun_from=told)


def begun_as(checkpoint: Path, config: RunConfig) -> RunConfig:
    """``config`` with the beginning of the run that it goes on with, from ``checkpoint``."""
    was = checkpoints.read_manifest(checkpoint)["config"]
    told = {"begin_from": was.get("begin_from"), "begun_from": was.get("begun_from") or {}}
    return dataclasses.replace(config, **told)


def beginning_in_words(config: RunConfig) -> str:
    """``config.begun_from`` as a phrase: the other run's name, its step, its figure if known."""
    told = config.begun_from
    figure = f", {told['metric']} {told['value']:.4g}" if "metric" in told else ""
    return f"{told['run']} at step {told['step']:,}{figure}"


def learned_from(folder: Path) -> DataSpec | None:
    """The data that the state in ``folder`` has learned, as its generator says, or ``None``."""
    try:
        return DataSpec.from_dict(json.loads((folder / DESCRIPTION).read_text())["spec"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def renamed_classes(config: RunConfig, spec: DataSpec) -> str | None:
    """A line where the classes of ``spec`` have other names than those that its beginning learned.

    That may be what is wanted: they go by their numbers.
    """
    was = learned_from(Path(str(config.begin_from)))
    if was is None or len(was.class_names) != len(spec.class_names):
        return None
    pairs = zip(was.class_names, spec.class_names, strict=True)
    other = [f"'{there}' is '{here}' now" for there, here in pairs if there != here]
    if not other:
        return None
    told = "; ".join(other[:TOLD]) + (f" and {len(other) - TOLD} more" if other[TOLD:] else "")
    return f"classes go by number, and have other names than in what it begins from: {told}"


def check_beginning(config: RunConfig, spec: DataSpec) -> None:
    """Raises ``UserError`` if the networks of ``config``, for data of ``spec``, are not those of
    the state that it begins from. They are made for that, on the CPU.
    """
    config = with_beginning(config)
    if config.begin_from is None:
        return
    variant = create(config.variant, spec, config.game, config.seed)
    saved = checkpoints.read_shared(Path(config.begin_from), torch.device("cpu"))
    try:
        fitting_networks(variant, saved["game"]["networks"])
    except UserError as error:
        raise _misfit(config, spec, error) from None


def begin(game: Game, config: RunConfig) -> None:
    """Give ``game`` the networks and averages that ``config`` begins from."""
    assert config.begin_from is not None
    saved = checkpoints.read_shared(Path(config.begin_from), game.world.device)
    try:
        game.begin_from(saved["game"])
    except UserError as error:
        raise _misfit(config, game.train.spec, error) from None


def _misfit(config: RunConfig, spec: DataSpec, error: UserError) -> UserError:
    """``error``, of networks of other options, or for other data than ``spec``, with these."""
    other = _differing(config)
    was = learned_from(Path(str(config.begin_from)))
    if was is not None and _in_words(was) != _in_words(spec):
        other.append(f"data: {_in_words(was)} there, {_in_words(spec)} here")
    told = f" ({'; '.join(other)})" if other else ""
    return UserError(f"cannot begin from {config.begin_from}: {error}{told}")


def _in_words(spec: DataSpec) -> str:
    """What networks depend on of the data ``spec``."""
    shape = " x ".join(map(str, spec.target_shape))
    return f"{spec.target}s of {shape}" + (f" in {spec.classes} classes" if spec.classes else "")


def _differing(config: RunConfig) -> list[str]:
    """The options by which ``config`` has other networks than what it begins from, in words."""
    values: dict[str, Any] = checkpoints.read_manifest(Path(str(config.begin_from)))["config"]
    try:
        other = make_config(values)
    except UserError:  # of an earlier version, or by a plugin that is not here
        return []
    found = [d for d in differences(other, config, "identity") if d[0] in ("variant", "data")]
    if other.variant == config.variant:
        found += differences(other.game, config.game, "identity")
    if other.data == config.data:
        names = sorted({*other.data_options, *config.data_options})
        pairs = [(n, other.data_options.get(n), config.data_options.get(n)) for n in names]
        found += [(n, was, now) for n, was, now in pairs if was != now]
    told = ((name, *("not given" if v is None else v for v in both)) for name, *both in found)
    # The system and its source may have an option of one name: once is enough.
    return list(dict.fromkeys(f"{name}: {was} there, {now} here" for name, was, now in told))
