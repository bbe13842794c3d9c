"""What happens in a trial: it plays in its own process, or follows a game that is played elsewhere.

That is by a Ray Train run that the trial starts, or on a worker that it shares with other trials.

A trial reports to Tune at every evaluation, with a checkpoint of the full state: that is what a
restored search goes on from and what population-based training copies. The step that it reports is
its progress, in iterations at the study's pace. MLflow is never imported here: the driver follows
the trial's journal.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ray import tune

from gan_core.config import RunConfig, import_plugins, write_config
from gan_core.engine.checkpoint import first_whole, read_manifest, trial_checkpoints
from gan_core.engine.world import World
from gan_core.journal import FILE, Journal, read
from gan_core.observers import FolderObserver
from gan_core.run import play
from pipelines.full_disk import full_disk
from pipelines.mlflow_client import reason
from pipelines.run_folder import TRACE, append
from pipelines.tuning.objective import WORST
from pipelines.tuning.records import SEARCHED, WENT_ON, read_trial, stopped_by
from pipelines.tuning.study import Study
from pipelines.worker import STOPPED_BY, check_shared

ENDED = "ended"
"""In a report: it is the trial's last, whatever its step."""
DIAGNOSED = "diagnosed"
"""In a report: its training has failed, and it ends unless it is given another's state."""
DISK_FULL = "disk_full"
"""In a report: the line about the full disk that the trial cannot go on for."""
Report = Callable[[int, Mapping[str, float], Path | None], None]


class WorkerLost(RuntimeError):
    """The worker that played a trial's game was lost: as if the trial's own process had been."""


def trainable(study: Study, workers: Sequence[str] = ()) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls with the point of a trial; see :func:`play_trial`."""

    def trial(point: dict[str, Any]) -> None:
        play_trial(study, point, workers)

    return trial


def play_trial(study: Study, point: dict[str, Any], workers: Sequence[str] = ()) -> None:
    """Play one trial to its end, from its last checkpoint if it has one.

    ``workers``: the names of those that trials share, where they do. One that had ended already
    (its driver was killed before it noted that) only says so again. An error ends the trial, not
    the search: it is kept in the folder and told as the trial's; but for a lost worker, after
    which Tune begins the trial again from its checkpoint, and for a full disk, which ends the
    search.
    """
    check_shared(study.folder)  # nothing that is kept here would be seen by the driver
    import_plugins(study.run.plugins)  # of whose variants a trial is read, in a process of its own
    folder = study.folder / Path(tune.get_context().get_trial_dir()).name
    before = read_trial(folder, study)
    if before.ended:
        tune.report({"step": before.progress, "objective": before.objective, ENDED: True})
        return
    try:
        config = study.trial_config(point, folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_config(config, folder / "config.yaml")
        with _given_checkpoint(folder, study) as checkpoint:
            _play(study, config, point, checkpoint, workers)
    except WorkerLost:
        raise
    except Exception as error:
        if full := full_disk(error):  # no fault of the trial, which a resumed search plays on
            tune.report({"step": before.progress, "objective": WORST, DISK_FULL: full})
            return
        _keep(folder, error)
        tune.report({"step": study.max_steps, "objective": WORST, ENDED: True})


@contextlib.contextmanager
def _given_checkpoint(folder: Path, study: Study) -> Iterator[Path | None]:
    """The checkpoint that Tune wants this trial to go on from, as a folder.

    A driver that was stopped may not have noted the first one, and wants the trial in ``folder``
    to begin anew: it goes on from its own, but in a population, where that may be of a state that
    was given up.
    """
    given = tune.get_checkpoint()
    if given is None:
        population = study.options.scheduler == "pbt"
        yield None if population else first_whole(trial_checkpoints(folder))
        return
    with given.as_directory() as asked:
        yield _whole(Path(asked))


def _whole(asked: Path) -> Path | None:
    """``asked``, else the newest whole checkpoint beside it, if any.

    What a killed driver has last written down can be older than the oldest checkpoint that is kept.
    """
    return first_whole([asked, *trial_checkpoints(asked.parent)])


def _play(
    study: Study,
    config: RunConfig,
    point: Mapping[str, Any],
    checkpoint: Path | None,
    workers: Sequence[str],
) -> None:
    """Play ``config`` here, on workers of its own, or on one of the shared ``workers``."""
    objective, interval = study.objective, max(1, config.evaluate_every)
    _note_begin(config.folder, point, checkpoint)

    def report(step: int, figures: Mapping[str, float], saved: Path | None) -> None:
        if figures:
            objective.check(figures)
        value = objective(figures)
        kept = None if saved is None else tune.Checkpoint.from_directory(str(saved))
        progress = study.progress(step, interval)
        tune.report({**figures, "step": progress, "objective": value}, checkpoint=kept)

    if config.workers > 1:
        from pipelines.tuning.workers import play_on_workers

        summary = play_on_workers(study, config, checkpoint, report)
    elif workers:
        from pipelines.tuning.shared_workers import play_on_shared_worker

        summary = play_on_shared_worker(workers, config, checkpoint, report)
    else:
        summary = _play_here(study, config, checkpoint, report)
    if summary["stopped_by"]:
        _end_diagnosed(study, config, summary)


def _end_diagnosed(study: Study, config: RunConfig, summary: Mapping[str, Any]) -> None:
    """Say that the diagnosis has stopped the trial: its last figures are from before it failed.

    A population gives it the state of a better one where it can; then the report does not return.
    """
    progress = study.progress(summary["step"], max(1, config.evaluate_every))
    last = {"step": progress, "objective": WORST}
    if study.options.scheduler == "pbt":
        tune.report({**last, DIAGNOSED: True})
    book = Journal(config.folder)
    book.write("end", summary["step"], status=summary["status"], summary=summary)
    book.close()
    tune.report({**last, ENDED: True})


def _note_begin(folder: Path, point: Mapping[str, Any], checkpoint: Path | None) -> None:
    """What is searched becomes a metric at the step from where it is played, or is a tag if it is
    no number.

    Parameters of an MLflow run cannot change; population-based training changes them, and the
    state: what the trial has played beyond that of the other is replaced by what it plays now.
    """
    source, step = folder.name, 0
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        source, step = manifest["config"]["name"], manifest["step"]
    numbers = {n: float(v) for n, v in point.items() if isinstance(v, int | float)}
    taken = {"source": source, "point": dict(point)}
    book = Journal(folder)
    if source != folder.name and not _taken_already(folder, step, taken):
        book.write("rewind", step, **taken)
        book.write("tag", step, name=WENT_ON, value=f"{source} at step {step}")
        if stopped_by(folder):
            book.write("tag", step, name=STOPPED_BY, value="nothing: it went on")
    for name in point.keys() - numbers.keys():
        tag = f"{SEARCHED.rstrip('/')}.{name}"
        book.write("tag", step, name=tag, value=str(point[name]))
    book.write("metrics", step, values={f"{SEARCHED}{n}": v for n, v in numbers.items()})
    book.close()


def _taken_already(folder: Path, step: int, taken: Mapping[str, Any]) -> bool:
    """Whether this is what the trial goes on from since it last took over another's state.

    Then its process was lost before it was saved, and it plays the same again.
    """
    rewinds = [e for e, _ in read(folder / FILE) if e["kind"] == "rewind"]
    asked = json.loads(json.dumps({"step": step, **taken}, default=float))
    return bool(rewinds) and {name: rewinds[-1][name] for name in asked} == asked


def _play_here(
    study: Study, config: RunConfig, checkpoint: Path | None, report: Report
) -> dict[str, Any]:
    """One worker: in this process."""
    cuda = torch.cuda.is_available() and (study.options.gpus_per_trial or 0) > 0
    torch.set_num_threads(max(1, int(study.options.cpus_per_trial)))
    world = World.current("cuda" if cuda else "cpu")
    return play(config, world, TrialObserver(config.folder, world, report), checkpoint)


class TrialObserver(FolderObserver):
    """Keeps a trial in its folder and hands evaluations and checkpoints to ``report``.

    Of a trial that the diagnosis stops nothing more is handed on: at a rung the figures from before
    it failed would pause it, and it might be promoted. Its end is told by the trial itself.
    ``scratch``: how the path of a folder begins in which a checkpoint is until Tune has copied it.
    """

    def __init__(
        self, folder: Path, world: World, report: Report, scratch: Path | None = None
    ) -> None:
        super().__init__(folder, world)
        self._report = report
        self._scratch = scratch or Path(tempfile.gettempdir()) / "gan-trial-"
        self._diagnosed = False

    def tag(self, step: int, name: str, value: str) -> None:
        """A fact about the trial, such as that it is stopped."""
        super().tag(step, name, value)
        self._diagnosed |= name == STOPPED_BY

    def end(self, step: int, status: str, summary: dict[str, Any]) -> None:
        """The game has ended."""
        if not self._diagnosed:
            super().end(step, status, summary)

    def checkpoint(
        self, step: int, write: Callable[[Path], None], figures: dict[str, float]
    ) -> None:
        """Tune copies the files to the trial's folder; nothing is kept twice."""
        if self._diagnosed:
            return
        where, prefix = self._scratch.parent, self._scratch.name
        with tempfile.TemporaryDirectory(dir=where, prefix=prefix) as scratch:
            write(Path(scratch))
            self._report(step, figures, Path(scratch))

    def keep_best(self, step: int, write: Callable[[Path], None]) -> Path | None:
        """Nothing: every evaluation is a checkpoint already, and a winner is trained anew."""
        return None


def _keep(folder: Path, error: Exception) -> None:
    """The error as a line in the journal and as a whole trace in the trial's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRACE).write_text("".join(traceback.format_exception(error)))
    append(folder, "end", status="failed", summary={"reason": reason(error)})
