"""``sample --inputs``: a user's own pictures translated by the generator of a run."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.config import make_config
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import FolderObserver
from gan_core.release import load_generator
from gan_core.run import Run
from pipelines.__main__ import run as command
from pipelines.sample_inputs import pictures_in


def save(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pix2pix, two steps long, from pictures of 8 pixels."""
    root = tmp_path_factory.mktemp("translation")
    for i in range(16):
        save(root / "data" / "a" / f"{i}.png", i)
        save(root / "data" / "b" / f"{i}.png", 100 + i)
    config = make_config(
        {
            "variant": "pix2pix",
            "data": "pairs",
            "data_root": str(root / "data"),
            "data_options": {"input_folder": "a", "target_folder": "b"},
            "storage": str(root),
            "name": "run",
            "workers": 0,
            "extractor": "none",
            **{"image_size": 8, "width": 2, "patch_layers": 1, "steps": 2, "batch_size": 2},
        }
    )
    summary = Run(config, World(), FolderObserver(config.folder, World())).play()
    assert summary["figures"]["l1"] > 0
    assert (config.folder / summary["grid"]).exists()
    return config.folder


def test_each_picture_is_translated_beside_itself(trained: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("y", "x", "z")):
        save(tmp_path / "own" / f"{name}.png", 50 + i)
    sheet = tmp_path / "out.png"
    words = ["sample", str(trained), "--inputs", str(tmp_path / "own"), "--device", "cpu"]
    assert command([*words, "--out", str(sheet)]) == 0
    assert command([*words, "--out", str(tmp_path / "made")]) == 0
    generator = load_generator(trained)
    pixels = np.asarray(Image.open(tmp_path / "own" / "x.png"))
    given = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    # By name, x is the first: it has the noise of sample 0.
    made = generator.generate(torch.tensor([0]), conditions={"input": given})[0]
    expected = ((made + 1) * 127.5).round().permute(1, 2, 0).numpy()
    found = np.asarray(Image.open(tmp_path / "made" / "x.png")).astype(float)
    assert np.abs(found - expected).max() <= 1
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["x.png", "y.png", "z.png"]
    tiles = np.asarray(Image.open(sheet))
    side = 64  # eight times enlarged, with gaps of two
    assert tiles.shape == (3 * (side + 2) + 2, 2 * (side + 2) + 2, 3)
    assert (tiles[2 : 2 + side : 8, 2 : 2 + side : 8] == pixels).all()
    assert (np.abs(tiles[2 : 2 + side : 8, 4 + side : 4 + 2 * side : 8] - expected) <= 1).all()


def test_pictures_of_other_sizes_become_their_central_square(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "own" / "wide.jpg", 1, (40, 20))
    save(tmp_path / "own" / "small.png", 2, (5, 4))
    words = ["--inputs", str(tmp_path / "own"), "--out", str(tmp_path / "made"), "--n", "1"]
    command(["sample", str(trained), *words])
    assert "translated 1 of 2 pictures: all with --n 2" in capsys.readouterr().out
    assert Image.open(tmp_path / "made" / "small.png").size == (8, 8)


def test_what_cannot_be_translated_is_told_in_a_line(trained: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        with pytest.raises(UserError) as caught:
            command(["sample", str(trained), "--out", str(tmp_path / "o.png"), *words])
        return str(caught.value)

    assert "there is no such folder" in refused("--inputs", str(tmp_path / "nowhere"))
    told = refused("--inputs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "a.mid"))
    assert told.endswith("a.mid must end in .png (one sheet), or be a folder (a file each)")
    (tmp_path / "empty").mkdir()
    assert "it holds no pictures" in refused("--inputs", str(tmp_path / "empty"))
    save(tmp_path / "twice" / "a.png", 1)
    save(tmp_path / "twice" / "a.jpg", 1)
    assert "one name but for the ending" in refused("--inputs", str(tmp_path / "twice"))
    told = refused("--inputs", str(tmp_path / "twice"), "--interpolate")
    assert told == "--interpolate does not go with --inputs: leave it out"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "b.png").write_bytes(b"nothing")
    told = refused("--inputs", str(tmp_path / "bad"))
    assert "b.png is no readable picture" in told
    assert told.endswith("): repair or remove it"), "sample has no --on-bad-file"


def test_inputs_that_may_not_be_listed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(UserError, match=r"it cannot be listed \(Permission denied\)$"):
        pictures_in(tmp_path)


def test_hidden_files_and_folders_are_no_inputs(trained: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "made"
    save(own / "1.png", 1)
    (own / "._1.png").write_bytes(b"what macOS leaves on other disks")
    save(own / "more.png" / "2.png", 2)
    command(["sample", str(trained), "--inputs", str(own), "--out", str(out)])
    assert [path.name for path in out.iterdir()] == ["1.png"]
    (own / "1.png").unlink()
    with pytest.raises(UserError, match="it holds no pictures"):
        command(["sample", str(trained), "--inputs", str(own), "--out", str(out)])


def test_one_s_own_pictures_are_not_overwritten(trained: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for i, name in enumerate(("x", "y")):
        save(own / f"{name}.png", i, (20, 20))
    (tmp_path / "link").symlink_to(own)
    before = {path: path.read_bytes() for path in own.iterdir()}
    for out, told in (
        (own, "is the folder of --inputs: name another"),
        (tmp_path / "link", "is the folder of --inputs: name another"),
        (own / "y.png", "is one of the pictures of --inputs: name another"),
    ):
        words = ["--inputs", str(own), "--n", "1", "--out", str(out), "--device", "cpu"]
        with pytest.raises(UserError, match=told) as caught:
            command(["sample", str(trained), *words])
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in own.iterdir()} == before
    command(["sample", str(trained), "--inputs", str(own), "--out", str(own / "sheet.png")])
    assert (own / "sheet.png").exists(), "beside them it is welcome"
