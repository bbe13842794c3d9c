"""What is known of a run, and may be wrong with it, before it plays: its data and its variant."""

from __future__ import annotations

from typing import Any

from gan_core.beginning import check_beginning
from gan_core.config import RunConfig, import_plugins
from gan_core.data.examples import DataSpec, Examples
from gan_core.errors import UserError
from gan_core.judging import check_extractor
from gan_core.splits import load_test_split, load_training_data
from gan_core.variant import Variant, create


def check_data(config: RunConfig, *, resumed: bool = False) -> dict[str, Any]:
    """Loads and checks the data and the variant's wishes, on the CPU; raises ``UserError``.

    So does what an extractor asked for by name needs of the data: labels, and a test split; and
    what the run begins from, unless it is ``resumed``: then it goes on with its own.
    Returns what is known then: fingerprint, numbers of examples and classes, the target's shape.
    """
    import_plugins(config.plugins)
    from gan_core.variant import VARIANTS

    train, held_out = load_training_data(config)
    variant = VARIANTS[config.variant](config.game)
    variant.check(train.spec)
    variant.load_pretrained()
    check_extractor(config, train.spec)
    check_counts(config, variant, train.spec, held_out.shortest, max(1, config.workers))
    if config.extractor == "classifier":
        load_test_split(config)
    if not resumed:
        check_beginning(config, train.spec)
    return {
        "fingerprint": train.fingerprint,
        "examples": len(train),
        "held_out": len(held_out),
        "classes": train.spec.classes,
        "shape": list(train.spec.target_shape),
        "target": train.spec.target,
    }


def check_counts(
    config: RunConfig, variant: Variant, spec: DataSpec, held_out: int, workers: int
) -> None:
    """Raises ``UserError`` if there is too little to evaluate: fewer samples, or held-out examples
    of which they are made, than workers that share them, or no two pictures to compare.
    """
    from gan_core.data.mixtures import MIXTURES

    compared = config.extractor != "none" and spec.pictures
    if not (variant.asks_held_out or compared or config.data in MIXTURES):
        return
    if config.samples < workers:
        raise UserError(
            f"--samples {config.samples} cannot be shared by {workers} workers: give more"
        )
    needed = max(2 if compared else 1, workers)
    if variant.asks_held_out and held_out < needed:
        raise UserError(
            f"{config.variant} is judged by the validation split of '{config.data}', and of its "
            f"examples ({held_out}) {workers} workers need {needed}: give more, or fewer --workers"
            if workers > 1
            else f"{config.variant} is judged by the validation split of '{config.data}', which "
            f"holds {held_out} example: give {needed}, or --extractor none"
        )


def build_variant(config: RunConfig, train: Examples) -> Variant:
    """The run's variant with fresh networks for the data of ``train``."""
    return create(config.variant, train.spec, config.game, config.seed)
