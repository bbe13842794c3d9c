"""What the engine relies on, for every variant: a new variant is one row of the table."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core.data.examples import Batch, DataSpec, TensorSpec, to_pixels
from gan_core.data.midi import melody_spec
from gan_core.engine.averaging import MovingAverage
from gan_core.errors import UserError
from gan_core.losses import LOSSES
from gan_core.metrics.names import declared_figures
from gan_core.options import parse
from gan_core.priors import draw
from gan_core.randomness import stream_key
from gan_core.variant import VARIANTS, Player, Stage, Variant, create, list_variants

N = 6


def pictures(channels: int, size: int, classes: int = 0) -> DataSpec:
    tensors = {"image": TensorSpec((channels, size, size), -1.0, 1.0)}
    if classes:
        tensors["label"] = TensorSpec((), classes=classes)
    return DataSpec(tensors)


def pairs(channels: int, size: int, series: str = "") -> DataSpec:
    own = TensorSpec((channels, size, size), -1.0, 1.0)
    return DataSpec({"image": own, "input": dataclasses.replace(own, series=series)})


def captioned(channels: int, size: int) -> DataSpec:
    text = TensorSpec((2, 5))
    return DataSpec({"image": TensorSpec((channels, size, size), -1.0, 1.0), "text": text})


POINTS = DataSpec({"point": TensorSpec((2,))}, "point")
TINY_GAN = {"latent": 3, "hidden": 32, "maxout_units": 4, "maxout_pieces": 2}
TINY_CGAN = {
    "latent": 3,
    "hidden_latent": 5,
    "hidden_label": 16,
    "hidden": 32,
    "maxout_units": 4,
    "maxout_label": 3,
}
TINY_DCGAN = {"latent": 3, "width": 4, "image_size": 16}
TINY_MIDINET = {"latent": 12, "hidden": 32, "width_g": 16, "width_d": 3}
TINY_RESNET = {"latent": 12, "width_g": 4, "width_d": 4, "image_size": 16}
TINY_ACGAN = {"latent": 3, "width_g": 4, "width_d": 2, "image_size": 16}
TINY_SRGAN: dict[str, object] = {
    "steps": 4,
    "pretrain_steps": 4,
    "batch_size": 4,
    "crop": 16,
    "width": 4,
    "blocks": 1,
    "kernel_end": 3,
    "width_d": 2,
    "hidden_d": 4,
    "content": "pixels",
}
TINY_TRANSLATION = {"image_size": 16, "width": 4, "patch_layers": 1, "batch_size": 2}
TINY_STACKGAN: dict[str, object] = {
    "image_size": 128,
    "latent": 3,
    "condition": 4,
    "width": 2,
    "width_2": 4,
    "width_d": 2,
}
TINY_LAPGAN = {"levels": 2, "latent": 3, "hidden": 16, "width": 4, "steps": 4}
PENALISED = {"loss": "wasserstein", "r1": 1.0}
BOTH = {"gradient_penalty": 1.0, "optimizer": "adam"}
AUGMENTED = {"diffaug": "color,translation,cutout,flip"}

ROWS: list[tuple[str, dict[str, object], DataSpec]] = [
    ("gan", TINY_GAN, pictures(1, 8)),
    ("gan", TINY_GAN, pictures(3, 6, classes=4)),
    ("gan", TINY_GAN, POINTS),
    ("gan", TINY_GAN | PENALISED, pictures(1, 8)),
    ("cgan", TINY_CGAN, pictures(1, 8, classes=10)),
    ("cgan", TINY_CGAN, pictures(3, 6, classes=2)),
    ("cgan", TINY_CGAN | PENALISED, pictures(1, 8, classes=10)),
    ("cgan", TINY_CGAN | PENALISED | {"wrong_label": 0.5}, pictures(1, 8, classes=2)),
    ("dcgan", TINY_DCGAN, pictures(1, 8)),
    ("dcgan", TINY_DCGAN | {"image_size": 32, "kernel": 4}, pictures(3, 32, classes=3)),
    ("dcgan", TINY_DCGAN | PENALISED, pictures(1, 16)),
    ("srgan", TINY_SRGAN, pictures(3, 20)),
    ("srgan", TINY_SRGAN | {"upsampling": "once", "skip": "bicubic"}, pictures(1, 16)),
    ("srgan", TINY_SRGAN | {"norm_g": "none", "scale": 2, "ema": 0.9}, pictures(3, 16)),
    ("srgan", TINY_SRGAN | PENALISED | AUGMENTED, pictures(3, 16)),
    ("lapgan", TINY_LAPGAN, pictures(1, 12)),
    ("lapgan", TINY_LAPGAN | {"conditional": True, "r1": 1.0}, pictures(3, 16, classes=3)),
    ("lapgan", TINY_LAPGAN | {"levels": 3, "optimizer": "adam", "ema": 0.9}, pictures(3, 28)),
    ("lapgan", TINY_LAPGAN | {"level": 1, "conditional": True}, pictures(1, 12, classes=2)),
    ("lapgan", TINY_LAPGAN | PENALISED | AUGMENTED | BOTH, pictures(3, 16)),
    *[("gan", TINY_GAN | {"loss": name}, POINTS) for name in LOSSES],
    ("dcgan", TINY_DCGAN | AUGMENTED, pictures(3, 16)),
    ("sngan", TINY_RESNET | {"diffaug": "color"}, pictures(1, 16)),
    ("sngan", TINY_RESNET | PENALISED | {"conditional": True}, pictures(3, 16, classes=3)),
    ("midinet", TINY_MIDINET, melody_spec(16)),
    ("midinet", TINY_MIDINET | {"output": "straight-through", "keys": "root"}, melody_spec(12)),
    (
        "midinet",
        TINY_MIDINET | {"output": "held", "keys": "root-shown", "match_tones": 1.0},
        melody_spec(16),
    ),
    ("midinet", TINY_MIDINET | PENALISED | {"label_smoothing": 0.0}, melody_spec(16)),
    ("sngan", TINY_RESNET | {"architecture": "cnn", "width_g": 8}, pictures(3, 28)),
    ("sagan", TINY_RESNET, pictures(3, 16, classes=3)),
    ("sagan", TINY_RESNET | PENALISED | {"conditional": False}, pictures(1, 16)),
    ("biggan", TINY_RESNET | {"embedding": 5, "ema": 0.9}, pictures(1, 8, classes=4)),
    ("stackgan", TINY_STACKGAN, captioned(3, 32)),
    ("stackgan", TINY_STACKGAN | {"r1": 1.0, "diffaug": "flip", "steps_2": 0}, captioned(1, 64)),
    ("stackgan", TINY_STACKGAN | {"contrast": 1.0, "contrast_texts": 2}, captioned(3, 32)),
    ("stackgan", TINY_STACKGAN | AUGMENTED | {"gradient_penalty": 1.0}, captioned(3, 32)),
    ("acgan", TINY_ACGAN, pictures(1, 8, classes=4)),
    ("acgan", TINY_ACGAN | {"image_size": 32, "r1": 1.0}, pictures(3, 32, classes=2)),
    ("pix2pix", TINY_TRANSLATION, pairs(3, 16)),
    ("pix2pix", TINY_TRANSLATION | {"dropout": 0.0, "loss": "hinge"}, pairs(1, 8)),
    ("pix2pix", TINY_TRANSLATION | {"residual": True}, pairs(3, 8)),
    ("pix2pix", TINY_TRANSLATION | PENALISED | AUGMENTED, pairs(3, 16)),
    ("cyclegan", TINY_TRANSLATION | {"blocks": 1}, pairs(3, 16, series="input")),
    ("cyclegan", TINY_TRANSLATION | {"blocks": 1, "identity": 0.0, "residual": True}, pairs(1, 8)),
    ("cyclegan", TINY_TRANSLATION | {"network": "unet", "residual": True}, pairs(1, 8)),
    ("cyclegan", TINY_TRANSLATION | PENALISED | AUGMENTED | {"blocks": 1}, pairs(3, 16)),
]

every_row = pytest.mark.parametrize(
    ("name", "options", "data"), ROWS, ids=[f"{row[0]}-{i}" for i, row in enumerate(ROWS)]
)


@pytest.mark.parametrize(("decay", "reached"), [(0.99, 890), (0.999, 8_990), (0.9999, 89_990)])
def test_every_average_says_from_when_on_it_has_its_decay(decay: float, reached: int) -> None:
    applied = []
    for updates in (reached - 1, reached, reached + 1):
        network = nn.Linear(1, 1, bias=False).double()
        nn.init.zeros_(network.weight)
        average = MovingAverage(network, decay)
        average.updates = updates
        nn.init.ones_(network.weight)
        average.update()
        average.copy_to(network)
        applied.append(1 - network.weight.item())
    assert applied[0] < decay - 1e-12
    assert applied[1:] == pytest.approx([decay, decay], abs=1e-12)
    for name in list_variants():
        for field in dataclasses.fields(VARIANTS[name].Options):
            if field.name == "ema":
                assert f"{decay} from {reached:,}" in field.metadata["help"].replace(" on", "")


def random_tensor(name: str, spec: TensorSpec) -> Tensor:
    generator = torch.Generator().manual_seed(stream_key(0, name) % 2**31)
    if spec.classes:
        return torch.randint(spec.classes, (N, *spec.shape), generator=generator)
    low, high = (-1.0 if spec.low is None else spec.low), (1.0 if spec.high is None else spec.high)
    return low + (high - low) * torch.rand((N, *spec.shape), generator=generator)


def batch_for(variant: Variant, stage: Stage, reader: str, reads: tuple[str, ...]) -> Batch:
    """A random batch with what ``reader`` says that it reads, and nothing else."""
    seen = stage.view.through(variant.given)  # type: ignore[arg-type]
    batch = {name: random_tensor(name, seen.tensors[name]) for name in reads}
    for spec in variant.noise(stage.name):
        if spec.read_by(reader):
            key = stream_key(0, reader, spec.name)
            batch[spec.name] = draw(spec.prior, key, torch.arange(N), spec.shape)
    return batch


def carried(variant: Variant, stage: Stage, player: Player) -> Batch:
    """What the players before this one hand on, where an iteration shares a batch."""
    found: Batch = {}
    if stage.batch == "iteration":
        for other in stage.players[: stage.players.index(player)]:
            batch = batch_for(variant, stage, other.name, other.reads) | found
            found |= {n: t.detach() for n, t in other.objective(batch).carry.items()}
    return found


def built(name: str, options: dict[str, object], data: DataSpec, seed: int = 0) -> Variant:
    variant = create(name, data, options, seed)
    variant.given = data  # type: ignore[assignment]
    train = {name: random_tensor(name, spec) for name, spec in data.tensors.items()}
    if data.pictures:
        train["image"] = to_pixels(train["image"])
    variant.initial_values(train)
    return variant


def parameters_of(variant: Variant, player: Player) -> dict[str, Tensor]:
    return {
        f"{network}.{name}": parameter
        for network in player.networks
        for name, parameter in getattr(variant, network).named_parameters()
    }


def play(variant: Variant, stage: Stage, player: Player) -> dict[str, Tensor]:
    """The player's turn as the engine plays it: only its own networks can learn."""
    variant.zero_grad()
    variant.requires_grad_(False)
    batch = carried(variant, stage, player)
    for parameter in parameters_of(variant, player).values():
        parameter.requires_grad_(True)
    loss = player.objective(batch_for(variant, stage, player.name, player.reads) | batch)
    assert loss.total.shape == ()
    loss.total.backward()
    assert not any(value.requires_grad for value in loss.diagnostics.values())
    return loss.diagnostics


def test_every_variant_has_a_row() -> None:
    # Other tests' plugins may be registered as well.
    own = {n for n in list_variants() if VARIANTS[n].__module__.startswith("gan_core.")}
    assert {row[0] for row in ROWS} == own


@every_row
def test_every_parameter_of_a_player_gets_a_gradient_and_no_other_does(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    for stage in variant.stages():
        for player in stage.players:
            play(variant, stage, player)
            own = parameters_of(variant, player)
            assert [n for n, p in own.items() if p.grad is None] == []
            assert all(torch.isfinite(p.grad).all() for p in own.values() if p.grad is not None)
            assert any(p.grad.abs().sum() > 0 for p in own.values() if p.grad is not None)
            strangers = {n: p for n, p in variant.named_parameters() if n not in own}
            assert [n for n, p in strangers.items() if p.grad is not None] == []


_OTHER_LOSSES = [row for row in ROWS if {"contrast", "wrong_label"} & row[1].keys()]


@pytest.mark.parametrize(
    ("name", "options", "data"),
    [*{row[0]: row for row in reversed(ROWS)}.values(), *_OTHER_LOSSES],
)
def test_losses_of_bfloat16_networks_are_float32(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    for stage in variant.stages():
        for player in stage.players:
            with torch.autocast("cpu", torch.bfloat16):
                given = carried(variant, stage, player)
                batch = batch_for(variant, stage, player.name, player.reads) | given
                loss = player.objective(batch)
            told = {"total": loss.total, **loss.diagnostics}
            assert {n: t.dtype for n, t in told.items() if t.dtype != torch.float32} == {}


@every_row
def test_what_is_asked_before_the_data_are_seen_needs_no_networks(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    kind = VARIANTS[name]
    known = {field.name for field in dataclasses.fields(kind.Options)}
    costly = {"r1": 1.0, "penalty_stride": 2}
    penalised = costly if known >= set(costly) else {}
    variant = kind(parse(kind.Options, {**options, **penalised}))
    variant.check_share(64)
    assert variant.refused_options() <= known


@every_row
def test_players_own_all_networks_once(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    trained: set[str] = set()
    for stage in variant.stages():
        owned = [n for player in stage.players for n in parameters_of(variant, player)]
        assert len(owned) == len(set(owned))
        trained.update(owned)
    assert trained == {n for n, _ in variant.named_parameters()}


@every_row
def test_the_options_know_how_many_examples_an_iteration_takes(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    counts = [
        sum(p.turns * p.batch_scale for p in s.players) * variant.options.batch_size
        for s in variant.stages()
    ]
    looked_ahead = getattr(variant.options, "unrolled", 0) * variant.options.batch_size
    assert variant.options.examples_per_iteration == max(counts) + looked_ahead


@every_row
def test_the_options_know_how_long_the_stages_are_before_they_are_made(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    assert variant.options.stage_steps == tuple(stage.steps for stage in variant.stages())
    lengths = [getattr(variant.options, name) for name in variant.options.stage_lengths]
    assert set(variant.options.stage_steps) <= set(lengths)


@every_row
def test_diagnostics_are_scalars_whose_names_do_not_collide(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    for stage in variant.stages():
        names: list[str] = []
        for player in stage.players:
            diagnostics = play(variant, stage, player)
            assert all(value.shape == () for value in diagnostics.values())
            names += diagnostics
        assert len(names) == len(set(names))
        assert {f"loss/{player.name}" for player in stage.players} <= set(names)


@every_row
def test_samples_are_like_the_data(name: str, options: dict[str, object], data: DataSpec) -> None:
    variant = built(name, options, data).eval()
    for stage in variant.stages():
        batch = batch_for(variant, stage, "sample", variant.conditions())
        spec = stage.view.through(data).tensors[data.target]
        with torch.no_grad():
            sample = variant.sample(stage.name, batch)[data.target]
            again = variant.sample(stage.name, batch)[data.target]
        assert sample.shape == (N, *spec.shape)
        assert torch.equal(sample, again)
        choices = sample.unique().numel() == 2  # which untrained networks may make alike
        assert len(sample.flatten(1).unique(dim=0)) >= (N // 2 if choices else N)
        if spec.low is not None and spec.high is not None:
            assert spec.low <= sample.min()
            assert sample.max() <= spec.high
        for network in variant.sampling_networks(stage.name):
            assert isinstance(getattr(variant, network), torch.nn.Module)


@every_row
def test_the_judge_gives_a_logit_for_each_example(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data).eval()
    for stage in variant.stages():
        batch = batch_for(variant, stage, "sample", (data.target, *variant.conditions()))
        batch |= batch_for(variant, stage, stage.players[-1].name, ())
        judged = variant.judge_stage(stage.name, batch)
        plays = any(player.name == "discriminator" for player in stage.players)
        assert set(judged) == ({"real", "fake", "slope"} if plays else set())
        for logits in judged.values():
            assert logits.shape == (N,) or (name in ("pix2pix", "cyclegan") and len(logits) == N)
            assert torch.isfinite(logits).all()


@every_row
def test_equal_seeds_make_equal_weights_and_leave_the_random_state(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    torch.manual_seed(77)
    before = torch.random.get_rng_state()
    first = built(name, options, data, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(78)
    second, other = built(name, options, data, 3).state_dict(), built(name, options, data, 4)
    assert all(torch.equal(first[key], second[key]) for key in first)
    changed = [k for k, v in other.state_dict().items() if not torch.equal(first[k], v)]
    assert changed


@every_row
def test_nothing_written_by_training_is_lost_in_the_state(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = built(name, options, data)
    stage = variant.stages()[0]
    for player in stage.players:
        play(variant, stage, player)
    copy = built(name, options, data, seed=9)
    copy.load_state_dict(variant.state_dict())
    batch = batch_for(variant, stage, "sample", variant.conditions())
    with torch.no_grad():
        expected = variant.eval().sample(stage.name, batch)[data.target]
        assert torch.equal(copy.eval().sample(stage.name, batch)[data.target], expected)


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS}))
def test_a_variant_refuses_data_it_cannot_learn(name: str) -> None:
    wrong = DataSpec({"sound": TensorSpec((16,), 0.0, 1.0)}, "sound")
    with pytest.raises(UserError, match=f"^{name} learns from .* data, this source has sound: "):
        create(name, wrong, {})


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS}))
def test_a_variant_says_what_it_is_and_explains_its_options(name: str) -> None:
    variant = VARIANTS[name]
    assert variant.name == name
    assert variant.summary
    assert "arXiv" in variant.paper
    for field in dataclasses.fields(variant.Options):
        assert field.metadata["help"]
        assert field.metadata["kind"] in ("identity", "schedule", "runtime")


def held_out_for(variant: Variant, stage: Stage) -> Batch:
    """Random held-out examples, of which the truth is known."""
    seen = stage.view.through(variant.given).tensors  # type: ignore[arg-type]
    held_out = {name: random_tensor(name, spec) for name, spec in seen.items()}
    return held_out | {"paired": torch.ones(N, dtype=torch.int64)}


@every_row
def test_every_figure_of_a_variants_own_has_a_declared_name(
    name: str, options: dict[str, object], data: DataSpec
) -> None:
    variant = create(name, data, options)
    variant.given = data  # type: ignore[assignment]
    declared = declared_figures(type(variant))
    assert declared is not None
    if not variant.asks_held_out:
        return
    for stage in variant.stages():
        held_out = held_out_for(variant, stage)
        asked = batch_for(variant, stage, "sample", ())
        asked |= {condition: held_out[condition] for condition in variant.conditions()}
        with torch.no_grad():
            found = variant.figures(stage.name, variant.sample(stage.name, asked), held_out)
        assert set(found) <= set(declared)
        assert bool(found) == bool(declared)
