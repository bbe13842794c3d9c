"""What the verb ``evaluate`` measures on each split."""

from __future__ import annotations

from pathlib import Path

import pytest

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.config import make_config, write_config
from gan_core.data.sources import picture_spec
from gan_core.engine.world import World
from gan_core.observers import FolderObserver
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.run import play
from pipelines.evaluate import EvaluateOptions, Scores, _difference, evaluate


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> ReleasedGenerator:
    """A generator of points that has learned next to nothing."""
    config = make_config({
        "variant": "gan", "data": "ring", "storage": str(tmp_path_factory.mktemp("runs")),
        "name": "points", "device": "cpu", "extractor": "none", "samples": 100,
        "options": {"steps": 2, "batch_size": 16},
    })  # fmt: skip
    config.folder.mkdir()
    write_config(config, config.folder / "config.yaml")
    world = World()
    play(config, world, FolderObserver(config.folder, world))
    return load_generator(config.folder)


def scores(generator: ReleasedGenerator, split: str, cache: Path) -> Scores:
    return evaluate(generator, EvaluateOptions(samples=500, split=split, device="cpu"), cache)


def test_the_samples_that_have_chosen_a_run_are_not_those_that_report_it(
    points: ReleasedGenerator, tmp_path: Path
) -> None:
    found = {s: scores(points, s, tmp_path) for s in ("train", "validation", "test")}
    drawn = {
        split: [value for _, value in sorted(of_split.figures.items())]
        for split, of_split in found.items()
    }
    assert drawn["validation"] == drawn["train"], "figures stay as they have been"
    assert drawn["test"] != drawn["validation"]
    told = {split: of_split.protocol["modes"] for split, of_split in found.items()}
    assert told["validation"] == told["train"]
    assert told["test"] == (
        f"{told['train']}; no held-out examples, but other points than validation's"
    )


@pytest.mark.parametrize(
    ("shape", "names", "told"),
    [
        ((1, 8, 8), ("cat", "dogs"), "no class is called 'dog'"),
        ((3, 8, 8), ("cat", "dog"), "(3, 8, 8) and 2 classes, not (1, 8, 8) and 2"),
        ((1, 8, 8), ("cat",), "(1, 8, 8) and 1 classes, not (1, 8, 8) and 2"),
    ],
)
def test_what_other_data_have_otherwise_is_told(
    shape: tuple[int, int, int], names: tuple[str, ...], told: str
) -> None:
    learned = picture_spec((1, 8, 8), ("cat", "dog"))
    assert _difference(picture_spec(shape, names), learned) == told
