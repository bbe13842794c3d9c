"""What each failure is told by, and what is not taken for it."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch

from gan_core.diagnostics import mode_collapse, non_convergence, overfitting, vanishing_gradient
from gan_core.diagnostics.findings import Facts, Sign, Threshold, worst
from gan_core.diagnostics.history import History

FACTS = Facts(modes=10, steps=1000, samples=2000)
HEALTHY = {
    "diversity": 1.0,
    "neighbour_distance": 0.9,
    "movement": 0.1,
    "modes_covered": 10.0,
    "least_mode_ratio": 0.8,
    "birthday_support_classifier": 9e4,
    "copied_share_classifier": 0.02,
    "slope/generator": 0.5,
    "slope/non_saturating": 0.5,
    "accuracy/fake": 0.85,
    "accuracy/train": 0.8,
    "accuracy/held_out": 0.78,
    "overfitting/rv": 0.05,
    "loss/generator": 1.0,
    "loss/discriminator": 1.2,
    "weight_norm/generator": 10.0,
}
EXAMINATIONS = {
    "mode_collapse": mode_collapse.examine,
    "vanishing_gradient": vanishing_gradient.examine,
    "non_convergence": non_convergence.examine,
    "overfitting": overfitting.examine,
}


def levels(facts: Facts = FACTS, points: int = 20, first: int = 500, **values: float) -> dict:
    """The level of each failure after ``points`` of equal metrics from the step ``first`` on."""
    history = History()
    for number in range(points):
        named = {name.replace("__", "/"): value for name, value in values.items()}
        history.add(first + number, {**HEALTHY, **named})
    return {name: worst(examine(history, facts)) for name, examine in EXAMINATIONS.items()}


def only(failure: str, level: int) -> dict[str, int]:
    return {**dict.fromkeys(EXAMINATIONS, 0), failure: level}


def test_what_the_classifier_misses_in_real_examples_too_is_no_collapse() -> None:
    lacking = {"modes_covered": 5.0, "least_mode_ratio": 0.0}
    assert levels(**lacking) == only("mode_collapse", 2)
    assert levels(**lacking, seen__modes=5.0, seen__least_mode_ratio=0.9) == only(
        "mode_collapse", 0
    )
    assert levels(**lacking, seen__modes=10.0, seen__least_mode_ratio=0.9) == only(
        "mode_collapse", 2
    )
    assert levels(**lacking, seen__modes=5.0, seen__least_mode_ratio=0.1) == only(
        "mode_collapse", 2
    )


def test_a_healthy_run_shows_nothing() -> None:
    assert levels() == dict.fromkeys(EXAMINATIONS, 0)
    assert worst([]) == 0


@pytest.mark.parametrize(
    ("failure", "name", "suspicious", "proof"),
    [
        ("mode_collapse", "diversity", 0.5, 0.2),
        ("mode_collapse", "neighbour_distance", 0.3, 0.1),
        ("mode_collapse", "least_mode_ratio", 0.2, 0.0),
        ("mode_collapse", "modes_covered", 8.0, 5.0),
        ("mode_collapse", "birthday_support_classifier", 300.0, 20.0),
        ("non_convergence", "loss__generator", -50.0, 1e4),
        ("non_convergence", "movement", 0.6, 3.0),
        ("non_convergence", "duality_gap", -3.0, 8.0),
        ("overfitting", "overfitting__rv", 0.5, 0.9),
        ("overfitting", "copied_share_classifier", 0.5, 0.9),
        ("overfitting", "accuracy__held_out", 0.5, 0.2),
    ],
)
def test_each_sign_is_told_from_health(
    failure: str, name: str, suspicious: float, proof: float
) -> None:
    assert levels(**{name: suspicious}) == only(failure, 1)
    assert levels(**{name: proof}) == only(failure, 2)


PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
ROW = re.compile(
    r"\| `([\w/]+?)(?:_?\.\.\.)?`.*\| ([a-z -]+) \| (below|above) ([\d.]+) "
    r"\| (?:below|above) ([\d.]+) \|"
)
JUDGED = {
    "birthday_support": lambda value: {"birthday_support_classifier": value},
    "copied_share": lambda value: {"copied_share_classifier": value},
    "modes_covered": lambda value: {"modes_covered": 10 * value},
    "slope/generator": lambda value: {"slope/generator": value, "accuracy/fake": 0.9},
    "loss": lambda value: {"loss/generator": -value},
    "duality_gap": lambda value: {"duality_gap": -value},
    "accuracy/train": lambda value: {"accuracy/train": 0.9, "accuracy/held_out": 0.9 - value},
    "unique_share": lambda value: {"unique_share": 0.9 * value, "unique_share_real": 0.9},
}
"""What is logged where a value that the page names is so large; else that value."""


@pytest.mark.parametrize("row", ROW.findall(PAGE.read_text()), ids=lambda row: row[0])
def test_the_thresholds_are_those_of_the_page(row: tuple[str, ...]) -> None:
    name, failure, side, *bounds = row
    logged = JUDGED.get(name.rstrip("/"), lambda value: {name: value})
    failure = failure.replace("-", " ").replace(" ", "_")
    worse = 1.001 if side == "above" else 0.999
    for level, bound in enumerate(map(float, bounds), start=1):
        assert levels(**logged(bound / worse)) == only(failure, level - 1)
        assert levels(**logged(bound * worse)) == only(failure, level)


def test_the_page_names_every_threshold() -> None:
    modules = (mode_collapse, vanishing_gradient, non_convergence, overfitting)
    known = [v for module in modules for v in vars(module).values() if isinstance(v, Threshold)]
    told = [tuple(map(float, row[3:])) for row in ROW.findall(PAGE.read_text())]
    assert sorted(told) == sorted((t.suspected, t.confirmed) for t in known)


def test_the_way_back_of_a_translation_may_collapse_alone() -> None:
    assert levels(diversity_inverse=0.29) == only("mode_collapse", 2)
    assert levels(diversity_inverse=0.31) == only("mode_collapse", 1)
    assert levels(diversity_inverse=0.61) == only("mode_collapse", 0)


@pytest.mark.parametrize("name", ["grad_norm/generator", "grad_norm/generator_1"])
def test_a_generator_without_any_gradient_learns_nothing_whatever_its_loss(name: str) -> None:
    """A D of dead units gives every sample the same logit: hinge loss 0, or 2, slope 1."""
    told = {"accuracy/fake": 0.0, "slope/generator": 1.0}
    assert levels(**told, **{name: 0.99e-7}) == only("vanishing_gradient", 2)
    assert levels(**told, **{name: 1.01e-7}) == only("vanishing_gradient", 0)
    assert levels(points=2, **{name: 0.0}) == only("vanishing_gradient", 0)
    assert levels(**{"grad_norm/discriminator": 0.0}) == only("vanishing_gradient", 0)


def test_only_a_loss_beyond_all_bounds_is_called_divergence() -> None:
    for size, form in ((50.0, ""), (150.0, "divergence")):
        history = History()
        for step in range(500, 503):
            history.add(step, {**HEALTHY, "loss/generator": size})
        (sign,) = (s for s in non_convergence.examine(history, FACTS) if s.level)
        assert (sign.form, sign.text) == (form, f"loss/generator at {size:.3g}")


def test_a_slope_vanishes_only_where_the_discriminator_is_sure_and_right() -> None:
    assert levels(slope__generator=0.03, accuracy__fake=0.99) == only("vanishing_gradient", 1)
    assert levels(slope__generator=0.001, accuracy__fake=0.99) == only("vanishing_gradient", 2)
    # The generator has won: its slope is small too.
    assert levels(slope__generator=0.001, accuracy__fake=0.1) == only("vanishing_gradient", 0)


def test_a_discriminator_that_can_tell_nothing_has_learned_nothing_by_heart() -> None:
    unsure = {"accuracy__train": 0.6, "accuracy__fake": 0.6}
    assert levels(overfitting__rv=0.9, **unsure) == only("overfitting", 0)
    assert levels(copied_share_classifier=0.9, **unsure) == only("overfitting", 2)


def test_what_a_young_generator_cannot_yet_is_no_failure() -> None:
    young = {"diversity": 0.1, "movement": 5.0, "least_mode_ratio": 0.0}
    assert levels(first=10, **young) == dict.fromkeys(EXAMINATIONS, 0)
    grown = levels(first=500, **young)
    assert (grown["mode_collapse"], grown["non_convergence"]) == (2, 2)


def test_a_game_that_has_come_to_rest_converges_however_it_began() -> None:
    history = History()
    for number in range(20):
        history.add(500 + number, {**HEALTHY, "movement": 2.0 if number < 17 else 0.3})
    assert worst(non_convergence.examine(history, FACTS)) == 0
    history.add(520, {"movement": 2.0})
    history.add(521, {"movement": 2.0})
    assert worst(non_convergence.examine(history, FACTS)) == 2


def test_a_duality_gap_counts_for_two_evaluations_and_has_no_scale_with_wasserstein() -> None:
    history = History()
    history.add(500, {"duality_gap": 8.0})
    for step, level in ((600, 2), (700, 0)):
        history.add(step, {"duality_gap": 0.1})
        assert worst(non_convergence.examine(history, FACTS)) == level
    wasserstein = dataclasses.replace(FACTS, options={"loss": "wasserstein"})
    assert levels(wasserstein, duality_gap=8.0) == only("non_convergence", 0)


def test_the_values_of_a_wasserstein_critic_may_be_of_any_size_but_must_be_finite() -> None:
    wasserstein = dataclasses.replace(FACTS, options={"loss": "wasserstein"})
    large = {"loss__generator": 5e3, "loss__discriminator": -180.0}
    assert levels(wasserstein, **large) == only("non_convergence", 0)
    assert levels(wasserstein, loss__generator=math.nan) == only("non_convergence", 2)
    assert levels(wasserstein, movement=3.0, **large) == only("non_convergence", 2)
    hinge = dataclasses.replace(FACTS, options={"loss": "hinge"})
    assert levels(hinge, **large) == only("non_convergence", 2)


def test_one_bad_logging_point_is_no_failure() -> None:
    for name in ("diversity", "movement", "loss/generator", "slope/generator", "overfitting/rv"):
        history = History()
        for number in range(20):
            odd = {name: 1e3 if name != "diversity" else 0.0} if number == 19 else {}
            history.add(500 + number, {**HEALTHY, **odd})
        for examine in EXAMINATIONS.values():
            assert worst(examine(history, FACTS)) == 0, name


def test_few_samples_do_not_show_every_mode() -> None:
    facts = Facts(modes=1000, steps=1000, samples=2000)
    expected, deviation = mode_collapse.expected_modes([1 / 1000] * 1000, 2000)
    assert deviation == pytest.approx(math.sqrt(1000 * math.exp(-2) * (1 - math.exp(-2))), rel=1e-2)
    assert expected == pytest.approx(1000 * (1 - math.exp(-2)), rel=1e-3)
    assert levels(facts, modes_covered=860.0, least_mode_ratio=0.0) == only("mode_collapse", 0)
    assert levels(facts, modes_covered=400.0, least_mode_ratio=0.0) == only("mode_collapse", 2)


def test_few_samples_do_not_show_how_many_pictures_there_are() -> None:
    for samples in (8, 17, 30, 80):  # none the same: the number of pairs, or one of them
        facts = dataclasses.replace(FACTS, modes=0, samples=samples)
        pairs = samples * (samples - 1) / 2
        for support in (pairs, pairs / 2):
            seen = levels(facts, birthday_support_classifier=support)
            assert seen == only("mode_collapse", 0), samples
    facts = dataclasses.replace(FACTS, modes=0, samples=100)
    assert levels(facts, birthday_support_classifier=100 * 99 / 2) == only("mode_collapse", 0)
    assert levels(facts, birthday_support_classifier=20.0) == only("mode_collapse", 2)


def test_few_real_examples_do_not_show_what_is_near() -> None:
    near = {"birthday_support_classifier": 20.0, "copied_share_classifier": 0.9}
    seen = {**only("mode_collapse", 2), "overfitting": 2}
    for real, expected in ((8, only("overfitting", 0)), (99, only("overfitting", 0)), (100, seen)):
        assert levels(dataclasses.replace(FACTS, real=real), **near) == expected, real
    assert levels(**near) == seen, "a run that does not tell how many"


def test_a_mode_that_is_rare_in_the_data_may_be_missing_in_few_samples() -> None:
    for share, level in ((0.0005, 0), (0.009, 0), (0.011, 2)):  # of 2,000 samples
        shares = [share, *[(1 - share) / 9] * 9]
        expected = mode_collapse.expected_modes(shares, 2000)
        facts = dataclasses.replace(FACTS, least_share=share, expected_modes=expected)
        missing = {"least_mode_ratio": 0.0, "modes_covered": 9.0}
        assert levels(facts, **missing) == only("mode_collapse", level), share
    assert levels(least_mode_ratio=0.0, modes_covered=9.0) == only("mode_collapse", 2)


def test_a_perfect_generator_of_unbalanced_classes_has_not_collapsed() -> None:
    # One class of 9,000 examples, and nine of 3: 2,000 of them show 5.4 classes, or 1 to 10.
    counts = torch.tensor([9000.0, *[3.0] * 9], dtype=torch.float64)
    shares = (counts / counts.sum()).tolist()
    expected = mode_collapse.expected_modes(shares, 2000)
    assert expected == pytest.approx((1 + 9 * 0.4858, 1.499), rel=1e-3)
    facts = dataclasses.replace(FACTS, least_share=min(shares), expected_modes=expected)
    drawn = torch.multinomial(
        counts, 40 * 2000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    for classes in drawn.unflatten(0, (40, 2000)):
        seen = {"modes_covered": float(len(classes.unique())), "least_mode_ratio": 0.0}
        assert levels(facts, **seen) == only("mode_collapse", 0), seen
    # Of classes that cannot be missed it is still told that they are missing.
    counts[5:] = 900.0
    shares = (counts / counts.sum()).tolist()
    expected = mode_collapse.expected_modes(shares, 2000)
    facts = dataclasses.replace(FACTS, least_share=min(shares), expected_modes=expected)
    assert levels(facts, modes_covered=1.0, least_mode_ratio=0.0) == only("mode_collapse", 2)


def test_a_classifier_s_word_on_what_it_has_never_seen_is_no_proof() -> None:
    for missing in ({"least_mode_ratio": 0.0}, {"modes_covered": 3.0}):
        assert levels(**missing, density_classifier=0.9) == only("mode_collapse", 2)
        assert levels(**missing, density_classifier=0.2) == only("mode_collapse", 1)
    assert levels(diversity=0.1, density_classifier=0.2) == only("mode_collapse", 2)


def test_points_may_lie_as_near_to_each_other_as_they_like() -> None:
    facts = Facts(modes=8, steps=1000, samples=2000, target="point")
    near = {"neighbour_distance": 0.01, "modes_covered": 2.0}
    assert levels(facts, **near) == only("mode_collapse", 0)  # none is of high quality as yet


def test_without_a_discriminator_s_judgement_nothing_is_said_of_it() -> None:
    history = History()
    for step in range(500, 520):
        history.add(step, {"loss/generator": 1.0, "diversity": 1.0})
    signs: list[Sign] = [s for e in EXAMINATIONS.values() for s in e(history, FACTS)]
    assert worst(signs) == 0


def test_a_weighted_sum_is_judged_by_its_weights() -> None:
    weighted = dataclasses.replace(FACTS, loss_scales={"loss/generator": 801.0})
    assert levels(weighted, loss__generator=480.0) == only("non_convergence", 0)
    assert levels(weighted, loss__generator=50 * 801.0) == only("non_convergence", 1)
    assert levels(weighted, loss__generator=200 * 801.0) == only("non_convergence", 2)
    assert levels(weighted, loss__discriminator=480.0) == only("non_convergence", 2)
    boundless = dataclasses.replace(FACTS, loss_scales={"loss/generator": math.inf})
    assert levels(boundless, loss__generator=1e9) == only("non_convergence", 0)
    assert levels(boundless, loss__generator=math.inf) == only("non_convergence", 2)


WEIGHTED = {
    "pix2pix": ({"l1": 800.0}, {"loss/generator": 801.0}),
    "cyclegan": ({"cycle": 10.0, "identity": 0.5, "adversarial": 3.0}, {"loss/generator": 36.0}),
    "srgan": (
        {"pixel_weight": 20.0, "adversarial_weight": 0.5},
        {"loss/content": 21.0, "loss/generator": 21.5},
    ),
    "stackgan": ({}, {"loss/divergence": math.inf}),
    "acgan": ({}, {}),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_variants_say_by_what_weights_their_losses_are_summed(name: str) -> None:
    from gan_core.options import parse
    from gan_core.variant import VARIANTS, list_variants

    assert name in list_variants()
    options, scales = WEIGHTED[name]
    cls = VARIANTS[name]
    assert cls(parse(cls.Options, options)).loss_scales() == scales
