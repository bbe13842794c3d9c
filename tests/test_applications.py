"""The two applications among the benchmarks: pictures to tags, and a discriminator's features."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import dcgan_features, picture_tags, stackgan
from benchmarks.dcgan_features import pooled_features, svm_accuracy, untrained_state
from benchmarks.picture_tags import NEAREST, TAGS, most_frequent, precision, read_tags, vote
from gan_core.config import make_config
from gan_core.data.examples import DataSpec, TensorSpec, to_unit_range
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import Observer
from gan_core.run import Run
from gan_core.variants.dcgan import DCGANOptions, Discriminator

# -- tags ------------------------------------------------------------------------------------------


def test_a_vote_is_that_of_each_samples_nearest_tags() -> None:
    generator = torch.Generator().manual_seed(0)
    vocabulary = torch.randn(60, 5, generator=generator)
    samples = torch.randn(30, 5, generator=generator)
    votes = [0] * 60
    for sample in samples:
        cosines = F.cosine_similarity(sample[None], vocabulary)
        for tag in sorted(range(60), key=lambda t: -cosines[t].item())[:NEAREST]:
            votes[tag] += 1
    chosen = vote(samples, vocabulary)
    assert len(set(chosen)) == TAGS
    least = min(votes[tag] for tag in chosen)
    assert all(votes[tag] <= least for tag in range(60) if tag not in chosen)
    assert [votes[tag] for tag in chosen] == sorted((votes[t] for t in chosen), reverse=True)
    assert vote(samples, vocabulary) == chosen  # nothing is drawn
    assert vote(samples[torch.randperm(30, generator=generator)], 3 * vocabulary) == chosen


def test_equal_votes_go_to_the_nearer_tag() -> None:
    vocabulary = F.normalize(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    # All 12 are among every sample's nearest 20, so that only the cosines decide.
    sample = vocabulary[4:5]
    order = (sample @ vocabulary.t())[0].argsort(descending=True).tolist()
    assert vote(sample, vocabulary) == order[:TAGS]


def test_precision_and_the_baseline_are_counts() -> None:
    assert precision([[1, 2, 3, 4]], [{2, 4, 9}]) == 0.5
    assert precision([[1, 2], [3, 4]], [{1, 2, 5}, set()]) == 0.5
    places = [(0, 3), (1, 3), (2, 3), (0, 1), (1, 1), (2, 7)]
    assert most_frequent(places, 20)[:4] == [3, 1, 7, 0]


def test_tags_are_read_once_each_and_mistakes_are_named(tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text('file_name,tags\nb.png,"Red, heart ,red,"\na.png,\nc.png,x\n')
    assert read_tags(table, "file_name", "tags") == {"b.png": ["red", "heart"], "c.png": ["x"]}
    with pytest.raises(UserError, match="has no column 'labels'"):
        read_tags(table, "file_name", "labels")


def test_the_layers_are_those_of_the_paper() -> None:
    specs = {"tag": TensorSpec((200,)), "picture": TensorSpec((4096,))}
    arguments = argparse.Namespace(share=1.0, steps=1, set=[])
    variant = picture_tags.build(DataSpec(specs, "tag"), arguments, seed=0)
    made, judge = variant.generator, variant.discriminator
    assert made.from_latent.weight.shape == (500, 100)  # type: ignore[union-attr]
    assert made.from_picture.weight.shape == (2000, 4096)  # type: ignore[union-attr]
    assert made.output.weight.shape == (200, 2500)  # type: ignore[union-attr]
    assert judge.from_tag.weight.shape == (500, 200)  # type: ignore[union-attr]
    assert judge.from_picture.weight.shape == (1200, 4096)  # type: ignore[union-attr]
    assert judge.joint.linear.weight.shape == (3000, 1700)  # type: ignore[union-attr]


def test_the_game_learns_which_tags_go_with_a_picture() -> None:
    """Four kinds of pictures, each with ten tags of its own among forty."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = torch.randn(40, 16, generator=generator)
    vocabulary += 3 * F.one_hot(torch.arange(40) // 10, 16)
    kinds = torch.arange(80) % 4
    features = 2.0 * F.one_hot(kinds, 6) + 0.2 * torch.randn(80, 6, generator=generator)
    places = [(p, int(kinds[p]) * 10 + t) for p in range(80) for t in range(10)]
    examples = picture_tags.tag_examples(features, places, vocabulary)
    arguments = argparse.Namespace(share=0.06, steps=500, set=["batch_size=64", "lr_g=2e-3",
                                                               "lr_d=2e-3"])  # fmt: skip
    variant = picture_tags.build(examples.spec, arguments, seed=0)
    game = Game(variant, examples, examples, batch_size=64, seed=0)
    game.play(500)
    chosen = picture_tags.choose(game, features[:8], vocabulary, seed=0)
    true = [set(range(int(k) * 10, int(k) * 10 + 10)) for k in kinds[:8]]
    frequent = most_frequent(places, 40)
    assert precision([frequent] * 8, true) == 0.25
    assert precision(chosen, true) > 0.6
    assert picture_tags.choose(game, features[:8], vocabulary, seed=0) == chosen


# -- texts -----------------------------------------------------------------------------------------


def test_each_pair_of_pictures_stands_over_its_caption() -> None:
    real = torch.randint(0, 250, (3, 3, 60, 60)).to(torch.uint8)
    made = torch.randint(0, 250, (3, 3, 60, 60)).to(torch.uint8)
    pairs = list(zip(real, made, strict=True))
    sheet = stackgan.draw_captions(pairs, ["a", "", "long " * 20], columns=2)
    for place, (left, top) in enumerate(((4, 4), (68, 4), (4, 4 + sheet.shape[1] // 2))):
        assert torch.equal(sheet[:, top : top + 60, left : left + 60], real[place])
        assert torch.equal(sheet[:, top + 64 : top + 124, left : left + 60], made[place])
        below = sheet[:, top + 124 : top + 124 + 40, left : left + 60]
        assert bool((below < 128).any()) == (place != 1)  # a letter, unless there is no caption


# -- features --------------------------------------------------------------------------------------


def test_all_layers_are_pooled_to_four_by_four() -> None:
    spec = DataSpec({"image": TensorSpec((3, 32, 32), -1.0, 1.0)})
    judge = Discriminator(DCGANOptions(width=3), spec).eval()
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = pooled_features(judge, images)
    assert found.shape == (5, 16 * (3 + 6 + 12))
    first = F.leaky_relu(judge.layers[0](images), 0.2)  # 16 x 16 places
    pooled = first.reshape(5, 3, 4, 4, 4, 4).amax((3, 5))
    assert torch.equal(found[:, :48], pooled.flatten(1))
    last = judge.layers(images)  # 4 x 4 places: nothing to pool
    assert torch.equal(found[:, -16 * 12 :], last.flatten(1))


def test_the_untrained_discriminator_has_seen_pictures_too() -> None:
    config = make_config({
        "variant": "dcgan", "data": "digits", "image_size": 16, "width": 4, "batch_size": 64,
        "steps": 1, "workers": 0, "device": "cpu", "extractor": "none", "evaluate_every": 0,
    })  # fmt: skip
    run = Run(config, World(), Observer())
    own = run.game.variant.discriminator
    assert isinstance(own, Discriminator)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    state = untrained_state(run)
    assert all(torch.equal(before[n], t) for n, t in own.state_dict().items())
    assert own.training  # the game begins as if nothing had been asked
    seen = run.game.stage.view.prepare(run.train.select(torch.arange(500))).tensors["image"]
    own.load_state_dict(state)
    own.eval().requires_grad_(False)
    normalised = own.layers[:4](to_unit_range(seen))  # to the first batch normalisation
    assert normalised.mean((0, 2, 3)).abs().max() < 0.2
    assert (normalised.std((0, 2, 3)) - 1).abs().max() < 0.2
    weights = {n for n, p in own.named_parameters()}
    assert all(torch.equal(before[n], state[n]) for n in weights)


def test_the_svm_separates_what_is_separable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcgan_features, "STRENGTHS", (1e-3, 1e-1))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    points = 4.0 * F.one_hot(labels, 5) + torch.randn(240, 5, generator=generator)
    made = [points[:180].numpy(), labels[:180], points[180:].numpy(), labels[180:]]
    found = svm_accuracy(*made)  # type: ignore[arg-type]
    assert found["accuracy"] > 0.9
    assert found["C"] in (1e-3, 1e-1)
    shuffled = labels[torch.randperm(240, generator=generator)]
    assert svm_accuracy(made[0], shuffled[:180], made[2], shuffled[180:])["accuracy"] < 0.6
