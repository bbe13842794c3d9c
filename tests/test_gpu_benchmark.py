"""What is asked of a GPU: commands that are understood, verdicts that can be no, and an end."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import evaluation, on_a_gpu, speed
from benchmarks.on_a_gpu import TASKS, TESTS, Check, Task, command_of, play, rate, ratio, table
from benchmarks.speed_ways import Way
from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.errors import UserError
from gan_core.variant import create

COLOURED = DataSpec(
    {"image": TensorSpec((3, 32, 32), -1.0, 1.0), "label": TensorSpec((), classes=10)}
)
REPOSITORY = Path(__file__).parents[1]


def rows(**rates: float) -> dict[str, Any]:
    return {
        "ratios_to": next(iter(rates)),
        "rows": [
            {"way": way, "images_per_second": rate, "ratio": rate / 1_000}
            for way, rate in rates.items()
        ],
    }


@pytest.mark.parametrize("name", TASKS)
def test_the_commands_are_understood(name: str, tmp_path: Path) -> None:
    words = TASKS[name].words
    if words[0] == "pytest":
        assert all((REPOSITORY / word).is_file() for word in TESTS)
        assert set(TESTS) < set(words)
    elif words[0] == "benchmarks.speed":
        found = speed.arguments_of([*words[1:], "--json", str(tmp_path / "figures.json")])
        played: Any = create(found.variant, COLOURED, {"steps": 9, **found.options})
        assert found.stage in (None, *(stage.name for stage in played.stages()))
        assert all(str(Way.read(way)) == way for way in (found.ways or "graph").split(","))
    else:
        assert words[0] == "benchmarks.evaluation"
        assert evaluation.arguments_of(words[1:]).samples == 50_000


def test_a_command_is_given_what_it_takes(tmp_path: Path) -> None:
    words = f"--out {tmp_path} --data-root cifar --extractor-weights weights.pth"
    given = on_a_gpu.arguments_of(words.split())
    assert command_of("tests", given) == [sys.executable, "-m", *TASKS["tests"].words]
    of_speed, of_evaluation = (command_of(name, given) for name in ("sngan", "evaluation"))
    figures = ["--json", str(tmp_path / "sngan.json")]
    assert of_speed[-6:] == ["--data", "folder", "--data-root", "cifar", *figures]
    assert "--extractor-weights" not in of_speed
    assert of_evaluation[-6:-2] == [
        *("--extractor-weights", "weights.pth", "--extractor", "mobilenet_v2")
    ]


def test_verdicts_are_of_the_figures() -> None:
    found = rows(textbook=1_000, graph=24_000)
    assert rate(24_000).look(found) == ("24,000 (graph, 24.0 x)", True)
    assert not rate(24_001).look(found)[1]
    assert rate(1_000, "textbook").look(found)[1]
    assert not rate(1_001, "textbook").look(found)[1]
    assert rate(1, "compile").look(found) == ("not played", False)
    assert ratio(24).look(found)[1]
    assert not ratio(24.1).look(found)[1]
    slower = rows(textbook=1_000, graph=500)
    assert ratio(1).look(slower) == ("0.5 (graph, 500 images/s)", False)
    for without in (rows(textbook=1_000), rows(eager=1_000, graph=24_000)):
        assert ratio(1).look(without) == ("not played", False)
    (together,), (evaluated,) = TASKS["games"].checks, TASKS["evaluation"].checks
    games = {"rows": [{"ratio": 1.0}, {"ratio": 2.0}], "same": [True, True]}
    assert together.look(games) == ("2.00, 2 of 2 the same bits", True)
    assert not together.look({**games, "same": [True, False]})[1]
    assert not together.look({**games, "rows": [{"ratio": 1.0}, {"ratio": 1.9}]})[1]
    assert evaluated.look({"total": 10.0}) == ("10.0 s", True)
    assert not evaluated.look({"total": 10.1})[1]


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_command_that_fails_or_lasts_too_long_ends_alone(tmp_path: Path) -> None:
    assert play("gan", python("print('one'); raise SystemExit('no GPU')"), tmp_path, 60) == (
        f"failed: no GPU ({tmp_path / 'gan.log'})"
    )
    begun = time.monotonic()
    told = play("gan", python("import time; time.sleep(90)"), tmp_path, 2)
    assert told.startswith("ended after 2 s")
    assert time.monotonic() - begun < 30
    assert play("tests", python("print('3 passed in 1 s')"), tmp_path, 60).startswith("done in")
    assert json.loads((tmp_path / "tests.json").read_text()) == {"told": "3 passed in 1 s"}
    lines = table(["tests", "gan"], {"gan": told}, tmp_path).splitlines()
    assert lines[2] == "| tests | pass | 3 passed in 1 s | yes |"
    assert "ended after 2 s" in lines[3]


def test_what_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[str] = []

    def noted(name: str, command: list[str], out: Path, seconds: float) -> str:
        played.append(name)
        if name == "first":
            (out / "first.json").write_text("{}")
        return "done" if name == "first" else "failed"

    check = Check("anything", lambda found: ("something", True))
    tasks = {name: Task(("benchmarks.speed",), 60, (check,)) for name in ("first", "second")}
    monkeypatch.setattr(on_a_gpu, "TASKS", tasks)
    monkeypatch.setattr(on_a_gpu, "play", noted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    out = ["--out", str(tmp_path), "--data-root", "cifar"]
    assert on_a_gpu.main(out) == 1
    assert "not done: second" in capsys.readouterr().out
    assert on_a_gpu.main([*out, "--minutes", "0.1"]) == 1
    assert played == ["first", "second"]
    assert on_a_gpu.main(out) == 1
    assert played == ["first", "second", "second"]
    assert on_a_gpu.main([*out, "--only", "first"]) == 0


def test_a_machine_without_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        on_a_gpu.main(["--data-root", "cifar"])


def test_the_parts_of_an_evaluation_are_all_of_it(tmp_path: Path) -> None:
    words = "--variant dcgan --samples 64 --rounds 1 --device cpu --set width=4 image_size=16"
    config = evaluation.configuration(evaluation.arguments_of(words.split()), str(tmp_path))
    found = evaluation.measure(config, 1)
    assert set(found["parts"]) == {
        *(evaluation.MAKING, evaluation.SEEING, evaluation.OTHER, *evaluation.FIGURES)
    }
    assert min(found["parts"].values()) > 0
    assert sum(found["parts"].values()) == pytest.approx(found["total"])
    assert f"| **an evaluation** | **{found['total']:.2f}** |" in evaluation.table(found)
    assert "64 samples against 1,257, by classifier" in found["setting"]
