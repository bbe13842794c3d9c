"""StackGAN's exact facts: the condition, the texts, the losses, two stages, one of them frozen."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.sources import SOURCES, Source
from gan_core.data.texts import HashedWords
from gan_core.diagnostics import dynamics, signals
from gan_core.engine import game as game_module
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.layers.captions import belongs, chosen_captions, mean_caption
from gan_core.layers.conditioning import ConditioningAugmentation, gaussian_divergence
from gan_core.observers import FolderObserver
from gan_core.pictures import image_grid
from gan_core.priors import draw
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.run import Run
from gan_core.variant import create
from gan_core.variants.schedules import Halving
from gan_core.variants.stackgan import contrastive_loss, matching_loss
from pipelines.comparison.entries import is_figure
from pipelines.sample import SampleOptions
from pipelines.sample_texts import write_texts

COUNT, CAPTIONS, SIZE = 24, 3, 6
TINY = {"image_size": 128, "latent": 3, "condition": 4, "width": 2, "width_2": 4, "width_d": 2}


def pairs(count: int = COUNT, split: Split = "train", seed: int = 0) -> Examples:
    """Random pictures of 16 x 16 pixels with three captions each."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, 16, 16), generator=generator).to(torch.uint8)
    text = torch.randn(count, CAPTIONS, SIZE, generator=generator)
    specs = {"image": TensorSpec((3, 16, 16), -1.0, 1.0), "text": TensorSpec((CAPTIONS, SIZE))}
    return Examples({"image": image, "text": text}, DataSpec(specs), "pairs", split)


class Pairs(Source):
    """The random pictures above, as a source."""

    needs_root = False

    def load(self, split: Split) -> Examples:
        return pairs(COUNT if split == "train" else 8, split, seed=len(split))


@pytest.fixture(autouse=True)
def _few_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game_module, "STATISTICS_BATCHES", 1)
    monkeypatch.setattr(game_module, "STATISTICS_BATCH", 8)


def tiny_game(**options: object) -> Game:
    examples = pairs()
    variant = create("stackgan", examples.spec, {**TINY, "steps": 2, **options}, seed=1)
    return Game(variant, examples, examples, batch_size=4, seed=3, world=World())


# -- texts -----------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_sigma = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_sigma.exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    assert torch.allclose(gaussian_divergence(mean, log_sigma).double(), theirs, rtol=1e-5)
    assert torch.equal(gaussian_divergence(torch.zeros(2, 7), torch.zeros(2, 7)), torch.zeros(2))


def test_a_condition_is_mean_plus_sigma_epsilon() -> None:
    augment = ConditioningAugmentation(SIZE, 4)
    text, epsilon = torch.randn(9, SIZE), torch.randn(9, 4)
    condition, mean, log_sigma = augment(text, epsilon)
    assert torch.allclose((condition - mean) / log_sigma.exp(), epsilon, atol=1e-5)
    assert torch.allclose(torch.cat((mean, log_sigma), 1), augment.linear(text))


@pytest.mark.parametrize(("count", "expected"), [(1, {1}), (2, {2}), (9, {5})])
def test_as_many_captions_as_wanted_are_chosen_each_as_often(count, expected) -> None:
    numbers = torch.rand(4000, 6, generator=torch.Generator().manual_seed(1))
    chosen = chosen_captions(numbers, count, fewer=False)
    assert set(chosen.sum(1).tolist()) == expected
    share = next(iter(expected)) / 5
    assert (chosen.double().mean(0) - share).abs().max() < 4 * math.sqrt(0.25 / 4000)


def test_how_many_captions_may_be_drawn_as_well() -> None:
    numbers = torch.rand(6000, 4, generator=torch.Generator().manual_seed(2))
    counts = chosen_captions(numbers, 3, fewer=True).sum(1)
    found = torch.bincount(counts, minlength=4)
    assert found[0] == 0
    assert (found[1:] / 6000 - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / 6000)
    # The very ends of the numbers are a choice, too.
    ends = chosen_captions(torch.tensor([[0.1, 0.2, 0.0], [0.1, 0.2, 1.0]]), 2, fewer=True)
    assert ends.sum(1).tolist() == [1, 2]


def test_a_text_is_the_mean_of_the_chosen_captions() -> None:
    captions = torch.randn(3, 4, SIZE)
    chosen = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]]).bool()
    expected = torch.stack([captions[0, 0], captions[1, 1:3].mean(0), captions[2].mean(0)])
    assert torch.allclose(mean_caption(captions, chosen), expected, atol=1e-6)


def test_captions_belong_where_every_chosen_one_is_the_pictures_own() -> None:
    captions = torch.randn(4, 2, SIZE)
    own = torch.randn(4, 3, SIZE)
    own[0, 2], own[1, 1], own[3, :2] = captions[0, 0], captions[1, 0], captions[3]
    chosen = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 1]]).bool()
    assert belongs(captions, chosen, own).tolist() == [True, False, False, True]


def test_no_wrong_text_that_counts_is_the_pictures_own_and_all_others_are_drawn() -> None:
    game = tiny_game()
    variant, text = game.variant, game.train.tensors["text"]
    repeats = 40
    index = torch.arange(COUNT * repeats)
    batch = {"text": text[index % COUNT]}
    for spec in variant.noise("stage1"):
        if spec.name.startswith("wrong"):
            batch[spec.name] = draw(spec.prior, len(spec.name), index, spec.shape)
    wrong, counts = variant.wrong_text(batch)  # type: ignore[attr-defined]
    means = text.mean(1)  # all three captions: --averaged-captions is 4
    place = torch.cdist(wrong, means).argmin(1)
    assert torch.allclose(means[place], wrong, atol=1e-5)
    assert torch.equal(counts, place != index % COUNT)
    assert 0 < (~counts).sum() < 4 * repeats
    drawn = torch.bincount(place, minlength=COUNT)
    assert (drawn - repeats).abs().max() < 5 * math.sqrt(repeats)


def test_wrong_texts_do_not_depend_on_how_a_batch_is_shared() -> None:
    game = tiny_game()
    batch = game.seats[0].stream.next()
    whole = game.variant.wrong_text(batch)  # type: ignore[attr-defined]
    for half in (slice(0, 2), slice(2, 4)):
        own = game.variant.wrong_text({n: t[half] for n, t in batch.items()})  # type: ignore[attr-defined]
        assert torch.equal(own[0], whole[0][half])
        assert torch.equal(own[1], whole[1][half])


def test_captions_are_where_the_networks_are_though_the_examples_stay_on_the_host() -> None:
    data = pairs()
    variant = create("stackgan", data.spec, TINY).to("meta")
    variant.initial_values(dict(data.tensors))
    batch = {"text": torch.empty(4, CAPTIONS, SIZE, device="meta")}
    for spec in variant.noise("stage1"):
        batch[spec.name] = torch.empty(4, *spec.shape, device="meta")
    wrong, counts = variant.wrong_text(batch)  # type: ignore[operator]
    assert (wrong.shape, wrong.device.type) == ((4, SIZE), "meta")
    assert (counts.shape, counts.device.type) == ((4,), "meta")


# -- losses ----------------------------------------------------------------------------------------


def test_the_discriminators_loss_weighs_its_three_pairs() -> None:
    generator = torch.Generator().manual_seed(3)
    real, wrong, fake = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    expected = bce(real, ones) + 0.5 * (bce(wrong, zeros) + bce(fake, zeros))
    assert torch.allclose(matching_loss(real, wrong, fake, ones.bool()), expected)
    at_rest = matching_loss(zeros, zeros, zeros, ones.bool())
    assert at_rest.item() == pytest.approx(2 * math.log(2))
    # What does not count is gone from the sum.
    only = torch.tensor([True] + [False] * 7)
    difference = matching_loss(real, wrong, fake, ones.bool()) - matching_loss(
        real, wrong, fake, only
    )
    assert torch.allclose(difference, 0.5 * bce(wrong[1:], zeros[1:], reduction="sum") / 8)


def test_the_objectives_are_the_papers() -> None:
    """Both losses by hand, from the logits of networks in evaluation mode."""
    game = tiny_game(kl=1.5)
    variant = game.variant.eval()
    batch = game.seats[0].stream.next()
    text = batch["text"].mean(1)
    wrong, counts = variant.wrong_text(batch)  # type: ignore[attr-defined]
    fake, mean, log_sigma = variant.generator(batch["latent"], text, batch["epsilon"])
    judge = variant.discriminator

    def logits(images: Tensor, texts: Tensor) -> Tensor:
        return judge(judge.see(images), texts)

    loss = variant.discriminator_loss(batch)  # type: ignore[attr-defined]
    real = batch["image"]
    expected = matching_loss(logits(real, text), logits(real, wrong), logits(fake, text), counts)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    loss = variant.generator_loss(batch)  # type: ignore[attr-defined]
    divergence = gaussian_divergence(mean, log_sigma).mean() / 4
    cheated = torch.nn.functional.softplus(-logits(fake, text)).mean()
    assert loss.total.item() == pytest.approx((cheated + 1.5 * divergence).item(), rel=1e-5)
    told = loss.diagnostics["loss/divergence"].item()
    assert told == pytest.approx(divergence.item(), rel=1e-5)
    assert not any(is_figure(name) for name in [*loss.diagnostics, "divergence"])


# -- a picture's text among others -----------------------------------------------------------------


def test_the_contrastive_loss_is_the_cross_entropy_of_those_that_count() -> None:
    cosines = 2 * torch.rand(5, 4, generator=torch.Generator().manual_seed(0)).double() - 1
    every = torch.ones(5, 3, dtype=torch.bool)
    zeros = torch.zeros(5, dtype=torch.long)
    expected = torch.nn.functional.cross_entropy(cosines / 0.1, zeros)
    assert torch.allclose(contrastive_loss(cosines, every), expected)
    assert contrastive_loss(torch.zeros(5, 4), every).item() == pytest.approx(math.log(4))
    some = every.clone()
    some[:, 1] = False
    left = cosines[:, [0, 1, 3]] / 0.1
    expected = torch.nn.functional.cross_entropy(left, zeros)
    assert torch.allclose(contrastive_loss(cosines, some), expected)
    assert contrastive_loss(cosines, ~every).item() == 0, "nothing to be told from"


def test_other_texts_are_made_of_the_same_captions_and_never_count_where_they_are_the_own() -> None:
    game = tiny_game(contrast=0.5, contrast_texts=50, averaged_captions=1)
    variant, batch = game.variant, game.seats[0].stream.next()
    seen: list[Tensor] = []

    class Judge:
        def cosines(self, maps: Tensor, texts: Tensor) -> Tensor:
            seen.append(texts)
            return texts @ torch.ones(SIZE)

    found = variant.contrast(Judge(), torch.zeros(4), batch)  # type: ignore[attr-defined]
    (texts,) = seen
    table = game.train.tensors["text"]  # (24, 3, SIZE)
    own = (texts == texts[:, :1]).all(2)
    assert own[:, 1:].any(), "some draws fell on the picture itself"
    own[:, 0] = False
    logits = (texts.sum(2) / 0.1).masked_fill(own, -math.inf)
    assert torch.allclose(found, -logits.log_softmax(1)[:, 0].mean())
    chosen = chosen_captions(batch["choice"], 1, False)
    for row in range(4):
        place = chosen[row].nonzero().item()
        assert torch.equal(texts[row, 0], batch["text"][row, place])
        nearest = torch.cdist(texts[row, 1:].double(), table[:, place].double()).min(1)
        assert nearest.values.max() < 1e-6, "the same column of captions, of another picture"
        assert len(nearest.indices.unique()) > 10


def test_contrast_does_not_depend_on_how_a_batch_is_shared() -> None:
    game = tiny_game(contrast=1.0, contrast_texts=3)
    variant, batch = game.variant.eval(), game.seats[0].stream.next()
    judge = variant.discriminator
    maps = judge.see(batch["image"])
    whole = variant.contrast(judge, maps, batch)  # type: ignore[attr-defined]
    halves = [
        variant.contrast(judge, maps[half], {n: t[half] for n, t in batch.items()})  # type: ignore[attr-defined]
        for half in (slice(0, 2), slice(2, 4))
    ]
    assert torch.allclose(whole, torch.stack(halves).mean(), atol=1e-6)


def test_contrast_is_in_both_losses_and_leaves_no_trace_where_it_is_not_asked_for() -> None:
    plain, game = tiny_game(), tiny_game(contrast=0.7, contrast_texts=3)
    names = {n for n, _ in game.variant.named_parameters()}
    added = names - {n for n, _ in plain.variant.named_parameters()}
    keys = {f"{kind}_key.{part}" for kind in ("picture", "text") for part in ("weight", "bias")}
    assert added == {f"discriminator{suffix}.{key}" for suffix in ("", "_2") for key in keys}
    variant, batch = game.variant.eval(), game.seats[0].stream.next()
    judge = variant.discriminator
    text = batch["text"].mean(1)
    fake = variant.generator(batch["latent"], text, batch["epsilon"])[0]
    for objective, images in (("discriminator", batch["image"]), ("generator", fake)):
        loss = getattr(variant, f"{objective}_loss")(batch).total
        without = getattr(plain.variant.eval(), f"{objective}_loss")(batch).total
        contrast = variant.contrast(judge, judge.see(images), batch)  # type: ignore[attr-defined]
        assert (loss - without).item() == pytest.approx(0.7 * contrast.item(), rel=1e-4)


@pytest.mark.parametrize("played", [0, 3])  # iterations: in Stage-I, in Stage-II
def test_the_difference_from_the_texts_own_picture_is_in_the_generators_loss(played: int) -> None:
    plain, game = tiny_game(), tiny_game(l1=3.0)
    game.play(played)
    plain.play(played)
    plain.variant.load_state_dict(game.variant.state_dict())
    variant, batch = game.variant.eval(), game.seats[1].stream.next()
    assert "image" not in plain.seats[1].stream.next(), "nothing is drawn that nobody looks at"
    text, _ = variant._choose(batch["text"], batch["choice"])  # type: ignore[attr-defined]
    fake = variant.generate(game.stage.name, batch, text)[0]  # type: ignore[attr-defined]
    assert fake.shape == batch["image"].shape == (4, 3, *2 * [128 if played else 64])
    found = variant.generator_loss(batch)  # type: ignore[attr-defined]
    without = plain.variant.eval().generator_loss(batch).total  # type: ignore[attr-defined]
    difference = (fake - batch["image"]).abs().mean().item()
    assert found.diagnostics["loss/l1"].item() == pytest.approx(difference, rel=1e-5)
    assert (found.total - without).item() == pytest.approx(3 * difference, rel=1e-4)


def test_rates_are_halved() -> None:
    assert [Halving(10)(n) for n in (0, 9, 10, 19, 20, 35)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    first, second = tiny_game(k=2, halve_every=7).stages[0].players
    for player in (first, second):
        assert [player.optimizer.annealing(n) for n in (6.5, 7)] == [1, 0.5]


# -- networks and stages ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [128, 256])
def test_the_networks_of_the_paper_have_its_sizes(size: int) -> None:
    spec = DataSpec(
        {"image": TensorSpec((3, size, size), -1.0, 1.0), "text": TensorSpec((10, 1024))}
    )
    with torch.device("meta"):
        variant = create("stackgan", spec, {"image_size": size})
        batch = {
            "latent": torch.empty(2, 100),
            "epsilon": torch.empty(2, 128),
            "epsilon_2": torch.empty(2, 128),
            "text": torch.empty(2, 10, 1024),
        }
        assert variant.sample("stage1", batch)["image"].shape == (2, 3, 64, 64)
        assert variant.sample("stage2", batch)["image"].shape == (2, 3, size, size)
        for judge, side in (("discriminator", 64), ("discriminator_2", size)):
            network = getattr(variant, judge)
            maps = network.see(torch.empty(2, 3, side, side))
            assert maps.shape == (2, 512, 4, 4)
            assert network(maps, torch.empty(2, 1024)).shape == (2,)
    widths = [m.out_channels for m in variant.generator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [512, 256, 128, 64, 3]
    encoder = [m for m in variant.generator_2.encode.modules() if isinstance(m, torch.nn.Conv2d)]  # type: ignore[union-attr]
    assert [m.out_channels for m in encoder] == [128, 256, 512]


def test_stage_two_has_no_noise_of_its_own_beside_the_condition() -> None:
    variant = tiny_game().variant
    first, second = (
        {s.name for s in variant.noise(stage) if s.read_by("sample")} for stage in
        ("stage1", "stage2")
    )  # fmt: skip
    assert first == {"latent", "epsilon"}
    assert second == {"latent", "epsilon", "epsilon_2"}


def test_stage_one_is_frozen_in_stage_two() -> None:
    game = tiny_game(ema=0.9)
    game.play(3)
    assert game.stage.name == "stage2"
    frozen = [*game.variant.generator.parameters(), *game.variant.discriminator.parameters()]
    before = {n: t.clone() for n, t in game.variant.generator.state_dict().items()}
    assert all(not p.requires_grad and p.grad is None for p in frozen)
    optimised = {
        id(p) for seat in game.seats for g in seat.optimizer.param_groups for p in g["params"]
    }
    assert optimised.isdisjoint(map(id, frozen))
    game.play(1)
    assert all(p.grad is None for p in frozen)
    after = game.variant.generator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # By value in what is saved, and in what is released.
    saved = game.state_dict()["networks"]
    assert all(torch.equal(saved[f"generator.{name}"], before[name]) for name in before)


def test_stage_two_stands_on_the_average_of_stage_one() -> None:
    game = tiny_game(ema=0.9)
    game.play(2)
    released = game.sampler().network("generator").state_dict()
    live = {n: t.clone() for n, t in game.variant.generator.state_dict().items()}
    game.play(1)
    now = game.variant.generator.state_dict()
    assert all(torch.equal(now[name], released[name]) for name in now)
    assert not all(torch.equal(now[name], live[name]) for name in now)


@pytest.mark.parametrize("cut", [1, 3])
def test_two_stages_resume_bit_for_bit(cut: int) -> None:
    options = {"ema": 0.9, "diffaug": "translation,cutout", "fewer_captions": True}
    whole, begun, resumed = (tiny_game(**options) for _ in range(3))
    whole.play(4)
    begun.play(cut)
    resumed.load_state_dict(begun.state_dict())
    resumed.load_rank_state(begun.rank_state())
    resumed.play(4)
    assert resumed.finished
    for name, value in whole.variant.state_dict().items():
        assert torch.equal(resumed.variant.state_dict()[name], value), name
    first, second = (g.seats[1].averages["generator_2"].state_dict() for g in (whole, resumed))
    assert all(map(torch.equal, first["average"], second["average"]))  # type: ignore[arg-type]


def test_a_residual_stage_two_begins_with_stage_ones_picture_enlarged() -> None:
    game = tiny_game(steps=1, steps_2=1, residual=True)
    variant, text = game.variant, pairs(8).tensors["text"]
    noise = {name: torch.randn(8, size) for name, size in (("latent", 3), ("epsilon", 4))}
    batch = {**noise, "epsilon_2": torch.randn(8, 4), "text": text}
    game.play(1)
    sketch = variant.sample("stage1", batch)["image"]
    # Pillow's filter, picture by picture and channel by channel, is the independent reference.
    first = variant.sample("stage2", batch)["image"]
    for channels, large in zip(sketch.detach().numpy(), first, strict=True):
        for values, made in zip(channels, large, strict=True):
            picture = Image.fromarray(values).resize((128, 128), Image.Resampling.BICUBIC)
            torch.testing.assert_close(made, torch.tensor(np.array(picture)).clamp(-1, 1))
    game.play(1)
    moved = variant.sample("stage2", batch)["image"]
    assert (moved - first).abs().max() > 1e-5
    assert moved.abs().max() <= 1


def test_a_stage_two_that_is_added_on_resuming_is_the_one_that_was_there_from_the_start() -> None:
    own = {"width_2": 2 * TINY["width_2"], "residual": True}
    whole, added = (tiny_game(ema=0.9, steps_2=2, **own) for _ in range(2))
    alone = tiny_game(ema=0.9, steps_2=0)
    whole.play(4)
    alone.play(4)
    assert alone.finished
    assert alone.step == 2
    added.load_state_dict(alone.state_dict())
    added.load_rank_state(alone.rank_state())
    assert not added.finished
    added.play(4)
    assert added.stage.name == "stage2"
    assert added.finished
    for name, value in whole.variant.state_dict().items():
        assert torch.equal(added.variant.state_dict()[name], value), name


def test_only_networks_of_a_stage_to_come_may_be_missing() -> None:
    game, other = tiny_game(steps_2=2), tiny_game(steps_2=2)
    state = game.state_dict()
    networks = {n: t for n, t in state["networks"].items() if not n.startswith("discriminator.")}
    with pytest.raises(UserError, match=r"discriminator.* missing there"):
        other.load_state_dict({**state, "networks": networks})
    with pytest.raises(UserError, match=r"generator_2.* missing here"):
        tiny_game(steps_2=0).load_state_dict(state)


def test_a_run_shows_releases_and_can_be_asked_for_other_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan_core.config import make_config

    monkeypatch.setitem(SOURCES._entries, "pairs", Pairs)
    for name in ("JUDGED", "COMPARED"):
        monkeypatch.setattr(signals, name, 4)
    for name, value in (("EXAMPLES", 4), ("STEPS", 1)):
        monkeypatch.setattr(dynamics, name, value)
    config = make_config(
        {
            "variant": "stackgan", "data": "pairs", "storage": str(tmp_path), "name": "run",
            "workers": 0, "device": "cpu", "extractor": "none", "batch_size": 4, "steps": 1,
            "evaluate_every": 0, "log_every": 9, **TINY,
        }
    )  # fmt: skip
    summary = Run(config, World(), FolderObserver(config.folder, World())).play()
    assert (config.folder / summary["grid"]).exists()
    generator = load_generator(config.folder)
    assert generator.stage.name == "stage2"
    for weights in generator.variant.parameters():  # one step leaves them too small to matter
        if weights.dim() > 1:
            weights.data.mul_(20)
    held_out = Pairs().load("validation").tensors["text"]
    assert torch.equal(generator.examples["text"], held_out[torch.arange(64) % 8])
    made = generator.generate(torch.arange(3), native=True)
    assert made.shape == (3, 3, 16, 16)
    same = generator.generate(
        torch.arange(3), conditions={"text": held_out[:3].mean(1, keepdim=True)}
    )
    assert torch.allclose(generator.generate(torch.arange(3)), same, atol=1e-5)
    other = generator.generate(torch.arange(3), conditions={"text": torch.randn(3, 1, SIZE)})
    assert (other - same).abs().max() > 1e-3


def test_ones_own_words_are_drawn_by_a_row_each(tmp_path: Path) -> None:
    specs = {"image": TensorSpec((3, 16, 16), -1.0, 1.0), "text": TensorSpec((2, 256))}
    variant = create("stackgan", DataSpec(specs), {**TINY, "steps_2": 0}).eval()
    variant.requires_grad_(False)
    for weights in variant.parameters():
        if weights.dim() > 1:
            weights.mul_(20)
    config = {"variant": "stackgan", "seed": 0, "data_options": {"text_encoder": "words"}}
    info = {"config": config, "conditions": ["text"], "stage": "stage1"}
    trained_on = {"text": torch.randn(9, 2, 256)}
    generator = ReleasedGenerator(variant, DataSpec(specs), info, torch.device("cpu"), trained_on)
    for wrong in ({"classes": "0"}, {"interpolate": True}, {"extractor": "none"}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))} does not go with --texts"):
            write_texts(generator, SampleOptions(texts="a cat", **wrong), tmp_path / "a.png")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="must end in"):
        write_texts(generator, SampleOptions(texts="a cat", out="a.mid"), tmp_path / "a.mid")
    options = SampleOptions(texts="a red heart; a cat ;", n=6)
    picture = read_png(write_texts(generator, options, tmp_path / "made.png"))
    vectors = HashedWords().encode(["a red heart", "a cat"])
    made = generator.generate(
        torch.arange(6), conditions={"text": vectors.repeat_interleave(3, 0)[:, None]}
    )
    assert torch.equal(picture, image_grid(made, columns=3))
    options = SampleOptions(texts="a red heart; a cat ;", n=6, truncation=0.3)
    cut = read_png(write_texts(generator, options, tmp_path / "cut.png"))
    made = generator.settled(0.3).generate(
        torch.arange(6),
        noise=generator.noise(torch.arange(6), truncation=0.3),
        conditions={"text": vectors.repeat_interleave(3, 0)[:, None]},
    )
    assert torch.equal(cut, image_grid(made, columns=3))
    assert not torch.equal(cut, picture)
    assert (made[0] - made[3]).abs().max() > 1e-3
    with pytest.raises(UserError, match="--texts has no text in it"):
        write_texts(generator, SampleOptions(texts=" ; "), tmp_path / "made.png")
    other = dataclasses.replace(generator, info={**info, "conditions": []})
    with pytest.raises(UserError, match="--texts needs a generator of captions"):
        write_texts(other, options, tmp_path / "made.png")


def read_png(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def test_what_stackgan_cannot_learn_is_said() -> None:
    spec = pairs().spec
    with pytest.raises(UserError, match="--image-size must be 128 or 256, not 64"):
        create("stackgan", spec, {"image_size": 64})
    pictures = DataSpec({"image": spec.tensors["image"]})
    with pytest.raises(UserError, match="stackgan needs a source with 'text'"):
        create("stackgan", pictures, {})
    with pytest.raises(UserError, match="unknown --diffaug 'colour': did you mean 'color'"):
        create("stackgan", spec, {"diffaug": "colour"})


def test_a_worker_s_share_of_one_example_is_refused_before_the_game() -> None:
    data = pairs()
    variant = create("stackgan", data.spec, TINY)
    with pytest.raises(UserError, match="needs 2 of a worker's examples at once, and this is 1:"):
        Game(variant, data, data, batch_size=2, world=World(1, 2))
    variant.check_share(2)
