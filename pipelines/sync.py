"""The verb ``sync``: send to MLflow what could not be sent while the tracking server was away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gan_core.errors import UserError
from pipelines.command_line import Parser
from pipelines.mlflow_client import reason
from pipelines.runs import find_run, runs_folder
from pipelines.tracking import FILE, Busy, Tracker, send_all


def sync_command(arguments: list[str]) -> int:
    """``sync``: send to MLflow what runs have kept; returns the exit code."""
    parser = Parser(
        "sync",
        description="Send to MLflow what could not be sent while it was away. Without names: "
        "everything\nthat any run, or trial of a search, in the storage has kept. With names also "
        "what had\nbeen sent and was deleted in MLflow since, or went with its database.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names or folders of runs")
    parser.add_argument("--storage", metavar="FOLDER", help="where the runs are (default: runs)")
    given = parser.read(arguments)
    storage = runs_folder(given.get("storage", "runs"))
    if not storage.is_dir():
        raise UserError(f"no folder {storage}: give the runs' with --storage")
    runs = [find_run(name, storage) for name in given.get("runs", [])]
    sync(storage, runs)
    return 0


def sync(storage: Path, runs: Sequence[Path] = ()) -> int:
    """Send what ``runs`` (folders) have kept; without any, every tracked run in ``storage``.

    If it is named, a run that was played without MLflow is sent, one that was deleted in MLflow is
    brought back, and one that MLflow has lost is sent anew. Prints a line a run and returns
    the number of values and pictures sent. Raises ``UserError`` if a run could not be sent.
    """
    folders = [Path(run) for run in runs] or sorted(p.parent for p in storage.glob(f"*/{FILE}"))
    if not folders:
        print(f"no run in {storage} has anything kept for MLflow")
    total = 0
    failed: dict[str, list[str]] = {}  # why, and which: runs of one server fail alike
    for folder in folders:
        try:
            count = sync_run(folder, look_up=bool(runs))
        except Busy:
            print(f"{folder.name}: is being sent by the process that trains it")
        except Exception as error:
            failed.setdefault(reason(error), []).append(folder.name)
        else:
            total += count
            print(f"{folder.name}: {_told(count)}")
    if failed:
        told = "; ".join(f"{', '.join(names)}: {why}" for why, names in failed.items())
        raise UserError(f"not everything could be sent to MLflow ({told}): try later")
    return total


def sync_run(folder: Path, *, look_up: bool = False) -> int:
    """Send the run in ``folder``, or the search with its trials, and end it in MLflow; the number
    of values and pictures sent. ``look_up``: also where all had been sent before.

    A run whose journal has no end and that no process plays (its driver was killed) is ended as
    stopped; it can be resumed. One that is played without MLflow is sent as far as it is.
    """
    from pipelines.run_folder import unplayed
    from pipelines.tuning.study import is_study

    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run: it has no config.yaml")
    tracker = Tracker(folder, look_up=look_up, say=print)
    with unplayed(folder) as free:
        over = free
    if not over:
        print(f"{folder.name} is being trained: send the rest when it has ended")
    count = send_all(tracker, over=over)
    if is_study(folder):
        from pipelines.tuning.family import sync_trials

        count += sync_trials(folder, look_up=look_up or tracker.renewed)
    return count


def _told(count: int) -> str:
    return f"{count:,} values and pictures sent" if count else "nothing was left to send"
