"""Looking on disturbs nothing; samples are functions of their numbers; averages are averages."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import pytest
import torch
from engine_toys import (
    FolderObserver,
    copies,
    difference,
    mlp,
    pictures,
    saved,
    tiny_config,
    tiny_game,
)
from torch import Tensor, nn

from gan_core.data.examples import Batch, to_unit_range
from gan_core.data.views import SquareView
from gan_core.diagnostics import dynamics, signals
from gan_core.engine import game as game_module
from gan_core.engine.averaging import MovingAverage, measure_batch_statistics
from gan_core.engine.game import Game
from gan_core.engine.sampling import undisturbed
from gan_core.engine.world import World
from gan_core.randomness import stream_key
from gan_core.run import play

NEVER = {"log_every": 100, "evaluate_every": 0, "checkpoint_every": 0}
ALWAYS = {"log_every": 1, "evaluate_every": 1, "checkpoint_every": 1}
RUNS = {
    "dcgan with an average": ("dcgan", {"ema": 0.9}),
    "gan with dropout": ("gan", {"dropout": 0.4, "k": 2}),
    "cgan with dropout": ("cgan", {}),
    "gan with falling noise": ("gan", {"instance_noise": 0.2, "instance_noise_until": 0.9}),
    # Points have figures without an extractor: the evaluator itself takes part.
    "gan on the ring": ("gan", {"data": "ring", "dropout": 0.3, "extractor": "auto"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_training_is_the_same_bit_for_bit_with_and_without_looking_on(
    name: str, tmp_path: Path
) -> None:
    variant, options = RUNS[name]
    ends = []
    for looks in (NEVER, ALWAYS):
        torch.manual_seed(1)
        folder = tmp_path / str(looks["log_every"])
        config = tiny_config(folder, variant, **{"steps": 6, **options, **looks})
        play(config, World(), FolderObserver(config.folder, World()))
        ends.append(saved(folder / "checkpoints" / "step_00000006"))
    for end in ends:
        for seen in ("history", "best", "signals"):  # what was looked at, and how often
            del end["state"][seen]
    assert difference(*ends) == []
    assert len(list((tmp_path / "1" / "samples").iterdir())) == 6
    assert len(list((tmp_path / "100" / "samples").iterdir())) == 1


def test_what_is_drawn_while_looking_on_is_not_missed_by_training() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    with undisturbed():
        torch.rand(5)
        torch.manual_seed(9)
    with contextlib.suppress(KeyError), undisturbed():
        torch.rand(5)
        raise KeyError
    assert torch.equal(torch.rand(3), expected)


def disturbed(game: Game) -> dict[str, object]:
    """All that looking on must leave alone."""
    modules = dict(game.variant.named_modules())
    return {
        "weights": copies(game.variant.state_dict()),
        "buffers": copies(dict(game.variant.named_buffers())),
        "modes": {name: module.training for name, module in modules.items()},
        "trained": {n: p.requires_grad for n, p in game.variant.named_parameters()},
        "gradients": {
            n: p.grad.clone() for n, p in game.variant.named_parameters() if p.grad is not None
        },
        "momenta": {n: getattr(m, "momentum", None) for n, m in modules.items()},
        "random": torch.get_rng_state(),
        "state": copy.deepcopy(game.state_dict()),
    }


@pytest.mark.parametrize(
    ("variant", "options"),
    [("dcgan", {"ema": 0.9}), ("gan", {"dropout": 0.4}), ("cgan", {}), ("sngan", {"ema": 0.9})],
)
def test_sampling_and_measuring_leave_everything_as_it_was(variant, options) -> None:
    game = tiny_game(variant, options)
    game.play(2)
    before = disturbed(game)
    for averaged in (True, False):
        sampler = game.sampler(averaged=averaged)
        sampler(torch.arange(20))
        sampler.network("generator").weight = None
    assert signals.measure(game)
    assert dynamics.measure(game)
    game.examples_for_judgement(20, held_out=True)
    assert difference(before, disturbed(game)) == []


def test_sampling_copies_are_not_moved_by_later_training() -> None:
    game = tiny_game("dcgan", {})
    game.play(1)
    sampler = game.sampler()
    before = sampler(torch.arange(4))["image"]
    game.play(2)
    assert torch.equal(sampler(torch.arange(4))["image"], before)
    assert not torch.equal(game.sampler()(torch.arange(4))["image"], before)


@pytest.mark.parametrize(
    ("variant", "options"), [("dcgan", {"ema": 0.9}), ("gan", {"dropout": 0.4}), ("cgan", {})]
)
def test_the_same_number_is_the_same_sample_in_any_batch(variant, options) -> None:
    game = tiny_game(variant, options)
    game.play(2)
    sampler = game.sampler()
    whole = sampler(torch.arange(30))["image"]
    one_by_one = torch.cat([sampler(torch.tensor([i]))["image"] for i in range(30)])
    torch.testing.assert_close(one_by_one, whole, rtol=0, atol=1e-5)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampler(order)["image"], whole[order], rtol=0, atol=1e-5)
    assert torch.equal(game.sampler()(torch.arange(30))["image"], whole)
    assert len(whole.flatten(1).unique(dim=0)) == 30
    assert not torch.equal(game.sampler(seed=9)(torch.arange(30))["image"], whole)


def test_conditions_come_in_the_proportions_of_the_data() -> None:
    examples = pictures(40, classes=4)
    examples.tensors["label"][:25] = 0  # type: ignore[index]
    sampler = tiny_game("cgan", {}, examples=examples).sampler()
    asked = sampler.conditions(torch.arange(80))["label"]
    assert torch.equal(asked.bincount(), 2 * examples.tensors["label"].bincount())


def test_a_constant_network_s_average_follows_the_closed_form() -> None:
    network = mlp(3, 2)
    begin = copies(dict(network.named_parameters()))
    average = MovingAverage(network, decay=0.8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.5)
    left = 1.0
    for update in range(60):
        average.update()
        left *= min(0.8, (1 + update) / (10 + update))
        if update in (0, 3, 59):
            averaged = copy.deepcopy(network)
            average.copy_to(averaged)
            for name, parameter in averaged.named_parameters():
                now = network.get_parameter(name).detach()
                expected = now + (begin[name] - now) * left
                torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)
    # With the ramp over, an update is one by the decay alone.
    before = copies({str(i): t for i, t in enumerate(average.state_dict()["average"])})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.sub_(4.0)
    for _ in range(5):
        average.update()
    for number, parameter in enumerate(network.parameters()):
        expected = parameter.detach() + (before[str(number)] - parameter.detach()) * 0.8**5
        torch.testing.assert_close(average.state_dict()["average"][number], expected)  # type: ignore[index]


def test_a_game_averages_once_an_iteration() -> None:
    game = tiny_game("dcgan", {"ema": 0.6, "k": 3})
    begin = copies(dict(game.variant.generator.named_parameters()))  # type: ignore[union-attr]
    history = []
    for _ in range(4):
        game.iterate()
        history.append(copies(dict(game.variant.generator.named_parameters())))  # type: ignore[union-attr]
    expected = {name: value.double() for name, value in begin.items()}
    for update, now in enumerate(history):
        decay = min(0.6, (1 + update) / (10 + update))
        expected = {n: decay * v + (1 - decay) * now[n].double() for n, v in expected.items()}
    network = game.sampler().network("generator")
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=1e-6)
    live = dict(game.sampler(averaged=False).network("generator").named_parameters())
    assert difference(dict(live), history[-1]) == []


def test_an_averaged_network_s_statistics_are_the_mean_over_its_own_batches() -> None:
    game = tiny_game("dcgan", {"ema": 0.6})
    game.play(3)
    sampler = game.sampler()
    averaged = sampler.network("generator")
    # The reference: the inputs of every normalisation, of the same network and the same noise.
    network = copy.deepcopy(averaged).train()
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    means: dict[str, list[Tensor]] = {name: [] for name in layers}
    variances: dict[str, list[Tensor]] = {name: [] for name in layers}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            channels = inputs[0].double().transpose(0, 1).flatten(1)
            means[name].append(channels.mean(1))
            variances[name].append(channels.var(1))  # the unbiased one

        return hook

    for name, layer in layers.items():
        layer.register_forward_pre_hook(note(name))
    from gan_core.randomness import stream_key

    noise = game.sampler(seed=stream_key(3, "batch statistics") >> 1)
    with torch.no_grad():
        for number in range(16):
            network(noise.noise(torch.arange(128 * number, 128 * (number + 1)))["latent"])
    assert layers
    for name in layers:
        measured = averaged.get_submodule(name)
        for found, reference in (
            (measured.running_mean, means[name]),
            (measured.running_var, variances[name]),
        ):
            expected = torch.stack(reference).mean(0).float()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert not measured.training


def test_measuring_statistics_leaves_modes_and_momenta() -> None:
    network = mlp(3, 2, norm=True).eval()
    network[1].momentum = 0.3
    batch = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    measure_batch_statistics(network, lambda number: network(batch + number), 2)
    assert network[1].momentum == 0.3
    assert not any(module.training for module in network.modules())
    hidden = network[0](batch).detach()
    shift = network[0].weight.sum(1).detach()
    expected = (hidden.mean(0) + (hidden + shift).mean(0)) / 2
    torch.testing.assert_close(network[1].running_mean, expected)


@pytest.mark.parametrize("asks_held_out", [False, True])
def test_conditions_are_converted_and_moved_as_samples_ask_for_them(
    asks_held_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(game_module, "STATISTICS_BATCH", 4)
    monkeypatch.setattr(game_module, "STATISTICS_BATCHES", 3)
    game = tiny_game("sngan", {"conditional": True, "ema": 0.9})
    monkeypatch.setattr(type(game.variant), "asks_held_out", asks_held_out)
    game.play(2)
    shown: list[int] = []
    present = SquareView.present

    def counted(view: SquareView, stored: Batch) -> Batch:
        shown.append(len(stored["label"]))
        return present(view, stored)

    monkeypatch.setattr(SquareView, "present", counted)
    sampler = game.sampler()
    assert shown == [4, 4, 4], "those of the batches that statistics are measured on"
    sampler(torch.arange(10))
    assert shown == [4, 4, 4, 10]
    if asks_held_out:
        game.held_out_examples(8)
        assert shown[-1] == 8


@pytest.mark.parametrize("asks_held_out", [False, True])
def test_conditions_are_those_of_all_examples_presented_at_once(
    asks_held_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = pictures(40, classes=4)
    game = tiny_game("cgan", {}, examples=examples)
    monkeypatch.setattr(type(game.variant), "asks_held_out", asks_held_out)
    monkeypatch.setattr(type(game.variant), "conditions", lambda variant: ("label", "image"))
    asked = game.sampler().conditions(torch.arange(100))
    order = torch.arange(40)
    if not asks_held_out:
        key = stream_key(3, "conditions") & (2**63 - 1)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(key))
    rows = order[torch.arange(100) % 40]
    assert torch.equal(asked["label"], examples.tensors["label"][rows])
    assert torch.equal(asked["image"], to_unit_range(examples.tensors["image"])[rows])
