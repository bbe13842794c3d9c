"""The matcher of pictures and texts, and what a picture prefers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.engine.world import World
from gan_core.metrics import retrieval
from gan_core.metrics.evaluation import Evaluator
from gan_core.metrics.features import Extractor
from gan_core.metrics.retrieval import (
    contrastive_loss,
    create_matcher,
    preference,
    train_matcher,
)

WORLD = World()
CLASSES = 6


class Pixels(Extractor):
    """The pixels themselves."""

    name = "mobilenet_v2"

    def __init__(self) -> None:
        super().__init__(nn.Identity(), {"weights": "none"}, torch.device("cpu"))

    @classmethod
    def create(cls, setup) -> Pixels:
        return cls()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return images.flatten(1), None


def pairs(count: int, seed: int, split: str = "train") -> Examples:
    """Pictures whose bright row is what both of their captions are about, with noise."""
    generator = torch.Generator().manual_seed(seed)
    topic = torch.arange(count) % CLASSES
    image = torch.randint(0, 80, (count, 1, CLASSES, 6), generator=generator)
    image[torch.arange(count), 0, topic] += 150
    text = 3 * nn.functional.one_hot(topic, 8).float()[:, None].repeat(1, 2, 1)
    text += 0.3 * torch.randn(text.shape, generator=generator)
    specs = {"image": TensorSpec((1, CLASSES, 6), -1.0, 1.0), "text": TensorSpec((2, 8))}
    tensors = {"image": image.to(torch.uint8), "text": text}
    return Examples(tensors, DataSpec(specs), "pairs", split)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_UPDATES", 60)


def test_the_preference_is_the_share_of_won_comparisons() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = torch.randint(0, 5, (9, 9), generator=generator).float()  # with ties
    texts = torch.randn(9, 3, generator=generator)
    texts[4] = texts[7]  # equal texts are not wrong for each other
    won = []
    for picture, text in itertools.permutations(range(9), 2):
        if {picture, text} != {4, 7}:
            right, wrong = cosines[picture, picture], cosines[picture, text]
            won.append(0.5 if right == wrong else float(right > wrong))
    assert preference(cosines, texts) == pytest.approx(sum(won) / len(won))


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_many_pictures_are_asked_in_parts(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(0, 2, (60, 5), generator=generator).float()  # many are equal
    cosines = torch.randint(0, 9, (60, 60), generator=generator).float()
    right = cosines.diagonal()[:, None]
    wrong = (texts[:, None] != texts[None]).any(dim=2)
    wins = (right > cosines).double() + 0.5 * (right == cosines).double()
    assert preference(cosines, texts) == float((wins * wrong).sum() / wrong.sum())
    assert math.isnan(preference(cosines, torch.ones(60, 5)))


def test_texts_are_compared_without_a_table_of_all_their_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, size = 300, 1000
    with torch.profiler.profile(profile_memory=True) as profile:
        preference(torch.eye(count), torch.arange(count)[:, None] / torch.ones(1, size))
    most = max(event.cpu_memory_usage for event in profile.events())
    assert most < count * count * size / 10  # bytes


def test_chance_is_a_half_and_the_ends_are_none_and_all() -> None:
    texts = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    assert preference(torch.eye(200), texts) == 1
    assert preference(-torch.eye(200), texts) == 0
    assert preference(torch.zeros(200, 200), texts) == 0.5
    cosines = torch.randn(200, 200, generator=torch.Generator().manual_seed(2))
    assert preference(cosines, texts) == pytest.approx(0.5, abs=4 * 0.29 / math.sqrt(200))
    assert math.isnan(preference(torch.zeros(2, 2), torch.ones(2, 3)))


def test_the_contrastive_loss_is_that_of_finding_the_partner_both_ways() -> None:
    assert contrastive_loss(torch.zeros(7, 7), torch.tensor(5.0)).item() == pytest.approx(
        math.log(7)
    )
    cosines = torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows = -torch.log_softmax(4 * cosines, 1).diagonal().mean()
    columns = -torch.log_softmax(4 * cosines, 0).diagonal().mean()
    found = contrastive_loss(cosines, torch.tensor(4.0, dtype=torch.float64))
    assert found.item() == pytest.approx(((rows + columns) / 2).item())
    assert torch.equal(contrastive_loss(cosines, torch.tensor(500.0)),
                       contrastive_loss(cosines, torch.tensor(100.0)))  # fmt: skip


def test_a_matcher_learns_which_text_goes_with_an_unseen_picture(tmp_path: Path) -> None:
    matcher = create_matcher(pairs(300, 0), Pixels(), WORLD, tmp_path)
    unseen = pairs(60, 1, "validation")
    features, _ = Pixels().features(unseen.tensors["image"] / 127.5 - 1)
    # A tenth of wrong texts is of the same class, where nothing but chance is to be had.
    assert matcher.preference(features, unseen.tensors["text"]) > 0.9
    shuffled = unseen.tensors["text"].roll(1, 0)
    assert matcher.preference(features, shuffled) < 0.6


def test_a_matcher_is_made_once_and_disturbs_no_random_state(tmp_path: Path, monkeypatch) -> None:
    train = pairs(60, 0)
    state = torch.random.get_rng_state()
    first = create_matcher(train, Pixels(), WORLD, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(p.requires_grad for p in first.network.parameters())
    again = create_matcher(train, Pixels(), WORLD, None)
    for one, two in zip(
        first.network.state_dict().values(), again.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)
    monkeypatch.setattr(retrieval, "train_matcher", None)
    kept = create_matcher(train, Pixels(), WORLD, tmp_path)
    assert torch.equal(kept.network.log_scale, first.network.log_scale)
    with pytest.raises(TypeError):
        create_matcher(pairs(60, 1), Pixels(), WORLD, tmp_path)


def test_the_evaluator_compares_generated_with_real_pictures(tmp_path: Path) -> None:
    train, held_out = pairs(300, 0), pairs(60, 1, "validation")
    matcher = create_matcher(train, Pixels(), WORLD, tmp_path)
    evaluator = Evaluator(
        reference=held_out, extractors=[Pixels()], samples=60, world=WORLD, cache=tmp_path,
        matcher=matcher,
    )  # fmt: skip
    images, texts = held_out.tensors["image"] / 127.5 - 1, held_out.tensors["text"]
    perfect = evaluator(lambda index: images[index], texts=texts)
    suffix = "_mobilenet_v2"
    own, real, excess = (f"retrieval{part}{suffix}" for part in ("", "_real", "_excess"))
    assert perfect.figures[own] == perfect.figures[real] > 0.9
    assert perfect.figures[excess] == 1
    blind = evaluator(lambda index: images[:1].expand(len(index), -1, -1, -1), texts=texts).figures
    assert blind[own] == pytest.approx(0.5, abs=0.02)  # one picture for all
    assert blind[excess] == pytest.approx((blind[own] - 0.5) / (blind[real] - 0.5))
    assert "300 training pictures" in perfect.protocol["retrieval"]
    assert "60 validation" in perfect.protocol["retrieval"]
    assert own not in evaluator(lambda index: images[index]).figures


def test_training_sees_single_captions_as_well() -> None:
    """A matcher of two captions that say different halves knows each of them alone."""
    examples = pairs(240, 0)
    topic = torch.arange(240) % CLASSES
    text = torch.zeros(240, 2, 8)
    text[:, 0, :4] = 3 * nn.functional.one_hot(topic // 2, 4).float()
    text[:, 1, 4:6] = 3 * nn.functional.one_hot(topic % 2, 2).float()
    features = (examples.tensors["image"] / 127.5 - 1).flatten(1)
    network = train_matcher(features, text, torch.device("cpu"))
    for single in (0, 1):
        alone = text[:60, single]
        assert preference(network(features[:60], alone), alone) > 0.9
