"""How the benchmark on MNIST chooses a step."""

from __future__ import annotations

from benchmarks.mnist import LEAST_CLASS_ACCURACY, RECIPES, Score, best_step
from gan_core.config import make_config


def test_without_classes_the_best_value_is_chosen() -> None:
    assert best_step({10: Score(3.0), 20: Score(5.0), 30: Score(-1.0)}) == 20


def test_a_step_that_ignores_the_classes_is_passed_over() -> None:
    least = LEAST_CLASS_ACCURACY
    scores = {
        10: Score(190.0, least - 0.001),
        20: Score(140.0, 1.0),
        30: Score(150.0, least),
        40: Score(120.0, 0.99),
    }
    assert best_step(scores) == 30


def test_where_none_obeys_the_most_obedient_is_chosen() -> None:
    assert best_step({10: Score(190.0, 0.2), 20: Score(10.0, 0.9), 30: Score(20.0, 0.8)}) == 20


def test_every_recipe_is_of_known_options() -> None:
    for variant, recipe in RECIPES.items():
        config = make_config({"variant": variant, "data": "mnist", **recipe})
        assert config.options["steps"] == recipe["steps"]
