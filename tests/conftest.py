"""How the tests are shared out where several processes run them (``make test``)."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHARED_OUT = "PYTEST_XDIST_WORKER" in os.environ
if SHARED_OUT:
    # One process a core: threads of their own would be in each other's way. Before torch is here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
    # The usual one is every program's of this user: one that was killed in the middle of writing
    # to it leaves a broken file there, on which all compile tests fail from then on.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="inductor-")
    atexit.register(shutil.rmtree, os.environ["TORCHINDUCTOR_CACHE_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each file's tests go to one process (``--dist loadfile``), which makes its fixtures once.

    Those that need the session's Ray come first, as they last longest, then other integration
    tests; the rest fills up what is left of the processes.
    """
    if SHARED_OUT:
        items.sort(key=_turn)


def _needs_ray(item: pytest.Item) -> bool:
    return "local_ray" in getattr(item, "fixturenames", ())


def _turn(item: pytest.Item) -> int:
    if _needs_ray(item):
        return 0
    return 1 if item.path.is_relative_to(HERE / "integration") else 2
