"""SRGAN: the networks' facts, the two stages, and the frozen network of others."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.config import RunConfig, make_config
from gan_core.data.digits import Digits
from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.sources import SOURCES, picture_spec
from gan_core.engine.checkpoint import find_checkpoint, read_shared
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.layers import bicubic
from gan_core.layers.features import FEATURES, load_features
from gan_core.observers import FolderObserver, Observer
from gan_core.preparing import check_data
from gan_core.release import load_generator
from gan_core.run import Run
from gan_core.telling import diagnosed_facts
from gan_core.variant import create
from gan_core.variants.srgan import SRGAN, Discriminator, Generator, SRGANOptions

TINY = {
    "steps": 4, "pretrain_steps": 3, "batch_size": 4, "crop": 16, "width": 4, "blocks": 1,
    "kernel_end": 3, "width_d": 2, "hidden_d": 4,
}  # fmt: skip


def pictures(channels: int, size: int) -> DataSpec:
    return DataSpec({"image": TensorSpec((channels, size, size), -1.0, 1.0)})


class Squares(Digits):
    """Eight squares of 20 pixels, for a source of small pictures in colour."""

    def load(self, split: Split) -> Examples:
        generator = torch.Generator().manual_seed(len(split))
        images = torch.randint(0, 256, (8, 3, 20, 20), generator=generator, dtype=torch.uint8)
        return Examples({"image": images}, picture_spec((3, 20, 20)), "squares", split)


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._entries, "squares", Squares)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of weights of a small network that stands where MobileNetV2 does."""

    def build(state: dict[str, Tensor]) -> nn.Module:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
        network.load_state_dict(state)
        return network

    small = dataclasses.replace(FEATURES["mobilenet_v2"], build=build, places=list)
    monkeypatch.setitem(FEATURES, "mobilenet_v2", small)
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def config_of(folder: Path, **values: Any) -> RunConfig:
    plain = {"variant": "srgan", "data": "squares", "storage": str(folder), "name": "run"}
    rhythm = {"evaluate_every": 100, "log_every": 1, "workers": 0, "extractor": "none"}
    return make_config({**plain, **rhythm, **TINY, **values})


def played(config: RunConfig, observer: Observer | None = None) -> dict[str, Any]:
    world = World()
    watching = observer or FolderObserver(config.folder, world)
    return Run(config, world, watching).play(find_checkpoint(config.folder))


# -- the networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"upsampling": "once"}, {"skip": "bicubic"}, {"scale": 2},
    {"scale": 2, "upsampling": "once"},
])  # fmt: skip
def test_pictures_of_any_size_become_larger_by_the_scale(options: dict[str, Any]) -> None:
    tiny = SRGANOptions(**(TINY | options))  # type: ignore[arg-type]
    network = Generator(tiny, 3)
    for rows, columns in ((5, 7), (12, 4)):
        found = network(torch.rand(2, 3, rows, columns))
        assert found.shape == (2, 3, tiny.scale * rows, tiny.scale * columns)


def test_the_papers_generator_and_discriminator_have_their_parameters() -> None:
    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    block = 2 * (convolution(64, 64, 3) + 2 * 64) + 1
    generator = (
        convolution(3, 64, 9) + 1 + 16 * block + convolution(64, 64, 3) + 2 * 64
        + 2 * (convolution(64, 256, 3) + 1) + convolution(64, 3, 9)
    )  # fmt: skip
    assert count(Generator(SRGANOptions(), 3)) == generator == 1_549_462
    widths = [64, 64, 128, 128, 256, 256, 512, 512]
    norms = sum(2 * w for w in widths[1:])
    stack = sum(convolution(a, b, 3) for a, b in zip([3, *widths], widths, strict=False))
    dense = (512 * 6 * 6 + 1) * 1024 + 1025
    assert count(Discriminator(SRGANOptions(), 3)) == stack + norms + dense


def test_shuffling_pixels_loses_and_doubles_none() -> None:
    values = torch.arange(2 * 16 * 3 * 5.0).reshape(2, 16, 3, 5)
    shuffle = Generator(SRGANOptions(**TINY | {"upsampling": "once"}), 1).upsample[1]  # type: ignore[arg-type,index]
    found = shuffle(values)
    assert found.shape == (2, 1, 12, 20)
    assert torch.equal(found.flatten().sort().values, values.flatten())
    assert torch.equal(F.pixel_unshuffle(found, 4), values)


def test_with_the_bicubic_skip_an_untrained_generator_is_bicubic() -> None:
    variant = create("srgan", pictures(3, 20), TINY | {"skip": "bicubic", "content": "pixels"})
    low = torch.rand(2, 3, 5, 6) * 2 - 1
    found = variant.sample("pretrain", {"low": low})["image"]
    assert torch.equal(found, bicubic.enlarged(low, 4))


# -- the objectives ----------------------------------------------------------------------------


def batch_of(count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(count, 3, 20, 20, generator=generator) * 2 - 1,
        "place": torch.rand(count, 2, generator=generator),
        "turn": torch.randint(0, 8, (count,), generator=generator),
    }


def test_the_generators_loss_is_the_content_and_a_thousandth(weights: Path) -> None:
    options = TINY | {"content": "mobilenet_v2", "content_weights": str(weights)}
    variant = create("srgan", pictures(3, 20), options)
    assert isinstance(variant, SRGAN)
    variant.load_pretrained()
    batch = batch_of()
    high, low = variant.pair(batch)
    assert high.shape == (4, 3, 16, 16)
    assert torch.equal(low, bicubic.reduced(high, 4))
    loss = variant.generator_loss(batch)
    fake = loss.carry["fake"]
    assert torch.equal(loss.carry["real"], high)
    content = (variant.content(fake) - variant.content(high)).square().mean()
    adversarial = F.softplus(-variant.discriminator(fake)).mean()
    assert loss.total.item() == pytest.approx((content + 1e-3 * adversarial).item(), rel=1e-6)
    pixels = create("srgan", pictures(3, 20), TINY | {"content": "pixels"})
    assert isinstance(pixels, SRGAN)
    assert pixels.content_loss(fake, high).item() == pytest.approx(
        (fake - high).square().mean().item()
    )


def test_vgg19_is_cut_after_the_last_activation_before_the_fifth_pooling(tmp_path: Path) -> None:
    from torchvision.models import vgg

    layers = vgg.make_layers(vgg.cfgs["E"])
    path = tmp_path / "vgg.pth"
    torch.save({f"features.{k}": v for k, v in layers.state_dict().items()}, path)
    content = load_features("vgg19", str(path), "--content-weights")
    own = list(content.network.layers)  # type: ignore[arg-type]
    assert sum(isinstance(layer, nn.Conv2d) for layer in own) == 16
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in own) == 4
    assert isinstance(own[-1], nn.ReLU)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    unit = ((images + 1) / 2 - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        expected = layers.eval()[:36](unit) / 12.75
        assert torch.allclose(content(images), expected, atol=1e-6)


# -- the frozen network ------------------------------------------------------------------------


@torch.no_grad()
def test_the_judge_is_asked_about_squares_and_what_is_made_of_them_reduced() -> None:
    variant = create("srgan", pictures(3, 20), TINY | {"content": "pixels", "steps": 4})
    assert isinstance(variant, SRGAN)
    batch = batch_of()
    real, low = variant.pair(batch)
    judged = variant.judge_stage("adversarial", batch)
    torch.testing.assert_close(judged["real"], variant.discriminator(real))
    torch.testing.assert_close(judged["fake"], variant.discriminator(variant.generator(low)))
    torch.testing.assert_close(judged["slope"], 1 - torch.sigmoid(judged["fake"]))
    assert variant.judge_stage("pretrain", batch) == {}


def game_of(weights: Path) -> Game:
    options = TINY | {"content": "mobilenet_v2", "content_weights": str(weights)}
    train, held_out = Squares().load("train"), Squares().load("validation")
    variant = create("srgan", train.spec, options)
    return Game(variant, train, held_out, batch_size=4)


def test_pretraining_has_no_opponent(weights: Path) -> None:
    game = game_of(weights)
    config = make_config({"variant": "srgan", "data": "hires"})
    for _ in game.stages:
        assert diagnosed_facts(config, game).unopposed == {0}
        game.play(game.stage.steps)


def test_the_frozen_network_learns_nothing_and_is_saved_by_its_hash(weights: Path) -> None:
    game = game_of(weights)
    frozen = game.variant.content.network  # type: ignore[union-attr]
    before = copy.deepcopy(frozen.state_dict())
    game.play(5)
    assert game.stage.name == "adversarial"
    assert not frozen.training
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())
    known = {id(p) for seat in game.seats for g in seat.optimizer.param_groups for p in g["params"]}
    assert not known & {id(p) for p in frozen.parameters()}
    saved = game.state_dict()["networks"]
    assert [k for k in saved if k.startswith("content")] == ["content.digest"]
    digest = hashlib.sha256(weights.read_bytes()).digest()
    assert bytes(saved["content.digest"].tolist()) == digest


def test_gradients_flow_through_the_frozen_network(weights: Path) -> None:
    content = load_features("mobilenet_v2", str(weights), "--content-weights")
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    content(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().min() > 0


def test_other_weights_are_refused_on_resume_and_the_same_may_lie_elsewhere(
    weights: Path, tmp_path: Path
) -> None:
    content = {"content": "mobilenet_v2", "content_weights": str(weights)}
    config = config_of(tmp_path, **content, steps=1)
    played(config)
    longer = {"steps": 2}
    moved = tmp_path / "moved.pth"
    moved.write_bytes(weights.read_bytes())
    state = torch.load(weights, weights_only=True)
    torch.save({k: v + 1 for k, v in state.items()}, weights)
    with pytest.raises(UserError, match="weights of mobilenet_v2 have changed since"):
        played(config_of(tmp_path, **content | longer))
    elsewhere = {"content_weights": str(moved)}
    assert played(config_of(tmp_path, **content | longer | elsewhere))["step"] == 5


def test_weights_that_cannot_be_had_are_one_clear_line(weights: Path, tmp_path: Path) -> None:
    def checked(**values: Any) -> None:
        check_data(config_of(tmp_path, **values))

    with pytest.raises(UserError, match=r"--content-weights: there is no file .*none.pth"):
        checked(content_weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"holds the weights of another network than vgg19"):
        checked(content="vgg19", content_weights=str(weights))
    with pytest.raises(UserError, match=r"mobilenet_v2 are not on this machine: name torchvision"):
        checked(content="mobilenet_v2")
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match=r"is not a whole file of PyTorch weights"):
        checked(content="mobilenet_v2", content_weights=str(weights))


# -- the stages --------------------------------------------------------------------------------


class _Stopping(FolderObserver):
    """Stops a run at a step, as a killed process would, after its checkpoint."""

    def __init__(self, folder: Path, stop_at: int) -> None:
        super().__init__(folder, World())
        self.stop_at = stop_at
        self.at = 0

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        self.at = step

    def should_stop(self) -> bool:
        return self.at == self.stop_at


@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_run_that_was_stopped_goes_on_in_its_stage_bit_for_bit(
    weights: Path, tmp_path: Path, stop_at: int
) -> None:
    own = {"content": "mobilenet_v2", "content_weights": str(weights), "ema": 0.9}
    whole, broken = (config_of(tmp_path / n, **own) for n in ("whole", "broken"))
    played(whole)
    assert played(broken, _Stopping(broken.folder, stop_at))["status"] == "stopped"
    torch.manual_seed(99)
    assert played(broken)["step"] == 7
    first, second = (
        read_shared(find_checkpoint(c.folder), torch.device("cpu"))["game"]  # type: ignore[arg-type]
        for c in (whole, broken)
    )
    assert first["stage"] == second["stage"] == "adversarial"
    assert first["step"] == second["step"] == 7
    for name, value in first["networks"].items():
        assert torch.equal(value, second["networks"][name]), name
    for player in ("generator", "discriminator"):
        moments = [s["players"][player]["optimizer"]["state"] for s in (first, second)]
        for place, entry in moments[0].items():
            assert torch.equal(entry["exp_avg_sq"], moments[1][place]["exp_avg_sq"])
    averages = [s["players"]["generator"]["averages"]["generator"]["average"]
                for s in (first, second)]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*averages, strict=True))


def test_the_stages_have_the_papers_rates(weights: Path) -> None:
    variant = create("srgan", pictures(3, 96), {})
    pretrain, adversarial = variant.stages()
    assert (pretrain.steps, adversarial.steps) == (1_000_000, 200_000)
    assert [p.name for p in pretrain.players] == ["generator"]
    for player in adversarial.players:
        spec = player.optimizer
        assert spec.learning_rate * spec.annealing(99_999) == pytest.approx(1e-4)
        assert spec.learning_rate * spec.annealing(100_000) == pytest.approx(1e-5)
        assert spec.betas == (0.9, 0.999)
    alone = create("srgan", pictures(3, 96), {"steps": 0})
    assert [stage.name for stage in alone.stages()] == ["pretrain"]


def test_a_released_generator_needs_no_frozen_network_and_takes_any_picture(
    weights: Path, tmp_path: Path
) -> None:
    own = {"content": "mobilenet_v2", "content_weights": str(weights), "skip": "bicubic"}
    config = config_of(tmp_path, **own)
    summary = played(config)
    assert {"psnr", "ssim", "psnr_bicubic", "ssim_bicubic"} <= set(summary["figures"])
    weights.unlink()
    generator = load_generator(config.folder)
    low = torch.rand(1, 3, 7, 11) * 2 - 1
    found = generator.generate(torch.tensor([0]), conditions={"low": low})
    assert found.shape == (1, 3, 28, 44)


def test_without_an_extractor_the_adversarial_generator_of_the_best_psnr_is_kept(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path, content="pixels")
    run = Run(config, World(), FolderObserver(config.folder, World()))
    kept = []
    # SRResNet, which learns nothing but PSNR, ends above what the adversarial stage reaches.
    for psnr in (28.0, 29.0, 30.0, 25.0, 26.0, 24.0, 25.5):
        run.game.iterate()
        run.figures = {"psnr": psnr, "ssim": 0.5}
        run._keep_if_best(run.game.sampler())
        assert run.best is not None
        kept.append(run.best["value"])
    assert kept == [28.0, 29.0, 30.0, 25.0, 26.0, 26.0, 26.0]
    assert load_generator(config.folder).info["stage"] == "adversarial"
    assert load_generator(config.folder).info["step"] == 5


def test_data_that_do_not_fit_are_one_clear_line() -> None:
    for options, size, told in (
        ({}, 95, "--crop 96 is larger than the pictures"),
        ({"crop": 18}, 20, "--crop 18 is no multiple of --scale 4"),
        ({"crop": 16}, 18, "are no multiple of --scale 4"),
        ({"crop": 16, "scale": 3}, 18, "--scale must be 2 or 4"),
        ({"crop": 16, "kernel_end": 4}, 20, "--kernel-end must be odd"),
    ):
        with pytest.raises(UserError, match=told):
            create("srgan", pictures(3, size), options)
    with pytest.raises(UserError, match="needs pictures in gray or colour"):
        create("srgan", pictures(4, 96), {})
