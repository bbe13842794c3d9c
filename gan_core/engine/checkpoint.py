"""Checkpoints: a folder with what all ranks share, what each rank keeps, and their checksums.

``state.pt`` (rank 0), ``rank_R.pt`` (each rank), ``manifest.json`` (rank 0). Each ``.pt`` has a
``.sha256`` beside it, so a truncated file is known before it is used. Only tensors and plain
values are stored; files are read with ``weights_only=True``, so none can run code.

The best state of a run is such a folder below ``best/``, where nobody looks for the newest one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gan_core.checksums import remembered_sha256_of, sha256_of
from gan_core.errors import UserError, first_line

FORMAT = 1
MANIFEST = "manifest.json"
BEST = "best"
"""The folder, in that of a run, in which its best state is."""
_PROMISED = {"step", "world_size", "config", "data"}
_log = logging.getLogger(__name__)


class BrokenCheckpoint(UserError):
    """A checkpoint that is truncated, incomplete or foreign."""


def _write(path: Path, value: Any) -> None:
    """``value`` and its checksum; the name appears only when the file is whole."""
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    digest = sha256_of(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    _write_text(path.with_suffix(".sha256"), digest)
    partial.replace(path)


def _write_text(path: Path, text: str) -> None:
    """``text`` on the disk, not only on its way there: files beside it are known by it."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _verify(path: Path) -> None:
    try:
        wanted = path.with_suffix(".sha256").read_text().strip()
        found = remembered_sha256_of(path)  # a resume looks several times, each before it reads
    except OSError as error:
        raise BrokenCheckpoint(f"checkpoint {path.parent} is incomplete: {error}") from None
    if wanted != found:
        raise BrokenCheckpoint(f"checkpoint {path.parent} is damaged: {path.name} is not whole")


def write_rank(folder: Path, rank: int, state: dict[str, Any]) -> None:
    """This rank's own state."""
    _write(folder / f"rank_{rank}.pt", state)


def files_of(rank: int) -> tuple[str, ...]:
    """The files that ``rank`` writes, the manifest last."""
    own = (f"rank_{rank}.pt", f"rank_{rank}.sha256")
    return own if rank else (*own, "state.pt", "state.sha256", MANIFEST)


def write_shared(folder: Path, state: dict[str, Any], manifest: dict[str, Any]) -> None:
    """What all ranks share, and the manifest (``step``, ``world_size``, ``config``...)."""
    _write(folder / "state.pt", state)
    whole = json.loads(json.dumps({"format": FORMAT, **manifest}))  # as it will be read
    text = json.dumps({**whole, "sha256": _digest(whole)}, indent=1)
    _write_text(folder / MANIFEST, text)


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of what the manifest says, less its own digest."""
    said = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def copy_files(source: Path, folder: Path, names: Iterable[str]) -> None:
    """The files ``names`` of ``source`` in ``folder`` too; without copying them where that is
    possible: files of a checkpoint are replaced, and never written to again.
    """
    for name in names:
        try:
            (folder / name).hardlink_to(source / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / name, folder / name)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; :class:`BrokenCheckpoint` if the folder is no checkpoint of this project."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        known = manifest["format"] == FORMAT and set(manifest) >= _PROMISED
        counts = known and all(type(manifest[name]) is int for name in ("step", "world_size"))
    except (OSError, ValueError, KeyError, TypeError):
        counts = False
    if not counts:
        raise BrokenCheckpoint(
            f"{folder} is no checkpoint of this program: it has no manifest.json of format {FORMAT}"
        )
    if manifest.get("sha256", _digest(manifest)) != _digest(manifest):  # earlier ones have none
        raise BrokenCheckpoint(f"checkpoint {folder} is damaged: manifest.json is not whole")
    return dict(manifest)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a whole checkpoint; raises :class:`BrokenCheckpoint` otherwise."""
    manifest = read_manifest(folder)
    _verify(folder / "state.pt")
    for rank in range(manifest["world_size"]):
        _verify(folder / f"rank_{rank}.pt")
    return manifest


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:
        reason = first_line(error)[:200]
        raise BrokenCheckpoint(f"checkpoint {path} cannot be read: {reason}") from None


def read_shared(folder: Path, device: torch.device) -> dict[str, Any]:
    """What all ranks share."""
    _verify(folder / "state.pt")
    return _load(folder / "state.pt", device)


def read_rank(folder: Path, rank: int, device: torch.device) -> dict[str, Any]:
    """The state of ``rank``."""
    _verify(folder / f"rank_{rank}.pt")
    return _load(folder / f"rank_{rank}.pt", device)


def all_checkpoints(run_folder: Path) -> list[Path]:
    """Every checkpoint folder of a run, the newest step first, whole or not."""
    found = []
    for folder in [*run_folder.glob("checkpoints/step_*"), *run_folder.glob("ray/*/checkpoint_*")]:
        if not re.search(r"\.(partial|tmp)$", folder.name):
            found.append((step_of(folder), folder.stat().st_mtime, folder))
    return [folder for _, _, folder in sorted(found, reverse=True)]


def step_of(folder: Path) -> int:
    """The step of a checkpoint's ``folder``, by its name; -1 if that has none."""
    number = re.search(r"\d+$", folder.name)
    return int(number.group()) if number else -1


def remove_outdated(run_folder: Path, kept: Sequence[Path]) -> None:
    """Remove checkpoints of a run that are no newer than those ``kept``, which lie in one folder,
    from where else it has some: as a run of Ray Train has in a folder for each of its starts.
    """
    last, own = min(map(step_of, kept)), kept[0].parent
    for other in all_checkpoints(run_folder):
        if other.parent != own and step_of(other) <= last:
            shutil.rmtree(other, ignore_errors=True)


def trial_checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint folder of a search's trial, the last one kept first, whole or not."""
    return sorted(folder.glob("checkpoint_[0-9]*"), reverse=True)


def find_checkpoint(run_folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; damaged ones are passed over with a warning."""
    return first_whole(all_checkpoints(run_folder))


def all_bests(run_folder: Path) -> list[Path]:
    """The folders of a run's best state, the last kept first: one, but after a crash."""
    found = [p for p in (run_folder / BEST).glob("*_step_*") if p.suffix != ".partial"]
    return sorted(found, key=_number, reverse=True)


def find_best(run_folder: Path) -> Path | None:
    """The whole best state of a run that was kept last; damaged ones are passed over."""
    return first_whole(all_bests(run_folder))


def next_best(run_folder: Path, step: int) -> Path:
    """The folder for a new best state, of ``step``.

    They are numbered: a run that goes on from an older checkpoint may have its new best at the
    step of the last one, or before it.
    """
    number = 1 + max(map(_number, all_bests(run_folder)), default=0)
    return run_folder / BEST / f"{number:04d}_step_{step:08d}"


def _number(folder: Path) -> int:
    number = folder.name.partition("_")[0]
    return int(number) if number.isdigit() else 0


def first_whole(folders: Iterable[Path]) -> Path | None:
    """The first of the checkpoints that is whole; damaged ones are passed over with a warning."""
    for folder in folders:
        try:
            verify(folder)
        except BrokenCheckpoint as error:
            _log.warning("%s; passed over for the one before it", error)
        else:
            return folder
    return None
