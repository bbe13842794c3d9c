"""Tune's files about a search, kept twice: a killed driver may leave one half written.

Tune writes each file whole, but copies it into the search's folder byte by byte. A search whose
file ends in the middle cannot be restored, so the last whole one of each is kept beside them.
"""

from __future__ import annotations

import json
import pickletools
import time
from pathlib import Path

KEPT = "states"
_PATTERNS = (
    "experiment_state-*.json",
    "search_gen_state-*.json",
    "basic-variant-state-*.json",
    "searcher-state-*.pkl",
    "tuner.pkl",
)


def whole(content: bytes) -> bool:
    """Whether ``content`` is a JSON text or a pickle to its end; nothing of it is loaded."""
    try:
        if content.startswith(b"{"):
            json.loads(content)
        else:
            for _ in pickletools.genops(content):
                pass
    except (ValueError, IndexError, UnicodeDecodeError):
        return False
    return bool(content)


def _newest(folder: Path) -> list[Path]:
    """The file of each kind that a restore reads."""
    found = (sorted(folder.glob(pattern))[-1:] for pattern in _PATTERNS)
    return [path for paths in found for path in paths]


class Keeper:
    """Keeps the files of the search in ``folder``; asked often, it looks each ``pause`` s."""

    def __init__(self, folder: Path, pause: float = 1.0) -> None:
        self._folder, self._pause = folder, pause
        self._seen: dict[str, int] = {}
        self._next = 0.0

    def keep(self) -> None:
        """Copy each file that has changed and is whole."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._pause
        for path in _newest(self._folder):
            changed = path.stat().st_mtime_ns
            if self._seen.get(path.name) == changed:
                continue
            content = path.read_bytes()
            if whole(content):
                self._seen[path.name] = changed
                self._copy(path.name, content)

    def _copy(self, name: str, content: bytes) -> None:
        copy = self._folder / KEPT / name
        copy.parent.mkdir(exist_ok=True)
        partial = copy.with_suffix(".partial")
        partial.write_bytes(content)
        partial.replace(copy)


def mend(folder: Path) -> list[str]:
    """Put the last whole file in the place of each broken one; returns the names of these.

    One of which no copy was kept yet is taken away: Tune then begins with it anew.
    """
    broken = [path for path in _newest(folder) if not whole(path.read_bytes())]
    for path in broken:
        copy = folder / KEPT / path.name
        if copy.exists():
            path.write_bytes(copy.read_bytes())
        else:
            path.unlink()
    return [path.name for path in broken]
