"""Runs a study with Ray Tune: begins or restores it, watches it, notes what became of trials."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.tuner import Tuner

from gan_core.errors import UserError, first_line
from gan_core.journal import last_status
from pipelines.cluster import Cluster
from pipelines.full_disk import DiskFull, line_of_a_full_disk
from pipelines.run_folder import append
from pipelines.tuning import schedulers
from pipelines.tuning.callback import Telling, set_board
from pipelines.tuning.family import forget_lost_trials
from pipelines.tuning.records import BEHIND, Trial, read_trial, stopped_by, trial_folders
from pipelines.tuning.shared_workers import shared_workers
from pipelines.tuning.states import Keeper, mend
from pipelines.tuning.study import Study
from pipelines.tuning.table import Row, Table
from pipelines.tuning.trial import DISK_FULL, trainable
from pipelines.worker import STOPPED_BY

_MARKER = "node:__internal_head__"  # a resource of the head node, of which there is 1
_HEAD, _COUNTED = 0.001, 15  # least share of it; trials of Ray Train runs that it can count
_KEPT = 2  # checkpoints of a trial
_LOST = 2  # how often a trial whose process was lost is begun again from its checkpoint


class SearchBoard:
    """The board of a search: keeps the table, and ends the journals of trials that Tune stops."""

    def __init__(self, study: Study, table: Table) -> None:
        self.study, self.table = study, table
        self._objective = study.objective
        self._keeper = Keeper(study.folder)

    def _row(self, trial: str) -> Row:
        return self.table.rows.get(trial) or Row(trial, {})

    def started(self, trial: str, point: dict[str, Any]) -> None:
        """It plays."""
        row = self._row(trial)
        if row.point and row.point != point:
            row.note = f"goes on from a better trial at step {row.progress}"
        row.point, row.state = point, "playing"
        self.table.show(row)

    def reported(self, trial: str, result: dict[str, Any]) -> None:
        """It has been judged. Raises ``DiskFull`` if it cannot go on for that."""
        if full := result.get(DISK_FULL):
            raise DiskFull(f"{trial}: {full}")
        row = self._row(trial)
        row.progress = int(result.get("step") or row.progress)
        row.objective = float(result.get("objective", row.objective))
        value = self._objective.value(result)
        row.value = value if math.isfinite(value) else row.value
        self.table.show(row)
        if self.study.options.scheduler == "pbt":
            self._tidy(trial)

    def _tidy(self, trial: str) -> None:
        """Remove checkpoints that no other trial can still want to go on from.

        Tune itself would remove those of the trial that was copied, with those of the copy.
        """
        between = self.study.perturb_every // max(1, self.study.run.evaluate_every)
        saved = sorted((self.study.folder / trial).glob("checkpoint_[0-9]*"))
        for old in saved[: -(2 * between + _KEPT)]:
            shutil.rmtree(old, ignore_errors=True)

    def ended(self, trial: str) -> None:
        """It will play no more; where it has not said so itself, the scheduler stopped it."""
        folder = self.study.folder / trial
        verdict = stopped_by(folder)
        if last_status(folder) is None and verdict:  # it could not say so any more
            append(folder, "end", status="stopped", summary={STOPPED_BY: verdict})
        elif last_status(folder) is None:
            append(folder, "tag", name=STOPPED_BY, value=BEHIND)
            append(folder, "end", status="stopped", summary={"reason": BEHIND})
        self.table.show(row_of(read_trial(folder, self.study)))

    def died(self, trial: str, error: str) -> None:
        """Its process was lost too often."""
        folder = self.study.folder / trial
        folder.mkdir(parents=True, exist_ok=True)
        append(folder, "end", status="failed", summary={"reason": error})
        self.table.show(row_of(read_trial(folder, self.study)))

    def looked(self, waiting: Collection[str]) -> None:
        """Tune has looked at its trials, of which some wait."""
        self.table.mark_waiting(waiting)
        self.table.draw()
        self._keeper.keep()


def row_of(trial: Trial) -> Row:
    """A trial as the table shows it."""
    state = trial.status
    if state == "stopped":
        state = trial.verdict.replace("_", " ") or BEHIND
    note = trial.reason if trial.status == "failed" or trial.verdict else ""
    names = {"open": "playing"}
    return Row(
        trial.name,
        trial.point,
        names.get(state, state),
        trial.progress,
        trial.value,
        trial.objective,
        note,
    )


def resources(study: Study, concurrent: int) -> dict[str, float]:
    """What Tune sets aside for a trial, of which ``concurrent`` play at once.

    One that is played elsewhere needs nothing for itself, since it waits; its share of the head
    node's marker sees to it that no more trials start than there are workers or places for. Of
    trials of several workers half a share is left, since Ray Train takes 0.001 of the marker for
    every run. Shares are in ten-thousandths, as Ray counts: they suffice for 100 shared places.
    """
    options = study.options
    if options.workers_per_trial > 1:
        share = math.floor(1e4 / (concurrent + 0.5)) / 1e4 if concurrent <= _COUNTED else _HEAD
        return {_MARKER: share}
    if options.games_per_worker > 1:
        return {_MARKER: max(1, math.floor(1e4 / concurrent)) / 1e4}
    return {"CPU": options.cpus_per_trial, "GPU": options.gpus_per_trial or 0.0}


def room(study: Study, cluster: Cluster) -> int:
    """How many trials play at once; ``UserError`` if there is not room for one."""
    options = study.options
    workers, gpus = options.workers_per_trial, options.gpus_per_trial or 0.0
    cpus = float(workers) if workers > 1 else options.cpus_per_trial
    places = []
    for kind, each in (("CPU", cpus), ("GPU", gpus * workers)):
        have = cluster.resources.get(kind, 0.0)
        if each > have:
            who = "a trial" if options.games_per_worker == 1 else "a worker of trials"
            where = "this machine has" if cluster.own else "the cluster can have"
            flags = "--workers-per-trial" if workers > 1 else f"--{kind.lower()}s-per-trial"
            raise UserError(
                f"{who} needs {each:g} {kind}s and {where} {have:g}: choose less by {flags}"
            )
        if each > 0:
            places.append(int(have / each + 1e-9) * options.games_per_worker)
    return max(1, min([*places, options.concurrent or 10**6, options.trials]))


def _directory(study: Study) -> Any:
    """A function that names the folder of the next trial, and makes it to keep the number."""
    root = str(study.folder)

    def name(_: Any) -> str:
        folder = Path(root)
        number = 1 + max((int(p.name[6:]) for p in folder.glob("trial_[0-9]*")), default=0)
        (folder / f"trial_{number:04d}").mkdir(parents=True)
        return f"trial_{number:04d}"

    return name


def run(study: Study, cluster: Cluster, table: Table, *, resume: bool) -> bool:
    """Play the trials of ``study`` that are left; whether all were played to their ends.

    False after Ctrl-C. What became of the trials is in their journals. With ``resume`` the folder
    is in order (:func:`tidy`).
    """
    os.environ.update(_ENVIRONMENT)
    board = SearchBoard(study, table)
    for folder in trial_folders(study.folder):
        if resume:
            board.table.rows[folder.name] = row_of(read_trial(folder, study))
    concurrent = room(study, cluster)
    with ExitStack() as stack:
        workers: tuple[str, ...] = ()
        if study.options.games_per_worker > 1:
            workers = stack.enter_context(shared_workers(study, concurrent))
        tuner = _restored(study, concurrent, workers) if resume else None
        tuner = tuner or _fresh(study, concurrent, workers)
        set_board(board)
        try:
            with (
                _starting_together(study, concurrent),
                _memory_takes_trials_alone(),
                _in_other_words(table.say),
            ):
                tuner.fit()
        finally:
            set_board(None)
            table.close()
    ended = [read_trial(folder, study).ended for folder in trial_folders(study.folder)]
    return len(ended) >= study.options.trials and all(ended)


_AT_A_TIME = "TUNE_MAX_PENDING_TRIALS_PG"


@contextmanager
def _starting_together(study: Study, concurrent: int) -> Iterator[None]:
    """With asha Tune starts as many processes at a time as there is room for, not one by one.

    It would for a searcher that it does not know; what may begin the scheduler says.
    """
    ours = study.options.scheduler == "asha" and _AT_A_TIME not in os.environ
    if ours:
        os.environ[_AT_A_TIME] = str(concurrent)
    try:
        yield
    finally:
        if ours:
            del os.environ[_AT_A_TIME]


@contextmanager
def _memory_takes_trials_alone() -> Iterator[None]:
    """A trial's process that Ray ends where memory runs out is one that was lost, of which Tune
    begins the trial again. Ray 2.60 ends the search: its Tune knows two errors of Ray and not this.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    former = getattr(RayActorManager, "_actor_task_failed", None)
    if former is None:  # another version
        yield
        return

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=first_line(exception))
        former(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = former  # type: ignore[method-assign]


@contextmanager
def _in_other_words(say: Callable[[str], None]) -> Iterator[None]:
    """What Ray says of a Ctrl-C, to ``say`` in this program's words, and nothing of what it says of
    trials that have not ended when a search is, by that or a full disk.

    It names them as nobody else does; the last words say how many there are, and how to go on.
    """

    def wanted(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text.startswith("Stop signal received"):
            say("stopping: what was saved is kept (Ctrl-C again to end at once, without a report)")
            return False
        return not (text.startswith("Trials did not complete") or line_of_a_full_disk(text))

    logs = [logging.getLogger(f"ray.tune.{name}") for name in ("tune", "execution.tune_controller")]
    for log in logs:
        log.addFilter(wanted)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(wanted)


_ENVIRONMENT = {
    # A killed driver must not forget trials that have ended: Tune writes down what it knows at
    # every look, not every 10 s. It is a file of some kB.
    "TUNE_GLOBAL_CHECKPOINT_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A stopped trial's thread ends at its next report, at once; then its process is used again.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "10",
}


def _fresh(study: Study, concurrent: int, workers: Sequence[str]) -> Tuner:
    placed = tune.with_resources(trainable(study, workers), resources(study, concurrent))
    return Tuner(
        placed,
        param_space=schedulers.param_space(study),
        tune_config=tune.TuneConfig(
            metric=None,
            num_samples=len(study.points) or study.options.trials,
            search_alg=schedulers.make_searcher(study, concurrent),
            scheduler=schedulers.make_scheduler(study, concurrent),
            # Starting a process and importing torch takes seconds, as long as small trials do.
            reuse_actors=study.options.workers_per_trial == 1,
            trial_dirname_creator=_directory(study),
        ),
        run_config=tune.RunConfig(
            name=str(study.run.name),
            storage_path=str(study.folder.parent),
            verbose=0,
            callbacks=[Telling()],
            failure_config=tune.FailureConfig(max_failures=_LOST),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=None if study.options.scheduler == "pbt" else _KEPT
            ),
        ),
    )


def tidy(study: Study, say: Callable[[str], None]) -> None:
    """Bring the folder of a search whose driver was killed in order, before it is resumed.

    Nobody may follow its trials yet: some are removed.
    """
    for name in mend(study.folder):
        say(f"{name} was half written: its last whole version is used")
    known = _known(study.folder) if _restorable(study.folder) else set()
    for name in forget_lost_trials(study, known):
        if known:
            say(f"{name} had begun but was not noted: it is begun anew")


def _restorable(folder: Path) -> bool:
    return Tuner.can_restore(str(folder)) and bool(_states(folder))


def _restored(study: Study, concurrent: int, workers: Sequence[str]) -> Tuner | None:
    """The search as the killed driver left it; ``None`` if it had not begun."""
    if not _restorable(study.folder):
        return None
    if study.options.search == "optuna":
        schedulers.hush_optuna()
    placed = tune.with_resources(trainable(study, workers), resources(study, concurrent))
    return Tuner.restore(
        str(study.folder), trainable=placed, param_space=schedulers.param_space(study)
    )


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("experiment_state-*.json"))


def _known(folder: Path) -> set[str]:
    """The folders of the trials that Tune has noted."""
    state: Mapping[str, Any] = json.loads(_states(folder)[-1].read_text())
    names = set()
    for trial in state["trial_data"]:
        text = trial[0] if isinstance(trial, (list, tuple)) else trial
        names.add(str(json.loads(text)["custom_dirname"]))
    return names
