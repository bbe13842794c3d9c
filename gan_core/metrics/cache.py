"""A folder of tensors that were expensive to compute; losing any of them costs only time."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

log = logging.getLogger(__name__)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The tensors and facts of a file by :func:`save_tensors`; ``None`` if missing or broken."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        log.warning("the cached file %s is unreadable (%s): it is made again", path, error)
        return None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all; a folder that cannot be written is a warning.

    ``facts`` go into the file's JSON header.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    content = safetensors.torch.save(plain, dict(facts))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.warning("cannot keep %s (%s): it will be computed again next time", path, error)
