"""What population-based training may change: a state can be gone on from with the other value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_every_variant import ROWS, random_tensor

from gan_core.config import make_config
from gan_core.data.examples import DataSpec, Examples, to_pixels
from gan_core.engine.game import Game
from gan_core.variant import create
from pipelines.tuning.schedulers import mutations
from pipelines.tuning.study import Study, TuneOptions

FIRST = {(name, data.target): (options, data) for name, options, data in reversed(ROWS)}
"""A row of each variant and kind of target."""


def game(name: str, options: dict[str, Any], data: DataSpec) -> Game:
    tensors = {n: random_tensor(n, spec) for n, spec in data.tensors.items()}
    for tensor, spec in data.tensors.items():
        if len(spec.shape) == 3 and spec.low is not None:  # a source's pictures are pixels
            tensors[tensor] = to_pixels(tensors[tensor])
    examples = Examples(tensors, data, "random")
    return Game(create(name, data, options), examples, examples, batch_size=2)


@pytest.mark.parametrize(("name", "target"), FIRST)
def test_a_state_fits_whatever_is_changed_while_a_trial_plays(name: str, target: str) -> None:
    options, data = FIRST[name, target]
    config = make_config({"variant": name, "name": "search"})
    changes = mutations(Study(run=config, options=TuneOptions(), target=target))
    assert changes
    plain = {"steps": 8, "batch_size": 2, **options}
    refused = create(name, data, plain).refused_options()
    for option, domain in changes.items():
        if option in refused:  # with the others of this row: it is not searched then
            continue
        values = domain if isinstance(domain, list) else [domain.lower, domain.upper]
        for value, other in ((values[0], values[-1]), (values[-1], values[0])):
            played = game(name, {**plain, option: value}, data)
            goes_on = game(name, {**plain, option: other}, data)
            goes_on.load_state_dict(played.state_dict())
            goes_on.load_rank_state(played.rank_state())
            before, after = played.variant.state_dict(), goes_on.variant.state_dict()
            assert all(torch.equal(before[n], after[n]) for n in before)
