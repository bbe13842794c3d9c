"""Benchmarks of quality: their recipes are options, and time is what they say it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import (
    cifar,
    lapgan,
    mnist,
    picture_folder,
    remedies,
    small,
    super_resolution,
    translation,
)
from benchmarks.budget import Budget, Session
from benchmarks.pace import Timekeeper, kept_plan, make_plan, with_steps
from benchmarks.stopping import UntilDeadline
from gan_core import journal
from gan_core.config import RunConfig, make_config
from gan_core.data.loading import load_examples
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.pictures import save_png
from gan_core.run import Run
from gan_core.variant import VARIANTS


def tiny(folder: Path, steps: int = 1000) -> RunConfig:
    return make_config({
        "variant": "gan", "data": "ring", "workers": 0, "storage": str(folder), "name": "run",
        "hidden": 4, "maxout_units": 2, "latent": 2, "batch_size": 8, "steps": steps,
        "log_every": 5, "evaluate_every": 0, "checkpoint_every": 0, "extractor": "none",
    })  # fmt: skip


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Every iteration takes a hundredth of a second, exactly; the runs that were made."""
    made: list[Run] = []
    plain = Run.__init__

    def remembered(self: Run, *arguments: Any) -> None:
        plain(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Run, "__init__", remembered)
    clock = property(lambda self: self.game.step / 100, lambda self, _: None)
    monkeypatch.setattr(Run, "seconds", clock, raising=False)
    return made


def training(kept: Path | None) -> dict[str, Any]:
    assert kept is not None
    return dict(json.loads((kept / "training.json").read_text()))


def test_a_session_trains_until_each_time_in_one_run(tmp_path: Path, slow: list[Run]) -> None:
    session = Session(tiny(tmp_path), World())
    assert training(session.until(0.1))["step"] == 10
    assert training(session.until(0.3))["step"] == 30
    assert len(slow) == 1
    assert (tmp_path / "run" / "kept" / "0000.1" / "generator.safetensors").exists()


def test_what_was_kept_is_not_trained_again_and_what_was_not_goes_on(
    tmp_path: Path, slow: list[Run]
) -> None:
    config = tiny(tmp_path)
    assert Session(config, World(), deadline=0.0).until(2) is None
    assert slow[-1].game.step == 1  # the first time that it is asked
    again = Session(config, World())
    assert training(again.until(2))["step"] == 200
    assert slow[-1].game.step == 200
    made = len(slow)
    assert training(Session(config, World()).until(2))["step"] == 200
    assert len(slow) == made


def test_an_interrupted_session_saves_and_goes_on(
    tmp_path: Path, slow: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Budget, step: int, values: dict[str, float]) -> None:
        UntilDeadline.metrics(self, step, values)
        signal.raise_signal(signal.SIGINT)

    config, before = tiny(tmp_path), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Budget, "metrics", interrupt)
        assert Session(config, World()).until(2) is None
    assert signal.getsignal(signal.SIGINT) is before
    stopped = slow[-1].game.step
    assert 0 < stopped < 200
    assert training(Session(config, World()).until(2))["step"] == 200
    assert slow[-1].game.step == 200
    events = [event for event, _ in journal.read(tmp_path / "run" / journal.FILE)]
    assert [event["step"] for event in events if event["kind"] == "start"] == [0, stopped]


def test_an_interrupted_benchmark_waits_for_its_processes_to_save(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Child:
        def __init__(self, interrupted: bool) -> None:
            self.waits = 0
            self.interrupted = interrupted

        def wait(self) -> int:
            self.waits += 1
            if self.interrupted and self.waits == 1:
                raise KeyboardInterrupt
            return 0

    children: Any = [Child(True), Child(False)]
    with pytest.raises(KeyboardInterrupt):
        mnist.wait_for(children)
    assert [child.waits for child in children] == [2, 1]
    assert mnist.wait_for(children) == [0, 0]


def test_a_run_without_steps_left_is_kept_as_it_ended(tmp_path: Path, slow: list[Run]) -> None:
    assert training(Session(tiny(tmp_path, steps=20), World()).until(9))["step"] == 20


def test_a_budget_is_spent_by_training_seconds_alone(tmp_path: Path) -> None:
    budget = Budget(tmp_path, World(), 10.0, float("inf"))
    budget.metrics(1, {"seconds": 9.9})
    budget.metrics(1, {"fid": 3.0})
    assert not budget.should_stop()
    budget.metrics(2, {"seconds": 10.0})
    assert budget.should_stop()


def test_the_pace_is_that_after_compiling_which_is_had_for_less_the_next_time() -> None:
    watch = Timekeeper(100)
    watch.start(0, {"engine": "compile"})
    for step, seconds in ((10, 11.0), (20, 12.0), (40, 14.0)):
        watch.metrics(step, {"seconds": seconds})
        watch.metrics(step, {"fid": 1.0})
        assert not watch.should_stop()
    watch.metrics(70, {"seconds": 17.0})
    assert watch.should_stop()
    plan = watch.plan()  # ten iterations a second; ten seconds to compile, then one and a half
    assert (plan.seconds, plan.spent) == (100, 17)
    assert plan.steps == int(0.98 * (100 - 17 - 1.5) * 10)
    watch.seconds = 18
    with pytest.raises(UserError, match=r"18 seconds of training are too few: 17 are gone"):
        watch.plan()


def test_a_game_too_slow_for_the_time_is_not_played_for_longer() -> None:
    watch = Timekeeper(30)
    watch.start(0, {"engine": "eager"})
    watch.metrics(1, {"seconds": 20.0})
    assert not watch.should_stop()
    watch.metrics(2, {"seconds": 40.0})
    assert watch.should_stop()
    with pytest.raises(UserError, match=r"30 seconds of training are too few: 40 are gone"):
        watch.plan()


def test_a_deadline_ends_the_search_for_the_pace(tmp_path: Path, slow: list[Run]) -> None:
    config = tiny(tmp_path, steps=7)
    assert make_plan(config, World(), 10, deadline=time.time() - 1) is None
    assert not (config.folder / "pace.json").exists()
    assert slow[-1].game.step <= 2, "it is not played for as long as it would take"


def test_as_many_iterations_are_planned_as_fit_into_the_time(
    tmp_path: Path, slow: list[Run]
) -> None:
    config = tiny(tmp_path, steps=7)
    assert kept_plan(config, 10) is None
    plan = make_plan(config, World(), 10)
    assert plan.spent == 5.05  # the first logging point, and five seconds
    assert plan.steps == int(0.98 * (10 - 5.05) * 100)
    assert kept_plan(config, 10) == plan
    assert not (config.folder / "generator").exists()
    with pytest.raises(UserError, match=r"seconds was 10 and is now 20\b"):
        kept_plan(config, 20)
    planned = with_steps(config, plan.steps)
    assert (planned.options["steps"], planned.folder) == (plan.steps, config.folder)
    session = Session(planned, World(), spent=plan.spent)
    assert training(session.until(6))["step"] == 95
    kept = training(session.until(10))
    assert kept["step"] == plan.steps
    assert kept["seconds"] == pytest.approx(5.05 + plan.steps / 100)


def arguments(out: Path) -> argparse.Namespace:
    return argparse.Namespace(
        data="folder", data_root="x", out=out, seed=0, device="cpu", engine="eager",
        precision="fp32", log_every=1, set=["k=3"], suffix="-a", seconds=[2, 9],
    )  # fmt: skip


def test_every_recipe_is_of_known_options(tmp_path: Path) -> None:
    for name, (variant, _) in cifar.SYSTEMS.items():
        config = cifar.config_of(name, 1, arguments(tmp_path))
        assert (config.variant, config.options["k"], config.seed) == (variant, 3, 1)
    for name, (_, options) in small.SYSTEMS.items():
        config = small.config_of(name, arguments(tmp_path), 2)
        assert config.options["lr_decay_to"] == 1
        assert all(config.options[n] == v for n, v in options.items())


def test_a_systems_steps_are_those_that_fit_unless_they_are_given(
    tmp_path: Path, slow: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "judge", lambda *given: None)
    given = arguments(tmp_path)
    given.seconds, given.set, given.deadline = [10, 6], [], float("inf")
    config = cifar.config_of("dcgan", 0, given)
    plan = make_plan(dataclasses.replace(tiny(tmp_path), name=config.name), World(), 10)
    assert cifar.config_of("dcgan", 0, given).options["steps"] == plan.steps
    assert cifar.run(dataclasses.replace(tiny(tmp_path), name=config.name), given)
    kept = training(cifar.kept_folder(config, 10))
    assert (kept["step"], kept["seconds"] > 9.8) == (plan.steps, True)
    given.set = ["steps=50"]
    assert cifar.config_of("dcgan", 0, given).options["steps"] == 50
    assert cifar.run(tiny(tmp_path, steps=50), given)
    assert training(cifar.kept_folder(tiny(tmp_path), 10))["step"] == 50


def test_the_table_and_the_curves_show_what_was_judged(tmp_path: Path) -> None:
    for run, seconds, fid in (("a-0", 120, 20.0), ("a-0", 240, 11.5), ("b-0", 120, 30.0)):
        folder = tmp_path / run / "kept" / f"{seconds:06.0f}"
        folder.mkdir(parents=True)
        row = {"step": 1000, "images_per_second": 9.0, "figures": {cifar.METRIC: fid}}
        (folder / "figures.json").write_text(json.dumps(row))
    found = cifar.results(tmp_path)
    assert list(found) == ["a-0", "b-0"]
    lines = cifar.table(found).splitlines()
    assert lines[0] == f"| run | seconds | steps | images/s | {cifar.METRIC} |"
    assert lines[3] == "| a-0 | 240 | 1,000 | 9 | 11.5 |"
    cifar.draw_curves(found, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_each_level_of_the_pyramid_has_a_share_of_the_time_and_options_of_its_own() -> None:
    given = argparse.Namespace(data_root=Path("data"), out=Path("runs"), seed=0)
    whole = lapgan.config_of("lapgan", "lapgan", lapgan.LAPGAN, given)
    parts = VARIANTS["lapgan"].parts(whole.game)
    assert set(parts) == set(lapgan.SHARES) == set(lapgan.LEVELS)
    assert sum(lapgan.SHARES.values()) == pytest.approx(1)
    networks = {"width", "hidden", "latent", "levels", "conditional"}
    for stage, own in parts.items():
        assert not networks & set(lapgan.LEVELS[stage])  # the whole could not take them over
        lapgan.config_of("lapgan", stage, lapgan.LAPGAN | lapgan.LEVELS[stage] | own, given)


def test_other_pictures_than_set5_are_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    save_png(pixels.to(torch.uint8), tmp_path / "noise.png")
    sets = ["--set5", str(tmp_path), "--set14", str(tmp_path), "--out", str(tmp_path / "out")]
    words = ["super_resolution", "--train", "x", "--extractor-weights", "w", *sets]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(super_resolution, "train", lambda *given: pytest.fail("trained"))
    with pytest.raises(UserError, match=rf"bicubic on the pictures in {tmp_path} gives"):
        super_resolution.main()


def test_systems_of_unequal_seconds_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = argparse.Namespace(data_root=Path("data"), out=tmp_path, seed=0, seconds=180)
    runs = {part.folder: lapgan.SHARES[stage] for stage, part in lapgan.levels_of(given).items()}
    runs |= {config.folder: 1.0 for config in lapgan.gans_of(given).values()}
    joined: list[Path] = []
    monkeypatch.setattr(lapgan, "find_checkpoint", lambda f: f if f in joined else None)
    lapgan.check_seconds(given)
    for folder, share in runs.items():
        folder.mkdir(parents=True)
        (folder / "processor_seconds").write_text(str(share * 180 + 1.5))
    joined.append(lapgan.whole_of(given).folder)
    lapgan.check_seconds(given)
    used = lapgan.seconds_used(given)
    assert used.pop("lapgan") == 184.5
    assert used == dict.fromkeys(lapgan.GANS, 181.5)
    given.seconds = 600
    with pytest.raises(UserError, match=r"level_0 holds .*seconds was 64 and is now 210\b"):
        lapgan.check_seconds(given)
    joined.extend(runs)
    monkeypatch.setattr(lapgan, "read_manifest", lambda folder: {"step": 100_000})
    lapgan.check_seconds(given)  # all their steps took no longer
    joined.clear()
    lapgan.check_seconds(given)  # all are trained further
    given.seconds = 60
    with pytest.raises(UserError, match=r"level_0 holds .*seconds was 64 and is now 21\b"):
        lapgan.check_seconds(given)


def test_loading_is_no_part_of_a_systems_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 30.0, 35.0, 42.0])
    monkeypatch.setattr(lapgan.time, "process_time", lambda: next(clock))
    budget = lapgan.Budget(tmp_path, 10.0)
    budget.start(0, {})
    assert not budget.should_stop()
    assert budget.should_stop()


def test_blocks_of_samples_stand_beside_one_another() -> None:
    blocks = [torch.full((4, 3, 32, 32), value) for value in (-1.0, 1.0)]
    sheet = lapgan.beside(blocks, width=2)
    one = lapgan.beside(blocks[:1], width=2)
    assert torch.equal(sheet[:, :, : one.shape[2]], one)
    assert sheet.shape[2] == 2 * one.shape[2] + 12


@pytest.mark.parametrize("alone", [n for n in translation.RECIPES if n.startswith("l1")])
def test_with_and_without_a_game_all_else_is_equal(alone: str) -> None:
    game = translation.RECIPES[alone.replace("l1", "pix2pix")]
    differing = {n for n in game if game[n] != translation.RECIPES[alone].get(n)}
    assert differing <= {"l1", "adversarial"}
    assert translation.RECIPES[alone]["adversarial"] == 0.0


def test_every_remedy_is_of_known_options_and_others_can_be_set(tmp_path: Path) -> None:
    given = argparse.Namespace(out=tmp_path, mnist="m", device="cpu", set=["steps=400", "r1=0.5"])
    for data, recipes in remedies.RECIPES.items():
        for recipe in recipes:
            config = remedies.config_of(data, recipe, 1, given)
            looks = 200 if data == "stacked-mnist" else 100
            assert (config.options["steps"], config.evaluate_every) == (400, looks)
            assert (config.options["r1"], config.seed, config.device) == (0.5, 1, "cpu")
    given.set = None
    assert remedies.config_of("grid", "plain", 0, given).options["steps"] == 30_000


def test_pictures_are_kept_anew_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, bool]] = []

    def read_apart(folder: Path, cache: str) -> float:
        read.append((cache, Path(cache).is_dir() and not any(Path(cache).iterdir())))
        if cache != "none":
            (Path(cache) / "pixels").touch()
        return float(len(read))

    monkeypatch.setattr(picture_folder, "read_apart", read_apart)
    found = picture_folder.measure(tmp_path, 2, tmp_path)
    assert list(found.values()) == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    caches, empty = zip(*read, strict=True)
    assert empty == (False, True, False, False, True, False)
    assert caches[0] == caches[3] == "none"
    assert caches[1] == caches[2] != caches[4] == caches[5]
    assert not any(tmp_path.iterdir())


def test_reading_pictures_counts_the_training_split(tmp_path: Path) -> None:
    for split, pictures in {"train": 5, "test": 2}.items():
        (tmp_path / split).mkdir()
        for number in range(pictures):
            image = torch.full((3, 4, 6), number, dtype=torch.uint8)
            save_png(image, tmp_path / split / f"{number}.png")
    _, count, size = picture_folder.read_once(tmp_path, "none")
    found = load_examples("folder", str(tmp_path), "train", picture_cache="none")
    assert (count, size) == (len(found), len(found) * 3 * 4 * 6)
    assert 0 < count <= 5


def test_a_remedy_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = argparse.Namespace(
        out=tmp_path, mnist=None, device="cpu", set=["steps=40", "checkpoint_every=20"]
    )
    config = remedies.config_of("ring", "plain", 0, given)
    config.folder.mkdir(parents=True)
    (config.folder / "STOP").touch()
    remedies.play_one(config)
    assert not (config.folder / "summary.json").exists()
    before = json.loads((config.folder / "journal.jsonl").read_text().splitlines()[-1])["step"]
    (config.folder / "STOP").unlink()
    remedies.play_one(config)
    events = [json.loads(x) for x in (config.folder / "journal.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["kind"] == "start"] == [0, before]
    assert json.loads((config.folder / "summary.json").read_text())["step"] == 40
