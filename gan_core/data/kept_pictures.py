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
import hashlib
import json
import logging
import math
import mmap
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
import torch
from torch import Tensor

from gan_core.data.pictures import (
    BadPicture,
    PictureFormat,
    any_colour,
    decode_pictures,
    positions_but,
    read_pictures,
    tell_skipped,
)
from gan_core.data.user_cache import user_cache
from gan_core.errors import UserError
from gan_core.paths import user_path

VERSION = 2
"""Part of every name: to be raised when pictures are decoded differently."""
LARGE = 64 * 1024**2
"""Bytes of decoded pictures from which on they are kept."""
UNUSED = 30 * 24 * 3600
"""Seconds after its last use at which a file is deleted, when another one is made."""
ABANDONED = 24 * 3600
"""Seconds after which a file that belongs to nothing is deleted: it is of a killed process."""
MANY = 500
"""Files from which on it is kept that none is in colour: opening each takes 0.04 to 0.2 ms."""
NONE = "none"
_NAME = re.compile(r"([0-9a-f]{24})(\.json|\.lock|-[a-z0-9_]+\.(u8|part))")
"""What files are called here, an entry's key first; all others in a folder are the user's."""
_READABLE = 0o644  # for others, too, who share the folder
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE, from Python 3.13 on

logger = logging.getLogger(__name__)


def picture_folder(given: str | None) -> Path | None:
    """Where decoded pictures are kept: ``given``, by default ``gan-pipelines/pictures`` in the
    user's folder of caches; ``None`` for the word "none", and where the user has no folder.
    """
    if given == NONE:
        return None
    if given is not None:
        return user_path(given, "--picture-cache")
    try:
        return user_cache("pictures")
    except RuntimeError:  # the user has no home
        return None


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
    wanted = _Wanted(paths, form, shape, skip_bad)
    if folder is None or wanted.size < LARGE:
        return read_pictures(paths, form, shape, skip_bad)
    try:
        entry = _Entry(folder, wanted.key(), len(paths))
        return entry.open() or entry.make(wanted)
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


def kept_channels(paths: Sequence[str], skip_bad: bool, folder: Path | None) -> int:
    """3 if any picture is in colour, else 1: which all files must be opened to know.

    So that is kept in ``folder``, for the same files; colour shows in the first that has it.
    """
    if folder is None or len(paths) < MANY:
        return 3 if any_colour(paths, skip_bad)[0] else 1
    key = _key(("channels", VERSION, PIL.__version__, skip_bad), paths)
    facts = folder / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        if json.loads(facts.read_text())["channels"] == 1:
            with contextlib.suppress(OSError):  # another's file, or one that may only be read
                os.utime(facts)  # the time of the last use
            return 1
    colour, lasting = any_colour(paths, skip_bad)
    if not colour and lasting:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            _write(facts, {"channels": 1, "key": key})
    return 3 if colour else 1


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """The pictures of a split, and how they are wanted."""

    paths: Sequence[str]
    form: PictureFormat
    shape: tuple[int, int, int]
    skip_bad: bool

    @property
    def size(self) -> int:
        """Bytes of all pictures, decoded."""
        return len(self.paths) * math.prod(self.shape)

    def key(self) -> str:
        """24 hexadecimal digits that change with the files, the wishes and what decodes them."""
        how = (VERSION, PIL.__version__, self.form, self.shape, self.skip_bad)
        return _key(how, self.paths)

    def decode(self, scratch: Path) -> tuple[np.memmap[Any, Any], dict[int, BadPicture]]:
        """The pictures in the file ``scratch``, good ones first; what is wrong with the others."""
        pixels = np.memmap(scratch, np.uint8, "r+", shape=(len(self.paths), *self.shape))
        bad = decode_pictures(self.paths, self.form, self.shape, self.skip_bad, pixels)
        if bad:
            for place, position in enumerate(positions_but(bad, len(self.paths))):
                pixels[place] = pixels[position]
        pixels.flush()
        return pixels, bad


def _key(how: tuple[object, ...], paths: Sequence[str]) -> str:
    """24 hexadecimal digits that change with ``how`` and with the files."""
    digest = hashlib.sha256(repr(how).encode())
    for path in paths:
        digest.update(f"{path}\0{_state(path)}\0".encode(errors="replace"))
    return digest.hexdigest()[:24]


def _state(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each takes longer than asking)
    except OSError:
        return "missing"  # who reads it says so
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One split: ``KEY.json``, written when the pixels that it names, ``KEY-....u8``, are whole.

    Pixels are never written where others may have them mapped. ``count``: of the pictures, those
    that are left out included.
    """

    folder: Path
    key: str
    count: int

    def _file(self, kind: str) -> Path:
        return self.folder / f"{self.key}.{kind}"

    def open(self) -> tuple[Tensor, list[int]] | None:
        """The pictures mapped into memory, and their positions; ``None`` if they lack."""
        facts = self._file("json")
        try:
            found = json.loads(facts.read_text())
            kept = positions_but(found["skipped"], self.count)
            shape, told = tuple(found["shape"]), found["told"]
            if len(kept) != shape[0]:
                return None
            images = _mapped(self.folder / found["pixels"], shape)
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        with contextlib.suppress(OSError):  # another's file, or one that may only be read
            os.utime(facts)  # the time of the last use
        tell_skipped(len(found["skipped"]), self.count, told)
        return images, kept

    def make(self, wanted: _Wanted) -> tuple[Tensor, list[int]]:
        """Decode into a file, unless another process has meanwhile; the pictures mapped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._file("lock")):
            found = self.open()
            if found is not None:
                return found
            begun = time.time()
            _delete_unused(self.folder, self.key)
            with _reserved(self.folder, self.key, wanted.size) as scratch:
                pixels, bad = wanted.decode(scratch)
                kept = positions_but(bad, self.count)
                told = str(next(iter(bad.values()), ""))
                if not kept or any(problem.passing for problem in bad.values()):
                    # None, or not all that there might be the next time.
                    tell_skipped(len(bad), self.count, told)
                    return torch.from_numpy(np.array(pixels[: len(kept)])), kept
                os.truncate(scratch, len(kept) * math.prod(wanted.shape))
                final = scratch.with_suffix(".u8")
                scratch.replace(final)
            shape = [len(kept), *wanted.shape]
            facts = {"pixels": final.name, "shape": shape, "skipped": list(bad), "told": told}
            _write(self._file("json"), facts)
            self._delete_superseded(final, begun)
        opened = self.open()
        if opened is None:
            raise OSError(errno.EIO, "what was written cannot be read back")
        return opened

    def _delete_superseded(self, pixels: Path, begun: float) -> None:
        """Delete what else there is of this entry from before ``begun``, to which nothing leads any
        more; who has it mapped keeps it. What is newer another may be making, without a lock.
        """
        for path in _own_files(self.folder).get(self.key, []):
            if path.suffix in (".u8", ".part") and path != pixels:
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < begun:
                        path.unlink()


def _write(path: Path, facts: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, _READABLE)
        json.dump(facts, file)
    Path(name).replace(path)


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A file as uint8 ``shape``; ``ValueError`` if it has another size.

    Copied where it is written to: nobody's changes reach the file, and torch wants memory that may
    be. For these copies no memory is set aside, else a file larger than it could not be mapped.
    """
    size = math.prod(shape)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size or size == 0:
            raise ValueError(f"{path} has not {size} bytes")
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        pages = mmap.mmap(file.fileno(), size, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.from_numpy(np.frombuffer(pages, np.uint8).reshape(shape))


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """One process at a time; a killed one leaves it open. Whether it is this one, which without
    ``wait`` it may not be. Where files cannot be locked, several decode, each for itself.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("a"))
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), 0o666)
            yield _lock(file, wait)
        except _NotLockable as problem:
            logger.debug("%s cannot be locked (%s)", path, problem)
            yield True


class _NotLockable(Exception):
    """The file system, or the system, has no locks."""


def _lock(file: IO[str], wait: bool) -> bool:
    try:
        import fcntl
    except ImportError as problem:
        raise _NotLockable(problem) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        logger.info("waiting for another process, which decodes the same pictures")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as problem:
        raise _NotLockable(problem) from None
    return True


@contextlib.contextmanager
def _reserved(folder: Path, key: str, size: int) -> Iterator[Path]:
    """A file of ``size`` bytes of which none can turn out to lack: writing to mapped memory for
    which the disk has no room would kill the process. It is deleted, unless it was moved away.
    """
    free = shutil.disk_usage(folder).free
    if free < 2 * size:  # the rest is others'
        told = f"{size / 2**30:.1f} GiB, half of what must be free; {free / 2**30:.1f} GiB are"
        raise OSError(errno.ENOSPC, told)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f"{key}-", suffix=".part")
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


def _delete_unused(folder: Path, own: str) -> None:
    """Delete the entries that nobody has used for long, and what killed processes have left;
    not of the entry ``own``, nor of one that is being made.
    """
    for key, files in _own_files(folder).items():
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in files)
            whole = any(path.suffix == ".json" for path in files)
            if key == own or time.time() - newest < (UNUSED if whole else ABANDONED):
                continue
            with _locked(folder / f"{key}.lock", wait=False) as mine:
                for path in [*files, folder / f"{key}.lock"] if mine else []:
                    path.unlink(missing_ok=True)


def _own_files(folder: Path) -> dict[str, list[Path]]:
    """The files of entries by key. Others are passed over: the folder may be anybody's."""
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        name = _NAME.fullmatch(path.name)
        if name is None or path.is_symlink() or not path.is_file():
            continue
        if path.suffix != ".json" or _states_facts(path, name[1]):
            found.setdefault(name[1], []).append(path)
    return found


def _states_facts(path: Path, key: str) -> bool:
    """Whether ``path`` is of this module: MongoDB, too, gives names of 24 hexadecimal digits."""
    try:
        facts = json.loads(path.read_text())
        if "channels" in facts:
            return bool(facts["key"] == key)
        name = _NAME.fullmatch(facts["pixels"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return name is not None and name[1] == key
