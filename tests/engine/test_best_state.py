"""The best state of a run is kept whole, whatever happens, and is in nobody's way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toys import Crash, CrashingObserver, difference, saved, tiny_config

from gan_core.best import replaces
from gan_core.config import RunConfig
from gan_core.engine import checkpoint as checkpoints
from gan_core.engine.checkpoint import all_bests, find_best, find_checkpoint
from gan_core.engine.sampling import Sampler
from gan_core.engine.world import World
from gan_core.journal import FILE, read
from gan_core.observers import FolderObserver, Observer
from gan_core.release import load_generator
from gan_core.run import Run
from pipelines.tuning.trial import TrialObserver
from pipelines.worker import RayObserver

ALONE = World()
BEST_AT_4 = {2: 50.0, 4: 30.0, 6: 40.0, 8: 45.0, 10: 90.0, 12: 55.0}
BEST_AT_10 = BEST_AT_4 | {10: 20.0}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class NoBest(CrashingObserver):
    """Keeps no best state, and crashes."""

    def keep_best(self, step: int, write: Callable[[Path], None]) -> Path | None:
        return None


def config_of(folder: Path, **values: Any) -> RunConfig:
    """Judged at each second iteration, saved at each sixth; an average and batch statistics."""
    cadence = {"evaluate_every": 2, "checkpoint_every": 6, "width": 2}
    return tiny_config(folder, "dcgan", ema=0.9, **{**cadence, **values})


def run_of(
    config: RunConfig,
    scores: dict[int, float],
    observer: Observer | None = None,
    world: World = ALONE,
) -> Run:
    """A run whose fid at each step is that of ``scores``."""
    run = Run(config, world, observer or FolderObserver(config.folder, world))
    look = run._evaluate

    def evaluate() -> Sampler:
        sampler = look()
        run.figures, run._judged_at = {"fid": scores[run.game.step]}, run.game.step
        run._remember(run.figures)
        run._keep_if_best(sampler)
        return sampler

    run._evaluate = evaluate  # type: ignore[method-assign]
    run._probe = lambda: None  # type: ignore[method-assign]  # costly, and no part of this
    return run


def crashed(config: RunConfig, scores: dict[int, float], at: int, kind: Any = None) -> None:
    """Such a run that ends without a word at the logging point ``at``."""
    observer = (kind or CrashingObserver)(config.folder, ALONE, crash_at=at)
    with contextlib.suppress(Crash):
        run_of(config, scores, observer).play()


def best_of(folder: Path) -> Path:
    (found,) = all_bests(folder)
    assert find_best(folder) == found
    return found


def newest(folder: Path) -> Path:
    found = find_checkpoint(folder)
    assert found is not None
    return found


def test_the_best_state_is_that_of_the_run_at_that_step(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    summary = run_of(config, BEST_AT_4).play()
    best = best_of(config.folder)
    assert best.name == "0002_step_00000004"
    assert summary["best"]["state"] == "best/0002_step_00000004"
    assert json.loads((best / "manifest.json").read_text())["best"]["value"] == 30.0
    assert load_generator(best).info["figures"] == {"fid": 30.0}
    tags = [e["value"] for e, _ in read(config.folder / FILE) if e.get("name") == "best_state"]
    assert tags == ["best/0001_step_00000002", "best/0002_step_00000004"]
    # Nobody takes it for the newest, and the newest are kept as ever.
    steps = sorted(path.name for path in (config.folder / "checkpoints").iterdir())
    assert steps == ["step_00000006", "step_00000012"]
    assert newest(config.folder).name == "step_00000012"
    # A run that keeps none has the same state there, and in the end.
    other = config_of(tmp_path / "other", checkpoint_every=4)
    crashed(other, BEST_AT_4, 6, NoBest)
    assert difference(saved(best), saved(newest(other.folder))) == []
    again = run_of(other, BEST_AT_4, NoBest(other.folder, ALONE, crash_at=99))
    told = again.play(newest(other.folder))
    assert difference(saved(newest(config.folder)), saved(newest(other.folder))) == []
    assert {**told["best"], "state": summary["best"]["state"]} == summary["best"]


def test_a_state_that_is_the_best_and_saved_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, other = config_of(tmp_path / "run", steps=6), config_of(tmp_path / "other", steps=6)
    scores = {2: 50.0, 4: 60.0, 6: 30.0}
    written: list[Path] = []
    write = checkpoints._write

    def counted(path: Path, value: Any) -> None:
        written.append(path)
        write(path, value)

    monkeypatch.setattr(checkpoints, "_write", counted)
    run_of(config, scores).play()
    assert len(written) == 4  # at 2 and at 6
    run_of(other, scores, NoBest(other.folder, ALONE, crash_at=99)).play()
    final = newest(config.folder)
    assert difference(saved(final), saved(newest(other.folder))) == []
    names = sorted(path.name for path in final.iterdir())
    assert names == sorted(path.name for path in newest(other.folder).iterdir())
    assert load_generator(final).info["step"] == 6
    # Without links (another file system) it is a copy.
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    copied = config_of(tmp_path / "copied", steps=6)
    run_of(copied, scores).play()
    assert difference(saved(newest(copied.folder)), saved(final)) == []
    assert (newest(copied.folder) / "state.pt").stat().st_nlink == 1


@pytest.mark.parametrize("where", ["while it is written", "before the former is removed"])
def test_a_crash_leaves_a_best_state_and_the_next_one_tidies_up(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "run")
    observer = FolderObserver(config.folder, ALONE)
    run = run_of(config, BEST_AT_10, observer)
    with monkeypatch.context() as patch:
        if where == "while it is written":
            write = checkpoints.write_shared

            def torn(folder: Path, state: Any, manifest: Any) -> None:
                if run.game.step == 10:
                    (folder / "state.pt").write_bytes(b"half")
                    raise Crash
                write(folder, state, manifest)

            patch.setattr(checkpoints, "write_shared", torn)
        else:

            def tag(kind: str, step: int, **content: Any) -> None:
                if step == 10 and content.get("name") == "best_state":
                    raise Crash

            patch.setattr(observer, "_write", tag)
        with pytest.raises(Crash):
            run.play()
    assert newest(config.folder).name == "step_00000006"
    kept = find_best(config.folder)
    assert kept is not None
    whole = where == "while it is written"
    assert kept.name == ("0002_step_00000004" if whole else "0003_step_00000010")
    again = run_of(config, BEST_AT_10)
    summary = again.play(newest(config.folder))
    assert summary["best"]["state"] == "best/0003_step_00000010"
    assert load_generator(config.folder).info["step"] == 10
    assert [p.name for p in (config.folder / "best").iterdir()] == ["0003_step_00000010"]


def test_a_run_that_goes_on_from_before_its_best_keeps_it_until_there_is_a_better_one(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path / "run")
    crashed(config, BEST_AT_10, 12)
    assert newest(config.folder).name == "step_00000006"
    before = best_of(config.folder)
    assert before.name == "0003_step_00000010"
    state = saved(before)
    (before.parent / "0004_step_00000012.partial").mkdir()  # crashed while that was written
    # The same again: nothing is written, and nothing is said to have doubled before its time.
    again = run_of(config, BEST_AT_10)
    summary = again.play(newest(config.folder))
    assert best_of(config.folder) == before
    assert list(before.parent.iterdir()) == [before]
    assert difference(saved(before), state) == []
    assert summary["best"]["step"] == 10
    assert summary["best"]["doubled"] == {"value": 55.0, "step": 12}
    whole = config_of(tmp_path / "whole")
    expected = run_of(whole, BEST_AT_10).play()
    assert summary["best"] == expected["best"]
    assert difference(saved(newest(config.folder)), saved(newest(whole.folder))) == []


def test_other_settings_may_have_their_best_before_that_of_the_former_life(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    crashed(config, BEST_AT_10, 12)
    run_of(config, BEST_AT_4 | {8: 10.0}).play(newest(config.folder))
    assert best_of(config.folder).name == "0004_step_00000008"
    assert load_generator(config.folder).info["step"] == 8
    # And where they have none, the former best is still there, as is the generator.
    other = config_of(tmp_path / "other")
    crashed(other, BEST_AT_10, 12)
    summary = run_of(other, BEST_AT_4).play(newest(other.folder))
    assert (summary["best"]["step"], summary["best"]["value"]) == (10, 20.0)
    assert summary["best"]["state"] == "best/0003_step_00000010"
    assert load_generator(other.folder).info["step"] == 10


def test_a_damaged_best_state_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tmp_path / "run")
    run_of(config, BEST_AT_4).play()
    (best_of(config.folder) / "rank_0.pt").write_bytes(b"")
    assert find_best(config.folder) is None
    assert "0002_step_00000004 is damaged" in caplog.text
    longer = config_of(tmp_path / "run", steps=14)
    summary = run_of(longer, {14: 70.0}).play(newest(config.folder))
    assert (summary["best"]["step"], "state" in summary["best"]) == (4, False)


@pytest.mark.parametrize("kind", ["own observer", "trial", "trial on workers"])
def test_who_has_no_use_for_it_keeps_none(kind: str, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", steps=2)

    class Quiet(RayObserver):
        def checkpoint(self, *_: object) -> None:
            return None

    observers: dict[str, Callable[[], Observer]] = {
        "own observer": Observer,
        "trial": lambda: TrialObserver(config.folder, ALONE, lambda *_: None),
        "trial on workers": lambda: Quiet(config.folder, ALONE, leave=object()),  # type: ignore[arg-type]
    }
    summary = run_of(config, {2: 50.0}, observers[kind]()).play()
    assert summary["best"] == {"metric": "fid", "value": 50.0, "step": 2}
    assert not (config.folder / "best").exists()
    assert load_generator(config.folder / "generator" / "best").info["step"] == 2


@pytest.mark.parametrize(
    ("best_step", "score", "wanted"),
    [(4, 30.0, False), (4, 20.0, True), (10, 30.0, False), (10, 20.0, False), (12, 20.0, False)],
)
def test_a_best_of_a_later_stage_outlives_the_stages_before_it(
    best_step: int, score: float, wanted: bool
) -> None:
    best = {"metric": "fid", "value": 25.0, "score": 25.0, "step": best_step, "protocol": None}
    now = {**best, "value": score, "score": score, "step": 6}
    assert replaces(now, best, 0, 8) is wanted  # it plays the first stage once more, of 8
    assert replaces({**now, "step": 14}, {**best, "step": 6}, 8, 20)  # the last stage is the aim


@pytest.mark.parametrize(
    ("protocol", "wanted"),
    [
        ("A: 9 train; kid 9, precision and recall k=3 on 5 drawn; trained on B", False),
        ("A: 9 train; kid 9, precision and recall k=3 on 5", True),
        ("A: 8 train; kid 9, precision and recall k=3 on 5; trained on B", True),
    ],
)
def test_a_best_gives_way_to_a_worse_one_only_where_its_own_figure_was_measured_otherwise(
    protocol: str, wanted: bool
) -> None:
    was = "A: 9 train; kid 9, precision and recall k=3 on 5; trained on B"
    best = {"metric": "fid", "value": 25.0, "score": 25.0, "step": 4, "protocol": was}
    now = {**best, "value": 30.0, "score": 30.0, "step": 6, "protocol": protocol}
    assert replaces(now, best, 0, 8) is wanted
