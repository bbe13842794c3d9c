"""``sample --inputs`` of srgan: one's own pictures enlarged whole, tile by tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gan_core.config import make_config, write_config
from gan_core.data.examples import Examples
from gan_core.data.sources import picture_spec
from gan_core.engine.game import Game
from gan_core.errors import UserError
from gan_core.preparing import build_variant
from gan_core.release import load_generator, save_generator
from gan_core.tiles import enlarged_in_tiles
from gan_core.variants.srgan import Generator, SRGANOptions
from pipelines.__main__ import run as command

TINY = {"scale": 2, "width": 4, "blocks": 2, "kernel_end": 5, "crop": 16, "content": "pixels"}


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 4, "blocks": 3},
        {"scale": 4, "blocks": 1, "kernel_end": 1, "upsampling": "once"},
        {"scale": 2, "blocks": 2, "skip": "bicubic"},
    ],
)
def test_nothing_beyond_the_reach_is_seen(options: dict[str, object]) -> None:
    given = SRGANOptions(width=2, norm_g="none", **options)  # type: ignore[arg-type]
    network, scale = Generator(given, 1).double(), given.scale
    for module in network.modules():  # no weight hides another
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    side, middle = 61, 30
    low = torch.zeros(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    rows = network(low)[0, 0, scale * middle : scale * (middle + 1)]
    (slopes,) = torch.autograd.grad(rows.sum(), low)
    seen = slopes[0, 0].abs().sum(1).nonzero().flatten() - middle
    assert seen.min() >= -network.reach
    assert seen.max() <= network.reach
    assert seen.max() >= network.reach - 2, "and it is hardly more than that"


@pytest.mark.parametrize(("rows", "columns"), [(40, 57), (16, 16), (5, 33)])
def test_tiles_make_up_the_whole(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    options = SRGANOptions(scale=2, width=3, blocks=1, kernel_end=3, skip="bicubic")
    network = Generator(options, 3).eval().double()
    nn.init.normal_(network.end.weight)
    low = torch.rand(1, 3, rows, columns, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        whole = network(low)
        tiled = enlarged_in_tiles(network, low, 2, network.reach, tile=16)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)
        if columns > 33:
            torn = enlarged_in_tiles(network, low, 2, network.reach // 3, tile=16)
            assert (torn - whole).abs().max() > 1e-6


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run of srgan as it begins."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8)
    train = Examples({"image": images}, picture_spec((3, 20, 20)), "squares")
    values = {"variant": "srgan", "data": "hires", "storage": str(tmp_path), "name": "run", **TINY}
    config = make_config(values)
    game = Game(build_variant(config, train), train, train, batch_size=2)
    save_generator(
        config.folder / "generator" / "last",
        game.sampler(),
        config=config.to_dict(),
        spec=train.spec,
        step=0,
    )
    write_config(config, config.folder / "config.yaml")
    return config.folder


def test_pictures_of_any_size_become_larger_under_their_names(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "own", tmp_path / "made"
    own.mkdir()
    generator = np.random.default_rng(0)
    for name, shape in (("a.jpg", (30, 44, 3)), ("b.png", (9, 7)), ("c.png", (8, 8, 3))):
        Image.fromarray(generator.integers(0, 256, shape, np.uint8)).save(own / name)
    words = ["sample", str(trained), "--inputs", str(own), "--device", "cpu", "--out"]
    assert command([*words, str(out), "--n", "2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"a.jpg: 44 x 30 to 88 x 60, {out / 'a.png'}"
    assert told[2] == "enlarged 2 of 3 pictures: all with --n 3"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    pixels = torch.from_numpy(np.asarray(Image.open(own / "a.jpg")).copy()).permute(2, 0, 1)
    low = pixels[None].float() / 127.5 - 1
    made = load_generator(trained).generate(torch.arange(1), conditions={"low": low})[0]
    expected = ((made + 1) * 127.5).round().permute(1, 2, 0).numpy()
    found = np.asarray(Image.open(out / "a.png")).astype(float)
    assert np.abs(found - expected).max() <= 1
    assert Image.open(out / "b.png").size == (14, 18)
    (own / "d.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"d\.png is no readable picture"):
        command([*words, str(tmp_path / "other")])
    assert not (tmp_path / "other").exists(), "told before any is enlarged"
    with pytest.raises(UserError, match="must be a folder"):
        command([*words, str(tmp_path / "sheet.png")])
    with pytest.raises(UserError, match="is the folder of --inputs"):
        command([*words, str(own)])
    with pytest.raises(UserError, match="--truncation does not go with --inputs"):
        command([*words, str(out), "--truncation", "1"])
