"""The verb ``diagnose``: which failures a run has had, on what evidence, and what to try."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core import journal
from gan_core.errors import UserError
from gan_core.options import option
from pipelines.command_line import Parser, add_fields, checked_options
from pipelines.runs import check_run_writable, find_run, out_file, refuse_search, runs_folder

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.diagnostics.diagnosis import Diagnosis
    from gan_core.diagnostics.findings import Facts

FILE, PICTURE = "diagnosis.json", "diagnosis.png"


@dataclasses.dataclass(frozen=True)
class DiagnoseOptions:
    """The options of ``diagnose``."""

    out: str | None = option(
        None, f"the PNG file to write (default: {PICTURE} in the run's folder)"
    )
    samples: int = option(
        64, "how many fresh samples to show, 0 for none; of points always 2500", minimum=0
    )
    storage: str = option("runs", "where the runs are")


def diagnose_command(arguments: list[str]) -> int:
    """``diagnose``: returns the exit code; 3 if a failure is confirmed."""
    parser = Parser(
        "diagnose",
        description="Say whether a run (finished, stopped or still going) has had a mode collapse, "
        "a vanishing gradient, non-convergence (or divergence) or overfitting, since when, on what "
        "evidence, and what to try. The verdict is kept "
        f"in {FILE}, the evidence in a picture.",
        epilog="example:\n  python -m pipelines diagnose first",
    )
    parser.add_argument("run", metavar="RUN", help="a run's name, or its folder")
    names = [field.name for field in dataclasses.fields(DiagnoseOptions)]
    add_fields(parser.add_argument_group("options of diagnose"), DiagnoseOptions, names)
    given = parser.read(arguments)
    options = checked_options(DiagnoseOptions, given)
    folder = find_run(given["run"], runs_folder(options.storage))
    refuse_search(folder)
    out = out_file(options.out) if options.out else folder / PICTURE
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out} must end in .png")
    check_run_writable(folder)
    diagnosis = diagnose(folder)
    (folder / FILE).write_text(json.dumps(diagnosis.to_dict(), indent=1) + "\n")
    draw(diagnosis, out, fresh_samples(folder, options.samples))
    print("\n".join(lines(diagnosis)))
    print(f"picture {out}")
    return 3 if any(f.state == "confirmed" for f in diagnosis.findings.values()) else 0


def diagnose(folder: Path) -> Diagnosis:
    """The diagnosis of the run in ``folder``, from its journal; ``UserError`` without metrics."""
    from gan_core.diagnostics.diagnosis import Diagnosis

    events = journal.read_standing(folder / journal.FILE)
    diagnosis = Diagnosis(facts_of(folder, events))
    for event in events:
        if event["kind"] == "metrics":
            diagnosis.take(event["step"], event["values"])
    if not diagnosis.history.points:
        raise UserError(f"{folder} has logged nothing yet: there is nothing to diagnose")
    return diagnosis


def facts_of(folder: Path, events: list[dict[str, Any]]) -> Facts:
    """What the run's configuration and its last start say of it."""
    from gan_core.config import make_config, read_config
    from gan_core.diagnostics.findings import Facts
    from gan_core.variant import VARIANTS

    config = make_config(read_config(folder / "config.yaml"))
    options = dataclasses.asdict(config.game)
    started: Mapping[str, Any] = {}
    for event in events:
        started = event if event["kind"] == "start" else started
    variant = VARIANTS[config.variant](config.game)
    refused = started.get("refused")
    if refused is None:  # a start of an earlier version
        refused = variant.refused_options()
    expected = started.get("expected_modes")
    for name in refused:
        options.pop(name, None)
    return Facts(
        modes=int(started.get("modes_in_data", 0)),
        steps=int(started.get("steps", config.game.steps)),
        samples=int(started.get("samples", config.samples)),
        least_share=started.get("least_share"),  # earlier versions have not told
        expected_modes=None if expected is None else (expected[0], expected[1]),
        real=started.get("real", started.get("examples")),  # earlier versions tell the latter
        target=str(started.get("target", "image")),
        options={**options, **started.get("decided", {})},
        loss_scales=variant.loss_scales(),
        unopposed=frozenset(started.get("unopposed", ())),  # earlier versions have not told
    )


def fresh_samples(folder: Path, count: int) -> Tensor | None:
    """A picture of ``count`` samples of the run's last generator; ``None`` where it has none."""
    from gan_core.pictures import can_be_drawn, sample_picture
    from gan_core.release import load_generator
    from pipelines.sample import real_points

    last = folder / "generator" / "last"
    if count == 0 or not (last / "generator.json").exists():
        return None
    import torch

    generator = load_generator(last)
    if not can_be_drawn(generator.spec):
        return None
    points = len(generator.spec.target_shape) == 1
    shown = 2500 if points else count
    real = real_points(generator, shown) if points else None
    return sample_picture(generator.generate(torch.arange(shown)), generator.spec, real)


def draw(diagnosis: Diagnosis, out: Path, samples: Tensor | None) -> Path:
    """Write the picture of the evidence."""
    from gan_core.diagnostics.evidence import evidence_picture
    from gan_core.pictures import save_png

    facts = diagnosis.facts
    picture = evidence_picture(
        diagnosis.history,
        diagnosis.verdicts,
        samples,
        facts.modes,
        past=diagnosis.past,
        target=facts.target,
    )
    return save_png(picture, out)


def lines(diagnosis: Diagnosis) -> list[str]:
    """The verdict for the user, the worst first; then what was confirmed once and is over."""
    order = ("confirmed", "suspected", "unknown", "none")
    said = []
    for finding in sorted(diagnosis.verdicts.values(), key=lambda f: order.index(f.state)):
        said.append(f"{finding.state:<10} {finding.row()}")
        said += [f"{'':<10}   try {words}" for words in finding.advice]
    return said + [f"{'past':<10} {finding.line()}" for finding in diagnosis.past]
