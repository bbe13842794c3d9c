"""The objectives that all systems of one generator and one discriminator share."""

from __future__ import annotations

import math

import pytest
import torch

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import Batch, DataSpec, TensorSpec
from gan_core.losses import LOSSES
from gan_core.options import parse
from gan_core.variant import Variant, create
from gan_core.variants.adversarial import AdversarialOptions, default

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
    apart.one_pass = False  # type: ignore[misc]
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


def test_the_mixing_numbers_are_drawn_only_for_the_gradient_penalty() -> None:
    with_penalty = small("gan", loss="wasserstein").noise("train")
    assert [(n.name, n.shape, n.read_by("generator")) for n in with_penalty] == [
        ("latent", (8,), True),
        ("mix", (), False),
    ]
    assert [n.name for n in small("gan").noise("train")] == ["latent"]


def test_the_discriminators_turn_builds_no_graph_through_the_generator() -> None:
    variant = small("dcgan")
    variant.discriminator_loss(batch()).total.backward()
    assert all(parameter.grad is None for parameter in variant.generator.parameters())


def test_a_papers_default_keeps_the_options_help_and_bounds() -> None:
    field = default("lr_d", 0.3)
    assert field.default == 0.3
    assert field.metadata is not None
    assert field.metadata["bounds"]["above"] == 0
    assert parse(AdversarialOptions, {}).lr_d == 2e-4
