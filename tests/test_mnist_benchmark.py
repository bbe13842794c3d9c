"""How the benchmark on MNIST chooses a step, and among which."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import melodies, mnist, super_resolution
from benchmarks.mnist import LEAST_CLASS_ACCURACY, RECIPES, Keeper, Score, best_step
from gan_core.config import RunConfig, make_config
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.run import Run


def test_without_classes_the_best_value_is_chosen() -> None:
    assert best_step({10: Score(3.0), 20: Score(5.0), 30: Score(-1.0)}) == 20


def test_a_step_that_ignores_the_classes_is_passed_over() -> None:
    least = LEAST_CLASS_ACCURACY
    scores = {
        10: Score(190.0, least - 0.001),
        20: Score(140.0, 1.0),
        30: Score(150.0, least),
        40: Score(120.0, 0.99),
    }
    assert best_step(scores) == 30


def test_where_none_obeys_the_most_obedient_is_chosen() -> None:
    assert best_step({10: Score(190.0, 0.2), 20: Score(10.0, 0.9), 30: Score(20.0, 0.8)}) == 20


def test_every_recipe_is_of_known_options() -> None:
    for variant, recipe in RECIPES.items():
        config = make_config({"variant": variant, "data": "mnist", **recipe})
        assert config.options["steps"] == recipe["steps"]


def play(config: RunConfig, every: int, deadline: float = float("inf")) -> list[int]:
    """Play on to the end or the deadline; the steps that are kept."""
    observer = Keeper(config.folder, World(), deadline, every)
    Run(config, World(), observer).play(find_checkpoint(config.folder))
    kept = (config.folder / "kept").glob("step_*")
    assert all((folder / "generator.safetensors").exists() for folder in kept)
    return sorted(int(folder.name[5:]) for folder in (config.folder / "kept").glob("step_*"))


@pytest.mark.parametrize(("every", "kept"), [(10, [10, 20, 25]), (0, [25]), (50, [25])])
def test_the_end_is_kept_whatever_its_step_and_a_stop_is_not(
    tmp_path: Path, every: int, kept: list[int]
) -> None:
    config = make_config({
        "variant": "gan", "data": "ring", "workers": 0, "storage": str(tmp_path), "name": "run",
        "hidden": 4, "maxout_units": 2, "latent": 2, "batch_size": 8, "steps": 25, "log_every": 5,
        "evaluate_every": 0, "checkpoint_every": every, "extractor": "none",
    })  # fmt: skip
    assert play(config, every, deadline=0.0) == []  # after one step
    assert not mnist.ended(config)
    assert play(config, every) == kept
    assert mnist.ended(config)


def test_the_test_split_is_not_looked_at_before_every_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data-root", "x", "--out", str(tmp_path), "--variants", "gan", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["mnist", *words])
    for name in ("check_data", "Judge"):
        monkeypatch.setattr(mnist, name, lambda *given: None)
    monkeypatch.setattr(mnist, "start_children", lambda given: [])
    (tmp_path / "gan-0" / "kept" / f"step_{RECIPES['gan']['steps']:08d}").mkdir(parents=True)
    with pytest.raises(SystemExit, match="not finished: give the command again"):
        mnist.main()


def test_nor_are_tunes_before_every_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["melodies", "--data-root", "x", "--out", str(tmp_path)])
    monkeypatch.setattr(melodies, "train", lambda config, deadline: False)
    with pytest.raises(SystemExit, match="not finished: give the command again"):
        melodies.main()


def test_tunes_take_several_options_after_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data-root", "x", "--out", str(tmp_path), "--set", "seed=3", "steps=7"]
    monkeypatch.setattr(sys, "argv", ["melodies", *words])
    made: list[RunConfig] = []
    monkeypatch.setattr(melodies, "train", lambda config, deadline: made.append(config))
    with pytest.raises(SystemExit, match="not finished"):
        melodies.main()
    assert [(config.seed, config.options["steps"]) for config in made] == [(3, 7)]


def test_a_pretraining_that_would_not_be_kept_is_told_before_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["--train", "x", "--set5", "x", "--set14", "x", "--out", "x"]
    words += ["--extractor-weights", "w"]
    for wrong in ("pretrain_steps=250", "checkpoint_every=0"):
        monkeypatch.setattr(sys, "argv", ["super_resolution", *words, "--set", wrong])
        with pytest.raises(UserError, match="must be a multiple of checkpoint_every"):
            super_resolution.main()
