"""The splits of a run's source, checked."""

from __future__ import annotations

from gan_core.config import RunConfig
from gan_core.data.examples import Examples, Split


def load_split(config: RunConfig, split: Split) -> Examples:
    """A split of the run's source."""
    from gan_core.data.loading import load_examples

    return load_examples(config.data, config.data_root, split, **config.data_options)


def load_training_data(config: RunConfig) -> tuple[Examples, Examples]:
    """The checked training split of the run and the validation split."""
    from gan_core.data.loading import check_examples

    train = load_split(config, config.train_split)  # type: ignore[arg-type]
    held_out = load_split(config, "validation")
    check_examples(train, batch_size=config.game.batch_size)
    check_examples(held_out, batch_size=1)
    return train, held_out


def load_test_split(config: RunConfig) -> Examples:
    """The checked test split, by which the classifier is judged."""
    from gan_core.data.loading import check_examples

    test = load_split(config, "test")
    check_examples(test, batch_size=1)
    return test
