"""The verb ``study``: search each system, train the winners, judge them on held-out data, compare.

The validation split decides which is the best and whether it becomes the champion. A figure that
has chosen something flatters it, so test figures choose nothing: they are reported of every winner.

Every step is one of the other verbs, run as a process of its own and printed, so that it can be
repeated by hand. A step that has been finished is passed over when the study is started again.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from gan_core.config import RunConfig, make_config, read_config
from gan_core.errors import UserError
from gan_core.exit_codes import INTERRUPTED
from gan_core.options import flag, option
from pipelines.cluster import on_this_machine
from pipelines.command_line import Parser, add_fields, checked_options
from pipelines.ending import give_back, take_signals
from pipelines.evaluate import EvaluateOptions, plain, scores_file
from pipelines.run_folder import read_json, read_summary
from pipelines.runs import check_name, runs_folder
from pipelines.tuning.halving import least_share, rungs
from pipelines.tuning.study import CONFIG, RUNGS, Study, TuneOptions, load_study

CHOOSING, REPORTED = "validation", "test"
"""The split whose figures choose, and the one whose figures are only told."""

_OF_THE_STUDY = (
    *("--name", "--storage", "--data", "--data-root", "--experiment", "--resume"),
    *("--trials", "--max-steps", "--register"),
)
"""Options of a search that a study gives itself, and by which it finds and compares searches."""


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """The options of ``study``."""

    variants: tuple[str, ...] = option((), "the systems to compare, with commas")
    data: str = option("digits", "what to learn from: a data source (see `list`)")
    data_root: str | None = option(None, "the folder that holds the source's files")
    name: str | None = option(None, "name of the study (default: study-DATA)")
    budget: int = option(
        40_000,
        "iterations, of all its stages together, that each system plays by its own settings (or as "
        "many examples by those that are searched): about half in its search, which is begun with "
        "that in view, and half to train the winner, with each of --seeds",
        minimum=100,
    )
    trials: int = option(16, "trials of each search", minimum=1)
    seeds: int = option(1, "how often each winner is trained, with seeds 1, 2, ...", minimum=1)
    workers: int = option(
        1, "data-parallel workers that train a winner; more than one is DDP", minimum=1
    )
    samples: int = option(
        10_000, "generated examples by which a winner is judged on each split", minimum=2
    )
    storage: str = option("runs", "where the runs are")
    experiment: str = option("gan", "the MLflow experiment")


@dataclasses.dataclass(frozen=True)
class Step:
    """One command; ``done``: it has been finished before."""

    words: Sequence[str]
    done: bool


class StepFailed(RuntimeError):
    """A step ended with an exit code that is not 0."""

    def __init__(self, words: Sequence[str], code: int) -> None:
        super().__init__(f"`python -m pipelines {shlex.join(words)}` ended with {code}")
        self.code = code


def study_command(arguments: list[str]) -> int:
    """``study``: returns the exit code."""
    from pipelines.command_line import add_plugin
    from pipelines.launch import find_values, register_everything

    parser = Parser(
        "study",
        description="Search each system's options, train each winner for longer with new seeds, "
        "judge it on the validation and test splits, put all side by side, and register the best "
        "by validation as champion; test figures are reported and choose nothing. "
        "Started again, it goes on where it was.\nOptions of one system are given under its name.",
        epilog="example:\n  python -m pipelines study --variants gan,dcgan --data digits "
        "--budget 8000 \\\n    --dcgan '--image-size 16 --width 32 --kernel 4'",
    )
    names = [field.name for field in dataclasses.fields(StudyOptions)]
    group = parser.add_argument_group("options of study")
    add_fields(group, StudyOptions, names)
    add_plugin(group)
    plugins = find_values(arguments, "--plugin")
    register_everything(tuple(plugins))  # its systems have options below
    own = parser.add_argument_group("options of a system, fixed in its search")
    for variant in _variants():
        own.add_argument(f"--{variant}", metavar="'OPTION ...'", dest=f"of.{variant}")
    given = parser.read(arguments)
    options = checked_options(StudyOptions, given)
    extra = {
        name.removeprefix("of."): shlex.split(str(value))
        for name, value in given.items()
        if name.startswith("of.")
    }
    named = [word for plugin in plugins for word in ("--plugin", plugin)]
    extra |= {variant: [*named, *extra.get(variant, [])] for variant in options.variants if named}
    study = GanStudy(options, extra)
    study.check()
    from pipelines.tuning.champion import NotRegistered

    told, code = "", 0
    try:
        study.run()
    except StepFailed as error:
        told, code = "stopped" if error.code == INTERRUPTED else f"error: {error}", error.code
    except KeyboardInterrupt:  # between the steps, as one is crowned
        told, code = "stopped", INTERRUPTED
    except NotRegistered as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if told:
        print(f"{told}; the same command goes on from here", file=sys.stderr)
    return code


def _variants() -> list[str]:
    from gan_core.variant import list_variants

    return list_variants()


class GanStudy:
    """A study of several systems on one source. ``extra``: words for a system's search."""

    def __init__(self, options: StudyOptions, extra: dict[str, list[str]]) -> None:
        self.options, self.extra = options, extra
        self.name = options.name or f"study-{options.data}"
        self.storage = runs_folder(options.storage)
        self._stage_steps: dict[str, int] = {}

    @property
    def steps(self) -> int:
        """Iterations of a winner's training, all its stages together, of a winner whose k and
        batches are the system's.
        """
        return self.options.budget // 2

    @property
    def trial_steps(self) -> int:
        """Iterations of a whole trial, all its stages together, so that asha plays about half of
        the budget in all.
        """
        asha, trials = TuneOptions(), self.options.trials
        levels = rungs(1, asha.reduction, RUNGS)
        share = least_share(levels, asha.reduction, asha.finalists, trials, RUNGS)
        whole = self.options.budget / 2 / (share * trials)
        return max(1, min(self.steps, round(whole)))

    def check(self) -> None:
        """Raises ``UserError`` if any search could not be begun, or what is kept is of another."""
        check_name(self.name)
        if not self.options.variants:
            raise UserError("--variants is missing: name the systems, such as gan,dcgan")
        if len(set(self.options.variants)) < len(self.options.variants):
            raise UserError("--variants names a system twice: its steps would be the same ones")
        chosen_by = {v: self._check_search(v) for v in self.options.variants}
        _check_one_choice(chosen_by)
        for variant in self.extra.keys() - set(self.options.variants):
            raise UserError(f"--{variant} is given and {variant} is not among --variants")

    def _check_search(self, variant: str) -> dict[str, object]:
        """By what the search of ``variant`` chooses, by the names of the options."""
        from pipelines.study_kept import check_search
        from pipelines.tune import check_here

        given = {word.partition("=")[0] for word in self.extra.get(variant, [])}
        for name in _OF_THE_STUDY:
            if name in given:
                raise UserError(f"{name} is the same for all systems: not in --{variant} '...'")
        folder, words = self.search_folder(variant), self.search_words(variant)
        kept = (folder / CONFIG).exists()
        asked = self._planned(variant, _unnamed(words) if kept else words)
        if asked.run.train_split != "train":
            raise UserError(
                f"--train-split {asked.run.train_split} leaves nothing to choose by: leave it out"
            )
        if kept:
            check_search(folder, asked)
        elif on_this_machine():  # elsewhere the data may be where the workers are
            check_here(asked, resume=False)
        if (folder / "best.yaml").exists():
            list(self.trainings(variant))  # those that are kept are looked at
        return {
            "metric": asked.options.metric,
            "mode": asked.options.mode,
            "require": asked.options.require,
            "extractor": asked.run.extractor,
        }

    def run(self) -> None:
        """Play all steps that are left, then compare and crown."""
        for variant in self.options.variants:
            self.do([self.search(variant)])
            self.do(self.trainings(variant))
        runs = [run for variant in self.options.variants for run in self.run_names(variant)]
        page = self.storage / f"{self.name}.html"
        self.do([Step(["compare", *runs, *self._where(), "--out", str(page)], False)])
        self.do([Step(["compare", *runs, *self._where(), "--markdown"], False)])
        print(self.crown(runs))

    def do(self, steps: Iterable[Step]) -> None:
        """Run the commands that have not been finished; :class:`StepFailed` if one fails."""
        for step in steps:
            line = f"python -m pipelines {shlex.join(step.words)}"
            if step.done:
                print(f"done before: {line}", flush=True)
                continue
            print(f"\n$ {line}", flush=True)
            code = _exit_code([sys.executable, "-m", "pipelines", *step.words])
            if code:
                raise StepFailed(step.words, code)

    # -- the steps -------------------------------------------------------------------------------

    def _where(self) -> list[str]:
        return ["--storage", str(self.options.storage)]

    def search_folder(self, variant: str) -> Path:
        """Where the search of ``variant`` is."""
        return self.storage / f"{self.name}-search-{variant}"

    def search_words(self, variant: str) -> list[str]:
        """The command that begins the search of ``variant``."""
        return self._search_words(variant, self.stage_steps(variant))

    def _search_words(self, variant: str, steps: int) -> list[str]:
        options = self.options
        root = ["--data-root", options.data_root] if options.data_root else []
        return [
            *("tune", variant, "--data", options.data, *root),
            *("--name", self.search_folder(variant).name, "--experiment", options.experiment),
            *("--trials", str(options.trials), "--max-steps", str(steps)),
            *("--register", "none", *self._where(), *self.extra.get(variant, [])),
        ]

    def stage_steps(self, variant: str) -> int:
        """Iterations of each stage of a trial of ``variant``, so that it has :attr:`trial_steps`.

        Stages whose lengths are given have those, and the others what is left; ``UserError`` if
        that is nothing.
        """
        if variant not in self._stage_steps:
            some = self.trial_steps
            once, twice = (
                self._planned(
                    variant, _unnamed(self._search_words(variant, times * some))
                ).max_steps
                for times in (1, 2)
            )
            free = twice - once  # of stages of so many iterations
            left = some - (once - free)
            if free and left * some < free:
                raise UserError(
                    f"--budget {self.options.budget} is too little for {variant}: a trial has "
                    f"{some:,} iterations, and those given by its options are {once - free:,}"
                )
            self._stage_steps[variant] = left * some // free if free else some
        return self._stage_steps[variant]

    def _planned(self, variant: str, words: Sequence[str]) -> Study:
        """The search that the command ``words`` begins; a refusal names the system's own words."""
        try:
            return _planned(words)
        except UserError as error:
            own = self.extra.get(variant)
            if not own:
                raise
            raise UserError(f"--{variant} '{' '.join(own)}': {error}") from None

    def search(self, variant: str) -> Step:
        """Begin the search, or go on with it."""
        folder = self.search_folder(variant)
        summary = read_summary(folder)
        if not (folder / "config.yaml").exists():
            return Step(self.search_words(variant), False)
        done = summary.get("status") == "finished"
        return Step(["tune", "--resume", folder.name, *self._where()], done)

    def run_names(self, variant: str) -> list[str]:
        """The names of the winner's runs."""
        return [f"{self.name}-{variant}-{seed}" for seed in range(1, self.options.seeds + 1)]

    def trainings(self, variant: str) -> Iterable[Step]:
        """Train the winner with every seed, and judge it on both held-out splits."""
        best = self.search_folder(variant) / "best.yaml"
        if not best.exists():
            raise UserError(
                f"the search of {variant} found no configuration to train: see "
                f"{self.search_folder(variant) / 'report.html'}, then begin another study "
                f"(--name) with a greater --budget, or with --{variant} '--stop-on divergence'"
            )
        for seed, name in enumerate(self.run_names(variant), start=1):
            folder = self.storage / name
            done = read_summary(folder).get("status") == "finished"
            words = self.train_words(best, name, seed)
            if (folder / "config.yaml").exists():
                self._check_training(folder, words)
                yield Step(["train", "--resume", name, *self._where()], done)
            else:
                yield Step(words, False)
            for split in (CHOOSING, REPORTED):
                samples = str(self.options.samples)
                words = ["evaluate", name, "--split", split, "--samples", samples, *self._where()]
                yield Step(words, bool(self.evaluation(name, split)))

    def train_words(self, best: Path, name: str, seed: int) -> list[str]:
        """The command that trains the winner."""
        options = self.options
        config = make_config(read_config(best))
        winner, lengths = config.options, self._lengths(best, config)
        steps = sum(_with_lengths(config, lengths).game.stage_steps)
        every, batch = str(max(1, steps // 10)), int(winner["batch_size"])
        workers = next(n for n in range(options.workers, 0, -1) if batch % n == 0)
        return [
            *("train", "--config", str(best), "--name", name, "--seed", str(seed)),
            *(word for stage, length in lengths.items() for word in (flag(stage), str(length))),
            *("--workers", str(workers)),
            *("--evaluate-every", every, "--checkpoint-every", every, *self._where()),
        ]

    def _lengths(self, best: Path, winner: RunConfig) -> dict[str, int]:
        """The lengths of the winner's stages in its training, by their options.

        A winner of dear iterations has fewer of them, as it had in the search; stages whose length
        was given have that.
        """
        search = load_study(best.parent)
        whole = sum(winner.game.stage_steps)
        own = {n: v for n in winner.game.stage_lengths if (v := winner.options[n])}
        given = sum(steps for name, steps in own.items() if name in search.fixed)
        free = {name: steps for name, steps in own.items() if name not in search.fixed}
        wanted = self.steps * whole / search.max_steps - given
        times = wanted / max(1, whole - given)
        return {name: max(1, round(steps * times)) for name, steps in free.items()}

    def _check_training(self, folder: Path, words: list[str]) -> None:
        from pipelines.launch import configuration
        from pipelines.study_kept import check_training

        config, _ = configuration(_unnamed(words)[1:], "train")
        check_training(folder, config)

    def evaluation(self, run: str, split: str) -> dict[str, Any]:
        """What ``evaluate`` has kept of ``run`` on ``split``; empty if it is yet to be made.

        So it is where samples or extractor were others, or the generator has changed since.
        """
        own = self.options
        asked = EvaluateOptions(samples=own.samples, split=split, storage=own.storage)
        found = read_json(scores_file(self.storage / run, split))
        generator = read_json(self.storage / run / "generator" / self._kept(run) / "generator.json")
        current = found.get("step") == generator.get("step")
        return found if current and found.get("options") == dataclasses.asdict(asked) else {}

    def _kept(self, run: str) -> str:
        """Which generator of ``run`` is judged: its best, else its last."""
        return "best" if (self.storage / run / "generator" / "best").is_dir() else "last"

    def crown(self, runs: Sequence[str]) -> str:
        """Register the best of ``runs`` by validation as the champion for the data; two lines.

        The second tells its test figure; all of these go with it to the registry.
        """
        from pipelines.tuning.champion import crown

        objective = load_study(self.search_folder(self.options.variants[0])).objective
        judged = {run: self.evaluation(run, CHOOSING) for run in runs}
        best = min(runs, key=lambda run: objective(_figures(judged[run])))
        if objective.shortfall(_figures(judged[best])) > 0:
            wanted = ", ".join(map(str, objective.requirements))
            return f"no champion: none of the winners has {wanted} on the {CHOOSING} split"
        tested = _figures(self.evaluation(best, REPORTED))
        told = crown(
            self.options.data,
            self.storage / best,
            objective,
            _figures(judged[best]) | {f"{REPORTED}/{name}": v for name, v in tested.items()},
            judged[best]["protocol"],
            generator=self._kept(best),
        )
        value = objective.value(tested)
        return f"{told}\n{best} on the {REPORTED} split: {objective.metric} {value:.4g}"


def _check_one_choice(chosen_by: Mapping[str, Mapping[str, object]]) -> None:
    """``UserError`` if systems choose by different options: one of all their winners is best."""
    first, *others = chosen_by
    for other in others:
        for name, value in chosen_by[first].items():
            if chosen_by[other][name] != value:
                raise UserError(
                    f"{flag(name)} must be the same for all systems, whose winners are compared: "
                    f"{first} has {value}, {other} {chosen_by[other][name]}"
                )


def _planned(words: Sequence[str]) -> Study:
    """The search that the command ``words`` begins."""
    from pipelines.tune import plan, split

    return plan(*split(words[1:]))


def _unnamed(words: Sequence[str]) -> list[str]:
    """The command ``words`` without the name, which may be had by what it has begun before."""
    place = words.index("--name")
    return [*words[:place], *words[place + 2 :]]


def _with_lengths(config: RunConfig, lengths: Mapping[str, int]) -> RunConfig:
    return dataclasses.replace(config, options={**config.options, **lengths})


def _figures(evaluation: dict[str, Any]) -> dict[str, float]:
    """The figures of an evaluation by their plain names; what was not finite is NaN."""
    figures = evaluation["figures"].items()
    return {plain(name): math.nan if value is None else value for name, value in figures}


def _exit_code(words: Sequence[str]) -> int:
    """Run a command to its end; 130 if that was by Ctrl-C.

    Ctrl-C reaches the command too, which takes its time to write a checkpoint: it is waited for
    (``subprocess.run`` would kill it). SIGTERM and the SIGHUP of a closed terminal are passed on,
    as they may have come to this process alone, and are as good.
    """
    process: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if process is not None:
            process.send_signal(number)

    before = take_signals(pass_on)
    try:
        process = subprocess.Popen(words)
        for number in asked:  # before there was a process
            process.send_signal(number)
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                asked.append(signal.SIGINT)
            else:
                return 130 if asked else code
    finally:
        give_back(before)
