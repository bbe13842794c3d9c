"""What trains on the host trains on a device: nothing is left behind, nothing else is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pretended_cuda import DeviceTensor, pretended_cuda
from test_engine_modes import BATCH, examples
from test_every_variant import ROWS, N

from gan_core.data.examples import DataSpec
from gan_core.diagnostics import dynamics, signals
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.world import World
from gan_core.variant import create

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a device that is none")


def on_host(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: (t.host if isinstance(t, DeviceTensor) else t).clone() for n, t in tensors.items()}


def played(
    name: str, options: dict[str, Any], data: DataSpec, world: World
) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, float]]:
    """Weights and buffers, samples, and all that is looked at while a run plays."""
    split = examples(data)
    variant = create(name, data, {"steps": 100, **options}, seed=1)
    seed_rank(0, world)
    game = Game(variant, split, split, batch_size=BATCH, world=world, engine=Engine())
    memory = signals.Memory()
    signals.measure(game, memory)
    game.play(2)
    samples = game.sampler()(torch.arange(N))[data.target]
    seen = signals.measure(game, memory) | dynamics.measure(game)
    game.load_state_dict(game.state_dict())
    game.play(1)
    state = {n: t.detach() for n, t in variant.state_dict().items()}
    assert {t.device for t in [*state.values(), samples]} == {world.device}
    return on_host(state), on_host({"": samples})[""], seen


_FIRST = {row[0]: row for row in reversed(ROWS)}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=() if row is _FIRST[row[0]] else pytest.mark.slow) for row in ROWS],
    ids=[f"{row[0]}-{i}" for i, row in enumerate(ROWS)],
)
def test_a_game_on_a_device_is_the_one_on_the_host(
    row: tuple[str, dict[str, Any], DataSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, samples, seen = played(*row, World())
    with pretended_cuda(monkeypatch) as device:
        found = played(*row, World(device=device))
    torch.testing.assert_close(found[0], weights)
    torch.testing.assert_close(found[1], samples)
    assert found[2] == pytest.approx(seen, rel=1e-3, nan_ok=True)
