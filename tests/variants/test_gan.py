"""The original GAN against its paper and its authors' code."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.layers.maxout import Maxout
from gan_core.layers.pixels import PixelOutput, to_flat_pixels
from gan_core.options import parse
from gan_core.priors import Gaussian, Uniform
from gan_core.variant import Variant, create
from gan_core.variants.cgan import CGANOptions
from gan_core.variants.gan import GANOptions
from gan_core.variants.schedules import ExponentialDecay, LinearRamp

MNIST = DataSpec({"image": TensorSpec((1, 28, 28), -1.0, 1.0)})
POINTS = DataSpec({"point": TensorSpec((2,))}, "point")
TINY = {"latent": 4, "hidden": 16, "maxout_units": 8}


@pytest.fixture(scope="module")
def paper() -> Variant:
    return create("gan", MNIST, {})


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Linear)])


def test_the_networks_have_the_papers_sizes(paper: Variant) -> None:
    shapes = [tuple(m.weight.shape[::-1]) for m in paper.modules() if isinstance(m, nn.Linear)]
    generator, discriminator = shapes[:3], shapes[3:]
    assert generator == [(100, 1200), (1200, 1200), (1200, 784)]
    assert discriminator == [(784, 240 * 5), (240, 240 * 5), (240, 1)]
    dropped = [m.p for m in paper.discriminator.modules() if isinstance(m, nn.Dropout)]
    assert dropped == [0.2, 0.5, 0.5]
    assert not [m for m in paper.generator.modules() if isinstance(m, nn.Dropout)]


def test_weights_begin_uniform_and_biases_at_zero(paper: Variant) -> None:
    for network, bound in ((paper.generator, 0.05), (paper.discriminator, 0.005)):
        values = weights(network)
        assert values.abs().max() <= bound
        assert values.abs().max() > 0.999 * bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        biases = [m.bias for m in network.modules() if isinstance(m, nn.Linear)]
        assert all((bias == 0).all() for bias in biases)


def test_the_recipe_is_that_of_the_authors_code(paper: Variant) -> None:
    (stage,) = paper.stages()
    discriminator, generator = stage.players
    assert (discriminator.turns, paper.options.batch_size) == (1, 100)
    assert discriminator.reads == ("image",)
    assert generator.reads == ()
    for player, rate in ((discriminator, 0.05), (generator, 0.1)):
        spec = player.optimizer
        assert (spec.kind, spec.learning_rate) == ("sgd", rate)
        assert spec.rate(0) == 1
        assert spec.rate(250_000) == pytest.approx(math.exp(-250_000 * math.log(1.000004)))
        assert spec.learning_rate * spec.rate(10**8) == pytest.approx(1e-6)
        assert [spec.momentum(n) for n in (0, 62_500, 125_000, 10**6)] == [0.5, 0.6, 0.7, 0.7]
    (latent,) = paper.noise("train")
    assert latent.prior == Uniform(-math.sqrt(3), math.sqrt(3))
    assert latent.shape == (100,)


def test_the_output_begins_at_the_mean_pixels() -> None:
    variant = create("gan", MNIST, TINY)
    images = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8)
    images[:, :, 0] = 0
    images[:, :, 1] = 255
    variant.initial_values({"image": images})
    bias = variant.generator.output.linear.bias
    expected = images.double().mean(0).flatten() / 255
    assert torch.isfinite(bias).all()
    torch.testing.assert_close(torch.sigmoid(bias).double(), expected, atol=2e-7, rtol=0)
    features = torch.zeros(1, 16)
    torch.testing.assert_close(
        variant.generator.output(features)[0].double(),
        (expected * 2 - 1).unflatten(0, (1, 28, 28)),
        atol=1e-6,
        rtol=0,
    )


def test_the_output_begins_at_the_mean_of_pixels_that_are_fractions() -> None:
    images = torch.randint(0, 256, (50, 6), dtype=torch.uint8)
    of_bytes, of_fractions = PixelOutput(3, (6,)), PixelOutput(3, (6,))
    of_bytes.set_marginals(images)
    of_fractions.set_marginals(images.float() / 127.5 - 1)
    torch.testing.assert_close(of_fractions.linear.bias, of_bytes.linear.bias)


def test_maxout_is_the_largest_of_its_pieces() -> None:
    layer = Maxout(3, 4, pieces=5)
    x = torch.randn(7, 3)
    weight, bias = layer.linear.weight.view(4, 5, 3), layer.linear.bias.view(4, 5)
    expected = (torch.einsum("upi,ni->nup", weight, x) + bias).max(-1).values
    torch.testing.assert_close(layer(x), expected)


def test_flat_pixels_are_the_inverse_of_the_outputs_range() -> None:
    output = PixelOutput(5, (3, 4, 2))
    features = torch.randn(6, 5) * 3
    flat = to_flat_pixels(output(features))
    torch.testing.assert_close(flat, torch.sigmoid(output.linear(features)))


def test_schedules_have_their_closed_forms() -> None:
    decay = ExponentialDecay(1.01, 0.5)
    assert [decay(0), decay(10)] == [1.0, 1.01**-10]
    assert decay(1000) == 0.5
    assert ExponentialDecay(1.01, 3.0)(5) == 1.0
    ramp = LinearRamp(0.5, 0.7, 10)
    assert [ramp(0), ramp(5), ramp(10), ramp(99)] == pytest.approx([0.5, 0.6, 0.7, 0.7])


def test_points_have_a_linear_output_and_a_recipe_of_their_own() -> None:
    variant = create("gan", POINTS, {})
    assert variant.recipe.optimizer == "adam"
    assert variant.recipe.dropout == 0
    assert isinstance(variant.generator.output, nn.Linear)
    with torch.no_grad():
        variant.generator.output.weight.mul_(100)
        assert variant.generator(torch.randn(50, 100)).abs().max() > 1
    assert create("gan", POINTS, {"optimizer": "sgd"}).recipe.lr_d == 0.05


def test_hidden_layers_are_as_many_as_asked_for() -> None:
    asked = {**TINY, "maxout_pieces": 3, "layers_g": 4, "layers_d": 1, "packing": 2}
    deep = create("gan", POINTS, asked)
    shapes = {
        network: [tuple(m.weight.shape[::-1]) for m in layers.modules() if hasattr(m, "weight")]
        for network, layers in deep.named_children()
    }
    assert shapes["generator"] == [(4, 16), (16, 16), (16, 16), (16, 16), (16, 2)]
    assert shapes["discriminator"] == [(2 * 2, 8 * 3), (8, 1)]
    assert len([m for m in deep.generator.modules() if isinstance(m, nn.ReLU)]) == 4
    deep = create("gan", MNIST, {**TINY, "layers_d": 3})
    dropped = [m.p for m in deep.discriminator.modules() if isinstance(m, nn.Dropout)]
    assert dropped == [0.2, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("data", [MNIST, POINTS])
def test_two_layers_have_the_names_that_checkpoints_know(data: DataSpec) -> None:
    variant = create("gan", data, TINY)
    output = "output.linear" if data is MNIST else "output"
    generator = {f"{m}.{p}" for m in ("body.0", "body.2", output) for p in ("weight", "bias")}
    assert set(variant.generator.state_dict()) == generator
    layers = ("layers.1.linear", "layers.3.linear", "layers.5")
    discriminator = {f"{m}.{p}" for m in layers for p in ("weight", "bias")}
    assert set(variant.discriminator.state_dict()) == discriminator


def test_given_options_win_over_what_the_data_decides() -> None:
    given = {"lr_d": 0.3, "optimizer": "sgd", "dropout": 0.0, "hidden": 7, "gradient_penalty": 0}
    recipe = create("gan", POINTS, given | {"loss": "wasserstein"}).recipe
    assert {name: getattr(recipe, name) for name in given} == given
    assert create("gan", MNIST, TINY | {"loss": "wasserstein"}).recipe.gradient_penalty == 10
    assert create("gan", MNIST, TINY).recipe.gradient_penalty == 0


@pytest.mark.parametrize("name", ["optimizer", "lr_d", "lr_g"])
def test_help_says_what_points_have_where_nothing_is_given(name: str) -> None:
    told = {field.name: field.metadata["help"] for field in dataclasses.fields(GANOptions)}[name]
    assert told.endswith(f"({getattr(create('gan', POINTS, {}).recipe, name)} for points)")
    pictures = create("gan", MNIST, TINY | {"optimizer": "adam"}).recipe
    if name != "optimizer":
        assert f"{getattr(pictures, name)} with adam (" in told
    of_cgan = {f.name: f.metadata["help"] for f in dataclasses.fields(CGANOptions)}[name]
    assert "points" not in of_cgan


def test_options_of_the_article_reach_the_players() -> None:
    options = {"k": 5, "prior": "gaussian", "optimizer": "adam", "beta1": 0.1, "ema": 0.99, "r1": 2}
    variant = create("gan", MNIST, parse(GANOptions, TINY | options))
    discriminator, generator = variant.stages()[0].players
    assert discriminator.turns == 5
    assert discriminator.second_order
    assert not generator.second_order
    assert generator.optimizer.betas == (0.1, 0.999)
    assert (generator.ema, generator.ema_decay) == (("generator",), 0.99)
    assert variant.noise("train")[0].prior == Gaussian()
