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
from gan_core.diagnostics import mode_collapse, non_convergence, overfitting, vanishing_gradient
from gan_core.diagnostics.diagnosis import FEWEST_POINTS, Diagnosis
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
    assert shown.startswith("confirmed  mode collapse confirmed, since iteration")
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


def test_of_a_run_that_is_too_short_nothing_is_called_sound() -> None:
    diagnosis = Diagnosis(Facts(steps=40))
    for step in (4, 8):
        diagnosis.take(step, {"loss/generator": 1.0})
        (said,) = lines(diagnosis)
        assert said.startswith("too short to tell what has not failed: ")
        assert "\n" not in said
    diagnosis.take(12, {"loss/generator": 1.0})
    assert [line.split()[0] for line in lines(diagnosis)] == ["none"] * 4
    spoiled = Diagnosis(Facts(steps=40))
    spoiled.take(4, {"loss/generator": math.nan})
    assert [line.split()[0] for line in lines(spoiled)] == ["too", "confirmed"]


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
        book.write("metrics", step, values={"loss/generator": loss})
        main(["diagnose", "short", "--storage", str(tmp_path), "--samples", "0"])
        found = json.loads((config.folder / "diagnosis.json").read_text())
        said.append([found[name]["state"] for name in ("mode_collapse", "non_convergence")])
    assert said == [["unknown"] * 2, ["unknown"] * 2, ["none", "confirmed"]]
    assert titles[0] == "mode collapse: too short to tell"
    assert titles[8:][0] == "mode collapse: none"


def test_the_windows_of_a_diagnosis_are_no_shorter() -> None:
    windows = [m.WINDOW for m in (mode_collapse, non_convergence, overfitting, vanishing_gradient)]
    assert min(windows) == FEWEST_POINTS


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
