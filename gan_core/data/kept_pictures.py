"""Decoded pictures, kept in files that all processes of a machine map into their memory.

Decoding takes 0.1 ms to some ms a picture, in each process at each start, and the result takes
memory in each. A file is decoded into once; whoever maps it shares the pages that the system has
read, which it may also drop again: a split may be larger than the memory. Losing a file costs time
only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gan_core.data.pictures import PictureFormat, decode_pictures, read_pictures
from gan_core.errors import UserError

VERSION = 1
"""Part of every name: to be raised when pictures are decoded differently."""
LARGE = 64 * 1024**2
"""Bytes of decoded pictures from which on they are kept."""
UNUSED = 30 * 24 * 3600
"""Seconds after its last use at which a file is deleted, when another one is made."""
NONE = "none"
_READABLE = 0o644  # for others, too, who share the folder

logger = logging.getLogger(__name__)


def picture_folder(given: str | None) -> Path | None:
    """Where decoded pictures are kept: ``given``, by default ``gan-pipelines/pictures`` in the
    user's folder of caches; ``None`` for the word "none".
    """
    if given == NONE:
        return None
    if given is not None:
        return Path(given).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "gan-pipelines" / "pictures"


def kept_pictures(
    paths: Sequence[str],
    form: PictureFormat,
    shape: tuple[int, int, int],
    skip_bad: bool,
    folder: Path | None,
) -> tuple[Tensor, list[int]]:
    """What :func:`~gan_core.data.pictures.read_pictures` gives, from a file in ``folder``.

    The file is found by the pictures' names, sizes and times of change, and by what is wanted of
    them; the first who needs it makes it, others wait. Below ``LARGE`` bytes, without a folder and
    where none can be written, pictures are read into memory.
    """
    size = len(paths) * math.prod(shape)
    if folder is None or size < LARGE:
        return read_pictures(paths, form, shape, skip_bad)
    try:
        entry = _Entry(folder, _key(paths, form, shape, skip_bad), len(paths))
        found = entry.open()
        if found is None:
            return entry.make(paths, form, shape, skip_bad)
        if len(found[1]) < len(paths):
            logger.warning("skipped %d of %d pictures", len(paths) - len(found[1]), len(paths))
        return found
    except UserError:
        raise
    except OSError as problem:
        logger.warning(
            "decoded pictures cannot be kept in %s (%s): every process reads them anew; name "
            "another folder with --picture-cache, or none",
            folder,
            problem.strerror or problem,
        )
        return read_pictures(paths, form, shape, skip_bad)


def _key(
    paths: Sequence[str], form: PictureFormat, shape: tuple[int, int, int], skip_bad: bool
) -> str:
    digest = hashlib.sha256(repr((VERSION, form, shape, skip_bad)).encode())
    for path in paths:
        state = os.stat(path)  # noqa: PTH116  (a Path for each takes longer than asking)
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="replace"))
    return digest.hexdigest()[:24]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One split: ``KEY.u8``, its pixels, and ``KEY.json``, written when these are whole.

    ``count``: of the pictures, those that are left out included.
    """

    folder: Path
    key: str
    count: int

    def _file(self, kind: str) -> Path:
        return self.folder / f"{self.key}.{kind}"

    def open(self) -> tuple[Tensor, list[int]] | None:
        """The pictures mapped into memory, and their positions; ``None`` if they lack."""
        facts, pixels = self._file("json"), self._file("u8")
        try:
            found = json.loads(facts.read_text())
            shape, skipped = tuple(found["shape"]), set(found["skipped"])
            kept = [position for position in range(self.count) if position not in skipped]
            if len(kept) != shape[0] or pixels.stat().st_size != math.prod(shape):
                return None
            # Copy on write: nobody's changes reach the file, and torch asks for writable memory.
            mapped = np.memmap(pixels, np.uint8, "c", shape=shape)
            facts.touch()  # the time of the last use
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return torch.from_numpy(mapped), kept

    def make(
        self,
        paths: Sequence[str],
        form: PictureFormat,
        shape: tuple[int, int, int],
        skip_bad: bool,
    ) -> tuple[Tensor, list[int]]:
        """Decode into the file, unless another process has meanwhile; the pictures mapped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            found = self.open()
            if found is not None:
                return found
            _delete_unused(self.folder)
            with _reserved(self.folder, len(paths) * math.prod(shape)) as scratch:
                pixels = np.memmap(scratch, np.uint8, "r+", shape=(len(paths), *shape))
                kept = decode_pictures(paths, form, shape, skip_bad, pixels)
                _move_up(pixels, kept)
                pixels.flush()
                if not kept:
                    return torch.empty((0, *shape), dtype=torch.uint8), []
                os.truncate(scratch, len(kept) * math.prod(shape))
                scratch.replace(self._file("u8"))
            skipped = sorted(set(range(len(paths))) - set(kept))
            self._write({"shape": [len(kept), *shape], "skipped": skipped, "first": paths[0]})
        opened = self.open()
        if opened is None:
            raise OSError(errno.EIO, "what was written cannot be read back")
        return opened

    def _write(self, facts: dict[str, Any]) -> None:
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, _READABLE)
            json.dump(facts, file)
        Path(name).replace(self._file("json"))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time; a killed one leaves it open. Where files cannot be locked
        several may decode, each into a file of its own, of which the last is kept.
        """
        with self._file("lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process, which decodes the same pictures")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as problem:
                logger.warning("%s cannot be locked (%s)", file.name, problem.strerror)
            yield


@contextlib.contextmanager
def _reserved(folder: Path, size: int) -> Iterator[Path]:
    """A file of ``size`` bytes of which none can turn out to lack: writing to mapped memory for
    which the disk has no room would kill the process. It is deleted, unless it was moved away.
    """
    free = shutil.disk_usage(folder).free
    if free < 2 * size:  # the rest is others'
        told = f"{size / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free"
        raise OSError(errno.ENOSPC, told)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, _READABLE)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:  # macOS: what the disk has free was looked at
                file.truncate(size)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _move_up(pixels: npt.NDArray[np.uint8], kept: Sequence[int]) -> None:
    """Close the gaps that pictures which were left out have left."""
    if len(kept) < len(pixels):
        for place, position in enumerate(kept):
            pixels[place] = pixels[position]


def _delete_unused(folder: Path) -> None:
    """Delete what nobody has used for long, and what a killed process has left."""
    for facts in folder.glob("*.json"):
        with contextlib.suppress(OSError):
            if time.time() - facts.stat().st_mtime > UNUSED:
                for kind in ("json", "u8", "lock"):
                    facts.with_suffix(f".{kind}").unlink(missing_ok=True)
    for scratch in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - scratch.stat().st_mtime > 24 * 3600:
                scratch.unlink()
