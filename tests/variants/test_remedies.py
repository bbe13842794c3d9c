"""Remedies against the failures of training, in the objectives of adversarial variants."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.digits import Digits
from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.layers.minibatch import pack
from gan_core.losses import smoothed_discriminator
from gan_core.priors import draw
from gan_core.variant import Variant, create
from gan_core.variants.gan import GAN

PICTURES = DataSpec({"image": TensorSpec((1, 16, 16), -1.0, 1.0)})
LABELLED = DataSpec({**PICTURES.tensors, "label": TensorSpec((), classes=3)})
POINTS = DataSpec({"point": TensorSpec((2,))}, "point")
TINY: dict[str, dict[str, object]] = {
    "gan": {"hidden": 16, "maxout_units": 8, "dropout_input": 0, "dropout": 0, "latent": 4},
    "dcgan": {"width": 4, "image_size": 16, "latent": 4},
    "acgan": {"width_g": 2, "width_d": 2, "image_size": 16, "latent": 4, "dropout": 0},
}
N = 12


def small(name: str = "gan", data: DataSpec = PICTURES, **options: object) -> Variant:
    return create(name, data, {**TINY[name], "batch_size": N, **options}, seed=2)


def batch(variant: Variant, count: int = N, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(4)
    shape = variant.data.target_shape  # type: ignore[union-attr]
    found = {variant.target: torch.rand((count, *shape), generator=generator) * 2 - 1}  # type: ignore[dict-item]
    for number, spec in enumerate(variant.noise("train")):
        found[spec.name] = draw(spec.prior, 50 + number + seed, torch.arange(count), spec.shape)
    return found  # type: ignore[return-value]


def logits_of(variant: Variant, targets: Tensor) -> Tensor:
    return variant.discriminator(targets).flatten()  # type: ignore[operator]


# -- packing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [PICTURES, POINTS], ids=["pictures", "points"])
def test_the_discriminator_decides_on_packs(data: DataSpec) -> None:
    variant = small(data=data, packing=3)
    given = batch(variant)
    real, fake = given[variant.target], variant.generate(given)  # type: ignore[index,operator]
    expected = F.softplus(-logits_of(variant, pack(real, 3))).mean()
    expected = expected + F.softplus(logits_of(variant, pack(fake, 3))).mean()
    found = variant.discriminator_loss(given)  # type: ignore[operator]
    torch.testing.assert_close(found.total, expected)
    mine = variant.generator_loss(given).total  # type: ignore[operator]
    torch.testing.assert_close(mine, F.softplus(-logits_of(variant, pack(fake, 3))).mean())
    judged = variant.judge(given)
    assert {name: len(values) for name, values in judged.items()} == dict.fromkeys(
        ("real", "fake", "slope"), N
    )
    assert torch.equal(judged["real"][0::3], logits_of(variant, pack(real, 3)))
    assert torch.equal(judged["real"][0::3], judged["real"][2::3])


def test_the_penalties_are_over_packs() -> None:
    variant = small(packing=2, r1=1.0)
    given = batch(variant)
    found = variant.discriminator_loss(given).diagnostics["penalty/r1"]  # type: ignore[operator]
    packed = pack(given["image"], 2).requires_grad_()
    (slopes,) = torch.autograd.grad(logits_of(variant, packed).sum(), packed)
    torch.testing.assert_close(found, 0.5 * slopes.flatten(1).square().sum(1).mean())


def test_every_nth_pack_is_penalised_mixed_by_its_first_member() -> None:
    weights = {"packing": 2, "r1": 1.0, "gradient_penalty": 1.0}
    whole, some = small(**weights).eval(), small(**weights, penalty_stride=3).eval()
    given = batch(whole)
    assert len(given["image"]) == N == 12
    packs = torch.tensor([0, 1, 6, 7])  # the members of the first and the fourth of six packs
    found = some.discriminator_loss(given).diagnostics  # type: ignore[operator]
    expected = whole.discriminator_loss(  # type: ignore[operator]
        {name: values[packs] for name, values in given.items()}
    ).diagnostics
    for penalty in ("penalty/r1", "penalty/gradient"):
        torch.testing.assert_close(found[penalty], expected[penalty])


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(UserError, match="without labels"):
        create("cgan", LABELLED, {"packing": 2})


@pytest.mark.parametrize(
    ("options", "share", "told"),
    [
        ({"packing": 2}, 3, "a worker's batch of 3 is no multiple of --packing 2:"),
        (
            {"minibatch_stddev": 4},
            6,
            "a worker's batch of 6 is no multiple of --minibatch-stddev 4:",
        ),
        (
            {"packing": 2, "minibatch_stddev": 3},
            9,
            "a worker's batch of 9 is no multiple of --packing 2 times --minibatch-stddev 3:",
        ),
        (
            {"minibatch_stddev": 4, "accumulate": 2},
            12,
            "a worker's batch of 6 is no multiple of --minibatch-stddev 4:",
        ),
        (
            {"packing": 2, "penalty_stride": 4},
            12,
            "a worker's batch of 12 is no multiple of --packing 2 times --penalty-stride 4:",
        ),
        ({"accumulate": 5}, 12, "12 examples of a batch cannot be cut into --accumulate 5 equal"),
    ],
)
def test_a_worker_s_share_that_is_not_of_whole_packs_and_groups_is_refused(
    options: dict[str, object], share: int, told: str
) -> None:
    variant = small(data=POINTS, **options)
    variant.check_share(24 if "accumulate" not in options else 40)
    with pytest.raises(UserError, match=told) as refused:
        variant.check_share(share)
    assert "\n" not in str(refused.value)
    examples = Examples({"point": torch.zeros(50, 2)}, POINTS, "toys")
    with pytest.raises(UserError, match=told):
        Game(variant, examples, examples, batch_size=2 * share, world=World(1, 2))


def test_a_pack_is_mixed_by_its_first_member_s_number() -> None:
    """The same for packs that other workers have; a rest of a probe's batch is left out."""
    variant = small(data=POINTS, packing=2, gradient_penalty=1.0)
    given = batch(variant)
    halves = [{n: t[rows] for n, t in given.items()} for rows in (slice(8), slice(8, None))]
    named = "penalty/gradient"
    whole, *parts = (
        variant.discriminator_loss(one).diagnostics[named]  # type: ignore[operator]
        for one in (given, *halves)
    )
    torch.testing.assert_close(whole, (8 * parts[0] + 4 * parts[1]) / 12)
    odd = {name: values[:9] for name, values in given.items()}
    eight = {name: values[:8] for name, values in given.items()}
    for one in (odd, eight):
        found = variant.discriminator_loss(one).diagnostics[named]  # type: ignore[operator]
        assert torch.equal(found, parts[0])


# -- the deviation of a minibatch ------------------------------------------------------------------


class ByDeviation(nn.Module):
    """Logits that depend strongly on the last channel; keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, seen: Tensor) -> Tensor:
        self.shown.append(seen)
        own = seen[:, :-1].flatten(1)
        return 5 * seen[:, -1:].flatten(1).mean(1) + own.sin().sum(1)


def deviations_one_by_one(targets: Tensor, group: int) -> list[float]:
    """The deviation that each of ``targets`` (N, ...) belongs to, from their numbers alone."""
    rows = targets.detach().flatten(1).tolist()
    found = []
    for number in range(len(rows)):
        first = number // group * group
        members = rows[first : first + group]
        variances = map(statistics.pvariance, zip(*members, strict=True))
        found.append(statistics.fmean(math.sqrt(value + 1e-8) for value in variances))
    return found


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize(("packing", "group"), [(1, 3), (2, 3), (1, 5), (2, 4), (1, 12), (3, 4)])
def test_the_discriminator_sees_each_groups_deviation_of_real_and_fake_apart(
    packing: int, group: int, one_pass: bool
) -> None:
    variant = small(minibatch_stddev=group, packing=packing).double()
    variant.discriminator = judge = ByDeviation()
    variant.one_pass = one_pass  # type: ignore[assignment]
    given = {name: values.double() for name, values in batch(variant).items()}
    given["image"][6:] *= 3  # no two groups alike
    variant.discriminator_loss(given)  # type: ignore[operator]
    whole = one_pass and N // packing % group == 0
    assert len(judge.shown) == (1 if whole else 2)
    shown = torch.cat(judge.shown)
    sides = (given["image"], variant.generate(given))  # type: ignore[operator]
    packed = [t.detach().reshape(N // packing, packing, 16, 16) for t in sides]
    assert torch.equal(shown[:, :-1], torch.cat(packed))
    expected = [value for side in packed for value in deviations_one_by_one(side, group)]
    assert len({round(value, 6) for value in expected}) >= 2 * (N // packing // group)
    for plane, value in zip(shown[:, -1], expected, strict=True):
        assert plane.min() == plane.max()
        assert plane[0, 0].item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("group", [0, 3])
def test_a_penalty_is_of_all_the_logits_of_an_example_s_group(group: int) -> None:
    """And of no others: by finite differences of one number after another."""
    size = 3 if group else 1
    variant = small(data=POINTS, minibatch_stddev=group, r1=1.0, gradient_penalty=1.0).double()
    variant.discriminator = judge = ByDeviation() if group else Alone()
    given = {name: values.double() for name, values in batch(variant).items()}
    found = variant.discriminator_loss(given).diagnostics  # type: ignore[operator]
    real = given["point"]
    between = given["mix"][:, None] * real
    between = between + (1 - given["mix"][:, None]) * variant.generate(given).detach()  # type: ignore[operator]

    def total(points: Tensor) -> float:
        """The sum of the logits of one group."""
        plane = points.new_tensor(deviations_one_by_one(points, size))[:, None]
        return judge(torch.cat((points, plane), 1) if group else points).sum().item()

    def slopes(points: Tensor) -> Tensor:
        result = torch.zeros_like(points)
        for place in range(points.numel()):
            row, column = divmod(place, 2)
            first = row // size * size
            ends = []
            for step in (1e-5, -1e-5):
                moved = points.clone()
                moved[row, column] += step
                ends.append(total(moved[first : first + size]))
            result[row, column] = (ends[0] - ends[1]) / 2e-5
        return result

    expected = 0.5 * slopes(real).square().sum(1).mean()
    torch.testing.assert_close(found["penalty/r1"], expected, rtol=1e-5, atol=1e-6)
    expected = (slopes(between).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(found["penalty/gradient"], expected, rtol=1e-5, atol=1e-6)


class Alone(nn.Module):
    """A logit of each example by itself."""

    def forward(self, seen: Tensor) -> Tensor:
        return seen.sin().sum(1)


# -- unrolled steps --------------------------------------------------------------------------------


def test_the_generator_is_judged_by_the_discriminator_that_would_answer() -> None:
    rate, steps = 0.05, 3
    variant = small(unrolled=steps, unrolled_rate=rate, data=POINTS)
    reference = small(data=POINTS)
    reference.load_state_dict(variant.state_dict())
    given = batch(variant)
    found = variant.generator_loss(given).total  # type: ignore[operator]
    # The answer by plain gradient descent on the other's discriminator.
    for _ in range(steps):
        loss = reference.discriminator_loss(given).total  # type: ignore[operator]
        parameters = list(reference.discriminator.parameters())  # type: ignore[union-attr]
        slopes = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_sub_(parameters, slopes, alpha=rate)
    torch.testing.assert_close(found, reference.generator_loss(given).total)  # type: ignore[operator]
    # Its gradient goes through the steps: it is that of the difference quotient.
    variant = variant.double()
    exact = {n: t.double() for n, t in given.items()}
    weight = variant.generator.output.bias  # type: ignore[union-attr]
    total = variant.generator_loss(exact).total  # type: ignore[operator]
    (slope,) = torch.autograd.grad(total, weight)
    with torch.no_grad():
        weight[0] += 1e-5
        ahead = variant.generator_loss(exact).total  # type: ignore[operator]
        weight[0] -= 2e-5
        behind = variant.generator_loss(exact).total  # type: ignore[operator]
    assert slope[0].item() == pytest.approx(((ahead - behind) / 2e-5).item(), rel=1e-5)
    assert variant.stages()[0].players[1].second_order
    assert variant.stages()[0].players[1].reads == ("point",)


class Smooth(nn.Module):
    """v tanh(W x + c) + d of flattened targets: its slopes in x are known in closed form."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 5), nn.Linear(5, outputs)

    def forward(self, targets: Tensor) -> Tensor:
        return self.second(self.first(targets.flatten(1)).tanh())


def answered(weights: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
    """A :class:`Smooth` discriminator's outputs (N, K), and slopes (N, D) of the first of them."""
    first, bias, second, last = weights
    hidden = (targets.flatten(1) @ first.t() + bias).tanh()
    slopes = ((1 - hidden.square()) * second[0]) @ first
    return hidden @ second.t() + last, slopes


def by_hand(
    variant: Variant, weights: list[Tensor], real: Tensor, fake: Tensor, given: Batch
) -> Tensor:
    """D's whole objective from its definition, without a gradient of a gradient."""
    options = variant.recipe  # type: ignore[union-attr]
    (on_real, _), (on_fake, _) = answered(weights, real), answered(weights, fake)
    a, b = on_real[:, 0], on_fake[:, 0]
    if options.loss == "wasserstein":
        total = b.mean() - a.mean()
    else:
        total = -torch.sigmoid(a).log().mean() - (1 - torch.sigmoid(b)).log().mean()
    if "label" in given:
        rows = torch.arange(len(a))
        for outputs in (on_real, on_fake):
            right = outputs[:, 1:].softmax(1)[rows, given["label"]]
            total = total - options.class_weight * right.log().mean()
    real, fake = (targets[:: options.penalty_stride] for targets in (real, fake))
    for weight, targets in ((options.r1, real), (options.r2, fake)):
        total = total + weight / 2 * answered(weights, targets)[1].square().sum(1).mean()
    if options.gradient_penalty:
        share = given["mix"][:: options.penalty_stride].reshape(-1, *[1] * (real.dim() - 1))
        _, slopes = answered(weights, share * real + (1 - share) * fake)
        excess = slopes.square().sum(1).sqrt() - 1
        total = total + options.gradient_penalty * excess.square().mean()
    return total


@pytest.mark.parametrize("name", ["gan", "acgan"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"r1": 2.0},
        {"r2": 2.0},
        {"loss": "wasserstein", "gradient_penalty": 3.0},
        {"r1": 1.0, "r2": 2.0, "gradient_penalty": 3.0, "penalty_stride": 3},
    ],
    ids=str,
)
def test_an_unrolled_discriminator_descends_the_whole_of_its_objective(
    name: str, options: dict[str, object]
) -> None:
    rate, steps, target = 0.3, 3, "image" if name == "acgan" else "point"
    data = LABELLED if name == "acgan" else POINTS
    norm = {"norm_d": "none"} if name == "acgan" else {}
    variant = small(name, data, unrolled=steps, unrolled_rate=rate, **options, **norm).double()
    torch.manual_seed(1)
    variant.discriminator = Smooth(256 if name == "acgan" else 2, 4 if name == "acgan" else 1)
    variant.double()
    given = {n: t.double() for n, t in batch(variant).items()}
    if name == "acgan":
        given["label"] = torch.arange(N) % 3

    def reference() -> float:
        """G's loss against D after plain gradient descent."""
        with torch.no_grad():
            fake = variant.generate(given)  # type: ignore[operator]
        weights = [p.detach().clone() for p in variant.discriminator.parameters()]  # type: ignore[union-attr]
        for _ in range(steps):
            leaves = [weight.requires_grad_() for weight in weights]
            loss = by_hand(variant, leaves, given[target], fake, given)
            slopes = torch.autograd.grad(loss, leaves)
            weights = [(w - rate * s).detach() for w, s in zip(leaves, slopes, strict=True)]
        outputs = answered(weights, fake)[0]
        if options.get("loss") == "wasserstein":
            total = -outputs[:, 0].mean()
        else:
            total = -torch.sigmoid(outputs[:, 0]).log().mean()
        if name == "acgan":
            total = total - outputs[:, 1:].log_softmax(1)[torch.arange(N), given["label"]].mean()
        return total.item()

    found = variant.generator_loss(given).total  # type: ignore[operator]
    # Class likelihoods are computed in float32.
    assert found.item() == pytest.approx(reference(), rel=1e-6 if name == "acgan" else 1e-12)
    bias = variant.generator.output.bias if name == "gan" else variant.generator.layers[-2].bias  # type: ignore[union-attr,index]
    (slope,) = torch.autograd.grad(found, bias)
    for place in range(len(bias)):
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                bias[place] += step
            ends.append(reference())
            with torch.no_grad():
                bias[place] -= step
        assert slope[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"r1": 1.0}, r"--unrolled with --r1 .* does not allow: choose --norm-d layer or none, or"),
        ({"r2": 1.0, "norm_d": "batch"}, "--unrolled with --r2 differentiates three times"),
    ],
)
def test_penalties_of_a_batch_cannot_be_unrolled(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        small("dcgan", unrolled=1, **options)
    assert "\n" not in str(refused.value)
    small("dcgan", unrolled=1, **{**options, "norm_d": "none"})
    small("dcgan", unrolled=1, gradient_penalty=1.0)  # layer normalisation then
    by_batches = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    others = type("Others", (GAN,), {"make_discriminator": lambda *_: by_batches})
    with pytest.raises(UserError, match="does not allow: leave one of them out"):
        others(small(unrolled=1, gradient_penalty=1.0).options).build(PICTURES)
    others(small(unrolled=1).options).build(PICTURES)


def test_no_unrolled_step_is_the_plain_loss() -> None:
    variant, plain = small(unrolled=0), small()
    given = batch(plain)
    found, expected = (v.generator_loss(given).total for v in (variant, plain))  # type: ignore[operator]
    assert torch.equal(found, expected)


# -- instance noise --------------------------------------------------------------------------------


def test_instance_noise_is_on_real_and_generated_targets_in_training_alone() -> None:
    variant = small(instance_noise=0.3)
    given = batch(variant)
    real = given["image"] + 0.3 * given["instance_noise_real"]
    fake = variant.generate(given) + 0.3 * given["instance_noise_fake"]  # type: ignore[operator]
    expected = F.softplus(-logits_of(variant, real)).mean()
    expected = expected + F.softplus(logits_of(variant, fake)).mean()
    torch.testing.assert_close(variant.discriminator_loss(given).total, expected)  # type: ignore[operator]
    torch.testing.assert_close(
        variant.generator_loss(given).total,  # type: ignore[operator]
        F.softplus(-logits_of(variant, fake)).mean(),
    )
    assert torch.equal(variant.judge(given)["real"], logits_of(variant, given["image"]))
    assert torch.equal(variant.sample("train", given)["image"], variant.generate(given))  # type: ignore[operator]


def test_instance_noise_falls_to_nothing_over_its_share_of_the_steps() -> None:
    variant = small(instance_noise=0.5, instance_noise_until=0.4, steps=10)
    given = batch(variant)
    for played in range(6):
        shown = variant.real_targets(given) - given["image"]  # type: ignore[operator]
        share = max(0.0, 1 - played / 4)
        torch.testing.assert_close(shown, 0.5 * share * given["instance_noise_real"])
        variant.on_iteration_start(played + 1)
    assert variant.state_dict().keys() == small().state_dict().keys()


# -- smoothed labels, R2, the relativistic loss ----------------------------------------------------


def test_only_the_targets_of_real_examples_are_smoothed() -> None:
    variant = small(label_smoothing=0.1)
    given = batch(variant)
    real, fake = logits_of(variant, given["image"]), logits_of(variant, variant.generate(given))  # type: ignore[operator]
    expected = smoothed_discriminator(real, fake, 0.1)
    torch.testing.assert_close(variant.discriminator_loss(given).total, expected)  # type: ignore[operator]
    plain = small().generator_loss(given).total  # type: ignore[operator]
    assert torch.equal(variant.generator_loss(given).total, plain)  # type: ignore[operator]
    with pytest.raises(UserError, match="means nothing to the hinge loss"):
        small(label_smoothing=0.1, loss="hinge")


@pytest.mark.parametrize("name", ["gan", "dcgan"])
def test_r2_is_r1_on_generated_examples(name: str) -> None:
    variant = small(name, r1=2.0, r2=3.0)
    given = batch(variant)
    loss = variant.discriminator_loss(given)  # type: ignore[operator]
    named = loss.diagnostics
    fake = variant.generate(given).detach().requires_grad_()  # type: ignore[operator]
    (slopes,) = torch.autograd.grad(logits_of(variant, fake).sum(), fake)
    expected = 0.5 * slopes.flatten(1).square().sum(1).mean()
    torch.testing.assert_close(named["penalty/r2"], expected)
    total = named["loss/discriminator"] + 2 * named["penalty/r1"] + 3 * named["penalty/r2"]
    torch.testing.assert_close(loss.total.detach(), total)
    assert small(name, r2=1.0).stages()[0].players[0].second_order


def test_the_relativistic_game_compares_partners_on_both_sides() -> None:
    variant = small(loss="relativistic")
    given = batch(variant)
    real, fake = logits_of(variant, given["image"]), logits_of(variant, variant.generate(given))  # type: ignore[operator]
    expected = F.softplus(fake - real).mean()
    torch.testing.assert_close(variant.discriminator_loss(given).total, expected)  # type: ignore[operator]
    expected = F.softplus(real - fake).mean()
    torch.testing.assert_close(variant.generator_loss(given).total, expected)  # type: ignore[operator]
    assert variant.stages()[0].players[1].reads == ("image",)
    judged = variant.judge(given)
    # The outputs alone mean nothing: what counts as undecided lies between both means.
    assert (judged["real"].mean() + judged["fake"].mean()).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(judged["slope"], torch.sigmoid(real - fake))


def test_an_undecided_relativistic_discriminator_loses_log_two() -> None:
    variant = small(loss="relativistic")
    with torch.no_grad():
        for parameter in variant.discriminator.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    given = batch(variant)
    for loss in (variant.discriminator_loss(given), variant.generator_loss(given)):  # type: ignore[operator]
        assert loss.total.item() == pytest.approx(math.log(2))


ALL = {
    "packing": 2,
    "minibatch_stddev": 3,
    "unrolled": 1,
    "instance_noise": 0.1,
    "r1": 0.1,
    "r2": 0.1,
    "diffaug": "translation",
}


@pytest.mark.parametrize("name", ["gan", "dcgan"])
@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_all_remedies_together_make_finite_gradients(name: str, loss: str) -> None:
    smoothing = {"label_smoothing": 0.1} if loss == "non-saturating" else {}
    norm = {"norm_d": "layer"} if name == "dcgan" else {}
    variant = small(name, **{**ALL, **smoothing, **norm, "loss": loss})
    given = batch(variant)
    for player in variant.stages()[0].players:
        variant.zero_grad()
        variant.requires_grad_(False)
        getattr(variant, player.name).requires_grad_(True)
        player.objective(given).total.backward()
        own = list(getattr(variant, player.name).parameters())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in own)
        assert any(p.grad.abs().sum() > 0 for p in own)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sngan", {}),
        ("sngan", {"architecture": "cnn"}),
        ("sagan", {}),
        ("biggan", {"latent": 12, "embedding": 5}),
    ],
)
def test_an_unrolled_discriminator_is_a_better_one(name: str, options: dict[str, Any]) -> None:
    train = Digits().load("train")
    wide = {"width_g": 8, "width_d": 48, "image_size": 16}
    variant: Any = create(name, train.spec, {**wide, "k": 1, "unrolled": 1, **options}, 0)
    game = Game(variant, train, train, batch_size=20)
    game.play(3)
    batch = game.seats[1].stream.next()
    real, fake = variant.real_targets(batch), variant.fake_targets(batch)
    variant.requires_grad_(True)
    opponent = variant._opponent(fake, batch)
    before, after = (
        v._discriminator_objective(real, fake, batch).total for v in (variant, opponent)
    )
    assert after < before
