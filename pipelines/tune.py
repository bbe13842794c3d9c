"""The verb ``tune``: search the options that a GAN is sensitive to, with Ray Tune and MLflow."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from gan_core.errors import UserError
from gan_core.journal import last_status
from gan_core.options import flag, value_type
from pipelines.command_line import Parser, add_fields, checked_options, join_negative_numbers
from pipelines.ending import give_back, take_signals
from pipelines.tuning.study import Study, TuneOptions, load_study, with_stages

if TYPE_CHECKING:
    from gan_core.config import RunConfig
    from pipelines.cluster import Cluster
    from pipelines.tuning.family import Family
    from pipelines.tuning.figures import Asked
    from pipelines.tuning.prepare import Ground
    from pipelines.tuning.results import Outcome

STOP_ON = ("collapse", "divergence", "vanishing-gradient")
"""What ends a trial where the user has not said otherwise."""
PATIENCE = 0.5
"""The share of a trial for which a failure must stand: many begin with few modes and find all.

With 0.2 the best of twelve trials on digits was stopped for a class that was still to come."""
_INSTEAD = {
    "--steps": "--max-steps",
    "--workers": "--workers-per-trial",
    "--checkpoint-every": "--evaluate-every (a trial is judged and saved at the same iterations)",
}


def tune_command(arguments: list[str]) -> int:
    """``tune``: returns the exit code; ``UserError`` for anything wrong before it starts."""
    words = join_negative_numbers(arguments)
    if any(word in ("-h", "--help") for word in words):
        print(_help(), end="")
        return 0
    own, rest = split(words)
    found = own.pop("resume", None)
    study = _resumed(found, own, rest) if found else plan(own, rest)
    from pipelines.train import RunFailed

    try:
        outcome = tune(study, resume=found is not None)
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if outcome.complete else 130


def finished(study: Study) -> bool:
    """Whether all trials of the study have been played."""
    return last_status(study.folder) == "finished"


def _help() -> str:
    from pipelines.command_line import add_plugin

    parser = Parser(
        "tune",
        usage="python -m pipelines tune VARIANT --data SOURCE [OPTION ...]",
        description="Search the options that a GAN is sensitive to. What is searched, and why, "
        "stands in\ntune_spaces/VARIANT.py, or in the attribute `space` of a plugin's variant. "
        "The options of\n`train VARIANT` are taken too, but for those of its length (here "
        "--max-steps) and its workers\n(here --workers-per-trial); those of the variant itself "
        "are then fixed and not searched. Trials\nstop on collapse, divergence and vanishing "
        "gradients where --stop-on says nothing else.",
        epilog="example:\n  python -m pipelines tune dcgan --data digits --image-size 16 "
        "--width 32 --trials 16 --max-steps 2000",
        add_help=False,
    )
    group = parser.add_argument_group("the search")
    add_fields(group, TuneOptions, [f.name for f in dataclasses.fields(TuneOptions)])
    group.add_argument("--resume", metavar="STUDY", help="go on with a search: its name or "
                       "folder (with --data-root, where its data are elsewhere now)")  # fmt: skip
    add_plugin(group)
    return parser.format_help()


def split(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The search's own options by name, and the words that are left for the run.

    One that takes several values, as ``--require`` does, has them all, however often it is given;
    of any other the last word counts.
    """
    flags = {flag(f.name): f.name for f in dataclasses.fields(TuneOptions)}
    flags["--resume"] = "resume"
    own: dict[str, Any] = {}
    rest: list[str] = []
    waiting: str | None = None
    for word in words:
        name, joined, value = word.partition("=")
        if waiting is not None:
            _put(own, waiting, word)
            waiting = None
        elif name in _INSTEAD:
            raise UserError(f"{name} is {_INSTEAD[name]} in a search")
        elif name not in flags:
            rest.append(word)
        elif joined:
            _put(own, flags[name], value)
        else:
            waiting = flags[name]
    if waiting is not None:
        raise UserError(f"{flag(waiting)} needs a value")
    return own, rest


def _put(own: dict[str, Any], name: str, word: str) -> None:
    if name != "resume" and value_type(TuneOptions, name)[0] is tuple:
        own[name] = (*own.get(name, ()), word)
    else:
        own[name] = word


def plan(own: dict[str, Any], rest: list[str]) -> Study:
    """The study that the user's words mean; its metric may still be open."""
    from pipelines.launch import configuration
    from pipelines.models import check_model_name
    from pipelines.tuning.figures import declared_mode, names_before_data
    from pipelines.tuning.objective import check_direction, parse_requirement
    from pipelines.tuning.pace import check_given

    options = checked_options(TuneOptions, own)
    if options.register is not None:
        check_model_name(options.register)
    for text in options.require:
        parse_requirement(text)
    if options.scheduler == "pbt" and options.equal == "examples":
        raise UserError(
            "--equal examples cannot be had with --scheduler pbt, which changes k while a trial "
            "plays: leave it out"
        )
    if options.games_per_worker > 1 and options.workers_per_trial > 1:
        raise UserError(
            "--games-per-worker cannot be had with --workers-per-trial: a trial shares a worker or "
            "has several of its own"
        )
    config, given = configuration(rest, "tune")
    _check_option_names(config)
    _check_device(config.device, options.gpus_per_trial)
    _asked(options).check(config, names_before_data(config))
    if options.metric is not None and declared_mode(config, options.metric) is None:
        check_direction(options.metric, options.mode)
    config = dataclasses.replace(
        config,
        options={**config.options, **_lengths(config, options.max_steps, given["options"])},
        workers=options.workers_per_trial,
        stop_on=config.stop_on if "stop_on" in given else STOP_ON,
        stop_patience=config.stop_patience if "stop_patience" in given else PATIENCE,
        name=config.name if "name" in given else f"tune-{config.name}",
    )
    fixed = tuple(given["options"])
    workers = options.workers_per_trial
    if "batch_size" in fixed and config.options["batch_size"] % workers:
        raise UserError(
            f"--batch-size {config.options['batch_size']} cannot be divided by --workers-per-trial "
            f"{workers}: every worker takes an equal share of the batch"
        )
    left_open = tuple({"evaluate_every", "log_every"} - given.keys())
    study = Study(run=config, options=options, target="", fixed=fixed, left_open=left_open)
    study = with_stages(study, config.game.stage_steps)
    check_given(study, own)
    return study


def _lengths(config: RunConfig, steps: int | None, given: Mapping[str, Any]) -> dict[str, int]:
    """The lengths of a trial's stages where each has ``steps`` iterations, by their options.

    One that the user has ``given`` stays, as does a stage that is not played, or that has as many
    iterations as another (``None``).
    """
    names = config.game.stage_lengths if steps else ()
    own = {name: config.options[name] for name in names if name not in given}
    return {name: int(steps or 0) for name, value in own.items() if value}


def _check_device(device: str, gpus: float | None) -> None:
    """Whether the GPUs of a trial are what its device needs."""
    if device == "cpu" and gpus:
        raise UserError(f"--gpus-per-trial {gpus:g} has no use with --device cpu: leave one out")
    if device == "cuda" and gpus == 0:
        raise UserError("--device cuda needs --gpus-per-trial above 0: leave one out")


def _resumed(name: str, own: dict[str, Any], rest: list[str]) -> Study:
    """The study ``name`` as it was begun; of it nothing can be changed but where its data are."""
    from pipelines.command_line import Parser
    from pipelines.runs import resolve

    parser = Parser("tune --resume STUDY", add_help=False)
    parser.add_argument("--storage")
    parser.add_argument("--data-root")
    if own:
        raise UserError(f"{flag(next(iter(own)))} cannot change a search that goes on")
    given, others = parser.parse_known_args(rest)
    study = load_study(resolve(name, getattr(given, "storage", "runs")))
    root = getattr(given, "data_root", study.run.data_root)
    study = dataclasses.replace(study, run=dataclasses.replace(study.run, data_root=root))
    other = next((word for word in others if word != study.run.variant), None)
    if other is not None:
        raise UserError(
            f"{other.partition('=')[0]} cannot change a search that goes on: leave it out"
        )
    return study


def tune(study: Study, *, resume: bool = False) -> Outcome:
    """Play a study's trials, or with ``resume`` those that are left; print what came of them.

    Raises ``UserError`` for wrong input, before any trial begins, and ``RunFailed`` for what else
    ends it, such as a full disk.
    """
    from pipelines.cluster import absolute, connected, on_this_machine
    from pipelines.run_folder import append
    from pipelines.train import check_data_on_cluster
    from pipelines.tuning.results import conclude, how_to_go_on
    from pipelines.tuning.table import Table

    study = dataclasses.replace(study, run=absolute(study.run))
    if resume and finished(study):  # what MLflow has not been told yet is sent
        family = _family(study, _say)
        family.start()
        with _ended_in_one_line(study, family):
            return conclude(study, family, complete=True)
    # Of a resumed search, too: without its data all that is left would fail.
    if on_this_machine():
        check_here(study, resume=resume)
    with ExitStack() as stack:
        cluster = stack.enter_context(connected(search=True))
        if resume and not cluster.own:
            _check_same_data(study, check_data_on_cluster(study.run, resume))
        study = study if resume else _grounded(study, cluster)
        _check_room(study, cluster)
        from pipelines.tuning.driver import run, tidy

        study.save(new=not resume)
        table = Table(
            str(study.options.metric), len(study.points) or study.options.trials, study.max_steps
        )
        family = _family(study, table.say)
        with _ended_in_one_line(study, family):
            if resume:
                tidy(study, table.say)
            family.start()
            try:
                append(study.folder, "start", trials=study.options.trials)
                with _endings_as_interrupts():
                    complete = run(study, cluster, table, resume=resume)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    table.say(how_to_go_on(study))
                family.end("stopped", timeout=10)
                raise
            stack.close()  # no trial writes to its journal beyond this point
            return conclude(study, family, complete)


@contextmanager
def _ended_in_one_line(study: Study, family: Family) -> Iterator[None]:
    """A full disk, of the driver or of a trial, or full memory ends the search in one line, and in
    MLflow.
    """
    from pipelines.train import RunFailed
    from pipelines.tuning.results import how_to_go_on

    try:
        yield
    except Exception as error:
        why = _what_was_full(error, study.run.storage)
        if why is None:
            raise
        if family.is_alive():
            family.end("stopped", timeout=10)
        told = f"search {study.run.name} has stopped for {why}, and {how_to_go_on(study)}"
        raise RunFailed(told) from error


def _what_was_full(error: Exception, storage: str) -> str | None:
    """The full disk or memory that ``error`` is about, and what to do; ``None`` if it is not."""
    from ray.exceptions import OutOfMemoryError

    from pipelines.full_disk import causes, full_disk, how_to_make_room

    full = full_disk(error)
    if full is not None:
        return f"a full disk ({full}): {how_to_make_room(storage)}"
    # Which Tune takes for an error of its own, and not for one of a trial.
    if any(isinstance(cause, OutOfMemoryError) for cause in causes(error)):
        return (
            "full memory, for which Ray has killed trials: end what else takes memory there, or "
            "let fewer play at once (a new search with --concurrent)"
        )
    return None


def _check_option_names(config: RunConfig) -> None:
    """Raises ``UserError`` if an option of the variant cannot be given here."""
    for field in dataclasses.fields(TuneOptions):
        if field.name in config.options:
            raise UserError(
                f"the option {flag(field.name)} of variant '{config.variant}' has the name of one "
                "of tune's own: give it another"
            )


def _asked(options: TuneOptions) -> Asked:
    from pipelines.tuning.figures import Asked

    return Asked(options.metric, options.require)


def check_here(study: Study, *, resume: bool) -> None:
    """The data, and of a new search whether they can be judged as the user asks, before Ray is
    started.
    """
    from gan_core.preparing import check_data
    from pipelines.tuning.figures import names_of_data

    facts = check_data(study.run, resumed=resume)
    if resume:
        _check_same_data(study, facts)
    else:
        _asked(study.options).check(study.run, names_of_data(study.run, facts))


def _check_same_data(study: Study, facts: Mapping[str, Any]) -> None:
    """``UserError`` if trials have learned from other data than there are now (``facts``)."""
    from gan_core.journal import FILE, read
    from pipelines.tuning.records import trial_folders

    now = facts["fingerprint"]
    events = (event for folder in trial_folders(study.folder) for event, _ in read(folder / FILE))
    was = next((e["data"] for e in events if e["kind"] == "start" and "data" in e), now)
    if was != now:
        raise UserError(
            f"cannot resume {study.run.name}: its trials have learned from other data (fingerprint "
            f"{was}, now {now}): name the folder of those with --data-root, or begin another search"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _family(study: Study, say: Callable[[str], None]) -> Family:
    """The thread that will tell MLflow; ``UserError`` if another process runs this search."""
    from pipelines.cluster import base_folder
    from pipelines.tracking import Busy
    from pipelines.tuning.family import Family

    try:
        family = Family(study, base_folder(), say)
    except Busy:
        raise UserError(
            f"search '{study.run.name}' is being run by another process: wait for its end, or "
            "stop it"
        ) from None
    return family


def _grounded(study: Study, cluster: Cluster) -> Study:
    """``study`` with what is known once the data have been seen, where the trials see them."""
    from pipelines.cluster import threads_per_worker
    from pipelines.tuning.pace import described, hasty, uneven
    from pipelines.tuning.prepare import with_metric

    gpus, device = study.options.gpus_per_trial, study.run.device
    if gpus is None:
        wanted = device == "cuda" or (device == "auto" and cluster.resources.get("GPU", 0) > 0)
        gpus = 1.0 if wanted else 0.0
    study = dataclasses.replace(
        study, options=dataclasses.replace(study.options, gpus_per_trial=gpus)
    )
    _check_room(study, cluster)
    ground = _prepared(study, gpus, threads_per_worker(cluster, 1))
    for text, level in ground.told:
        print(f"warning: {text}" if level == "warning" else text, file=sys.stderr, flush=True)
    metric, mode = with_metric(study.options.metric, ground, study.run)
    options = dataclasses.replace(study.options, metric=metric, mode=study.options.mode or mode)
    study = dataclasses.replace(
        study,
        options=options,
        target=ground.target,
        modes=ground.modes,
    )
    study = _with_foreign_values_fixed(with_stages(study, ground.stages))
    _say(described(study, ground.stages))
    for warning in (uneven(study), hasty(study)):
        if warning:
            _say(f"warning: {warning}")
    return study


def _with_foreign_values_fixed(study: Study) -> Study:
    """``study`` with the values of a --config that no search would draw kept, and told.

    So are those of options that the system does not have as it is to be played.
    """
    from pipelines.tuning.schedulers import outside_space, refused_names

    refused = refused_names(study)
    if refused:
        named = ", ".join(map(flag, refused))
        _say(f"not searched, as {study.run.variant} does not take them so: {named}")
    study = dataclasses.replace(study, fixed=(*study.fixed, *refused))
    names = outside_space(study)
    if names:
        values = ", ".join(f"{flag(name)} {study.run.options[name]}" for name in names)
        _say(f"not searched, as the space has no such value: {values}")
    return dataclasses.replace(study, fixed=(*study.fixed, *names))


def _check_room(study: Study, cluster: Cluster) -> None:
    from pipelines.tuning.driver import room

    room(study, cluster)


def _prepared(study: Study, gpus: float, threads: int) -> Ground:
    """What :func:`prepare` finds in a worker."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from pipelines.mlflow_client import reason
    from pipelines.train import RunFailed
    from pipelines.tuning.prepare import prepare

    task = ray.remote(prepare).options(num_cpus=1, num_gpus=min(1.0, gpus), max_retries=1)
    try:
        ground: Ground = ray.get(
            task.remote(study.run.to_dict(), _asked(study.options), gpu=gpus > 0, threads=threads)
        )
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise RunFailed(f"the search could not be prepared: {reason(cause or error)}") from error
    return ground


@contextmanager
def _endings_as_interrupts() -> Iterator[None]:
    """`ray job stop` and a closed terminal end the search as Ctrl-C does: it can be resumed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = take_signals(interrupt)
    try:
        yield
    finally:
        give_back(before)
