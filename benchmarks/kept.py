"""Whether what a benchmark finds in its folder is what its command asks for.

Results are found by a run's name alone, which says little of the options that it was played with.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.config import RunConfig, check_resumable, make_config
from gan_core.engine.checkpoint import BrokenCheckpoint, all_checkpoints, read_manifest
from gan_core.errors import UserError
from gan_core.splits import load_split

OUT, SUFFIX = "give another --out", "give another --out (or --suffix)"
_MATTERS = (
    *("engine", "precision", "memory_format", "evaluate_every", "checkpoint_every"),
    *("extractor", "samples", "stop_on", "stop_patience"),
)
"""What a run may change when it goes on, but a benchmark's result is not independent of."""


def check_asked(
    place: Path, kept: Mapping[str, Any], asked: Mapping[str, Any], remedy: str = OUT
) -> None:
    """``UserError`` if what is ``kept`` at ``place`` contradicts what is ``asked``.

    What was not written down (by earlier versions) contradicts nothing.
    """
    for name, now in asked.items():
        if name in kept and kept[name] != now:
            was, is_now = (textwrap.shorten(str(value), 80) for value in (kept[name], now))
            raise _other(place, f"{name} was {was} and is now {is_now}", remedy)


def check_run(config: RunConfig, remedy: str = OUT) -> None:
    """``UserError`` if the run that is kept in the folder of ``config`` was another one.

    Other steps or rates count too: a result is that of one configuration, from the first step on.
    """
    found = _kept_run(config.folder)
    if found is None:
        return
    values, data = found
    try:
        kept = make_config(values)
        changed = check_resumable(kept, config)
    except UserError as error:
        reason = str(error).removeprefix("cannot resume: ").partition(";")[0]
        raise _other(config.folder, reason, remedy) from None
    if changed:
        raise _other(config.folder, "; ".join(changed), remedy)
    before, after = ({n: getattr(c, n) for n in _MATTERS} for c in (kept, config))
    check_asked(config.folder, before, after, remedy)
    if data is not None and _absolute(kept.data_root) != _absolute(config.data_root):
        its = load_split(config, config.train_split).fingerprint  # type: ignore[arg-type]
        if its != data:
            reason = f"of the data in {kept.data_root}, and those in {config.data_root} differ"
            raise _other(config.folder, reason, remedy)


def _kept_run(folder: Path) -> tuple[dict[str, Any], str | None] | None:
    """The configuration and the data's fingerprint of the run in ``folder``, if one is there.

    Where checkpoints were removed, generators still tell the configuration.
    """
    for checkpoint in all_checkpoints(folder):
        try:
            manifest = read_manifest(checkpoint)
        except BrokenCheckpoint:
            continue
        return manifest["config"], manifest["data"]
    for file in [*folder.glob("kept/*/generator.json"), *folder.glob("generator/*/generator.json")]:
        return json.loads(file.read_text())["config"], None
    return None


def _absolute(root: str | None) -> Path | None:
    return None if root is None else Path(root).expanduser().resolve()


def _other(place: Path, reason: str, remedy: str) -> UserError:
    return UserError(f"{place} holds another result ({reason}): {remedy}")
