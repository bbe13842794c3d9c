"""The planted suite: its cases are what they say, and its table counts rightly."""

from __future__ import annotations

import collections
import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.planted_failures import cases, configuration, main
from benchmarks.planted_table import Verdict, mistakes, table
from gan_core.data import load_examples
from gan_core.diagnostics.diagnosis import FAILURES
from gan_core.engine.game import Game
from gan_core.variant import create


def test_there_are_enough_cases_of_each_kind_in_both_parts() -> None:
    found = cases()
    assert len(found) >= 60
    assert len({case.name for case in found}) == len(found)
    for part in ("set", "proof"):
        mine = [case for case in found if case.part == part]
        assert len(mine) >= 30
        present = collections.Counter(name for case in mine for name in case.present)
        assert set(present) == set(FAILURES)
        assert min(present.values()) >= 5
        assert sum(case.absent == frozenset(FAILURES) for case in mine) >= 15
    assert not any(case.present & case.absent for case in found)


def test_every_case_is_a_run_that_can_be_made(tmp_path: Path) -> None:
    for case in cases():
        config = configuration(case, {}, tmp_path)
        assert config.variant == case.variant
        assert config.game.steps == case.steps


def test_a_planted_generator_makes_what_it_remembers_and_nothing_else() -> None:
    digits = load_examples("digits", None, "train")
    variant = create("planted-memory", digits.spec, {"batch_size": 8})
    game = Game(variant, digits, digits, batch_size=8)
    known = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    variant.generator.remember(known)  # type: ignore[operator,union-attr]
    made = game.sampler()(torch.arange(300))["image"]
    shares = [(made == one).flatten(1).all(1).float().mean().item() for one in known]
    assert sum(shares) == 1.0
    assert min(shares) > 0.1


def test_dirac_gan_turns_around_its_equilibrium_and_a_penalty_ends_that() -> None:
    points = load_examples("dirac", None, "train")
    options = {"latent": 2, "lr_d": 0.05, "lr_g": 0.05, "beta1": 0.0, "batch_size": 32}
    distance = []
    for weight in (0.0, 2.0):
        variant = create("dirac", points.spec, {**options, "r1": weight})
        game = Game(variant, points, points, batch_size=32)
        game.play(400)
        distance.append(game.variant.generator.theta.norm().item())  # type: ignore[union-attr,operator]
    assert distance[0] > 5 * distance[1]


@dataclasses.dataclass
class Known:
    name: str
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    part: str = "proof"


@pytest.mark.parametrize("part", ["set", "proof"])
def test_the_table_counts_what_is_found_missed_and_invented(part: str) -> None:
    collapse = frozenset({"mode_collapse"})
    truths = [Known("a", collapse), Known("b", collapse), Known("c", absent=collapse)]
    states = ["confirmed", "suspected", "confirmed"]
    found = [
        Verdict(
            t, {**dict.fromkeys(FAILURES, "none"), "mode_collapse": s}, dict.fromkeys(FAILURES, s)
        )
        for t, s in zip(truths, states, strict=True)
    ]
    row = table(found, part)[2]
    if part == "set":
        assert row == "| mode collapse | 0 of 0 | 0 of 0 | 0 of 0 |"
        assert mistakes(found, part) == []
    else:
        assert row == "| mode collapse | 1 of 2 (50 %) | 2 of 2 (100 %) | 1 of 1 (100 %) |"
        assert mistakes(found, part) == ["missed: b: suspected", "false alarm: c: confirmed"]


def test_what_was_not_played_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cases that were passed over, for want of their data or by --only, are not "all played"."""
    monkeypatch.setattr("benchmarks.planted_failures.play", lambda *given: None)
    monkeypatch.setattr("benchmarks.planted_failures.report", lambda *given: "")
    words = ["planted_failures", "--out", str(tmp_path)]

    def told(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*words, *more])
        main()
        return next(line for line in capsys.readouterr().out.splitlines() if " played" in line)

    every = cases()
    mnist = [case.name for case in every if case.data == "mnist-part"]
    fashion = [case.name for case in every if case.data == "fashion-part"]
    others = [case.name for case in every if case.name not in {*mnist, *fashion}]
    for name in others[1:]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "done.json").touch()
    played = f"{len(others) - 1} of {len(every)} played"
    needed = f"{len(fashion)} need --fashion-mnist"
    assert told("--only", others[1]).startswith(
        f"{played}; {len(mnist)} need --mnist; {needed}; 1 to play: call again"
    )
    with_mnist = told("--mnist", str(tmp_path), "--minutes", "-1")
    assert with_mnist.startswith(f"{played}; {needed}; {len(mnist) + 1} to play: call again")
    for name in [others[0], *mnist, *fashion]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "done.json").touch()
    assert told() == f"{len(every)} of {len(every)} played"
