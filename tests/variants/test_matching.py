"""Discriminators that judge real examples under wrong labels, against Reed et al. 2016."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.priors import draw
from gan_core.variant import Variant, create
from gan_core.variants.cgan import CGAN
from gan_core.variants.matching import other_class
from gan_core.variants.perceptron import PerceptronVariant

CLASSES = 4
DATA = DataSpec(
    {"image": TensorSpec((1, 6, 6), -1.0, 1.0), "label": TensorSpec((), classes=CLASSES)}
)
TINY: dict[str, object] = {
    "latent": 3,
    "hidden_latent": 8,
    "hidden_label": 8,
    "hidden": 16,
    "maxout_units": 8,
    "maxout_label": 4,
    "dropout_g": 0.0,
    "dropout_d": 0.0,
    "init_label": 0.5,
}


def small(**options: object) -> CGAN:
    variant = create("cgan", DATA, TINY | options)
    assert isinstance(variant, CGAN)
    return variant


def batch(n: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return {
        "image": torch.rand((n, 1, 6, 6), generator=generator, dtype=torch.float64) * 2 - 1,
        "label": torch.randint(CLASSES, (n,), generator=generator),
        "latent": torch.rand((n, 3), generator=generator, dtype=torch.float64),
        "label_shift": torch.randint(CLASSES - 1, (n,), generator=generator),
    }


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_every_other_class_comes_by_one_shift_and_the_own_by_none(classes: int) -> None:
    shifts = torch.arange(classes - 1)
    for label in range(classes):
        others = other_class(torch.full_like(shifts, label), shifts, classes)
        assert sorted(others.tolist()) == [c for c in range(classes) if c != label]


def test_the_shifts_are_drawn_uniformly_and_for_the_discriminator_alone() -> None:
    latent, shift = small(wrong_label=0.5).noise("train")
    assert (latent.name, shift.name, shift.shape) == ("latent", "label_shift", ())
    assert [shift.read_by(r) for r in ("discriminator", "generator", "sample")] == [
        True,
        False,
        False,
    ]
    count = 30_000
    drawn = draw(shift.prior, 11, torch.arange(count), shift.shape)
    found = torch.bincount(drawn, minlength=CLASSES - 1).double()
    assert drawn.dtype == torch.int64
    expected = count / (CLASSES - 1)
    assert len(found) == CLASSES - 1
    assert ((found - expected).square() / expected).sum() < 13.8  # chi2(2) beyond: 0.1 %


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_loss_is_the_papers(share: float) -> None:
    variant, data = small(wrong_label=share).double(), batch()
    pairs = zip(data["label"].tolist(), data["label_shift"].tolist(), strict=True)
    wrong = torch.tensor([(label + 1 + shift) % CLASSES for label, shift in pairs])

    def verdict(images: Tensor, labels: Tensor) -> Tensor:
        return torch.sigmoid(variant.discriminator(images, labels).flatten())

    with torch.no_grad():
        variant.discriminator.output.weight.mul_(2e3)
        fakes = variant.generator(data["latent"], data["label"])
        real = verdict(data["image"], data["label"])
        fake = verdict(fakes, data["label"])
        mismatched = verdict(data["image"], wrong)
    assert (real - mismatched).abs().min() > 1e-4
    expected = -(
        real.log().mean()
        + (1 - share) * (1 - fake).log().mean()
        + share * (1 - mismatched).log().mean()
    )
    loss = variant.discriminator_loss(data)
    torch.testing.assert_close(loss.total.detach(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.diagnostics["loss/discriminator"], expected)
    torch.testing.assert_close(loss.diagnostics["prob/wrong_label"], mismatched.mean())


def test_penalties_are_taken_at_the_right_labels() -> None:
    data = batch()
    plain = small(r1=3.0).double().discriminator_loss(data)
    matching = small(r1=3.0, wrong_label=0.5).double().discriminator_loss(data)
    penalty = matching.diagnostics["penalty/r1"]
    torch.testing.assert_close(penalty, plain.diagnostics["penalty/r1"])
    expected = matching.diagnostics["loss/discriminator"] + 3 * penalty
    torch.testing.assert_close(matching.total.detach(), expected)


def test_mismatched_examples_are_shown_as_real_ones_are() -> None:
    variant, data = small(wrong_label=0.5, instance_noise=0.3).double(), batch()
    generator = torch.Generator().manual_seed(8)
    for kind in ("real", "fake"):
        shape = data["image"].shape
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        data[f"instance_noise_{kind}"] = noise
    with torch.no_grad():
        variant.discriminator.output.weight.mul_(2e3)
        noisy = data["image"] + 0.3 * data["instance_noise_real"]
        wrong = (data["label"] + 1 + data["label_shift"]) % CLASSES
        expected = torch.sigmoid(variant.discriminator(noisy, wrong)).mean()
    found = variant.discriminator_loss(data).diagnostics["prob/wrong_label"]
    torch.testing.assert_close(found, expected)


def test_a_critic_believes_in_wrong_labels_as_far_as_they_lie_from_both_means() -> None:
    variant = small(wrong_label=0.5, loss="wasserstein", gradient_penalty=0.0).double()
    variant.discriminator.forward = lambda *given: 0 * given[0].flatten(1)[:, :1] + 50.0  # type: ignore[method-assign]
    found = variant.discriminator_loss(batch()).diagnostics
    assert found["prob/wrong_label"].item() == 0.5


def test_an_unrolled_discriminator_answers_with_wrong_labels_too() -> None:
    options = {"unrolled": 1, "unrolled_rate": 0.1}
    plain, matching = small(**options).double(), small(**options, wrong_label=0.5).double()
    assert matching.noise("train")[-1].read_by("generator")
    losses = []
    for variant in (plain, matching):
        with torch.no_grad():
            variant.discriminator.output.weight.mul_(1e2)
        losses.append(variant.generator_loss(batch()).total.item())
    assert abs(losses[0] - losses[1]) > 1e-5  # else equal to the last bit


def examples(count: int = 64) -> Examples:
    """Pictures whose bright row says their class."""
    generator = torch.Generator().manual_seed(6)
    label = torch.arange(count) % CLASSES
    image = torch.randint(60, (count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    image[torch.arange(count), 0, label] = 255
    return Examples({"image": image, "label": label}, DATA, "train")


def played(variant: Variant, steps: int) -> Game:
    data = examples()
    game = Game(variant, data, data, batch_size=16, seed=3, world=World.current("cpu"))
    game.play(steps)
    return game


class PlainCGAN(PerceptronVariant):
    """The conditional GAN without anything of this module."""

    Options = CGAN.Options
    conditional = True
    uniform_bounds = CGAN.uniform_bounds
    make_generator = CGAN.make_generator
    make_discriminator = CGAN.make_discriminator


def test_without_wrong_labels_training_is_bit_identical_to_a_plain_conditional_gan() -> None:
    variant, plain = small(r1=1.0), PlainCGAN(small(r1=1.0).options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain.build(DATA)
    before = plain.state_dict()
    assert all(torch.equal(before[k], v) for k, v in variant.state_dict().items())
    first, second = played(variant, 4).variant.state_dict(), played(plain, 4).variant.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_discriminator_learns_which_label_a_picture_has() -> None:
    """Not so without wrong labels, where nothing asks for it."""
    rejected = {}
    for share in (0.0, 0.5):
        options = {"optimizer": "adam", "lr_d": 0.01, "lr_g": 1e-9, "maxout_units": 32}
        variant = played(small(wrong_label=share, **options), 250).variant
        data = examples().tensors
        image, label = data["image"] / 127.5 - 1, data["label"]
        with torch.no_grad():
            right = variant.discriminator(image, label)  # type: ignore[operator]
            wrong = variant.discriminator(image, (label + 1) % CLASSES)  # type: ignore[operator]
        rejected[share] = ((right > 0) & (wrong < 0)).double().mean().item()
    assert rejected[0.5] > 0.95
    assert rejected[0.0] < 0.05


def test_the_initial_weights_of_the_label_are_scaled_alone() -> None:
    usual, larger = small(init_label=0.005).state_dict(), small(init_label=0.5).state_dict()
    name = "discriminator.from_label.linear.weight"
    assert usual[name].abs().max() <= 0.005
    torch.testing.assert_close(larger.pop(name), 100 * usual.pop(name))
    assert all(torch.equal(usual[other], larger[other]) for other in usual)


def test_one_class_has_no_wrong_label() -> None:
    one = DataSpec({"image": TensorSpec((1, 6, 6), -1.0, 1.0), "label": TensorSpec((), classes=1)})
    create("cgan", one, TINY)
    with pytest.raises(UserError, match=r"^--wrong-label needs at least 2 classes"):
        create("cgan", one, TINY | {"wrong_label": 0.5})
