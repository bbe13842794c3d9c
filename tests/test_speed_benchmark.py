"""The benchmark of speed: its textbook plays the same game, and its figures are what they say."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import speed, speed_cost, speed_games, speed_ways
from benchmarks.speed_floor import Ceiling, flops
from benchmarks.speed_kernels import kind_of
from benchmarks.speed_memory import needed_bytes
from benchmarks.speed_ways import Setting, Way
from benchmarks.textbook import networks
from benchmarks.textbook_data import Pictures, transform
from benchmarks.textbook_loop import TextbookLoop
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.data.views import SquareView
from gan_core.engine.capture import WARM_UP_TURNS
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.layers.spectral import SpectralConv2d, SpectralLinear
from gan_core.variant import create

CPU = torch.device("cpu")
RESNET = {"width_g": 4, "width_d": 4, "image_size": 32, "k": 2}
TINY: dict[str, dict[str, Any]] = {
    "dcgan": {"width": 4, "kernel": 4, "image_size": 16},
    "sngan": RESNET | {"dequantise": False},
    "biggan": RESNET,
}
every_system = pytest.mark.parametrize("name", TINY)


def pictures(size: int = 16, channels: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(0)
    shape = (channels, size, size)
    images = torch.randint(64, 192, (16, *shape), generator=generator).to(torch.uint8)
    tensors = {"image": images, "label": torch.arange(16) % 10}
    specs = {"image": TensorSpec(shape, -1.0, 1.0), "label": TensorSpec((), classes=10)}
    return Examples(tensors, DataSpec(specs), "noise")


def variant_of(name: str, **options: Any) -> Any:
    return create(name, pictures().spec, TINY[name] | options)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sngans_textbook_networks_have_the_papers_parameters() -> None:
    generator, discriminator = networks(create("sngan", pictures().spec, {}))
    assert count(generator) == 4_276_739
    assert count(discriminator) == 1_053_824


@torch.no_grad()
def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Let the textbook's network have our weights, and both exact singular vectors."""
    left = {name.replace("trunk.", ""): value for name, value in ours.named_parameters()}
    for name, value in theirs.named_parameters():
        mine = left.pop(name.replace("parametrizations.weight.original", "weight"))
        value.copy_(mine if mine.shape == value.shape else mine.t())  # an embedding is transposed
    assert left == {}
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, (SpectralConv2d, SpectralLinear)):
            module.u.copy_(torch.linalg.svd(module.weight.flatten(1))[0][:, 0])
        elif hasattr(module, "parametrizations"):
            (norm,) = module.parametrizations.weight
            u, _, v = torch.linalg.svd(module.parametrizations.weight.original.flatten(1))
            norm._u.copy_(u[:, 0])
            norm._v.copy_(v[0])


def alike(name: str, **options: Any) -> tuple[Any, TextbookLoop]:
    """Ours and the textbook's, float64, with the same weights."""
    ours = variant_of(name, **options).double()
    loop = TextbookLoop(variant_of(name, **options), pictures(), 4, CPU)
    for kind in ("generator", "discriminator"):
        copy_weights(getattr(ours, kind), getattr(loop, kind).double())
    return ours, loop


def batch(size: int, latent: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(4, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1,
        "latent": torch.randn(4, latent, generator=generator, dtype=torch.float64),
        "label": torch.arange(4),
    }


@every_system
@pytest.mark.parametrize("size", [16, 32, 64])
def test_given_our_weights_the_textbooks_networks_say_what_ours_say(name: str, size: int) -> None:
    ours, loop = alike(name, image_size=size)
    given = batch(size, ours.recipe.latent)
    label = (given["label"],) if ours.conditional else ()
    made = loop.generator(given["latent"], *label)
    torch.testing.assert_close(made, ours.generator(given["latent"], *label))
    said = loop.discriminator(given["image"], *label)
    torch.testing.assert_close(said, ours.discriminator(given["image"], *label))


@every_system
def test_the_textbook_minimises_what_our_players_minimise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, loop = alike(name)
    given = batch(TINY[name]["image_size"], ours.recipe.latent)
    loop.batches = itertools.repeat((given["image"], given["label"]))
    loop.recipe = loop.recipe.__class__(**{**vars(loop.recipe), "batch_scale_g": 1})
    monkeypatch.setattr(loop, "noise", lambda count: given["latent"])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: given["label"])
    expected = ours.generator_loss(given).total.item(), ours.discriminator_loss(given).total.item()
    assert loop.update_generator() == pytest.approx(expected[0], rel=1e-9)
    copy_weights(ours.generator, loop.generator)
    assert loop.update_discriminator() == pytest.approx(expected[1], rel=1e-9)


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


@every_system
def test_an_iteration_of_the_textbook_moves_each_network_in_its_turns(name: str) -> None:
    loop = TextbookLoop(variant_of(name, k=3), pictures(), 4, CPU)
    turns: list[str] = []

    def noted(kind: str) -> Any:
        update = getattr(loop, f"update_{kind}")

        def wrapped() -> float:
            before = {n: weights(getattr(loop, n)) for n in ("generator", "discriminator")}
            loss = update()
            moved = [n for n, w in before.items() if not same(w, weights(getattr(loop, n)))]
            turns.extend(moved)
            return loss

        return wrapped

    for kind in ("generator", "discriminator"):
        setattr(loop, f"update_{kind}", noted(kind))
    loop.iterate()
    assert turns == ["discriminator"] * 3 + ["generator"]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("native", "size"), [(28, 32), (16, 16), (8, 32), (40, 16)])
def test_the_textbooks_pictures_are_ours(native: int, size: int) -> None:
    examples = pictures(native, channels=1)
    view = SquareView(size)
    ours = view.present({"image": view.prepare(examples).tensors["image"]})["image"]
    loaded = Pictures(examples, transform(examples, size, dequantise=False))
    theirs = torch.stack([loaded[i][0] for i in range(len(loaded))])
    grey = 0 if native in (28, size) else 1  # PIL rounds between its passes
    assert (ours - theirs).abs().max().item() <= (grey + 0.01) / 127.5
    assert [loaded[i][1] for i in range(len(loaded))] == examples.tensors["label"].tolist()


def test_dequantised_pictures_gain_less_than_a_grey_level() -> None:
    examples = pictures(16)
    plain, noisy = (Pictures(examples, transform(examples, 16, d)) for d in (False, True))
    gained = noisy[3][0] - plain[3][0]
    assert 0 <= gained.min() < gained.max() <= 1 / 128 + 1e-6


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("sngan", {"r1": 1.0}, "--r1"),
        ("sngan", {"architecture": "cnn"}, "--architecture"),
        ("sngan", {"loss": "relativistic"}, "--loss relativistic"),
        ("dcgan", {"loss": "wasserstein"}, "--loss wasserstein"),
    ],
)
def test_what_the_textbook_does_not_play_it_refuses(
    name: str, options: dict[str, Any], told: str
) -> None:
    variant: Any = create(name, pictures().spec, TINY.get(name, {}) | options)
    with pytest.raises(UserError, match=told):
        TextbookLoop(variant, pictures(), 4, CPU)


def test_products_count_two_operations_forward_and_four_backward() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7, requires_grad=True)
    assert flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert flops(lambda: (a @ b).sum().backward()) == 2 * 2 * 3 * 5 * 7  # no gradient of a
    a.requires_grad_()
    assert flops(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_an_iterations_arithmetic_is_that_of_its_passes() -> None:
    loop = TextbookLoop(variant_of("dcgan", k=2), pictures(), 4, CPU)
    latent, image = loop.noise(4), torch.zeros(4, 3, 16, 16)
    with torch.no_grad():
        made = flops(lambda: loop.generator(latent))
        judged = flops(lambda: loop.discriminator(image))
        first_g = flops(lambda: loop.generator.project(latent))  # type: ignore[operator]
        first_d = flops(lambda: loop.discriminator.layers[0](image))  # type: ignore[index]
    # Nobody needs the gradient of a network's first input, but that of fakes for the generator.
    discriminator = made + 2 * (3 * judged - first_d)
    generator = 3 * made - first_g + 3 * judged
    assert flops(loop.iterate) == 2 * discriminator + generator


MIB = 2**20


def mebibytes(count: int) -> Tensor:
    return torch.empty(count * MIB, dtype=torch.uint8)


def test_an_iterations_memory_is_its_peak_over_what_lay_there() -> None:
    def passing() -> None:
        first, second = mebibytes(1), mebibytes(2)  # 3 lie there
        del first
        third = mebibytes(4)  # 6 of 2 and 4
        del second, third
        mebibytes(5)

    assert needed_bytes(passing) == 6 * MIB
    kept = [mebibytes(8)]

    def replace() -> None:
        kept[0] = mebibytes(8)  # the old one goes when the new one is there

    def release() -> None:
        kept.clear()
        kept.append(mebibytes(8))

    assert needed_bytes(replace) == 8 * MIB
    assert needed_bytes(release) == 0


def test_the_backward_passes_memory_counts() -> None:
    weight = torch.zeros(MIB, requires_grad=True)  # 4 MiB

    def learn() -> None:
        weight.grad = None
        kept = weight.exp()  # 4: kept for the backward pass
        (kept * kept.detach()).sum().backward()

    needed = needed_bytes(learn)
    # The last gradient, 4, is gone before: exp, product; then the gradients of product and exp.
    assert needed // MIB == 8 - 4 + 4, needed / MIB
    assert "iteration_bytes" in speed.row(Stub("eager", []), Stub("eager", []), {}, {"fp32": 1.0})  # type: ignore[arg-type]


def test_a_ceiling_is_the_best_rate_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    ceiling = Ceiling("fp32", "cpu", side=10)
    times = iter([0.5, 0.25, 1.0])
    monkeypatch.setattr(ceiling, "_seconds", lambda: next(times))
    ceiling.rate = 0.0
    ceiling.look(3)
    assert ceiling.rate == 2 * 10**3 / 0.25


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("textbook", Way("textbook")),
        ("textbook+same-fakes", Way("textbook", same_fakes=True)),
        ("eager", Way()),
        ("graph+bf16+channels-last", Way("graph", "bf16", True)),
        ("compile+channels-last", Way("compile", channels_last=True)),
    ],
)
def test_a_way_is_written_as_it_is_read(text: str, way: Way) -> None:
    assert Way.read(text) == way
    assert str(way) == text


@pytest.mark.parametrize("text", ["eagre", "eager+fp8", "eager+same-fakes", "textbook+bf16", ""])
def test_an_unknown_way_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="unknown"):
        Way.read(text)


@pytest.mark.parametrize("text", ["graph", "compiled-graph+bf16", "eager+tf32"])
def test_what_needs_a_gpu_is_refused_on_a_cpu(text: str) -> None:
    with pytest.raises(UserError, match="needs --device cuda"):
        Way.read(text).check("cpu")
    Way.read(text).check("cuda")


class Stub:
    """Notes when it is played; its time is what it is told."""

    def __init__(self, name: str, played: list[str], rounds: tuple[float, ...] = (1.0,)) -> None:
        self.name, self.played = name, played
        self.way, self.setting = Way.read(name), Setting("dcgan", {})
        self.rounds, self.milliseconds = list(rounds), statistics.median(rounds)
        self.images, self.memory, self.needed, self.warm_up = 64, 0, 12, 0.5

    def round(self, seconds: float) -> None:
        self.played.append(self.name)


def test_ways_take_turns_in_an_order_that_turns_round() -> None:
    played: list[str] = []
    loops: Any = [Stub("eager", played), Stub("textbook", played)]
    speed_ways.alternate(loops, 3, 1.0, lambda: played.append("look"))
    there, back = ["look", "eager", "textbook"], ["look", "textbook", "eager"]
    assert played == there + back + there


def test_a_rows_figures_follow_from_its_rounds() -> None:
    first: Any = Stub("textbook", [], (20.0, 40.0, 60.0))
    mine: Any = Stub("eager", [], (10.0, 10.0, 20.0))
    counted = {"textbook": 2_000_000, "engine": 1_000_000}
    found = speed.row(mine, first, counted, {"fp32": 1e9})
    assert found["milliseconds"] == 10.0
    assert found["ratio"] == 3.0  # the median of 2, 4 and 3, each of one round
    assert found["images_per_second"] == 6400
    assert found["share_of_floor"] == pytest.approx(0.2)  # 2 ms of 10
    assert found["share_of_ceiling"] == pytest.approx(0.1)
    told = speed.row(first, first, counted, {"fp32": 1e9})
    assert told["share_of_floor"] == told["share_of_ceiling"] == pytest.approx(0.05)
    assert speed.row(mine, first, {}, {"fp32": 1e9})["share_of_floor"] is None


def test_a_power_law_has_its_power_for_a_slope() -> None:
    sizes = (16, 32, 64)
    assert speed_cost.slope(sizes, [3 * s**2 for s in sizes]) == pytest.approx(2)
    assert speed_cost.slope(sizes, [7, 7, 7]) == pytest.approx(0)
    assert speed_cost.read_axes(["batch-size=16,32", "k=1"]) == {"batch_size": (16, 32), "k": (1,)}
    with pytest.raises(UserError, match="width=x"):
        speed_cost.read_axes(["width=x"])


def command(*words: str) -> list[str]:
    tiny = "--image-size 16 --width 2 --kernel 4 --batch-size 8 --device cpu"
    return [*tiny.split(), "--rounds", "1", "--seconds", "0.01", *words]


def test_the_ladder_is_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.speed_floor.SIDES", {"cpu": 64})
    file = tmp_path / "speed.json"
    speed.main(command("--ways", "eager,textbook,graph", "--k", "3", "--json", str(file)))
    found = json.loads(file.read_text())
    assert [r["way"] for r in found["rows"]] == ["eager", "textbook"]
    eager, textbook = found["rows"]
    assert textbook["ratio"] == 1
    assert eager["ratio"] == pytest.approx(textbook["milliseconds"] / eager["milliseconds"])
    for r in found["rows"]:
        assert r["images_per_second"] == pytest.approx(1000 * 8 * 3 / r["milliseconds"])
        assert 0 < r["iteration_bytes"] < 64 * MIB
        assert r["peak_bytes"] is None  # of a GPU
    assert found["flops"]["engine"] < found["flops"]["textbook"]
    out, err = capsys.readouterr()
    assert "| way | ms an iteration | real images/s | times textbook |" in out
    needs = [float(line.split("|")[-2]) for line in out.splitlines() if line.startswith("| eager")]
    assert needs == [pytest.approx(eager["iteration_bytes"] / MIB, rel=1e-3)]
    assert "graph is left out: the way graph needs --device cuda" in err


def test_the_cost_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "cost.svg"
    speed.main(command("--cost", "batch_size=4,8", "width=2,4", "--picture", str(picture)))
    out = capsys.readouterr().out
    rows = [line.split("|") for line in out.splitlines() if line.startswith("| eager")]
    times = {row[2].strip(): row[3] for row in rows}
    assert list(times) == ["batch_size 4", "batch_size 8", "width 2", "width 4"]
    assert times["batch_size 8"] == times["width 2"]  # one game, which both begin with
    assert "<svg" in picture.read_text()


def test_a_stage_is_played_alone_on_a_source_with_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.speed_floor.SIDES", {"cpu": 64})
    for number in range(40):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
    file = tmp_path / "speed.json"
    words = ["--variant", "lapgan", "--levels", "2", "--width", "2", "--batch-size", "8"]
    words += ["--data", "folder", "--data-root", str(tmp_path), "--channels", "1"]
    words += ["--device", "cpu", "--rounds", "1", "--seconds", "0.01", "--json", str(file)]
    with pytest.raises(UserError, match="unknown stage of lapgan 'level_7'"):
        speed.main([*words, "--stage", "level_7"])
    needed = {}
    for stage in ("level_0", "level_1"):
        speed.main([*words, "--stage", stage, "--hidden", "2", "--ways", "textbook,eager"])
        found = json.loads(file.read_text())
        assert f"lapgan {stage} on folder (1 x 16 x 16)" in found["setting"]
        needed[stage] = [r["iteration_bytes"] for r in found["rows"]]
    assert all(fine > 3 * coarse for coarse, fine in zip(*needed.values(), strict=True))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolutions and products"),
        ("nvjet_sm90_tst_64x8_64x16_1x1_h_bz_splitK_TNT", "convolutions and products"),
        ("aten::convolution_backward", "convolutions and products"),
        ("triton_red_fused_convolution_backward_2", "written by the compiler"),
        ("void at::native::multi_tensor_apply_kernel<FusedOptimizer", "optimisers and averages"),
        ("batch_norm_collect_statistics_channels_last_kernel", "batch normalisation"),
        ("Memcpy DtoD (Device -> Device)", "copies and zeros"),
        ("aten::softplus", "all else"),
    ],
)
def test_a_kernels_kind_is_known_by_its_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_what_an_iterations_time_goes_to_is_told_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kernels.json"
    speed.main(command("--kernels", "3", "--ways", "eager,textbook", "--json", str(file)))
    eager, textbook = json.loads(file.read_text())["rows"]
    convolved = [k for k in eager["kernels"] if k["name"] == "aten::convolution_backward"]
    assert [k["launches"] for k in convolved] == [8], "D's two in three passes, G's two in one"
    times = [k["microseconds"] for k in textbook["kernels"]]
    assert times == sorted(times, reverse=True)
    out = capsys.readouterr().out
    assert out.count("| **together** |") == 2
    assert sum(line.startswith("| `") for line in out.splitlines()) == 6
    with pytest.raises(UserError, match="at least 1, not 0"):
        speed.main(command("--kernels", "0"))


def test_wrong_words_are_answered_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--width must be a whole number"):
        speed.main(["--width", "wide"])
    with pytest.raises(UserError, match="none of these ways"):
        speed.main(command("--ways", "textbook", "--r1", "1"))


@pytest.mark.integration
def test_two_workers_play_against_one(tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    speed.main(command("--workers", "2", "--json", str(file)))
    found = json.loads(file.read_text())
    assert len(found["workers"]["rounds"]) == len(found["one"]["rounds"]) == 1
    assert found["ratio"] == pytest.approx(
        found["one"]["milliseconds"] / found["workers"]["milliseconds"]
    )


def test_workers_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match="multiple of --workers 3"):
        speed.main(command("--workers", "3"))
    with pytest.raises(UserError, match="not textbook"):
        speed.main(command("--workers", "2", "--ways", "textbook"))


def test_games_together_are_compared_with_each_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "games.json"
    speed.main(command("--games", "3", "--rounds", "2", "--k", "3", "--json", str(file)))
    found = json.loads(file.read_text())
    apart, together = found["rows"]
    assert (found["games"], found["way"]) == (3, "eager+channels-last")
    assert apart["ratio"] == 1
    pairs = zip(apart["rounds"], together["rounds"], strict=True)
    assert together["ratio"] == statistics.median(one / other for one, other in pairs)
    for r in found["rows"]:
        assert r["milliseconds"] == statistics.median(r["rounds"])
        assert r["images_per_second"] == pytest.approx(1000 * 3 * 8 * 3 / r["milliseconds"])
    assert found["same"] == [True] * 3
    out = capsys.readouterr().out
    assert "| 3 games | ms an iteration of all | real images/s | times as fast |" in out
    assert "the networks of 3 of the 3 games are bit for bit those of the game alone" in out


def test_games_that_differ_from_the_game_alone_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The second begins from another random state each time, so its dropout is another."""
    setting = Setting("gan", {"hidden": 4, "maxout_units": 2, "batch_size": 8})
    again = iter(range(100))

    def begin(setting: Setting, way: Way, seed: int) -> Any:
        game = speed_games.make_game(setting, way, World(), seed)
        torch.manual_seed(next(again) if seed == 1 else seed)
        return game

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(speed_games, "_begin", begin)
        found = speed_games.compare_games(setting, Way(), 3, 1, 0.01)
    assert found["same"] == [True, False, True]
    assert found["same_when_repeated"]
    assert "the networks of 2 of the 3 games" in capsys.readouterr().out


def test_games_together_have_played_when_they_say_so_and_an_error_ends_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting("gan", {"hidden": 4, "maxout_units": 2, "batch_size": 8})
    together = speed_games.Together(setting, Way(), 3)

    def fail() -> None:
        raise RuntimeError("out of memory")

    for _ in range(20):
        together.play(1)
        assert not together._company._baton._held, "nobody is at what other games draw from"
    monkeypatch.setattr(together.games[1], "iterate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        together.play(2)
    assert not any(thread.is_alive() for thread in together._threads)
    assert [together.games[seed].step for seed in (0, 2)] == [22, 22]


@pytest.fixture
def no_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs can be asked for without a GPU, but no turn can be recorded."""

    class Refusing:
        def __init__(self, refuse: Any) -> None:
            self.refuse, self.played = refuse, 0

        def play(self, turn: Any, batch: Any) -> Any:
            self.played += 1
            if self.played == WARM_UP_TURNS:
                self.refuse("it waits for the device in losses.py:12")
            return turn(batch)

    monkeypatch.setattr("gan_core.engine.seat.CapturedTurn", Refusing)
    monkeypatch.setattr(Way, "check", lambda self, device: None)


TOLD = "discriminator's turn cannot be recorded as a CUDA graph .it waits for the device in"


@pytest.mark.usefixtures("no_recording")
def test_a_way_whose_turns_could_not_be_recorded_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"image_size": 16, "width": 2, "kernel": 4, "batch_size": 8}
    setting = Setting("dcgan", options)
    wanted = {mode: (setting, Way(mode)) for mode in ("eager", "graph")}
    assert [timed.name for timed in speed_ways.make_all(wanted)] == ["eager"]
    assert re.search(f"graph is left out: the {TOLD}", capsys.readouterr().err)


@pytest.mark.usefixtures("no_recording")
def test_games_whose_turns_could_not_be_recorded_are_not_timed() -> None:
    with pytest.raises(UserError, match=TOLD):
        speed.main(command("--games", "2", "--ways", "graph"))
    assert not [t for t in threading.enumerate() if t.name.endswith("(in_thread)")]


def test_games_that_cannot_play_together_are_refused() -> None:
    for count in ("1", "17"):
        with pytest.raises(UserError, match=f"--games is from 2 to 16, not {count}"):
            speed.main(command("--games", count))
    with pytest.raises(UserError, match="not textbook"):
        speed.main(command("--games", "2", "--ways", "textbook"))
    with pytest.raises(UserError, match="needs --device cuda"):
        speed.main(command("--games", "2", "--ways", "graph"))
