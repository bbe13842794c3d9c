"""What a search is worth, by three questions; each command prints a table.

    python -m benchmarks.search winner --out FOLDER --data ring|digits [--steps N] [--trials N]
    python -m benchmarks.search stopping --out FOLDER [--repeats 3] [--steps N]
    python -m benchmarks.search writers --out FOLDER

winner    One `tune` of `gan` on the source, then its winner and the default setting are trained
          with three fresh seeds each, both for twice the length of a trial, and judged by
          their last generator on other samples than those that the search has looked at.
stopping  A list of settings (the papers' and random ones) is played twice, in full and with asha
          and the diagnosis' stopping: the best metric of both, the share of the iterations, and the
          trials that the diagnosis stopped, and those of them that would have found all modes. The
          same settings and seeds give the same figures at the same iterations.
writers   Eight trials at once, a SQLite database: every metric that a journal holds must be in
          MLflow, once, with its step and value.

What has been played is kept in FOLDER and not played again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import check_asked
from gan_core import journal
from gan_core.config import make_config
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.observers import Observer
from gan_core.run import play
from pipelines.tune import PATIENCE, STOP_ON
from pipelines.tuning.objective import MIXTURE_SCORE
from pipelines.tuning.records import Trial, best_trial, read_trials, trial_folders
from pipelines.tuning.results import saved_share
from pipelines.tuning.study import Study, TuneOptions, load_study

SEEDS = (101, 102, 103)
STEPS = {"ring": 8100, "digits": 2700}
LISTED_STEPS = 1350
TRIALS = {"ring": 8, "digits": 16}
LONGER = 2
"""The examples of the final trainings over those of a trial."""
POINTS = 16
SHOWN = {
    "ring": ("modes_covered", "high_quality_share", "smallest_mode_share"),
    "digits": ("fid_classifier", "coverage_classifier", "modes_covered", "mode_kl"),
}
ARGUMENTS = {
    # A third of the iterations for each: before that, noise and rates that fall have not fallen.
    # These networks are so small that a batch of 500 takes hardly longer than one of 100.
    "ring": ["--grace", "2700", "--equal", "iterations"],
    "digits": ["--hidden", "400", "--maxout-units", "120"],
}


def pipelines(words: list[str], folder: Path) -> float:
    """Run a verb in ``folder``; the seconds it took."""
    begun = time.monotonic()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder.resolve()}/mlflow.db"}
    done = subprocess.run([sys.executable, "-m", "pipelines", *words], env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"`{' '.join(words)}` ended with {done.returncode}")
    return time.monotonic() - begun


def search(folder: Path, name: str, begin: list[str], asked: dict[str, Any]) -> Study:
    """The finished search ``name``: begun, gone on with, or only read.

    ``asked``: what it must have been told to do, as :func:`told` says it.
    """
    place = folder / name
    if (place / "config.yaml").exists():
        check_asked(place, told(load_study(place)), asked)
    summary = place / "summary.json"
    if not (place / "config.yaml").exists():
        seconds = pipelines([*begin, "--name", name, "--storage", str(folder)], folder)
        (place / "wall.json").write_text(json.dumps(seconds))
    elif not summary.exists() or json.loads(summary.read_text())["status"] != "finished":
        pipelines(["tune", "--resume", name, "--storage", str(folder)], folder)
    return load_study(place)


def told(study: Study) -> dict[str, Any]:
    """What a search was told to do."""
    points = list(study.points)
    return {"steps": study.max_steps, "trials": study.options.trials, "points": points}


# -- winner --------------------------------------------------------------------------------------


def winner(folder: Path, data: str, steps: int, trials: int) -> None:
    """The search, then its winner against the default."""
    words = ["tune", "gan", "--data", data, "--trials", str(trials), "--max-steps", str(steps)]
    asked = {"steps": steps, "trials": trials}
    study = search(folder, f"winner-{data}", [*words, *ARGUMENTS[data]], asked)
    best = best_trial(read_trials(study))
    assert best is not None, "no trial was played to its end"
    fixed = {name: study.run.options[name] for name in study.fixed}
    its_steps = study.trial_config(best.point, best.name).options["steps"]
    settings: dict[str, dict[str, Any]] = {
        "default": {"data": data, **fixed, "steps": LONGER * steps},
        "winner": {"data": data, **fixed, **best.point, "steps": LONGER * its_steps},
    }
    for name, options in settings.items():
        for seed in SEEDS:
            kept_figures(folder, f"{data}-{name}", options, seed)
    wall = study.folder / "wall.json"
    minutes = f"{json.loads(wall.read_text()) / 60:.1f} minutes" if wall.exists() else "in parts"
    share = saved_share(read_trials(study), steps)
    print(f"\nsearch: {trials} trials of {steps} iterations, {minutes}, {share:.0%} saved")
    print(f"winner: {best.point}, {its_steps:,} iterations\n")
    print(f"| gan on {data} | {' | '.join(SHOWN[data])} |\n|{'---|' * (len(SHOWN[data]) + 1)}")
    train_all(folder, data, settings)
    for name, options in settings.items():
        found = [trained(folder, f"{data}-{name}", options, seed) for seed in SEEDS]
        cells = [", ".join(f"{f[n]:.4g}" for f in found) for n in SHOWN[data]]
        print(f"| {name}, seeds {', '.join(map(str, SEEDS))} | {' | '.join(cells)} |", flush=True)


def train_all(folder: Path, data: str, settings: dict[str, dict[str, Any]]) -> None:
    """Train all rows with all seeds, one on each core."""
    cores = ProcessPoolExecutor(
        os.cpu_count(), get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    with cores:
        ends = [
            cores.submit(trained, folder, f"{data}-{name}", options, seed)
            for seed in SEEDS
            for name, options in reversed(settings.items())
        ]
        for end in ends:
            end.result()


def kept_figures(
    folder: Path, name: str, settings: dict[str, Any], seed: int
) -> dict[str, float] | None:
    """The figures of a training that is done; ``UserError`` if it had other settings."""
    path = folder / f"winner-{name}-{seed}.json"
    if not path.exists():
        return None
    found = dict(json.loads(path.read_text()))
    if "settings" not in found:  # earlier versions kept figures alone
        return found
    check_asked(path, found["settings"], json.loads(json.dumps(settings)))
    return dict(found["figures"])


def trained(folder: Path, name: str, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """The figures of the last generator of one training."""
    figures = kept_figures(folder, name, settings, seed)
    if figures is None:
        config = make_config(
            {
                "variant": "gan",
                "seed": seed,
                "cache": str(folder / "cache"),
                "log_every": settings["steps"],
                "evaluate_every": 0,
                "checkpoint_every": 0,
                "samples": 10_000 if settings["data"] == "ring" else 1257,
                **settings,
            }
        )
        figures = dict(play(config, World(), Observer())["figures"])
        path = folder / f"winner-{name}-{seed}.json"
        path.write_text(json.dumps({"settings": settings, "figures": figures}))
    return figures


# -- stopping ------------------------------------------------------------------------------------


def listed(folder: Path, seed: int, scheduler: str, steps: int) -> Study:
    """A study of a list of settings on the ring, as ``search`` takes it up."""
    from pipelines.tuning.schedulers import first_points, study_space

    every = steps // 27
    run = make_config(
        {
            "variant": "gan",
            "data": "ring",
            "seed": seed,
            "steps": steps,
            "name": f"listed-{seed}-{scheduler}",
            "storage": str(folder.resolve()),
            "cache": str((folder / "cache").resolve()),
            "evaluate_every": every,
            "checkpoint_every": every,
            "log_every": every // 2,
            "stop_on": list(STOP_ON) if scheduler == "asha" else [],
            "stop_patience": PATIENCE,
        }
    )
    options = TuneOptions(
        metric=MIXTURE_SCORE,
        scheduler=scheduler,
        trials=POINTS,
        equal="iterations",
        grace=2 * every,
        reduction=4,
        gpus_per_trial=0.0,
        register="none",
    )
    study = Study(run=run, options=options, target="point", modes=8)
    random = np.random.RandomState(seed)
    domains = study_space(study).domains()
    points = first_points(study)
    while len(points) < POINTS:
        drawn = {n: d.sample(random_state=random) for n, d in domains.items()}
        points.append({n: getattr(v, "item", lambda v=v: v)() for n, v in drawn.items()})
    return dataclasses.replace(study, points=tuple(points))


def ends_well(point: dict[str, Any], full: list[Trial]) -> bool:
    """Whether the trial of ``point`` found all modes where it was played in full."""
    figures = next(t.figures for t in full if t.point == point)
    return figures.get("modes_covered", 0) >= 8 and figures["smallest_mode_share"] >= 1 / 32


def stopping(folder: Path, repeats: int, steps: int) -> None:
    """A full search against one that stops."""
    print(
        "| list and seed | best in full | best with stopping | same trial | iterations "
        "| stopped by a verdict | of these with all modes in full |"
    )
    print("|---|---|---|---|---|---|---|")
    shares = []
    for seed in range(repeats):
        found: dict[str, list[Trial]] = {}
        for scheduler in ("none", "asha"):
            study = listed(folder, seed, scheduler, steps)
            if not (study.folder / "config.yaml").exists():
                study.save()
            found[scheduler] = read_trials(search(folder, study.folder.name, [], told(study)))
        full, stopped = found["none"], found["asha"]
        one, other = best_trial(full), best_trial(stopped)
        assert one is not None
        assert other is not None
        share = sum(t.progress for t in stopped) / sum(t.progress for t in full)
        judged = [t for t in stopped if t.verdict]
        wrong = sum(ends_well(t.point, full) for t in judged)
        shares.append(share)
        print(
            f"| {seed} | {one.value:.4f} | {other.value:.4f} | "
            f"{'yes' if one.point == other.point else 'no'} | {share:.0%} | "
            f"{len(judged)} of {len(stopped)} | {wrong} |",
            flush=True,
        )
    print(f"\nmean share of the iterations: {statistics.fmean(shares):.0%}")


# -- writers -------------------------------------------------------------------------------------


def writers(folder: Path) -> None:
    """Eight trials at once; their journals against MLflow."""
    words = [
        *("tune", "gan", "--data", "ring", "--trials", "8", "--concurrent", "8"),
        *("--cpus-per-trial", "0.25", "--scheduler", "none", "--search", "random"),
        *("--max-steps", "400", "--log-every", "2", "--evaluate-every", "40"),
        *("--samples", "200", "--stop-on", "divergence", "--register", "none"),
    ]
    study = search(folder, "writers", words, {})
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.resolve()}/mlflow.db")
    experiment = client.get_experiment_by_name("gan")
    assert experiment is not None
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    total = lost = twice = 0
    for place in trial_folders(study.folder):
        run = runs[place.name]
        said: dict[str, list[tuple[int, str]]] = {}
        for event, _ in journal.read(place / journal.FILE):
            if event["kind"] == "metrics":
                for name, value in event["values"].items():
                    said.setdefault(name, []).append((event["step"], repr(value + 0.0)))
        for name, values in said.items():
            history = client.get_metric_history(run.info.run_id, name)
            kept = [(m.step, repr(m.value + 0.0)) for m in history]  # SQLite has no -0.0
            total += len(values)
            lost += len([v for v in values if v not in kept])
            twice += len(kept) - len(set(kept))
    print(f"\n8 trials at once: {total:,} values in the journals, {lost} lost, {twice} twice")
    print("in MLflow: " + ", ".join(sorted({r.info.status for r in runs.values()})))


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=("winner", "stopping", "writers"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", choices=tuple(STEPS), default="ring")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="of a whole trial")
    parser.add_argument("--trials", type=int, default=0, help="of a search for the winner")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.question == "winner":
        steps = arguments.steps or STEPS[arguments.data]
        winner(arguments.out, arguments.data, steps, arguments.trials or TRIALS[arguments.data])
    elif arguments.question == "stopping":
        stopping(arguments.out, arguments.repeats, arguments.steps or LISTED_STEPS)
    else:
        writers(arguments.out)


if __name__ == "__main__":
    sys.exit(exit_code(main))
