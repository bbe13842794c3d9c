"""Where what sources have made is kept, if the user does not say."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """``gan-pipelines/NAME`` in the user's folder of caches.

    ``RuntimeError`` where nothing names one and the user has no home.
    """
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "gan-pipelines" / name
