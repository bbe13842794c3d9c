"""Checksums of files, read in parts: a file may be larger than the memory that is left."""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path

SETTLED = 2.0
"""Seconds after which a file that is changed again has another time: file systems keep coarse
ones, and two changes within a tick of their clock look like one."""


def sha256_of(path: Path) -> str:
    """The file's sha256 in hexadecimal digits. Raises ``OSError`` where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256_of(path: Path) -> str:
    """:func:`sha256_of`, read once by this process as long as nobody changes the file.

    What was changed less than :data:`SETTLED` seconds ago is read each time.
    """
    status = path.stat()
    if time.time() - max(status.st_ctime, status.st_mtime) < SETTLED:
        return sha256_of(path)
    known_by = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _remembered(path.absolute(), known_by)


@functools.lru_cache(maxsize=256)
def _remembered(path: Path, known_by: tuple[int, ...]) -> str:
    return sha256_of(path)
