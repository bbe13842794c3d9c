"""Pix2Pix: the U-Net's size and dropout, the objectives, samples that are functions of numbers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.config import make_config
from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
from gan_core.engine.game import Game
from gan_core.layers.dropout import scales, words_for
from gan_core.layers.unet import UNet
from gan_core.telling import diagnosed_facts, start_info
from gan_core.variant import create
from gan_core.variants.pix2pix import Pix2Pix

SIZE = 16
PAIR = DataSpec(
    {
        "image": TensorSpec((3, SIZE, SIZE), -1.0, 1.0),
        "input": TensorSpec((1, SIZE, SIZE), -1.0, 1.0),
    }
)
TINY = {"image_size": SIZE, "width": 4, "patch_layers": 1, "steps": 6, "batch_size": 4}


def tiny(**options: object) -> Pix2Pix:
    variant = create("pix2pix", PAIR, {**TINY, **options}, seed=1)
    assert isinstance(variant, Pix2Pix)
    return variant


def examples(count: int, split: str = "train") -> Examples:
    generator = torch.Generator().manual_seed(count)
    tensors = {
        "image": torch.randint(256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8),
        "input": torch.randint(256, (count, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8),
    }
    return Examples(tensors, PAIR, "random", split)  # type: ignore[arg-type]


def game_of(variant: Pix2Pix) -> Game:
    return Game(variant, examples(12), examples(5, "validation"), batch_size=4, seed=3)


def test_the_u_net_of_256_pixels_has_the_papers_size() -> None:
    with torch.device("meta"):
        network = UNet(3, 3, 256)
        made = network(torch.empty(1, 3, 256, 256), torch.empty(1, 14336, dtype=torch.int64))
        pair = {n: TensorSpec((3, 256, 256), -1.0, 1.0) for n in ("image", "input")}
        variant = create("pix2pix", DataSpec(pair), {"image_size": 256})
    assert sum(p.numel() for p in network.parameters()) == 54_413_955
    own = {n: sum(p.numel() for p in m.parameters()) for n, m in variant.named_children()}
    # D: 4 x 4 kernels from 6 channels to 64, 128, 256, 512 and 1; gains and biases of three norms.
    kernels = 16 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    assert own == {"generator": 54_413_955, "discriminator": kernels + 2 * (128 + 256 + 512)}
    assert made.shape == (1, 3, 256, 256)
    assert network.dropped_units == 512 * (2 * 2 + 4 * 4 + 8 * 8) == 43_008
    assert words_for(43_008) == 14_336


def test_its_normalisation_is_that_of_a_batch_of_one() -> None:
    torch.manual_seed(0)
    network = UNet(1, 3, SIZE, width=4, rate=0)
    like_the_paper = copy.deepcopy(network)
    for module in list(like_the_paper.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.InstanceNorm2d):
                batch_norm = nn.BatchNorm2d(child.num_features)
                batch_norm.load_state_dict(child.state_dict(), strict=False)
                setattr(module, name, batch_norm.train())
    images = torch.randn(3, 1, SIZE, SIZE)
    one_by_one = torch.cat([like_the_paper(image[None]) for image in images])
    assert torch.allclose(network(images), one_by_one, atol=1e-5)
    assert not torch.allclose(like_the_paper(images), one_by_one, atol=1e-3)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    # Every byte once: the share that is dropped is exact.
    values = torch.arange(258).clamp_max(255).reshape(-1, 3)
    words = (values << (8 * torch.arange(3))).sum(1)[None]
    for rate, dropped in ((0.5, 128), (0.25, 64), (0.0, 0)):
        found = scales(words, 256, rate)
        assert (found == 0).sum() == dropped
        assert found.mean().item() == pytest.approx(1.0)
    assert scales(words, 7, 0.5).shape == (1, 7)


def test_dropout_is_in_the_first_three_layers_of_the_decoder_and_nowhere_else() -> None:
    network = UNet(1, 3, 64, width=2, rate=0.5)
    assert network._dropped == [(16, 2, 2), (16, 4, 4), (8, 8, 8)]
    assert len(network.up) == 5
    nothing = torch.full((1, words_for(network.dropped_units)), 0)  # every unit is dropped
    everything = torch.full_like(nothing, (1 << 24) - 1)  # none is, all are doubled
    seen: list[Tensor] = []
    for layer in [*network.up, network.output]:
        layer.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    network(torch.randn(1, 1, 64, 64), nothing)
    own_halves = [given[:, : given.shape[1] // 2] for given in seen[1:]]
    assert [bool((half == 0).all()) for half in own_halves] == [True, True, True, False, False]
    with pytest.raises(ValueError, match="needs the words"):
        network(torch.randn(1, 1, 64, 64))
    assert not torch.equal(
        network(torch.ones(1, 1, 64, 64), everything), network(torch.ones(1, 1, 64, 64), nothing)
    )


def test_a_sample_is_a_function_of_its_number_and_dropout_is_on() -> None:
    sampler = game_of(tiny()).sampler()
    both = sampler(torch.tensor([0, 5]))["image"]  # five inputs: both are of the first
    assert (both[0] - both[1]).abs().max() > 1e-4
    assert torch.allclose(sampler(torch.tensor([5]))["image"][0], both[1], atol=1e-6)
    many = sampler(torch.arange(130))["image"]  # more than are translated at once
    assert torch.allclose(many[5], both[1], atol=1e-6)
    plain = game_of(tiny(dropout=0)).sampler()(torch.tensor([0, 5]))["image"]
    assert torch.allclose(plain[0], plain[1], atol=1e-6)


def batch_of(variant: Pix2Pix, game: Game) -> Batch:
    assert game._shared_stream is not None
    return game._shared_stream.next()


def test_the_objectives_are_those_of_the_paper() -> None:
    variant = tiny(enlarged=SIZE, flip=False)
    batch = batch_of(variant, game_of(variant))
    loss = variant.generator_loss(batch)
    fake = variant.generator(batch["input"], batch["dropout"])
    logits = variant.discriminator(torch.cat((batch["input"], fake), 1))
    expected = -F.logsigmoid(logits).mean() + 100 * (fake - batch["image"]).abs().mean()
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(loss.carry["fake"], fake)
    # The discriminator judges what is carried, with the inputs that it was made from.
    found = variant.discriminator_loss(batch | loss.carry).total
    real = variant.discriminator(torch.cat((batch["input"], batch["image"]), 1))
    by_hand = -F.logsigmoid(real).mean() - F.logsigmoid(-logits).mean()
    assert found.item() == pytest.approx(0.5 * by_hand.item(), rel=1e-5)


def test_every_patch_is_judged_by_itself() -> None:
    variant = tiny()
    maps = torch.full((2, 1, 2, 2), -1.0)
    maps[:, :, 0, 0] = 9.0  # one patch of four, that alone would turn the mean
    judged = variant.judged(maps, -maps)
    assert (judged["real"] > 0).float().mean() == 0.25
    assert (judged["fake"] < 0).float().mean() == 0.25
    torch.testing.assert_close(judged["slope"], 1 - torch.sigmoid(-maps).flatten(1))


@torch.no_grad()
def test_the_judge_is_asked_about_pairs() -> None:
    variant = tiny(dropout=0.0).eval()
    given, image = torch.rand(5, 1, SIZE, SIZE) * 2 - 1, torch.rand(5, 3, SIZE, SIZE) * 2 - 1
    judged = variant.judge({"input": given, "image": image})
    made = variant.generator(given, None)
    for name, pictures in {"real": image, "fake": made}.items():
        expected = variant.discriminator(torch.cat((given, pictures), dim=1))
        torch.testing.assert_close(judged[name], expected.flatten(1))
    assert tiny(adversarial=0).judge({"input": given, "image": image}) == {}


def test_both_pictures_of_a_pair_are_cropped_and_mirrored_alike() -> None:
    variant = tiny()
    assert variant.recipe.enlarged == 18
    batch = batch_of(variant, game_of(variant))
    batch["image"] = batch["input"].expand(-1, 3, -1, -1)
    carry = variant.generator_loss(batch).carry
    assert torch.equal(carry["image"], carry["input"].expand(-1, 3, -1, -1))
    assert not torch.equal(carry["input"], batch["input"])


def test_without_the_adversarial_term_there_is_no_discriminator() -> None:
    variant = tiny(adversarial=0)
    (player,) = variant.stages()[0].players
    assert player.name == "generator"
    assert not hasattr(variant, "discriminator")
    game = game_of(variant)
    game.play(2)
    assert set(game.take_diagnostics()) == {"loss/l1", "loss/generator"}


@pytest.mark.parametrize(("adversarial", "alone"), [(0.0, {0}), (1.0, set())])
def test_a_run_knows_whether_the_generator_has_an_opponent(
    adversarial: float, alone: set[int]
) -> None:
    game = game_of(tiny(adversarial=adversarial))
    config = make_config({"variant": "pix2pix", "data": "pairs"})
    assert diagnosed_facts(config, game).unopposed == alone
    assert start_info(config, game)["unopposed"] == sorted(alone)


def test_a_resumed_game_is_the_same_game() -> None:
    whole = game_of(tiny())
    whole.play(6)
    first = game_of(tiny())
    first.play(3)
    second = game_of(tiny())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    torch.manual_seed(999)  # nothing is drawn from the global state
    second.play(3)
    own, other = whole.variant.state_dict(), second.variant.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_figures_compare_with_the_truth_and_with_the_input() -> None:
    variant = tiny()
    truth = torch.rand(3, 3, SIZE, SIZE) * 2 - 1
    given = torch.rand(3, 3, SIZE, SIZE) * 2 - 1
    figures = variant.figures(
        "train", {"image": truth * 0.5}, {"image": truth, "input": given[:, :1]}
    )
    assert set(figures) == {"l1", "ssim"}  # a gray input is no translation of a coloured one
    assert figures["l1"] == pytest.approx((truth / 2).abs().mean().item(), rel=1e-5)
    figures = variant.figures("train", {"image": truth}, {"image": truth, "input": given})
    assert figures["l1_input"] == pytest.approx((truth - given).abs().mean().item(), rel=1e-5)
    sheet = variant.picture("train", {"image": truth}, {"image": truth, "input": given[:, :1]})
    assert sheet is not None
    assert sheet.shape[0] == 3
