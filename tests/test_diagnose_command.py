"""The verb ``diagnose``: the verdict of a finished run from its journal, and a picture."""

from __future__ import annotations

import errno
import json
import math
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from gan_core.config import make_config, write_config
from gan_core.diagnostics.diagnosis import Diagnosis
from gan_core.diagnostics.evidence import evidence_picture
from gan_core.diagnostics.findings import Facts, Finding
from gan_core.diagnostics.history import History
from gan_core.engine.world import World
from gan_core.journal import Journal
from gan_core.observers import FolderObserver
from gan_core.run import Run, play
from gan_core.variants.gan import GAN
from pipelines.__main__ import main
from pipelines.diagnose import facts_of, lines

OPTIONS = {"hidden": 8, "maxout_units": 4, "maxout_pieces": 2, "latent": 2}


def trained(folder: Path, **values: object) -> dict[str, object]:
    given = {"variant": "gan", "data": "ring", "device": "cpu", "workers": 0, "samples": 50}
    places = {"storage": str(folder), "name": "run", "batch_size": 8, "steps": 40}
    cadence = {"log_every": 4, "evaluate_every": 20, "checkpoint_every": 0}
    config = make_config({**given, **places, **cadence, **OPTIONS, **values})
    config.folder.mkdir(parents=True)
    write_config(config, config.folder / "config.yaml")
    return play(config, World(), FolderObserver(config.folder, World()))


def test_the_journal_tells_what_the_run_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = trained(tmp_path)
    code = main(["diagnose", "run", "--storage", str(tmp_path)])
    verdict = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert verdict == json.loads(json.dumps(summary["diagnosis"]))
    states = [finding["state"] for finding in verdict.values()]
    assert code == (3 if "confirmed" in states else 0)
    # A generator of 40 iterations makes one small cloud.
    assert verdict["mode_collapse"]["state"] == "confirmed"
    shown = capsys.readouterr().out
    assert shown.startswith("confirmed  mode collapse, since iteration")
    assert "sample diversity down to" in shown
    assert "try --packing 2" in shown
    with Image.open(tmp_path / "run" / "diagnosis.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize("verb", ["diagnose", "evaluate"])
def test_a_run_on_a_read_only_disk_is_told_before_it_is_looked_at(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path)

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert main([verb, "run", "--storage", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot write to {tmp_path / 'run'} (Read-only file system): make it writable, or "
        "copy the run\n"
    )


def test_the_run_and_its_journal_know_by_what_weights_losses_are_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = {"loss/generator": 801.0}
    monkeypatch.setattr(GAN, "loss_scales", lambda variant: scales)
    given = {"variant": "gan", "data": "ring", "device": "cpu", "storage": str(tmp_path)}
    config = make_config({**given, "name": "run", **OPTIONS})
    config.folder.mkdir(parents=True)
    write_config(config, config.folder / "config.yaml")
    observer = FolderObserver(config.folder, World())
    assert Run(config, World(), observer).diagnosis.facts.loss_scales == scales
    assert facts_of(config.folder, []).loss_scales == scales


def states(diagnosis: Diagnosis) -> dict[str, str]:
    return {name: finding.state for name, finding in diagnosis.verdicts.items()}


def test_what_could_not_be_looked_for_is_not_called_sound() -> None:
    diagnosis = Diagnosis(Facts(steps=100))
    row = {"loss/generator": 1.0, "diversity": 1.0, "slope/generator": 1.0, "accuracy/fake": 0.5}
    row |= {"accuracy/train": 0.5, "accuracy/held_out": 0.5, "overfitting/rv": 0.0}
    seen = {}
    for step in range(4, 97, 4):
        diagnosis.take(step, row | ({"movement": 0.1} if step > 4 else {}))
        seen[step] = states(diagnosis)
    first = {name: min(n for n in seen if seen[n][name] == "none") for name in seen[4]}
    # Windows of 3, 3, 5 and 8 and one more; a tenth, and three tenths, of 100 iterations.
    assert first == {
        "mode_collapse": 12,
        "vanishing_gradient": 12,
        "overfitting": 20,
        "non_convergence": 36,
    }
    assert all(seen[n][name] == "unknown" for name in first for n in seen if n < first[name])


def test_why_something_is_unknown_is_told() -> None:
    diagnosis = Diagnosis(Facts(steps=400))
    diagnosis.take(4, {"loss/generator": 1.0})
    said = "\n".join(lines(diagnosis))
    assert "mode collapse: it is looked for from iteration 40 on" in said
    assert "non convergence" not in said
    assert "non-convergence: it is looked for from iteration 120 on" in said
    assert "overfitting: too little was measured, at 1 logging points" in said
    spoiled = Diagnosis(Facts(steps=40))
    spoiled.take(4, {"loss/generator": math.nan})
    assert [line.split()[0] for line in lines(spoiled)] == ["confirmed", *["unknown"] * 3]


def test_neither_picture_nor_file_calls_a_run_sound_that_is_too_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **__: titles.append(text))
    config = make_config({"variant": "gan", "storage": str(tmp_path), "name": "short"})
    book = Journal(config.folder)
    write_config(config, config.folder / "config.yaml")
    said = []
    for step, loss in ((4, 1.0), (8, 1.0), (12, math.nan)):
        values = {"loss/generator": loss, "slope/generator": 1.0, "accuracy/fake": 0.5}
        book.write("metrics", step, values=values)
        main(["diagnose", "short", "--storage", str(tmp_path), "--samples", "0"])
        found = json.loads((config.folder / "diagnosis.json").read_text())
        names = ("mode_collapse", "vanishing_gradient", "non_convergence")
        said.append([found[name]["state"] for name in names])
    assert said == [["unknown"] * 3, ["unknown"] * 3, ["unknown", "none", "confirmed"]]
    assert titles[0] == "mode collapse: unknown, it is looked for from iteration 5,000 on"
    assert titles[8:][1] == "vanishing gradient: none"


def test_what_was_confirmed_once_is_told_as_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"variant": "gan", "storage": str(tmp_path), "name": "once", "steps": 40}
    config = make_config(given)
    book = Journal(config.folder)
    write_config(config, config.folder / "config.yaml")
    for step in range(1, 41):
        value = math.nan if 3 <= step <= 7 else 1.0
        book.write("metrics", step, values={"loss/generator": value, "movement": 0.1})
    assert main(["diagnose", "once", "--storage", str(tmp_path), "--samples", "0"]) == 0
    said = capsys.readouterr().out
    assert "none       non-convergence" in said
    assert "past       divergence, iterations 3 to 7: loss/generator not finite" in said
    found = json.loads((config.folder / "diagnosis.json").read_text())
    (past,) = found["non_convergence"]["past"]
    assert (past["confirmed_since"], past["until"]) == (3, 7)
    assert not found["mode_collapse"]["past"]


def test_what_cannot_be_diagnosed_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config({"variant": "gan", "storage": str(tmp_path), "name": "empty"})
    config.folder.mkdir()
    write_config(config, config.folder / "config.yaml")
    for words, said in (
        (["empty"], "nothing to diagnose"),
        (["emty"], "did you mean 'empty'"),
        (["empty", "--out", "picture.jpg"], "must end in .png"),
    ):
        assert main(["diagnose", *words, "--storage", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err


def test_a_failure_is_shaded_from_where_it_began() -> None:
    history = History()
    for step in range(10, 110, 10):
        history.add(step, {"diversity": 1 - step / 120, "loss/generator": 1.0})
    sound = {name: Finding(name) for name in ("vanishing_gradient", "non_convergence")}
    sound |= {"overfitting": Finding("overfitting"), "mode_collapse": Finding("mode_collapse")}
    failed = {**sound, "mode_collapse": Finding("mode_collapse", "confirmed", 50, "all alike")}
    before, after = evidence_picture(history, sound), evidence_picture(history, failed)
    assert before.shape == after.shape
    differs = (before != after).any(0)
    rows, columns = before.shape[1:]
    assert differs[: rows // 2, : columns // 2].any()  # the panel of mode collapse
    assert not differs[rows // 2 :].any()
    assert not differs[:, columns // 2 :].any()
