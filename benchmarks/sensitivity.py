"""How many settings of a GAN work: the article's "highly sensitive to hyperparameters", measured.

    python -m benchmarks.sensitivity --out FOLDER [--minutes N] [--variants gan,dcgan,sngan]

The same 64 settings for every system: a Latin hypercube (seed 0) over both learning rates, k, both
betas, batch size, prior and its dimension, and loss. Each is played on digits at small width, for
the same number of the generator's updates, and judged at its end by figures alone (the detectors
of the diagnosis have no say): healthy is a generator that covers all 10 classes, with at least
COVERAGE of the coverage and at most FID of the fid_classifier below. The shares for stricter and
more lenient bounds stand beside it, with 95 % Wilson intervals.

Every setting's figures are kept in FOLDER as soon as it has been played; started again, the
benchmark goes on where it was, so it can be given `--minutes`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import names_among
from benchmarks.kept import check_asked
from gan_core.config import make_config
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.observers import Observer
from gan_core.run import play

COUNT = 64
STEPS = 600
COVERAGE, FID = 0.3, 30.0
BOUNDS = {"strict": (0.5, 10.0), "healthy": (COVERAGE, FID), "lenient": (0.15, 80.0)}
SMALL: dict[str, dict[str, Any]] = {
    "gan": {"hidden": 256, "maxout_units": 64, "optimizer": "adam"},
    "dcgan": {"image_size": 16, "width": 8, "kernel": 4},
    "sngan": {"image_size": 16, "width_g": 8, "width_d": 8, "architecture": "cnn"},
}
"""Each system at a width that a CPU core plays in seconds."""
RATES = (2e-5, 5e-3)
CHOICES: dict[str, tuple[Any, ...]] = {
    "k": (1, 2, 5),
    "beta1": (0.0, 0.5, 0.9),
    "beta2": (0.9, 0.99, 0.999),
    "batch_size": (32, 64),
    "prior": ("gaussian", "uniform"),
    "latent": (16, 64, 128),
    "loss": ("minimax", "non-saturating", "least-squares", "hinge"),
}


def settings(count: int = COUNT, seed: int = 0) -> list[dict[str, Any]]:
    """A Latin hypercube of ``count`` settings; the same for every system."""
    from scipy.stats.qmc import LatinHypercube

    names = ["lr_d", "lr_g", *CHOICES]
    cube = LatinHypercube(len(names), rng=seed).random(count)
    return [_setting(dict(zip(names, row, strict=True))) for row in cube.tolist()]


def _setting(places: dict[str, float]) -> dict[str, Any]:
    low, high = map(math.log, RATES)
    rates = {n: math.exp(low + places[n] * (high - low)) for n in ("lr_d", "lr_g")}
    return {**rates, **{n: c[int(places[n] * len(c))] for n, c in CHOICES.items()}}


class Silent(Observer):
    """Keeps nothing: the summary has what is judged."""


def play_one(variant: str, setting: dict[str, Any], cache: Path, steps: int) -> dict[str, Any]:
    """The figures at the end of one setting, and the seconds it took."""
    config = make_config(
        {
            "variant": variant,
            "data": "digits",
            "cache": str(cache),
            "steps": steps,
            "log_every": steps,
            "evaluate_every": 0,
            "checkpoint_every": 0,
            "samples": 1257,
            **SMALL[variant],
            **setting,
        }
    )
    begun = time.monotonic()
    try:
        summary = play(config, World(), Silent())
        figures = summary["figures"]
    except (FloatingPointError, ArithmeticError, torch.linalg.LinAlgError):
        figures = {}
    seconds = time.monotonic() - begun
    return {"setting": setting, "steps": steps, "figures": figures, "seconds": seconds}


def healthy(figures: dict[str, float], coverage: float = COVERAGE, fid: float = FID) -> bool:
    """Whether all classes are there, with enough coverage and little enough distance."""
    return (
        figures.get("modes_covered", 0) >= 10
        and figures.get("coverage_classifier", 0) >= coverage
        and figures.get("fid_classifier", math.inf) <= fid
    )


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.96
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count)
    reach *= math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - reach, middle + reach


def results(folder: Path, variant: str) -> list[dict[str, Any]]:
    """What has been played so far."""
    return [json.loads(p.read_text()) for p in sorted((folder / variant).glob("*.json"))]


def check_kept(folder: Path, variants: Sequence[str], steps: int) -> None:
    """``UserError`` if what has been played so far was played otherwise."""
    for number, setting in enumerate(settings()):
        for variant in variants:
            path = folder / variant / f"{number:02d}.json"
            if path.exists():
                asked = {"setting": setting, "steps": steps}
                check_asked(path, json.loads(path.read_text()), asked)


def table(folder: Path, variants: Sequence[str]) -> str:
    """A row a system."""
    lines = [
        f"| system | settings | {' | '.join(BOUNDS)} | median fid | best fid | median coverage |",
        f"|{'---|' * (len(BOUNDS) + 5)}",
    ]
    for variant in variants:
        found = results(folder, variant)
        if not found:
            continue
        cells = []
        for bounds in BOUNDS.values():
            hits = sum(healthy(r["figures"], *bounds) for r in found)
            low, high = wilson(hits, len(found))
            cells.append(f"{hits / len(found):.0%} ({low:.0%} to {high:.0%})")
        fids = [_finite(r, "fid_classifier", math.inf) for r in found]
        covered = [_finite(r, "coverage_classifier", 0.0) for r in found]
        lines.append(
            f"| {variant} | {len(found)} | {' | '.join(cells)} | "
            f"{statistics.median_high(fids):.3g} | {min(fids):.3g} | "
            f"{statistics.median_high(covered):.2f} |"
        )
    return "\n".join(lines)


def _finite(result: Mapping[str, Any], figure: str, worst: float) -> float:
    """The figure of a setting; ``worst`` where samples were not finite, or it was never judged."""
    value = result["figures"].get(figure, worst)
    return float(value) if math.isfinite(value) else worst


def page(folder: Path, variants: Sequence[str]) -> str:
    """Charts: every setting's fid over the ratio of rates, and the share below each bound."""
    from pipelines.report import page as html
    from pipelines.report import svg
    from pipelines.report.scales import Linear, Log
    from pipelines.report.svg import PALETTE, Dot, Line

    lines, maps = [], []
    for number, variant in enumerate(variants):
        found = results(folder, variant)
        if not found:
            continue
        fids = sorted(
            r["figures"].get("fid_classifier", math.inf)
            for r in found
            if r["figures"].get("modes_covered", 0) >= 10
        )
        points = [(fid, (n + 1) / len(found)) for n, fid in enumerate(fids) if math.isfinite(fid)]
        lines.append(Line(points, PALETTE[number], variant, 2.5))
        dots = [
            Dot(
                r["setting"]["lr_d"],
                r["setting"]["lr_g"],
                svg.GOOD if healthy(r["figures"]) else svg.BAD,
                json.dumps(r["setting"]),
            )
            for r in found
        ]
        rates = Log(*RATES)
        chart = svg.scatter(dots, rates, rates, ("lr_d", "lr_g"), (340, 320))
        maps.append(html.figure(chart, f"{variant}: blue is healthy, red is not"))
    shares = svg.lines(
        lines,
        Log(0.3, 1000),
        Linear(0, 1),
        ("fid_classifier at most", "share of settings with all classes"),
        (640, 340),
    )
    key = html.key([(PALETTE[n], v) for n, v in enumerate(variants)])
    return html.page("Sensitivity to settings", [shares + key, html.row(maps)])


def main() -> None:
    """Play what is left, then print the table and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", type=names_among("system", SMALL), default="gan,dcgan,sngan")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    variants = arguments.variants.split(",")
    check_kept(arguments.out, variants, arguments.steps)
    limit = time.monotonic() + 60 * arguments.minutes
    for number, setting in enumerate(settings()):
        for variant in variants:
            path = arguments.out / variant / f"{number:02d}.json"
            if path.exists() or time.monotonic() > limit:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            found = play_one(variant, setting, arguments.out / "cache", arguments.steps)
            path.write_text(json.dumps(found))
            fid = found["figures"].get("fid_classifier", math.nan)
            print(f"{variant} {number:02d}: fid {fid:.3g}, {found['seconds']:.1f} s", flush=True)
    print(table(arguments.out, variants))
    (arguments.out / "sensitivity.html").write_text(page(arguments.out, variants))


if __name__ == "__main__":
    sys.exit(exit_code(main))
