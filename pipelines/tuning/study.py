"""What a search is asked: options, the space, the run that every trial is a variation of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gan_core.config import RunConfig, make_config, read_config
from gan_core.errors import UserError
from gan_core.options import option, parse
from pipelines.run_folder import unwritten
from pipelines.tuning.halving import rungs
from pipelines.tuning.objective import Objective, make_objective

CONFIG = "config.yaml"
MOST_GAMES = 16
"""That a worker plays at a time: `gan_core.engine.taking_turns` says why, and imports torch."""
RUNGS = 27
"""A trial is judged this many times: three halvings to a third fit between first and last."""


@dataclasses.dataclass(frozen=True)
class TuneOptions:
    """The options of ``tune`` itself."""

    trials: int = option(16, "trials to play; with pbt, the size of the population", minimum=1)
    max_steps: int | None = option(
        None,
        "iterations of (each stage of) a whole trial, but for stages whose length is given by an "
        "option of their own (default: the variant's)",
        minimum=1,
    )
    scheduler: str = option(
        "asha",
        "asha pauses trials early and plays on only the best, pbt lets them go on from better "
        "ones with changed rates and k, none plays all to their end",
        choices=("asha", "pbt", "none"),
    )
    search: str = option(
        "optuna",
        "optuna learns from what trials have reached what to try next, random does not",
        choices=("optuna", "random"),
    )
    metric: str | None = option(
        None,
        "the figure to search by (default: the variant's own, such as kid, l1 or psnr, else fid of "
        "the extractor in use; for points a score of modes, quality and balance)",
    )
    mode: str | None = option(
        None,
        "min or max (default: as the variant declares it, or by the metric's name; of a figure "
        "that neither knows max)",
        choices=("min", "max"),
    )
    require: tuple[str, ...] = option(
        (),
        'a bound on a figure that the best trial must meet, such as "modes_covered>=10"; given '
        "more than once, all must be met",
        metavar="BOUND",
    )
    workers_per_trial: int = option(
        1, "data-parallel workers of a trial; more than one is a Ray Train run", minimum=1
    )
    games_per_worker: int = option(
        1,
        "trials that share a worker: their games take turns in one process, and small ones fill a "
        "GPU together; --cpus-per-trial and --gpus-per-trial are then the worker's, for all games",
        minimum=1,
        maximum=MOST_GAMES,
    )
    cpus_per_trial: float = option(1.0, "CPUs of a trial of one worker", above=0)
    gpus_per_trial: float | None = option(
        None,
        "GPUs of a worker of a trial, 0.25 lets four share one (default: 1 where there are "
        "GPUs, else 0)",
        minimum=0,
    )
    concurrent: int | None = option(
        None, "most trials at once (default: as many as there is room for)", minimum=1
    )
    equal: str | None = option(
        None,
        "what every whole trial has as much of. examples: a trial whose k and batches make an "
        "iteration six times as dear plays a sixth of the iterations, so all take about as long; "
        "max-steps, grace and the like count iterations of the settings given, or the default "
        "ones. iterations: for networks so small that larger batches take no longer (default: "
        "examples; iterations with pbt, which changes k as it goes)",
        choices=("examples", "iterations"),
    )
    grace: int | None = option(
        None,
        f"iterations that asha gives every trial (default: those of a trial / {RUNGS})",
        minimum=1,
    )
    reduction: int = option(3, "asha plays on one of so many trials at every rung", minimum=2)
    finalists: int = option(
        2, "trials that asha plays to their end at least, however few there are", minimum=1
    )
    perturb_every: int | None = option(
        None, "iterations between pbt's exploits (default: those of a trial / 9)", minimum=1
    )
    register: str | None = option(
        None, "name in MLflow's registry of models (default: VARIANT-DATA); none: do not register"
    )


@dataclasses.dataclass(frozen=True)
class Study:
    """A search: ``run`` is every trial's configuration but for the options that are searched.

    ``run.name`` is the study's own name and ``run.folder`` its folder, in which every trial has
    a run's folder of its own. ``fixed``: the variant's options that the user named, which are
    not searched. ``points``: configurations to try, all and in this order, instead of a search.
    ``modes``: of a mixture; ``total_steps``: the iterations of all stages of a trial (0: of one),
    ``last_stage``: of those before the last. ``left_open``: the options of the run that follow from
    a trial's length, as the user has not given them (:func:`with_stages`). ``newer``: the variant's
    options that it did not have when the search began, which are not searched either.
    """

    run: RunConfig
    options: TuneOptions
    target: str
    fixed: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
    points: tuple[dict[str, Any], ...] = ()
    modes: int = 0
    total_steps: int = 0
    last_stage: int = 0
    left_open: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.run.folder

    @property
    def max_steps(self) -> int:
        """The iterations of a whole trial, all its stages together, at the study's own pace.

        Trials of another pace (:meth:`interval`) have others; where trials are compared, what
        counts is how far they are by the study's (:meth:`progress`).
        """
        return self.total_steps or int(self.run.options["steps"])

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        options = self.options
        if options.metric is None:
            raise ValueError("the metric is known when the data are")
        return make_objective(options.metric, options.mode, options.require, self.modes)

    @property
    def grace(self) -> int:
        """The iterations that asha gives every trial."""
        return self.options.grace or self.every

    @property
    def levels(self) -> tuple[int, ...]:
        """The iterations, at the study's pace, at which asha compares trials."""
        options = self.options
        return rungs(self.grace, options.reduction, self.max_steps, last_stage=self.last_stage)

    @property
    def comparisons(self) -> tuple[int, ...]:
        """The first evaluation at or after each of the :attr:`levels`, but for a trial's end."""
        seen = dict.fromkeys(-(-level // self.every) * self.every for level in self.levels)
        return tuple(step for step in seen if step < self.max_steps)

    @property
    def perturb_every(self) -> int:
        """The iterations between pbt's exploits: whole intervals between evaluations."""
        wanted = self.options.perturb_every or max(1, self.max_steps // 9)
        return max(1, round(wanted / self.every)) * self.every

    @property
    def every(self) -> int:
        """The iterations from one evaluation to the next, at the study's own pace."""
        return max(1, self.run.evaluate_every)

    @property
    def equal_examples(self) -> bool:
        """Whether trials have as many examples, and not as many iterations."""
        default = "iterations" if self.options.scheduler == "pbt" else "examples"
        return (self.options.equal or default) == "examples"

    def interval(self, config: RunConfig) -> int:
        """The iterations of a trial of ``config`` from one evaluation to the next.

        Where all have as many examples, it is how many iterations see those of ``every``
        iterations of the study's own settings, rounded to whole ones: of very short trials those
        of dear iterations get more.
        """
        if not self.equal_examples:
            return self.every
        own, its = (run.game.examples_per_iteration for run in (self.run, config))
        return max(1, round(self.every * own / its))

    def progress(self, step: int, interval: int) -> int:
        """How far a trial is after ``step`` of its iterations, in iterations at the study's pace.

        ``interval``: the trial's own. Exact at every evaluation.
        """
        return min(self.max_steps, step * self.every // interval)

    def trial_config(self, point: Mapping[str, Any], name: str) -> RunConfig:
        """The configuration of the trial ``name`` at ``point`` (searched option to value)."""
        values = self.run.to_dict()
        values["options"] = {**values["options"], **point}
        values.update(
            name=name,
            storage=str(self.folder),
            cache=str(self.run.cache_folder),  # what was prepared for all trials
            workers=self.options.workers_per_trial,
        )
        config = make_config(values)
        interval = self.interval(config)
        return config if interval == self.every else self._at_pace(config, interval)

    def _at_pace(self, config: RunConfig, interval: int) -> RunConfig:
        """``config`` with as many evaluations as before, ``interval`` iterations apart."""

        def scaled(count: int) -> int:
            return count and max(1, round(count * interval / self.every))

        lengths = {name: config.options[name] for name in config.game.stage_lengths}
        scaled_lengths = {n: scaled(v) for n, v in lengths.items() if v is not None}
        return make_config(
            {
                **config.to_dict(),
                "options": {**config.options, **scaled_lengths},
                "evaluate_every": interval,
                "checkpoint_every": scaled(config.checkpoint_every),
                "log_every": scaled(config.log_every),
            }
        )

    @property
    def not_searched(self) -> tuple[str, ...]:
        """The variant's options that are the same for all trials, whatever its space has."""
        return (*self.fixed, *self.newer)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with what MLflow shows of a run beside the others."""
        return {
            "name": self.run.name,
            "experiment": self.run.experiment,
            "variant": self.run.variant,
            "data": self.run.data,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in vars(self.options).items()},
            "fixed": list(self.fixed),
            "newer": list(self.newer),
            "target": self.target,
            "modes": self.modes,
            "total_steps": self.total_steps,
            "last_stage": self.last_stage,
            "points": [dict(point) for point in self.points],
            "run": self.run.to_dict(),
        }

    def save(self, *, new: bool = False) -> None:
        """Write the study's ``config.yaml``, by which it is found and resumed.

        Raises ``UserError`` if it cannot be written, or if a ``new`` one's name has been taken
        since it was seen to be free.
        """
        path = self.folder / CONFIG
        try:
            self.folder.mkdir(parents=True, exist_ok=not new)
        except FileExistsError:
            raise UserError(
                f"search '{self.run.name}' was begun by another process meanwhile: give this one "
                "another --name"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot make {self.folder} ({error.strerror}): use --storage"
            ) from None
        if lost := unwritten(path, yaml.safe_dump(self.to_dict(), sort_keys=False)):
            raise UserError(f"cannot write {path} ({lost}): use --storage")


def with_stages(study: Study, stages: Sequence[int]) -> Study:
    """``study`` when it is known how many iterations the ``stages`` of a trial have.

    When trials are judged and logged follows from all of them together, where it is left open.
    """
    run, total = study.run, max(1, sum(stages))
    every = max(1, total // RUNGS) if "evaluate_every" in study.left_open else run.evaluate_every
    between = min(every or total, total)
    logs = max(1, min(50, between // 2)) if "log_every" in study.left_open else run.log_every
    return dataclasses.replace(
        study,
        run=dataclasses.replace(
            run, evaluate_every=between, checkpoint_every=between, log_every=logs
        ),
        total_steps=total,
        last_stage=sum(stages[:-1]),
    )


def is_study(folder: Path) -> bool:
    """Whether ``folder`` is that of a search (and not of a run)."""
    path = folder / CONFIG
    return path.is_file() and "trials" in read_config(path)


def load_study(folder: Path) -> Study:
    """The study in ``folder``; ``UserError`` if there is none."""
    if not is_study(folder):
        raise UserError(f"{folder} holds no search: give a study's name, or its folder")
    values = read_config(folder / CONFIG)
    names = {field.name for field in dataclasses.fields(TuneOptions)}
    run = make_config(values["run"])
    newer = {*values.get("newer", ()), *(run.options.keys() - values["run"]["options"].keys())}
    return Study(
        run=dataclasses.replace(run, name=folder.name, storage=str(folder.parent)),
        options=parse(TuneOptions, {n: v for n, v in values.items() if n in names}),
        target=str(values["target"]),
        fixed=tuple(values["fixed"]),
        newer=tuple(sorted(newer)),
        points=tuple(values["points"]),
        modes=int(values["modes"]),
        total_steps=int(values["total_steps"]),
        last_stage=int(values.get("last_stage", 0)),  # those of earlier versions have none
    )
