"""What a benchmark has kept is not passed off as the result of other options."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import kept, search, sensitivity
from benchmarks.budget import judged
from benchmarks.kept import check_run
from gan_core.config import RunConfig, make_config
from gan_core.errors import UserError

OTHER = "holds another result"


def config(out: Path, **changes: Any) -> RunConfig:
    plain = {"variant": "gan", "data": "ring", "storage": str(out), "name": "run", "steps": 40}
    return make_config({**plain, **changes})


def keep(config: RunConfig, *_: object) -> None:
    """As much of a checkpoint as tells what the run was."""
    folder = config.folder / "checkpoints" / "step_00000040"
    folder.mkdir(parents=True)
    manifest = {"format": 1, "step": 40, "world_size": 1, "config": config.to_dict(), "data": "a"}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 1), ("steps", 50), ("lr_d", 0.5), ("hidden", 7), ("precision", "bf16")],
)
def test_a_run_of_other_options_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    check_run(config(tmp_path, **{name: value}))  # nothing is there
    keep(config(tmp_path))
    check_run(config(tmp_path))
    with pytest.raises(UserError, match=rf"run {OTHER} \({name}.*{value}\): give another --out$"):
        check_run(config(tmp_path, **{name: value}))


def test_where_it_is_played_does_not_matter(tmp_path: Path) -> None:
    keep(config(tmp_path))
    check_run(config(tmp_path, workers=0, device="cpu", log_every=7, cache=str(tmp_path / "c")))


def test_without_checkpoints_a_generator_tells_what_the_run_was(tmp_path: Path) -> None:
    folder = config(tmp_path).folder / "kept" / "0180"
    folder.mkdir(parents=True)
    values = {"config": config(tmp_path).to_dict()}
    (folder / "generator.json").write_text(json.dumps(values))
    check_run(config(tmp_path))
    with pytest.raises(UserError, match="seed was 0 and is now 1"):
        check_run(config(tmp_path, seed=1))


def test_options_that_are_no_more_are_named(tmp_path: Path) -> None:
    old = config(tmp_path)
    keep(dataclasses.replace(old, options={**old.options, "forgotten": 1}))
    with pytest.raises(UserError, match=f"{OTHER}.*forgotten"):
        check_run(old)


def test_data_may_have_moved_but_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config(tmp_path, data_root="here"))
    found = argparse.Namespace(fingerprint="a")
    monkeypatch.setattr(kept, "load_split", lambda config, split: found)
    check_run(config(tmp_path, data_root="there"))
    found.fingerprint = "b"
    check_run(config(tmp_path, data_root="here"))
    with pytest.raises(UserError, match=f"{OTHER} .of the data in here"):
        check_run(config(tmp_path, data_root="there"))


COMMANDS = {
    "cifar": (["--systems", "dcgan"], ["--set", "k=3"]),
    "dcgan_features": ([], ["--steps", "7"]),
    "lapgan": (["--extractor-weights", "w"], ["--seed", "1"]),
    "melodies": ([], ["--set", "seed=1"]),
    "mnist": (["--variants", "gan"], ["--set", "r1=0.5"]),
    "small": (["--only", "sagan"], ["--data", "mnist"]),
    "super_resolution": (
        [
            *("--train", "nowhere", "--extractor-weights", "w"),
            *("--set5", "nowhere", "--set14", "nowhere"),
        ],
        ["--set", "steps=7"],
    ),
    "translation": (["--runs", "l1", "--extractor-weights", "w"], ["--seed", "1"]),
}
"""Words of each command, and others by which its runs are other ones."""


@pytest.mark.parametrize("name", list(COMMANDS))
def test_commands_look_before_they_train_or_print(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, others = COMMANDS[name]
    root = [] if "--train" in words else ["--data-root", "nowhere"]
    words = [name, *root, "--out", str(tmp_path), *words]
    command = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", words)
    with monkeypatch.context() as patch:
        patch.setattr(command, "check_run", keep)
        with pytest.raises(UserError):  # there are no data, or no weights
            command.main()
    monkeypatch.setattr(sys, "argv", [*words, *others])
    with pytest.raises(UserError, match=OTHER):
        command.main()


PROTOCOL = {"classifier": "classifier (a): 50000 train of ring against 5000 generated, resized"}


@pytest.mark.parametrize(
    "record", [{"asked": {"extractors": ["classifier"], "samples": 5000}}, {"protocol": PROTOCOL}]
)
def test_figures_of_other_samples_or_features_are_refused(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    row = {"figures": {"fid_classifier": 3.0}, **record}
    (tmp_path / "figures.json").write_text(json.dumps(row))

    def read(extractors: list[str], samples: int) -> dict[str, Any]:
        return judged(tmp_path, extractors, samples, cache=tmp_path, device="cpu")

    assert read(["classifier"], 5000) == row
    with pytest.raises(UserError, match="samples was 5000 and is now 100"):
        read(["classifier"], 100)
    with pytest.raises(UserError, match=r"extractors was .*'classifier'. and is now"):
        read(["mobilenet_v2", "classifier"], 5000)


def test_settings_that_were_played_for_other_steps_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gan" / "00.json"
    path.parent.mkdir()
    row = {"setting": sensitivity.settings()[0], "figures": {}, "seconds": 1.0}
    words = ["sensitivity", "--out", str(tmp_path), "--variants", "gan", "--minutes", "-1"]
    monkeypatch.setattr(sys, "argv", words)
    for readable in (row, row | {"steps": sensitivity.STEPS}):  # earlier versions wrote no steps
        path.write_text(json.dumps(readable))
        sensitivity.main()
    for other in (row | {"steps": 50}, row | {"setting": sensitivity.settings()[1]}):
        path.write_text(json.dumps(other))
        with pytest.raises(UserError, match=OTHER):
            sensitivity.main()


@pytest.mark.parametrize("words", [["--steps", "540"], ["--trials", "3"]])
def test_a_search_of_other_steps_or_trials_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    study = search.listed(tmp_path, 0, "none", 270)
    study = dataclasses.replace(
        study, run=dataclasses.replace(study.run, name="winner-ring"), points=()
    )
    study.save()
    same = ["--steps", "270", "--trials", str(search.POINTS)]
    command = ["search", "winner", "--out", str(tmp_path)]
    monkeypatch.setattr(search, "pipelines", lambda *given: sys.exit("goes on"))
    monkeypatch.setattr(sys, "argv", [*command, *same])
    with pytest.raises(SystemExit, match="goes on"):
        search.main()
    monkeypatch.setattr(sys, "argv", [*command, *same, *words])
    with pytest.raises(UserError, match=OTHER):
        search.main()


def test_a_list_of_settings_of_other_steps_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "pipelines", lambda *given: sys.exit("goes on"))
    for steps, told in ((270, "goes on"), (270, "goes on"), (540, OTHER)):
        words = ["search", "stopping", "--out", str(tmp_path), "--steps", str(steps)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises((SystemExit, UserError), match=told):
            search.main()


def test_a_training_of_another_setting_is_refused(tmp_path: Path) -> None:
    settings = {"data": "ring", "steps": 540}
    assert search.kept_figures(tmp_path, "ring-winner", settings, 101) is None
    file = tmp_path / "winner-ring-winner-101.json"
    file.write_text(json.dumps({"modes_covered": 8.0}))  # as earlier versions wrote it
    assert search.kept_figures(tmp_path, "ring-winner", settings, 101) == {"modes_covered": 8.0}
    file.write_text(json.dumps({"settings": settings, "figures": {"modes_covered": 7.0}}))
    assert search.trained(tmp_path, "ring-winner", settings, 101) == {"modes_covered": 7.0}
    with pytest.raises(UserError, match="steps was 540 and is now 600"):
        search.trained(tmp_path, "ring-winner", {**settings, "steps": 600}, 101)


def test_settings_whose_samples_were_not_finite_are_the_worst(tmp_path: Path) -> None:
    fids = (50.0, math.nan, 7.0, math.nan, 3.0, 90.0, 60.0)
    rows = [
        {
            "setting": sensitivity.settings()[number],
            "figures": {"fid_classifier": fid, "coverage_classifier": fid / 100},
            "seconds": 1.0,
        }
        for number, fid in enumerate(fids)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "results", lambda folder, variant: rows)
        last = sensitivity.table(tmp_path, ["gan"]).splitlines()[-1]
    assert last.endswith("| 60 | 3 | 0.07 |")
