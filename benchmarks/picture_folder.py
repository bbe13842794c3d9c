"""How long a folder of pictures takes to be there: decoded each time, or kept decoded.

    python -m benchmarks.picture_folder FOLDER [--rounds 3] [--picture-cache DISK]

Each reading of the training split is in a process of its own, whose start and imports do not count;
the three take turns. Decoded pictures are kept in a new folder on DISK (by default where temporary
files are), which is deleted afterwards. The system has the files in its memory from a reading that
is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import positive
from gan_core.data.kept_pictures import LARGE, NONE
from gan_core.data.loading import load_examples
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code

EACH_TIME, FIRST_TIME, LATER = "decoded each time", "kept, the first time", "kept, later"


def read_once(folder: Path, cache: str) -> tuple[float, int, int]:
    """Seconds to read the training split; how many pictures and bytes it has."""
    begun = time.perf_counter()
    images = load_examples("folder", str(folder), "train", picture_cache=cache).tensors["image"]
    return time.perf_counter() - begun, len(images), images.nbytes


def read_apart(folder: Path, cache: str) -> float:
    """Seconds of :func:`read_once` in a process of its own; :class:`UserError` if it fails."""
    command = [sys.executable, "-m", "benchmarks.picture_folder", str(folder), "--one", cache]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(done.stderr.strip()[-500:])
    return float(done.stdout)


def measure(folder: Path, rounds: int, disk: Path | None) -> dict[str, list[float]]:
    """Seconds of every reading, by way."""
    found: dict[str, list[float]] = {EACH_TIME: [], FIRST_TIME: [], LATER: []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="gan-pictures-", dir=disk) as cache:
            for way, seconds in found.items():
                seconds.append(read_apart(folder, NONE if way == EACH_TIME else cache))
                told = f"round {number + 1} of {rounds}, {way}: {seconds[-1]:.2f} s"
                print(told, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Read in turns, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="pictures, as for --data folder")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--picture-cache", type=Path, metavar="DISK", help="where to keep them")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.one:
        print(read_once(folder, arguments.one)[0])
        return
    if arguments.rounds < 1:
        raise UserError(f"--rounds must be at least 1, not {arguments.rounds}")
    if arguments.picture_cache is not None and not arguments.picture_cache.is_dir():
        raise UserError(f"--picture-cache {arguments.picture_cache}: no such folder")
    _, count, size = read_once(folder, NONE)
    print(f"{count:,} pictures, {size / 2**20:.0f} MiB decoded", file=sys.stderr)
    if size < LARGE:
        raise UserError(f"{folder}: pictures are kept from {LARGE / 2**20:.0f} MiB on")
    found = measure(folder, arguments.rounds, arguments.picture_cache)
    print(f"| {count:,} pictures | s, median | least to most |\n|---|---|---|")
    for way, seconds in found.items():
        least, most = min(seconds), max(seconds)
        print(f"| {way} | {statistics.median(seconds):.2f} | {least:.2f} to {most:.2f} |")


if __name__ == "__main__":
    sys.exit(exit_code(main))
