"""Runs by their names, the generators they left, and what this machine can write and compute."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.errors import UserError
from gan_core.paths import exists, user_path
from pipelines.cluster import base_folder

if TYPE_CHECKING:
    from gan_core.config import RunConfig
    from gan_core.release import ReleasedGenerator

_LONGEST = 200
"""Bytes of a run's name, to which stages add theirs; file systems allow 255."""


def out_file(name: str) -> Path:
    """The absolute path of a file, or folder, that is written for the user; in a Ray job one that
    outlives it.
    """
    return base_folder() / user_path(name, "--out")


def runs_folder(storage: str) -> Path:
    """The folder that ``--storage`` names; in a Ray job, whose own folder is deleted, in home."""
    return base_folder() / user_path(storage, "--storage")


def named(config: RunConfig) -> RunConfig:
    """``config`` under the name given, or under one made of what it trains and the time."""
    storage = runs_folder(config.storage)
    if config.name is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        stem = f"{config.variant}-{config.data}-{now}"
        names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
        return dataclasses.replace(
            config, name=next(n for n in names if not (storage / n).exists())
        )
    check_name(config.name)
    if (storage / config.name).exists():
        raise UserError(
            f"run '{config.name}' exists already in {storage}: choose another --name, "
            f"or continue it with --resume {shlex.quote(config.name)}"
        )
    return config


def check_name(name: str) -> None:
    """Raises ``UserError`` unless ``name`` can be a run's, or what others begin with."""
    if not name.strip() or Path(name).name != name or name.startswith(".") or name == "cache":
        raise UserError(f"--name must be a plain name for a folder, not '{name}'")
    if len(os.fsencode(name)) > _LONGEST:
        raise UserError(f"--name must be at most {_LONGEST} bytes long: it is a folder's")


def find_run(name: str, storage: Path) -> Path:
    """The folder of the run ``name``, in ``storage`` or itself a path; ``UserError`` if none."""
    for folder in (storage / name, user_path(name)):
        if exists(folder / "config.yaml"):
            return folder.resolve()
    if os.sep in name and not exists(user_path(name)):
        raise UserError(f"there is no folder {name}: give a run's name, or its folder")
    known = sorted(path.parent.name for path in storage.glob("*/config.yaml"))
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "give a run's name, or its folder"
    raise UserError(f"no run '{name}' in {storage}: {hint}")


def resolve(name: str, storage: str) -> Path:
    """The folder that the user means by a run's name or a path; ``UserError`` if none."""
    place = user_path(name)
    if not exists(runs_folder(storage) / name / "config.yaml") and exists(place) and place.is_dir():
        return place.resolve()
    return find_run(name, runs_folder(storage))


def refuse_search(folder: Path) -> None:
    """Raises ``UserError`` if ``folder`` is that of a search, which has runs and is none."""
    from pipelines.run_folder import read_summary
    from pipelines.tuning.study import is_study

    if is_study(folder):
        best = read_summary(folder).get("best") or {}
        trial = folder / str(best.get("trial", "trial_0001"))
        raise UserError(
            f"{folder.name} is a search: name one of its trials, such as {shlex.quote(str(trial))}"
        )


def check_checkpoints(folder: Path) -> None:
    """Raises ``UserError`` if the run in ``folder`` has checkpoints and none of them is whole."""
    from gan_core.engine.checkpoint import BrokenCheckpoint, all_checkpoints, verify

    broken = None
    for checkpoint in all_checkpoints(folder):
        try:
            verify(checkpoint)
        except BrokenCheckpoint as error:
            broken = broken or error
        else:
            return
    if broken is not None:
        raise UserError(f"cannot resume: {broken}, and no other is whole; start a new run")


def check_writable(folder: Path, what: str, remedy: str = "choose another folder") -> None:
    """That files can be written into ``folder`` (made if missing), by doing so; else ``UserError``
    with ``what`` it is and a ``remedy``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write to {what} ({reason}): {remedy}") from None


def check_run_writable(folder: Path) -> None:
    """The same of the run in ``folder``, for what is found out about it and kept there."""
    check_writable(folder, str(folder), "make it writable, or copy the run")


def pick_device(name: str) -> str:
    """``auto``, ``cpu`` or ``cuda`` as a device of this machine; ``UserError`` if it has none."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device, use auto or cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def without_extractor(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user ``given`` that can be checked before a run is opened: the words that
    ``--extractor`` takes may be those of its plugins.
    """
    return {name: value for name, value in given.items() if name != "extractor"}


def open_generator(path: Path, device: str) -> ReleasedGenerator:
    """The generator at ``path`` on ``device`` (``auto``, ``cpu``, ``cuda``), else ``UserError``."""
    from gan_core.release import load_generator

    refuse_search(path)
    return load_generator(path, device=pick_device(device))
