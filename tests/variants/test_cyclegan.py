"""CycleGAN: sizes, cycle and identity losses, the pool, resuming, both directions' figures."""

from __future__ import annotations

import copy
import json
import random
from itertools import combinations
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gan_core.config import RunConfig, check_resumable, make_config
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.engine.checkpoint import find_checkpoint, read_rank, write_rank
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.layers.patchgan import PatchDiscriminator
from gan_core.layers.pool import ImagePool
from gan_core.layers.residual_generator import ResidualGenerator
from gan_core.layers.unet import UNet
from gan_core.observers import FolderObserver
from gan_core.run import Run, play
from gan_core.variant import create
from gan_core.variants.cyclegan import CycleGAN

SIZE = 16
SPECS = {
    "image": TensorSpec((3, SIZE, SIZE), -1.0, 1.0),
    "input": TensorSpec((3, SIZE, SIZE), -1.0, 1.0, series="input"),
}
UNPAIRED = DataSpec(SPECS)
WITH_TRUTH = DataSpec({**SPECS, "paired": TensorSpec((), classes=2)})
TINY = {"image_size": SIZE, "width": 4, "patch_layers": 1, "blocks": 1, "pool": 3, "steps": 8}


class Negative(nn.Module):
    """-1 times a picture: its own inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(-1.0))

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * image


def tiny(data: DataSpec = UNPAIRED, **options: object) -> CycleGAN:
    variant = create("cyclegan", data, {**TINY, **options}, seed=2)
    assert isinstance(variant, CycleGAN)
    return variant


def examples(images: int, inputs: int, split: str = "train") -> Examples:
    generator = torch.Generator().manual_seed(images)
    tensors = {
        name: torch.randint(256, (n, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        for name, n in (("image", images), ("input", inputs))
    }
    return Examples(tensors, UNPAIRED, "random", split)  # type: ignore[arg-type]


def game_of(variant: CycleGAN) -> Game:
    return Game(variant, examples(9, 7), examples(4, 5, "validation"), batch_size=2, seed=3)


def test_networks_have_the_papers_sizes() -> None:
    with torch.device("meta"):
        generator, discriminator = ResidualGenerator(3, 3), PatchDiscriminator(3, affine=False)
        assert generator(torch.empty(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    assert sum(p.numel() for p in generator.parameters()) == 11_378_179
    assert sum(p.numel() for p in discriminator.parameters()) == 2_764_737
    data = DataSpec({n: TensorSpec((3, 256, 256), -1.0, 1.0, series=n) for n in SPECS})
    with torch.device("meta"):
        variant = create("cyclegan", data, {"image_size": 256})
    own = {n: sum(p.numel() for p in m.parameters()) for n, m in variant.named_children()}
    assert own["generator"] == own["inverse"] == 11_378_179
    assert own["discriminator"] == own["inverse_discriminator"] == 2_764_737


@pytest.mark.parametrize(("size", "blocks"), [(128, 6), (256, 9)])
def test_larger_pictures_get_more_blocks(size: int, blocks: int) -> None:
    data = DataSpec({n: TensorSpec((3, size, size), -1.0, 1.0, series=n) for n in SPECS})
    variant = create("cyclegan", data, {"image_size": size, "width": 1, "pool": 0})
    assert variant.recipe.blocks == blocks  # type: ignore[union-attr]


RESIDUAL = {"resnet": {"kernel": 3, "blocks": 1}, "unet": {"network": "unet"}}


@pytest.mark.parametrize("network", list(RESIDUAL))
def test_a_residual_generator_begins_near_the_identity_map_and_adds(network: str) -> None:
    generator = tiny(residual=True, width=4, **RESIDUAL[network]).generator
    assert isinstance(generator, ResidualGenerator if network == "resnet" else UNet)
    image = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert (generator(image) - image).abs().mean() < 0.2 * image.abs().mean()
    last = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
    assert last.bias is not None
    added = torch.tensor([0.5, -0.5, 2.5])
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(added)
    expected = (image + added[:, None, None]).clamp(-1, 1)
    assert torch.allclose(generator(image), expected, atol=1e-6)
    assert generator(image)[:, 2].eq(1).all()  # what is added has no bound: white can be reached


def test_a_u_net_is_the_one_of_pix2pix_without_dropout() -> None:
    variant = tiny(network="unet", width=4)
    for network in (variant.generator, variant.inverse):
        assert isinstance(network, UNet)
        assert network.dropped_units == 0
        assert isinstance(network.output[-1], nn.Tanh)


@pytest.mark.parametrize("network", list(RESIDUAL))
def test_networks_of_both_kinds_play_in_bfloat16_and_make_float32_pictures(network: str) -> None:
    variant, (train, held_out) = tiny(**RESIDUAL[network]), (examples(9, 7), examples(4, 5))
    game = Game(variant, train, held_out, batch_size=2, engine=Engine(precision="bf16"))
    game.play(2)
    with game.engine.autocast(torch.device("cpu")):
        assert variant.generator(torch.zeros(1, 3, SIZE, SIZE)).dtype == torch.float32
    assert all(parameter.isfinite().all() for parameter in variant.parameters())


def test_there_and_back_costs_nothing_for_exact_inverses() -> None:
    variant = tiny()
    variant.generator, variant.inverse = Negative(), Negative()
    game = game_of(variant)
    assert game._shared_stream is not None
    batch = game._shared_stream.next()
    found = variant.generator_loss(batch)
    assert found.diagnostics["loss/cycle"].item() == 0
    # The identity loss of a negative is the picture's own distance from its negative.
    both = sum((2 * found.carry[name]).abs().mean().item() for name in ("image", "input"))
    assert found.diagnostics["loss/identity"].item() == pytest.approx(both, rel=1e-5)
    fooled = sum(
        (judge(found.carry[name]) - 1).square().mean().item()
        for judge, name in (
            (variant.discriminator, "fake_image"),
            (variant.inverse_discriminator, "fake_input"),
        )
    )
    assert found.total.item() == pytest.approx(fooled + 5 * both, rel=1e-5)
    assert torch.equal(found.carry["fake_image"], -found.carry["input"])
    with torch.no_grad():
        variant.inverse.factor.fill_(1.0)
    assert variant.generator_loss(batch).diagnostics["loss/cycle"].item() > 0.1


def test_the_discriminators_loss_is_halved_and_goes_through_the_pool() -> None:
    variant = tiny()
    image, given, old = (torch.full((1, 3, SIZE, SIZE), v) for v in (0.5, -0.5, 0.9))
    carry = {"image": image, "input": given, "fake_image": given, "fake_input": image}
    never, always = torch.tensor([[0.9, 0.0]]), torch.tensor([[0.1, 0.0]])
    for _ in range(3):
        variant.discriminator_loss(
            {**carry, "fake_image": old, "pool_image": never, "pool_input": never}
        )
    loss = variant.discriminator_loss({**carry, "pool_image": always, "pool_input": never})

    def half(judge: nn.Module, real: Tensor, fake: Tensor) -> float:
        return ((judge(real) - 1).square().mean() + judge(fake).square().mean()).item() / 2

    expected = half(variant.discriminator, image, old)  # from the pool
    expected += half(variant.inverse_discriminator, given, image)  # as it came
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    believed = torch.sigmoid(variant.discriminator(image) - 0.5).mean()  # undecided at a half
    torch.testing.assert_close(loss.diagnostics["prob/real"], believed)


@pytest.mark.parametrize("loss", ["least-squares", "non-saturating", "hinge"])
def test_both_sides_weigh_what_the_paper_s_would_whatever_the_loss(loss: str) -> None:
    """G's adversarial part whole, D's halved: of the loss as its own paper states it."""

    def fooled(logits: Tensor) -> Tensor:
        by_name = {
            "least-squares": lambda a: (a - 1).square(),
            "non-saturating": lambda a: -torch.sigmoid(a).log(),
            "hinge": lambda a: -a,
        }
        return by_name[loss](logits).mean()

    def told_apart(real: Tensor, fake: Tensor) -> Tensor:
        by_name = {
            "least-squares": lambda a, b: (a - 1).square().mean() + b.square().mean(),
            "non-saturating": lambda a, b: (
                -torch.sigmoid(a).log().mean() - (1 - torch.sigmoid(b)).log().mean()
            ),
            "hinge": lambda a, b: (1 - a).clamp_min(0).mean() + (1 + b).clamp_min(0).mean(),
        }
        return by_name[loss](real, fake)

    variant = tiny(loss=loss, cycle=0.0, pool=0)
    game = game_of(variant)
    assert game._shared_stream is not None
    batch = game._shared_stream.next()
    judges = {"image": variant.discriminator, "input": variant.inverse_discriminator}
    found = variant.generator_loss(batch)
    made = found.carry
    expected = sum(fooled(judge(made[f"fake_{name}"])) for name, judge in judges.items())
    torch.testing.assert_close(found.total, expected)
    whole = sum(told_apart(judge(made[n]), judge(made[f"fake_{n}"])) for n, judge in judges.items())
    torch.testing.assert_close(variant.discriminator_loss(batch | made).total, whole / 2)
    given = tiny(loss=loss, cycle=0.0, adversarial=2.0)  # as runs of earlier versions saved it
    assert given.recipe.adversarial == 2.0


def official_pool(size: int, images: list[float], noise: Tensor) -> list[float]:
    """The pool as an algorithm: one picture after another."""
    kept: list[float] = []
    returned = []
    for image, (decision, place) in zip(images, noise.tolist(), strict=True):
        if len(kept) < size:
            kept.append(image)
            returned.append(image)
        elif decision < 0.5:
            slot = int(place * size)
            returned.append(kept[slot])
            kept[slot] = image
        else:
            returned.append(image)
    return returned


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_the_pool_is_the_sequential_one_for_batches_of_any_size(size: int, batch: int) -> None:
    pool = ImagePool(size, (1,))
    generator = torch.Generator().manual_seed(size * 10 + batch)
    noise = torch.rand(12 * batch, 2, generator=generator)
    images = [float(i) for i in range(12 * batch)]
    found: list[float] = []
    for part, numbers in zip(torch.tensor(images).split(batch), noise.split(batch), strict=True):
        found += pool.exchange(part[:, None], numbers).flatten().tolist()
    assert found == official_pool(size, images, noise)
    assert found[:size] == images[:size]
    assert found != images


def test_a_pool_of_none_returns_what_comes() -> None:
    images = torch.rand(random.Random(0).randint(2, 5), 3)
    assert torch.equal(ImagePool(0, (3,)).exchange(images, torch.zeros(len(images), 2)), images)


def test_a_resumed_game_is_the_same_game_pools_and_all() -> None:
    whole = game_of(tiny())
    whole.play(8)
    first = game_of(tiny())
    first.play(5)
    state, own = copy.deepcopy((first.state_dict(), first.rank_state()))
    assert int(own["buffers"]["image_pool.seen"]) == 10
    assert not any("pool" in name for name in state["networks"])  # a rank's own, not shared
    second = game_of(tiny())
    second.load_state_dict(state)
    second.load_rank_state(own)
    second.play(3)
    for name, value in whole.variant.state_dict().items():
        assert torch.equal(value, second.variant.state_dict()[name]), name
    forgetful = game_of(tiny())
    forgetful.load_state_dict(state)
    forgetful.play(3)
    weight = "discriminator.layers.0.weight"
    assert not torch.equal(
        forgetful.variant.state_dict()[weight], whole.variant.state_dict()[weight]
    )


def test_the_domains_are_drawn_independently() -> None:
    game = game_of(tiny(batch_size=1))
    assert game._shared_stream is not None
    seen = {"image": set(), "input": set()}  # type: ignore[var-annotated]
    partners: dict[float, set[float]] = {}
    for _ in range(40):
        batch = game._shared_stream.next()
        for image, given in zip(batch["image"], batch["input"], strict=True):
            partners.setdefault(float(image.sum()), set()).add(float(given.sum()))
            seen["image"].add(float(image.sum()))
            seen["input"].add(float(given.sum()))
    assert (len(seen["image"]), len(seen["input"])) == (9, 7)
    assert min(map(len, partners.values())) > 1


def test_figures_of_both_directions_where_the_truth_is_known() -> None:
    variant = tiny(WITH_TRUTH)
    variant.generator, variant.inverse = Negative(), Negative()
    with torch.no_grad():
        variant.inverse.factor.fill_(-0.5)
    truth, given = (torch.rand(3, 3, SIZE, SIZE) * 2 - 1 for _ in range(2))
    held_out = {"image": truth, "input": given, "paired": torch.ones(3, dtype=torch.int64)}
    figures = variant.figures("train", {"image": -given}, held_out)

    def l1(a: Tensor, b: Tensor) -> float:
        return pytest.approx((a - b).abs().mean().item(), rel=1e-5)  # type: ignore[return-value]

    assert figures["l1"] == l1(-given, truth)
    assert figures["l1_input"] == figures["l1_inverse_input"] == l1(given, truth)
    assert figures["l1_inverse"] == l1(-0.5 * truth, given)
    assert figures["cycle_l1"] == l1(0.5 * given, given)
    assert figures["cycle_l1_inverse"] == l1(0.5 * truth, truth)
    between = [(a - b).norm() for a, b in combinations(truth, 2)]
    real = [(a - b).norm() for a, b in combinations(given, 2)]
    ratio = (0.5 * sum(between) / sum(real)).item()  # type: ignore[union-attr]
    assert figures["diversity_inverse"] == pytest.approx(ratio, rel=1e-5)
    held_out["paired"] = torch.zeros(3, dtype=torch.int64)
    unknown = variant.figures("train", {"image": -given}, held_out)
    assert set(unknown) == {"cycle_l1", "cycle_l1_inverse", "diversity_inverse"}
    alone = {name: values[:1] for name, values in held_out.items()}
    assert "diversity_inverse" not in variant.figures("train", {"image": -given[:1]}, alone)
    sheet = variant.picture("train", {"image": -given}, held_out)
    assert sheet is not None


def pool_of(values: list[float], size: int = 4) -> ImagePool:
    """A pool that has been shown ``values``."""
    pool = ImagePool(size, (1,))
    for value in values:
        pool.exchange(torch.tensor([[float(value)]]), torch.tensor([[0.9, 0.0]]))
    return pool


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([[1, 2, 3, 4, 0], [5, 6, 7, 8]], [[1, 5, 2, 6]]),  # too many: as many of each
        ([[1, 2, 3, 4]], [[1, 3], [2, 4]]),
        ([[1, 2, 3], [4]], [[1, 3], [4], [2]]),
        ([[1, 2], [3, 4], [5]], [[1, 5, 4], [3, 2]]),
        ([[], []], [[]]),
    ],
)
def test_pools_are_dealt_out_to_another_number_of_workers(
    old: list[list[float]], new: list[list[float]]
) -> None:
    saved = [(p.images, p.seen) for p in map(pool_of, old)]
    for rank, expected in enumerate(new):
        pool = ImagePool(4, (1,))
        pool.deal_out(saved, rank, len(new))
        assert int(pool.seen) == len(expected)
        assert pool.images[: len(expected), 0].tolist() == expected
        # It goes on filling where it is not full, and exchanges where it is.
        always = torch.tensor([[0.1, 0.0]])
        returned = pool.exchange(torch.tensor([[9.0]]), always)
        assert returned.item() == (expected[0] if len(expected) == 4 else 9.0)


def run_on_folders(folder: Path, name: str, steps: int) -> RunConfig:
    """A tiny run on two folders of random pictures in ``folder``."""
    generator = torch.Generator().manual_seed(1)
    for domain in ("trainA", "trainB"):
        (folder / domain).mkdir(exist_ok=True)
        for number in range(12):
            values = torch.randint(0, 256, (SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(values.numpy()).save(folder / domain / f"{number}.png")
    place = {"storage": str(folder), "name": name, "data": "unpaired", "data_root": str(folder)}
    rest = {"workers": 0, "device": "cpu", "extractor": "none", "evaluate_every": 0}
    return make_config(
        {"variant": "cyclegan", **place, **rest, **TINY, "batch_size": 2, "steps": steps}
    )


def test_a_run_resumed_with_another_number_of_workers_keeps_their_pools(tmp_path: Path) -> None:
    config = run_on_folders(tmp_path, "first", 3)
    play(config, World(), FolderObserver(config.folder, World()))
    checkpoint = find_checkpoint(config.folder)
    assert checkpoint is not None
    # As if another worker had been there, with pools of its own.
    own = read_rank(checkpoint, 0, torch.device("cpu"))
    other = copy.deepcopy(own)
    other["buffers"]["image_pool.images"] += 10
    write_rank(checkpoint, 1, other)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["sha256"]
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "world_size": 2}))
    told: list[str] = []

    class Listener(FolderObserver):
        def message(self, step: int, text: str, level: str = "info") -> None:
            told.append(text)

    config = run_on_folders(tmp_path, "second", 4)
    run = Run(config, World(), Listener(config.folder, World()))
    run._restore(checkpoint)
    pool = run.game.variant.image_pool
    assert isinstance(pool, ImagePool)
    images = own["buffers"]["image_pool.images"]
    assert torch.equal(pool.images[:3], torch.stack((images[0], images[0] + 10, images[1])))
    assert int(pool.seen) == 3
    assert len(told) == 1
    assert "the pools of past pictures are dealt out anew" in told[0]


def test_another_loss_is_told_with_the_weight_that_goes_with_it() -> None:
    values = {"variant": "cyclegan", "data_root": "/nowhere"}
    told = check_resumable(make_config(values), make_config({**values, "loss": "hinge"}))
    assert sorted(told) == ["adversarial: 2.0 -> 1.0", "loss: least-squares -> hinge"]


@torch.no_grad()
def test_the_judge_is_that_of_the_pictures_that_are_made() -> None:
    variant = tiny(loss="non-saturating").eval()
    given, image = (torch.rand(5, 3, SIZE, SIZE) * 2 - 1 for _ in range(2))
    judged = variant.judge({"input": given, "image": image})
    expected = {"real": variant.discriminator(image)}
    expected["fake"] = variant.discriminator(variant.generator(given))
    for name, logits in expected.items():
        torch.testing.assert_close(judged[name], logits.flatten(1))
