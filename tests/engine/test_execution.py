"""Which engine is chosen, what it refuses, and that a run may go on by another one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toys import tiny_config

from gan_core.data.examples import DataSpec, TensorSpec
from gan_core.data.loading import load_examples
from gan_core.engine.execution import Engine, choose_engine, compile_networks
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.journal import FILE, read
from gan_core.observers import FolderObserver
from gan_core.run import COMPILING, play
from gan_core.variant import Variant, create

CPU, TWO_CPUS = World(), World(size=2)
GPU, TWO_GPUS = (World(size=n, device=torch.device("cuda", 0)) for n in (1, 2))
POINTS: dict[str, Any] = {"hidden": 8, "maxout_units": 4, "latent": 3}
PICTURES: dict[str, Any] = {"width": 4, "image_size": 16, "kernel": 4, "latent": 3}


def variant(name: str = "dcgan", **options: Any) -> Variant:
    data = load_examples("digits" if name == "dcgan" else "ring", None, "train").spec
    return create(name, data, (PICTURES if name == "dcgan" else POINTS) | options)


def game(engine: Engine, name: str = "dcgan", **options: Any) -> Game:
    source = "digits" if name == "dcgan" else "ring"
    splits = [load_examples(source, None, split) for split in ("train", "validation")]
    return Game(variant(name, **options), *splits, batch_size=16, world=CPU, engine=engine)


@pytest.mark.parametrize(
    ("world", "wish", "chosen"),
    [
        (CPU, ("auto", "auto", "auto"), Engine("eager", "fp32", True)),
        (TWO_CPUS, ("auto", "bf16", "auto"), Engine("eager", "bf16", True)),
        (GPU, ("auto", "auto", "auto"), Engine("graph", "tf32", True)),
        (GPU, ("auto", "fp32", "auto"), Engine("graph", "fp32", False)),
        (TWO_GPUS, ("auto", "bf16", "contiguous"), Engine("eager", "bf16", False)),
        (TWO_GPUS, ("graph", "fp32", "auto"), Engine("graph", "fp32", False)),
        (CPU, ("compile", "fp32", "contiguous"), Engine("compile", "fp32", False)),
        (GPU, ("compiled-graph", "bf16", "auto"), Engine("compiled-graph", "bf16", True)),
    ],
)
def test_what_is_possible_is_chosen_without_a_word(
    world: World, wish: tuple[str, str, str], chosen: Engine
) -> None:
    assert choose_engine(*wish, variant(), world) == (chosen, [])


def test_points_have_no_channels() -> None:
    engine, _ = choose_engine("auto", "auto", "auto", variant("gan"), CPU)
    assert not engine.channels_last


def test_maps_that_a_processor_normalises_in_the_plain_layout_stay_in_it() -> None:
    sized = TensorSpec((3, 16, 16), -1.0, 1.0)
    data = DataSpec({"image": sized, "input": sized})
    pairs = create("pix2pix", data, {"image_size": 16, "width": 4, "patch_layers": 1})
    for precision in ("fp32", "bf16"):
        assert not choose_engine("auto", precision, "auto", pairs, CPU)[0].channels_last
        assert choose_engine("auto", precision, "channels_last", pairs, CPU)[0].channels_last
    assert choose_engine("auto", "bf16", "auto", pairs, GPU)[0].channels_last


@pytest.mark.parametrize(
    ("world", "wish", "mode", "line"),
    [
        (CPU, ("graph", "auto"), "eager", "--engine graph needs a CUDA device"),
        (TWO_CPUS, ("compiled-graph", "auto"), "compile", "--engine compiled-graph needs"),
        (CPU, ("eager", "tf32"), "eager", "--precision tf32 is for GPUs"),
    ],
)
def test_what_cannot_be_had_is_told(
    world: World, wish: tuple[str, str], mode: str, line: str
) -> None:
    engine, (told,) = choose_engine(*wish, "auto", variant(), world)
    assert engine.mode == mode
    assert told.startswith(line)


def test_a_penalised_network_is_not_compiled_and_the_reason_told() -> None:
    made = variant("gan", r1=1.0)
    (line,) = compile_networks(made, made.stages()[0])
    assert line.startswith("discriminator is not compiled: the objective of discriminator")
    assert made.discriminator._compiled_call_impl is None  # type: ignore[union-attr]
    assert made.generator._compiled_call_impl is not None  # type: ignore[union-attr]


def test_who_unrolls_the_opponent_keeps_it_from_being_compiled() -> None:
    made = variant("gan", unrolled=1)
    (line,) = compile_networks(made, made.stages()[0])
    assert line.startswith("discriminator is not compiled: the objective of generator")


def test_copies_of_compiled_networks_are_plain_ones() -> None:
    made = variant("gan")
    assert compile_networks(made, made.stages()[0]) == []
    assert copy.deepcopy(made.generator)._compiled_call_impl is None  # type: ignore[union-attr]


def test_compiled_networks_train_as_plain_ones() -> None:
    plain, compiled = (game(Engine(mode), "gan", r1=1.0) for mode in ("eager", "compile"))
    for played in (plain, compiled):
        played.play(3)
    found = dict(compiled.variant.named_parameters())
    (line,) = compiled.take_notes()
    assert line.startswith("discriminator is not compiled")
    assert compiled.take_notes() == []
    for name, weights in plain.variant.named_parameters():
        torch.testing.assert_close(found[name], weights, rtol=1e-4, atol=1e-5)


def test_channels_last_networks_have_channels_last_moments() -> None:
    played = game(Engine(channels_last=True))
    played.play(1)
    for seat in played.seats:
        for parameter, state in seat.optimizer.state.items():
            assert state["exp_avg"].stride() == parameter.stride()
    kernels = [p for p in played.variant.parameters() if p.dim() == 4 and p.shape[1] > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


@pytest.mark.parametrize("before", [False, True])
def test_a_checkpoint_of_one_layout_goes_on_in_the_other(before: bool) -> None:
    """Exactly so in its own layout; up to rounding in the other."""
    whole = game(Engine(channels_last=before))
    whole.play(3)
    state, own = copy.deepcopy((whole.state_dict(), whole.rank_state()))
    whole.play(1)
    for layout in (before, not before):
        resumed = game(Engine(channels_last=layout))
        resumed.load_state_dict(copy.deepcopy(state))
        resumed.load_rank_state(own)
        for seat in resumed.seats:
            for parameter, moments in seat.optimizer.state.items():
                assert moments["exp_avg"].stride() == parameter.stride()
        resumed.play(1)
        found = dict(resumed.variant.named_parameters())
        for name, weights in whole.variant.named_parameters():
            if layout == before:
                assert torch.equal(found[name], weights)
            else:
                torch.testing.assert_close(found[name], weights, rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["eager", "compile"])
def test_a_run_says_that_it_is_compiling_before_the_first_iteration(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    config = tiny_config(tmp_path / "run", "gan", engine=mode, steps=1)
    play(config, CPU, FolderObserver(config.folder, CPU))
    told = [(e["kind"], e.get("text")) for e, _ in read(config.folder / FILE)]
    assert (("message", COMPILING) in told) == (mode == "compile")
    if mode == "compile":
        kinds = [kind for kind, _ in told]
        assert kinds.index("start") < told.index(("message", COMPILING)) < kinds.index("metrics")
