"""The signals at a logging point against references of their own."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from torch import nn

import gan_core.variants  # noqa: F401
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.diagnostics import signals
from gan_core.engine.game import Game
from gan_core.variant import create


def points(count: int, seed: int, spread: float = 1.0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    values = spread * torch.randn(count, 2, generator=generator)
    return Examples({"point": values}, DataSpec({"point": TensorSpec((2,))}, "point"), "toys")


def pictures(count: int = 40, seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator).to(torch.uint8)
    return Examples({"image": images}, DataSpec({"image": TensorSpec((1, 8, 8), -1, 1)}), "toys")


def game_of(train: Examples, held_out: Examples, variant: str = "gan", **options: object) -> Game:
    sizes = {
        "gan": {"latent": 3, "hidden": 8},
        "dcgan": {"latent": 3, "width": 2, "image_size": 16},
    }
    made = create(variant, train.spec, {**sizes[variant], **options}, 1)
    return Game(made, train, held_out, batch_size=min(10, len(train)), seed=1)


class Threshold(nn.Module):
    """A discriminator that calls real what lies right of ``edge``."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = nn.Parameter(torch.tensor(edge))

    def forward(self, target: torch.Tensor) -> torch.Tensor:
        return target[:, :1] - self.edge


class Constant(nn.Module):
    """A generator of points of which half are here and half there."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.stack((self.shift * latent[:, 0].sign(), 0 * latent[:, 1]), 1)


def test_norms_are_those_of_all_weights_as_one_vector() -> None:
    game = game_of(points(300, 0), points(300, 1))
    game.play(2)
    found = signals.norms(game)
    for seat in game.seats:
        name = seat.player.name
        weights = math.fsum(p.detach().double().square().sum().item() for p in seat.parameters)
        assert found[f"weight_norm/{name}"].item() == pytest.approx(weights**0.5, rel=1e-5)
        slopes = math.fsum(p.grad.double().square().sum().item() for p in seat.parameters)  # type: ignore[union-attr]
        assert found[f"grad_norm/{name}"].item() == pytest.approx(slopes**0.5, rel=1e-5)


def test_signals_are_read_from_the_device_together(monkeypatch: pytest.MonkeyPatch) -> None:
    game = game_of(points(300, 0), points(300, 1))
    game.play(2)
    game.take_diagnostics()
    reads: list[tuple[int, ...]] = []
    for name in ("cpu", "item", "tolist"):
        own = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, own: Any = own) -> Any:
            reads.append(tuple(tensor.shape))
            return own(tensor)

        monkeypatch.setattr(torch.Tensor, name, counted)
    found = signals.measure(game)
    assert reads == [(len(found),)]


def test_before_the_first_update_there_are_no_gradients() -> None:
    names = signals.norms(game_of(points(300, 0), points(300, 1)))
    assert set(names) == {"weight_norm/discriminator", "weight_norm/generator"}


def test_the_mean_distance_is_scipy_s() -> None:
    samples = torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = pdist(samples.flatten(1).double().numpy()).mean()
    assert signals.mean_pairwise_distance(samples).item() == pytest.approx(expected, rel=1e-9)


def test_diversity_is_a_ratio_of_mean_distances_and_zero_at_a_collapse() -> None:
    train = points(300, 0, spread=3.0)
    game = game_of(train, points(300, 1))
    game.variant.generator = Constant(1.0)  # type: ignore[assignment]
    fake = game.sampler(averaged=False)(torch.arange(signals.COMPARED))["point"]
    real = game.examples_for_judgement(signals.COMPARED, held_out=False)["point"]
    expected = pdist(fake.double().numpy()).mean() / pdist(real.double().numpy()).mean()
    assert signals.diversity(game, {})["diversity"].item() == pytest.approx(expected, rel=1e-9)
    game.variant.generator = Constant(0.0)  # type: ignore[assignment]
    assert signals.diversity(game, {})["diversity"].item() == 0.0


def test_one_sample_is_not_compared_with_others() -> None:
    game = game_of(points(300, 0), points(1, 1))
    game.variant.asks_held_out = True
    memory: signals.Memory = {}
    assert signals.diversity(game, memory) == {}
    assert all(math.isfinite(value) for value in signals.measure(game, memory).values())


def test_of_one_example_to_learn_from_nothing_is_a_share() -> None:
    assert signals.diversity(game_of(points(1, 0), points(300, 1)), {}) == {}


def test_examples_to_judge_go_on_from_a_start_and_begin_again_at_the_end() -> None:
    game = game_of(points(50, 0), points(30, 1))
    whole = game.examples_for_judgement(50, held_out=False)["point"]
    assert len(whole.unique(dim=0)) == 50
    later = game.examples_for_judgement(20, held_out=False, start=140)["point"]
    assert torch.equal(later, torch.cat((whole[40:], whole[:10])))


def test_accuracies_are_shares_of_right_decisions_on_each_kind() -> None:
    train, held_out = points(300, 0), points(500, 1)
    held_out.tensors["point"].add_(0.5)
    game = game_of(train, held_out)
    game.variant.discriminator = Threshold(0.3)  # type: ignore[assignment]
    game.variant.generator = Constant(1.0)  # type: ignore[assignment]
    found = {name: value.item() for name, value in signals.judgement(game).items()}
    for name, which in (("train", False), ("held_out", True)):
        seen = signals.judged_examples(game, which)["point"]
        assert len(seen) == signals.JUDGED
        whole = (held_out if which else train).tensors["point"]
        assert all((row == whole).all(1).any() for row in seen)
        assert found[f"accuracy/{name}"] == pytest.approx((seen[:, 0] > 0.3).float().mean().item())
    assert found["accuracy/held_out"] > found["accuracy/train"] + 0.05
    game.variant.generator = Constant(0.1)  # type: ignore[assignment]
    assert signals.judgement(game)["accuracy/fake"].item() == 1.0  # all left of the edge
    assert 0.3 < found["accuracy/fake"] < 0.7  # half of them right of it


def test_examples_are_judged_by_the_statistics_of_their_own_batch() -> None:
    game = game_of(pictures(), pictures(30, 1), "dcgan")
    game.play(2)
    batch = game.examples_for_judgement(20, held_out=True)
    batch["latent"] = torch.linspace(-1, 1, 60).reshape(20, 3)
    with torch.no_grad():
        before = signals.judging_copy(game).judge(batch)
        for name, buffer in game.variant.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(5.0)  # what a batch's own mean does not know of
        after = signals.judging_copy(game).judge(batch)
    assert torch.equal(before["real"], after["real"])
    assert torch.equal(before["fake"], after["fake"])


def test_a_copy_that_shares_weights_sees_the_same_and_owns_its_buffers() -> None:
    game = game_of(pictures(), pictures(30, 1), "dcgan")
    game.play(2)
    batch = game.examples_for_judgement(20, held_out=True)
    batch["latent"] = torch.linspace(-1, 1, 60).reshape(20, 3)
    before = {n: t.clone() for n, t in game.variant.state_dict().items()}
    modes = [
        (m.training, [p.requires_grad for p in m.parameters()]) for m in game.variant.modules()
    ]
    whole, shared = (signals.judging_copy(game, share_weights=s) for s in (False, True))
    with torch.no_grad():
        for name, seen in shared.judge(batch).items():
            assert torch.equal(seen, whole.judge(batch)[name])
    network, copied = game.variant.discriminator, shared.discriminator
    for mine, its in zip(network.parameters(), copied.parameters(), strict=True):  # type: ignore[union-attr]
        assert mine.data_ptr() == its.data_ptr()
        assert not its.requires_grad
    assert modes == [
        (m.training, [p.requires_grad for p in m.parameters()]) for m in game.variant.modules()
    ]
    for name, value in game.variant.state_dict().items():  # the copy's buffers have moved
        assert torch.equal(value, before[name]), name
    means = [
        next(b for n, b in d.named_buffers() if n.endswith("running_mean"))  # type: ignore[union-attr]
        for d in (network, copied)
    ]
    assert not torch.equal(*means)


def test_others_are_judged_at_each_step_and_the_same_ones_at_a_second_look() -> None:
    game = game_of(points(3000, 0), points(3000, 1))
    for held_out in (False, True):
        first = signals.judged_examples(game, held_out)["point"]
        assert torch.equal(signals.judged_examples(game, held_out)["point"], first)
        game.play(1)
        later = signals.judged_examples(game, held_out)["point"]
        assert len(torch.cat((first, later)).unique(dim=0)) > 1.5 * signals.JUDGED


def test_samples_like_the_examples_are_as_far_from_their_nearest_where_there_are_few() -> None:
    ratios = []
    for seed in range(20):
        game = game_of(points(12, seed), points(300, 100 + seed))
        game.variant.generator = torch.nn.Linear(3, 2, bias=False)
        game.variant.generator.weight.data = torch.eye(2, 3)  # as the examples are
        ratios.append(signals.diversity(game, {})["neighbour_distance"].item())
    assert statistics.mean(ratios) == pytest.approx(1.0, abs=0.15)  # among 48 samples 0.5


def test_a_small_split_is_judged_whole() -> None:
    game = game_of(points(30, 0), points(12, 1))
    assert len(game.examples_for_judgement(signals.JUDGED, held_out=True)["point"]) == 12
    assert 0 <= signals.judgement(game)["accuracy/held_out"].item() <= 1


@pytest.mark.parametrize("variant", ["gan", "dcgan"])
def test_all_signals_are_finite_numbers_that_do_not_move_by_looking(variant: str) -> None:
    game = game_of(pictures(), pictures(30, 1), variant)
    game.play(3)
    first = signals.measure(game)
    second = signals.measure(game)
    reported = {n for n in first if n.startswith(("loss/", "prob/")) or n == "accuracy/batch"}
    losses = {"loss/discriminator", "loss/generator"}
    assert reported == {*losses, "prob/real", "prob/fake", "accuracy/batch"}
    assert set(first) - set(second) == reported  # told once, by the time since the last look
    assert all(math.isfinite(value) for value in first.values())
    assert {n: first[n] for n in second} == second


def test_what_objectives_report_is_averaged_over_the_time_since_the_last_look() -> None:
    game, stepwise = (game_of(points(300, 0), points(300, 1), k=2) for _ in range(2))
    game.play(4)
    rows = []
    for _ in range(4):
        stepwise.play(1)
        rows.append(stepwise.take_diagnostics())
    for name, value in game.take_diagnostics().items():
        assert value == pytest.approx(sum(row[name] for row in rows) / 4, rel=1e-5)
    assert game.take_diagnostics() == {}


def test_the_distance_to_the_nearest_other_sample_is_brute_forces() -> None:
    samples = torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(0))
    distances = squareform(pdist(samples.flatten(1).double().numpy()))
    expected = np.mean([np.sort(row)[1] for row in distances])
    found = signals.mean_nearest_distance(samples).item()
    assert found == pytest.approx(expected, rel=1e-6)
    assert signals.mean_nearest_distance(samples.repeat(2, 1, 1)).item() < 1e-6


def test_movement_is_how_far_samples_went_since_the_last_look() -> None:
    train = points(300, 0)
    game, memory = game_of(train, points(300, 1)), {}
    game.variant.generator = Constant(1.0)  # type: ignore[assignment]
    assert "movement" not in signals.diversity(game, memory)
    assert signals.diversity(game, memory)["movement"].item() == 0.0
    game.variant.generator = Constant(1.5)  # type: ignore[assignment]
    real = game.examples_for_judgement(signals.COMPARED, held_out=False)["point"]
    expected = 0.5 / pdist(real.double().numpy()).mean()
    assert signals.diversity(game, memory)["movement"].item() == pytest.approx(expected, rel=1e-6)
    assert signals.diversity(game, memory)["movement"].item() == 0.0


def test_slopes_are_those_of_both_losses_at_the_logits() -> None:
    for loss in ("minimax", "non-saturating"):
        game = game_of(points(300, 0), points(300, 1), loss=loss)
        game.play(2)
        found = signals.judgement(game)
        own = found["slope/minimax" if loss == "minimax" else "slope/non_saturating"]
        assert found["slope/generator"].item() == pytest.approx(own.item(), rel=1e-5)
        assert (found["slope/minimax"] + found["slope/non_saturating"]).item() == 1.0


def test_what_is_seen_in_training_examples_alone_is_overfitting() -> None:
    train, held_out = points(300, 0), points(500, 1)
    train.tensors["point"].add_(4.0)
    game = game_of(train, held_out)
    game.variant.discriminator = Threshold(0.0)  # type: ignore[assignment]
    game.variant.generator = Constant(0.0)  # type: ignore[assignment]
    seen = [signals.judged_examples(game, h)["point"][:, 0] for h in (False, True)]
    expected = (seen[0].mean() - seen[1].mean()) / seen[0].mean()
    found = signals.judgement(game)["overfitting/rv"].item()
    assert found == pytest.approx(expected.item(), rel=1e-5)
    game.variant.generator = Constant(0.0)  # type: ignore[assignment]
    game.variant.discriminator = Threshold(0.0)  # type: ignore[assignment]
    game.variant.discriminator.forward = lambda target: -target[:, :1]  # type: ignore[method-assign,union-attr]
    assert signals.judgement(game)["overfitting/rv"].item() == 0.0  # fakes rank higher


def test_a_discriminator_that_says_one_thing_has_learned_nothing_by_heart() -> None:
    game = game_of(points(300, 0), points(500, 1))
    game.variant.discriminator = Threshold(0.0)  # type: ignore[assignment]
    game.variant.discriminator.forward = lambda target: 0 * target[:, :1]  # type: ignore[method-assign,union-attr]
    assert signals.judgement(game)["overfitting/rv"].item() == 0.0


def test_a_critic_that_is_sure_of_all_is_so_wherever_its_zero_lies() -> None:
    train, held_out = points(300, 0), points(500, 1)
    train.tensors["point"].add_(8.0)
    game = game_of(train, held_out, loss="wasserstein")
    game.variant.generator = Constant(0.0)  # type: ignore[assignment]
    for edge in (0.0, 100.0, -100.0):
        game.variant.discriminator = Threshold(edge)  # type: ignore[assignment]
        found = {name: value.item() for name, value in signals.judgement(game).items()}
        assert (found["accuracy/train"], found["accuracy/fake"]) == (1.0, 1.0), edge
        assert found["accuracy/held_out"] < 0.2, edge
