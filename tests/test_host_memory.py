"""Freed memory: kept, so that the kernel need not clear pages for it again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from gan_core import host_memory

GNU_C_LIBRARY = (
    sys.platform.startswith("linux")
    and hasattr(os, "confstr")
    and bool(os.confstr("CS_GNU_LIBC_VERSION"))
)
pytestmark = pytest.mark.skipif(not GNU_C_LIBRARY, reason="needs the GNU C library")

BLOCKS = """
import ctypes, resource, sys, threading
from gan_core import host_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take_and_free(times):
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    for _ in range(times):
        blocks = [libc.malloc(ctypes.c_size_t(48 * 2**20)) for _ in range(4)]
        for block in blocks:
            ctypes.memset(block, 1, 48 * 2**20)
        for block in blocks:
            libc.free(ctypes.c_void_p(block))

def look():
    take_and_free(1)
    before = faults()
    take_and_free(5)
    print(faults() - before)

{first}
{then}
"""
PAGES = 5 * 4 * 48 * 2**20 // 4096
"""How often a page is touched that may be new to the process."""
IN_A_THREAD = "thread = threading.Thread(target=look); thread.start(); thread.join()"


def page_faults(first: str, then: str = "look()", **variables: str) -> int:
    """Of a process that takes and frees large blocks, after it has done so once."""
    program = BLOCKS.format(first=first, then=then)
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", program]
    found = subprocess.run(
        command, env=plain | variables, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (host_memory.BLOCK, host_memory.FREE, host_memory.HEAPS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_that_keeps_freed_memory_takes_no_page_twice() -> None:
    assert page_faults("host_memory.keep_freed_memory()") < PAGES // 100


@pytest.mark.parametrize("first", ["", "host_memory.give_back_freed_memory()"])
def test_by_itself_the_c_library_gives_large_blocks_back(first: str) -> None:
    assert page_faults(first) > PAGES // 2


def test_a_process_started_with_the_environment_keeps_what_any_thread_frees() -> None:
    variables = host_memory.environment()
    assert page_faults("", IN_A_THREAD, **variables) < PAGES // 100
    assert page_faults("", IN_A_THREAD) > PAGES // 2


@pytest.mark.parametrize(
    ("version", "largest"),
    [
        ("glibc 2.17", 2**25),
        ("glibc 2.34", 2**25),
        ("glibc 2.35", 2**31 - 1),
        ("glibc 2.41", 2**31 - 1),
    ],
)
def test_no_version_of_the_library_is_asked_for_more_than_it_takes(
    version: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: version)
    asked: list[tuple[int, int]] = []

    class Library:
        """Of before 2.35 one that refuses larger blocks."""

        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return int(parameter != -3 or value <= largest)

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library)
    assert host_memory.environment()[host_memory.BLOCK] == str(largest)
    assert host_memory.keep_freed_memory()
    assert asked == [(-3, largest), (-1, -1)]


def test_where_the_library_refuses_it_is_left_to_adapt_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    class Library:
        """One that takes nothing."""

        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked.append(parameter)
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library)
    assert not host_memory.keep_freed_memory()
    assert asked == [-3]


@pytest.mark.parametrize(
    "theirs",
    [
        {host_memory.FREE: "1000"},
        {host_memory.HEAPS: "4"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000"},
    ],
)
def test_what_the_user_has_set_stands(
    theirs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    assert host_memory.environment() == {}
    assert not host_memory.keep_freed_memory()
    assert page_faults("host_memory.keep_freed_memory()", **theirs) > PAGES // 2


def test_what_a_process_has_already_is_not_given_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in host_memory.environment().items():
        monkeypatch.setenv(name, value)
    assert host_memory.environment() == {}
    assert host_memory.keep_freed_memory()


@pytest.mark.parametrize(
    ("before", "mode", "keeps"), [("eager", "textbook", False), ("textbook", "eager", True)]
)
def test_a_benchmark_s_engine_keeps_freed_memory_and_its_textbook_does_not(
    before: str, mode: str, keeps: bool
) -> None:
    first = f"""
from benchmarks.speed_ways import Way
for mode in ({before!r}, {mode!r}):
    Way(mode).set_numerics()
"""
    assert (page_faults(first) < PAGES // 2) == keeps


def test_a_run_of_the_library_keeps_freed_memory() -> None:
    first = """
from gan_core.config import make_config
from gan_core.engine.world import World
from gan_core.observers import Observer
from gan_core.run import play
words = {"steps": 1, "batch_size": 8, "extractor": "none", "evaluate_every": 0}
play(make_config({"variant": "gan", "data": "ring", **words}), World(), Observer())
"""
    assert page_faults(first) < PAGES // 100
