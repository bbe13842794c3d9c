"""The objectives that all systems of one generator and one discriminator share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import Batch, DataSpec, TensorSpec
from gan_core.data.loading import load_examples
from gan_core.engine.game import Game
from gan_core.errors import UserError
from gan_core.losses import LOSSES
from gan_core.options import parse
from gan_core.priors import Uniform
from gan_core.variant import VARIANTS, Variant, create
from gan_core.variants.adversarial import AdversarialOptions, decisions, default

LABELLED = DataSpec(
    {"image": TensorSpec((1, 16, 16), -1.0, 1.0), "label": TensorSpec((), classes=3)}
)
TINY: dict[str, dict[str, object]] = {
    "gan": {"hidden": 32, "maxout_units": 16, "dropout_input": 0, "dropout": 0, "latent": 8},
    "cgan": {"hidden": 32, "maxout_units": 16, "dropout_g": 0, "dropout_d": 0, "latent": 8},
    "dcgan": {"width": 8, "image_size": 16, "latent": 8},
}


def small(name: str, **options: object) -> Variant:
    return create(name, LABELLED, TINY[name] | options)


def batch(n: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(4)
    return {
        "image": torch.rand((n, 1, 16, 16), generator=generator) * 2 - 1,
        "label": torch.randint(3, (n,), generator=generator),
        "latent": torch.rand((n, 8), generator=generator) * 2 - 1,
        "mix": torch.rand(n, generator=generator),
    }


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("role", ["discriminator", "generator"])
def test_a_small_step_down_the_gradient_lowers_the_players_loss(
    name: str, loss: str, role: str
) -> None:
    variant = small(name, loss=loss, gradient_penalty=0).double()
    data = {n: t.double() if t.is_floating_point() else t for n, t in batch().items()}
    objective = getattr(variant, f"{role}_loss")
    before = objective(data).total
    parameters = list(getattr(variant, role).parameters())
    gradients = torch.autograd.grad(before, parameters)
    slope = sum(g.square().sum() for g in gradients)
    with torch.no_grad():
        step = 1e-6
        torch._foreach_sub_(parameters, gradients, alpha=step)
    # The gradient is the right one only if the loss falls by what it promises.
    assert (before - objective(data).total).item() == pytest.approx(float(step * slope), rel=0.02)


def test_an_undecided_discriminator_has_the_known_figures() -> None:
    variant = small("gan")
    with torch.no_grad():
        for parameter in variant.discriminator.parameters():
            parameter.zero_()
    diagnostics = variant.discriminator_loss(batch()).diagnostics
    assert diagnostics["loss/discriminator"].item() == pytest.approx(2 * math.log(2))
    assert diagnostics["prob/real"].item() == 0.5
    assert diagnostics["prob/fake"].item() == 0.5
    assert diagnostics["accuracy/batch"].item() == 0
    loss = variant.generator_loss(batch()).diagnostics["loss/generator"]
    assert loss.item() == pytest.approx(math.log(2))


def test_diagnostics_equal_their_definitions() -> None:
    variant, data = small("cgan"), batch()
    with torch.no_grad():
        variant.discriminator.output.weight.mul_(3e4)
        variant.discriminator.output.bias.fill_(-0.1)
        real = variant.discriminate(data["image"], data)
        fake = variant.discriminate(variant.generate(data), data)
    diagnostics = variant.discriminator_loss(data).diagnostics
    assert set(diagnostics) == {"loss/discriminator", "prob/real", "prob/fake", "accuracy/batch"}
    right = [*(real > 0).tolist(), *(fake < 0).tolist()]
    assert 0 < sum(right) < len(right)
    assert diagnostics["accuracy/batch"].item() == pytest.approx(sum(right) / len(right))
    assert diagnostics["prob/real"].item() == pytest.approx(torch.sigmoid(real).mean().item())
    assert diagnostics["prob/fake"].item() == pytest.approx(torch.sigmoid(fake).mean().item())


def test_one_pass_over_real_and_fake_is_two_passes() -> None:
    together, apart, data = small("cgan"), small("cgan"), batch()
    apart.one_pass = False  # type: ignore[assignment]
    torch.testing.assert_close(
        together.discriminator_loss(data).total, apart.discriminator_loss(data).total
    )


def test_the_least_squares_boundary_is_one_half() -> None:
    variant, data = small("gan", loss="least-squares"), batch()
    with torch.no_grad():
        for parameter in variant.discriminator.parameters():
            parameter.zero_()
        variant.discriminator.layers[-1].bias.fill_(0.5)
    diagnostics = variant.discriminator_loss(data).diagnostics
    assert diagnostics["prob/real"].item() == 0.5
    assert variant.judge(data)["real"].tolist() == [0.0] * 16


def test_a_critic_s_values_mean_something_against_each_other_alone() -> None:
    variant = small("gan", loss="wasserstein").double()
    data = {n: t.double() if t.is_floating_point() else t for n, t in batch().items()}
    named = []
    for shift in (0.0, 50.0):
        with torch.no_grad():
            variant.discriminator.layers[-1].bias.fill_(shift)
            judged = variant.judge(data)
        assert (judged["real"].mean() + judged["fake"].mean()).item() == pytest.approx(0, abs=1e-4)
        named.append(variant.discriminator_loss(data).diagnostics)
    for name in ("prob/real", "prob/fake", "accuracy/batch"):
        torch.testing.assert_close(*(found[name] for found in named), rtol=1e-4, atol=1e-5)
    assert named[1]["prob/fake"] < 0.6


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic"])
def test_decisions_are_about_the_middle_between_both_means(loss: str) -> None:
    real, fake = torch.tensor([9.0, 5.0, 4.0]), torch.tensor([1.0, 7.0, 2.0])
    middle = (18 / 3 + 10 / 3) / 2
    found = decisions(LOSSES[loss], real, fake)
    assert found["prob/real"].item() == pytest.approx(torch.sigmoid(real - middle).mean().item())
    assert found["prob/fake"].item() == pytest.approx(torch.sigmoid(fake - middle).mean().item())
    assert found["accuracy/batch"].item() == pytest.approx((2 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize("name", list(TINY))
def test_penalties_enter_the_loss_with_their_weights(name: str) -> None:
    variant = small(name, r1=3.0, gradient_penalty=7.0).eval()
    loss = variant.discriminator_loss(batch())
    named = loss.diagnostics
    expected = named["loss/discriminator"] + 3 * named["penalty/r1"] + 7 * named["penalty/gradient"]
    assert named["penalty/r1"] > 0
    assert named["penalty/gradient"] > 0
    torch.testing.assert_close(loss.total.detach(), expected)
    assert variant.stages()[0].players[0].second_order


PENALTIES = {"r1": 3.0, "r2": 5.0, "gradient_penalty": 7.0}


@pytest.mark.parametrize("name", list(TINY))
def test_penalties_of_every_nth_example_are_those_of_a_batch_of_these_alone(name: str) -> None:
    whole = small(name, **PENALTIES).double().eval()
    some = small(name, **PENALTIES, penalty_stride=3).double().eval()
    data = {n: t.double() if t.is_floating_point() else t for n, t in batch(12).items()}
    found = some.discriminator_loss(data)
    of_all = whole.discriminator_loss(data).diagnostics
    of_these = whole.discriminator_loss({n: t[::3] for n, t in data.items()}).diagnostics
    assert found.diagnostics["penalty/r1"] != of_all["penalty/r1"]
    expected = of_all["loss/discriminator"]
    for penalty, weight in {"r1": 3, "r2": 5, "gradient": 7}.items():
        term = found.diagnostics[f"penalty/{penalty}"]
        torch.testing.assert_close(term, of_these[f"penalty/{penalty}"], rtol=1e-12, atol=0)
        expected = expected + weight * term
    torch.testing.assert_close(found.total.detach(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gan", {}),
        ("cgan", {}),
        ("dcgan", {"norm_d": "layer"}),
        ("gan", {"packing": 3, "accumulate": 1}),
    ],
    ids=["gan", "cgan", "dcgan", "packs"],
)
def test_a_part_of_the_batch_gives_an_unbiased_estimate_of_a_penaltys_gradient(
    name: str, options: dict[str, object]
) -> None:
    penalties = PENALTIES | options

    def slopes(variant: Variant, data: Batch) -> list[Tensor]:
        total = variant.discriminator_loss(data).total
        return list(torch.autograd.grad(total, list(variant.discriminator.parameters())))

    double = {n: t.double() if t.is_floating_point() else t for n, t in batch(12).items()}
    estimates = []
    for offset in range(4):  # each example is in the part of one of four orders
        moved = {n: t.roll(offset * int(penalties.get("packing", 1)), 0) for n, t in double.items()}
        estimates.append(slopes(small(name, **penalties, penalty_stride=4).double(), moved))
    whole = slopes(small(name, **penalties).double(), double)
    for expected, *found in zip(whole, *estimates, strict=True):
        torch.testing.assert_close(torch.stack(found).mean(0), expected, rtol=1e-9, atol=1e-12)


def test_penalties_of_a_part_leave_the_running_statistics_to_real_and_generated_alike() -> None:
    plain, penalised = small("dcgan"), small("dcgan", r1=3.0, r2=5.0, penalty_stride=4)
    for variant in (plain, penalised):
        variant.discriminator_loss(batch())
    expected, found = (dict(v.discriminator.named_buffers()) for v in (plain, penalised))
    means = [name for name in expected if name.endswith(("running_mean", "running_var"))]
    assert means
    for name in means:
        assert torch.equal(found[name], expected[name])
    momenta = {m.momentum for m in penalised.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_batch_normalisation_wants_two_examples_under_a_penalty_of_a_part() -> None:
    small("dcgan", r1=1.0, penalty_stride=8).check_share(16)
    small("dcgan", penalty_stride=16).check_share(16)  # no penalty
    small("dcgan", r1=1.0, penalty_stride=16, norm_d="layer").check_share(16)
    with pytest.raises(UserError, match="--penalty-stride 16 leaves 1 of a worker's examples"):
        small("dcgan", r1=1.0, penalty_stride=16).check_share(16)


def test_nobody_is_advised_to_use_what_is_refused() -> None:
    assert small("cgan").refused_options() == {"packing"}
    assert small("dcgan").refused_options() == frozenset()
    with pytest.raises(UserError, match="--packing"):
        small("cgan", packing=2)
    assert small("gan").refused_options() == frozenset()
    ring = load_examples("ring", None, "train").spec
    points = create("gan", ring, {"hidden": 4, "maxout_units": 4})
    assert points.refused_options() == {"diffaug"}
    with pytest.raises(UserError, match="--diffaug is for pictures"):
        create("gan", ring, {"diffaug": "color"})
    assert small("dcgan", r1=1.0).refused_options() == {"unrolled"}
    assert small("dcgan", unrolled=1).refused_options() == {"r1", "r2"}
    assert small("dcgan", r1=1.0, norm_d="layer").refused_options() == frozenset()
    midinet = VARIANTS["midinet"]
    assert midinet(midinet.Options()).refused_options() >= {"diffaug", "packing"}


def test_the_mixing_numbers_are_drawn_only_for_the_gradient_penalty() -> None:
    with_penalty = small("gan", loss="wasserstein").noise("train")
    assert [(n.name, n.shape, n.read_by("generator")) for n in with_penalty] == [
        ("latent", (8,), True),
        ("mix", (), False),
    ]
    assert with_penalty[1].prior == Uniform(0.0, 1.0)  # between real and generated, not beyond
    assert [n.name for n in small("gan").noise("train")] == ["latent"]


def test_the_discriminators_turn_builds_no_graph_through_the_generator() -> None:
    variant = small("dcgan")
    variant.discriminator_loss(batch()).total.backward()
    assert all(parameter.grad is None for parameter in variant.generator.parameters())


def test_rates_fall_linearly_to_the_share_that_was_asked_for() -> None:
    given = {"steps": 100, "k": 4, "lr_decay_to": 0.2, "lr_g": 1e-3, "lr_d": 2e-3}
    discriminator, generator = small("dcgan", **given).stages()[0].players
    for spec in (discriminator.optimizer, generator.optimizer):
        rates = [spec.annealing(iterations) for iterations in (0, 50, 100, 300)]
        assert rates == pytest.approx([1, 0.6, 0.2, 0.2])
    assert generator.optimizer.learning_rate == 1e-3
    falling = {"lr_decay": 1.01, "lr_decay_to": 0.5, "steps": 10, "optimizer": "adam"}
    spec = small("gan", **falling).stages()[0].players[1].optimizer
    assert (spec.rate(10), spec.annealing(10)) == (pytest.approx(1.01**-10), pytest.approx(0.5))


def game_of(**options: object) -> Game:
    """A tiny GAN's game on the ring."""
    ring = load_examples("ring", None, "train")
    return Game(create("gan", ring.spec, TINY["gan"] | options), ring, ring, batch_size=8)


def rates_of(game: Game, iterations: int) -> list[list[float]]:
    """D's and G's rates after each of so many iterations, as shares of the first."""
    found = []
    for _ in range(iterations):
        game.iterate()
        rates = [float(seat.optimizer.param_groups[0]["lr"]) for seat in game.seats]
        initial = [player.optimizer.learning_rate for player in game.stage.players]
        found.append([rate / first for rate, first in zip(rates, initial, strict=True)])
    return found


def test_another_k_on_the_way_leaves_the_fall_of_the_rates_in_its_place() -> None:
    words = {"steps": 10, "lr_decay_to": 0.0, "lr_decay": 1.0}
    for first, then in ((4, 1), (1, 4)):
        # The last of D's turns in an iteration is (k - 1) / k of it later than G's.
        expected = [[1 - (i + (first - 1) / first) / 10, 1 - i / 10] for i in range(5)]
        expected += [[1 - (i + (then - 1) / then) / 10, 1 - i / 10] for i in range(5, 10)]
        before, live = (game_of(**words, k=first) for _ in range(2))
        assert np.allclose(rates_of(before, 5), expected[:5])
        resumed = game_of(**words, k=then)
        resumed.load_state_dict(before.state_dict())
        assert np.allclose(rates_of(resumed, 5), expected[5:])
        live.play(5)
        live.set_turns("discriminator", then)
        assert np.allclose(rates_of(live, 5), expected[5:])


def test_real_and_fake_are_augmented_in_both_turns_by_numbers_of_their_own() -> None:
    variant = small("dcgan", diffaug="flip")
    specs = {n.name: n for n in variant.noise("train")}
    assert {n: specs[n].players for n in specs} == {
        "latent": (),
        "augment_real": ("discriminator",),
        "augment_fake": ("discriminator", "generator"),
    }
    data = batch()
    keep, turn = torch.zeros(16, 1), torch.ones(16, 1)
    for real, fake in ((keep, turn), (turn, keep), (turn, turn)):
        given = data | {"augment_real": real, "augment_fake": fake}
        flipped = variant.real_targets(given)
        expected = data["image"].flip(3) if real is turn else data["image"]
        assert torch.equal(flipped, expected)
        with torch.no_grad():
            made, seen = variant.generate(given), variant.fake_targets(given)
        assert torch.equal(seen, made.flip(3) if fake is turn else made)
    both = [
        variant.generator_loss(data | {"augment_fake": numbers}).total for numbers in (keep, turn)
    ]
    assert both[0] != both[1]
    assert torch.equal(variant.judge(data)["real"], small("dcgan").judge(data)["real"])


def test_points_have_nothing_to_augment() -> None:
    with pytest.raises(UserError, match="--diffaug is for pictures, this source has point data"):
        create("gan", DataSpec({"point": TensorSpec((2,))}, "point"), {"diffaug": "color"})


@pytest.mark.parametrize(("norm", "one_pass"), [("batch", False), ("layer", True), ("none", True)])
def test_batch_statistics_decide_whether_real_and_fake_may_go_together(
    norm: str, one_pass: bool
) -> None:
    assert small("dcgan", norm_d=norm).one_pass == one_pass


def test_the_size_and_the_parts_of_batches_reach_the_players() -> None:
    players = small("gan", accumulate=4, batch_scale_g=2).stages()[0].players
    assert [(p.accumulate, p.batch_scale) for p in players] == [(4, 1), (4, 2)]


def test_a_papers_default_keeps_the_options_help_and_bounds() -> None:
    field = default("lr_d", 0.3)
    assert field.default == 0.3
    assert field.metadata is not None
    assert field.metadata["bounds"]["above"] == 0
    assert parse(AdversarialOptions, {}).lr_d == 2e-4
