"""Training pictures beside the generated ones that are most like them: has it learned by heart?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError
from pipelines.evaluate import EvaluateOptions, evaluation_config, load

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.metrics.real import Nearest
    from gan_core.release import ReleasedGenerator
    from pipelines.sample import SampleOptions

NO_FEATURES = "--neighbours needs features: name an --extractor"


def with_neighbours(
    generator: ReleasedGenerator, options: SampleOptions, targets: Tensor, cache: Path
) -> Tensor:
    """A picture, uint8 (C, H, W), with a row for each of ``targets`` (N, ...), the networks' size.

    It begins with the target at the source's own size; then come the nearest training pictures in
    feature space, the nearest first. How near these are is told in a line on stderr. ``cache``:
    where features are kept, if the run does not say it.
    Raises ``UserError`` where there are no pictures or features.
    """
    from gan_core.engine.world import World
    from gan_core.judging import make_extractors
    from gan_core.metrics.real import nearest_examples
    from gan_core.pictures import neighbour_rows

    if not generator.spec.pictures:
        made = generator.spec.target
        raise UserError(f"--neighbours is for pictures, this generator makes {made}s: leave it out")
    config = evaluation_config(
        generator,
        EvaluateOptions(
            extractor=options.extractor,
            extractor_weights=options.extractor_weights,
            data_root=options.data_root,
        ),
        cache=cache,
    )
    if config.extractor == "none":
        raise UserError(NO_FEATURES)
    train = load(generator, config, config.train_split)
    extractors = make_extractors(config, train, World(device=generator.device), _tell)
    if not extractors:
        raise UserError(NO_FEATURES)
    images = generator.stage.view.restore(targets, generator.spec.target_shape)
    cache = config.cache_folder
    found = nearest_examples(images, train, extractors[0], options.neighbours, cache)
    if len(train) < options.neighbours:
        _tell(f"there are {len(train)} training pictures, so no more neighbours", "warning")
    print(told(found, extractors[0].name), file=sys.stderr)
    return neighbour_rows(images.cpu(), train.tensors[train.spec.target][found.places.cpu()])


def told(found: Nearest, extractor: str) -> str:
    """How far the nearest training pictures are, beside how far these are from each other."""
    nearest = found.distances[:, 0]
    low, middle, high = (float(v) for v in (nearest.min(), nearest.median(), nearest.max()))
    close = int((nearest <= found.near).sum())
    return (
        "a row each: a sample, then its nearest training pictures. The first of these are "
        f"{low:.3g} to {high:.3g} away, median {middle:.3g} (features of {extractor}); {close} of "
        f"{len(nearest)} at most {found.near:.3g}, as 1 in 100 training pictures is from another "
        "(where many are, they were learned by heart)"
    )


def _tell(text: str, level: str) -> None:
    if level == "warning":
        print(text, file=sys.stderr)
