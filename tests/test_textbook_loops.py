"""The textbook's loops do the engine's work: update by update the same gradients and weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import textbook_data
from benchmarks.textbook_data import Bars, Captioned, Jitter, Pairs, PyramidLevel, Squares
from benchmarks.textbook_systems import LOOPS, make_textbook
from benchmarks.textbook_translation import Pool
from gan_core.data.bars import to_pitches, to_roll, transpose_chord, transpose_roll
from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec, to_unit_range
from gan_core.data.midi import PITCHES, ROOM, melody_spec
from gan_core.engine.game import Game
from gan_core.errors import UserError
from gan_core.layers.spectral import SpectralConv2d, SpectralLinear
from gan_core.variant import VARIANTS, Variant, create, list_variants

CPU = torch.device("cpu")
COUNT = 24
RESNET = {"width_g": 4, "width_d": 4, "image_size": 16}
TRANSLATION = {"image_size": 16, "width": 4, "patch_layers": 1, "enlarged": 16, "flip": False}
SRGAN = {"crop": 16, "width": 4, "blocks": 1, "kernel_end": 3, "width_d": 2, "hidden_d": 4}
PERCEPTRON = {"hidden": 8, "maxout_units": 4, "latent": 3}
STACKGAN = {"latent": 3, "condition": 4, "width": 2, "width_2": 4, "width_d": 2, "image_size": 128}
GAMES: list[tuple[str, str | None, dict[str, Any]]] = [
    ("gan", None, {**PERCEPTRON, "dropout": 0.0, "dropout_input": 0.0, "momentum_updates": 5}),
    ("cgan", None, {**PERCEPTRON, "dropout_d": 0.0, "dropout_g": 0.0, "k": 2}),
    ("dcgan", None, {"width": 4, "image_size": 16, "lr_decay_to": 0.5, "steps": 4}),
    ("lapgan", "level_0", {"levels": 2, "latent": 3, "hidden": 8, "dropout": 0.0, "k": 2}),
    ("lapgan", "level_1", {"levels": 2, "width": 4, "dropout": 0.0, "conditional": True}),
    ("stackgan", "stage1", STACKGAN),
    ("stackgan", "stage2", STACKGAN | {"halve_every": 1}),
    ("acgan", None, {"width_g": 4, "width_d": 2, "image_size": 16, "dropout": 0.0}),
    ("sngan", None, RESNET | {"dequantise": False, "k": 2}),
    ("sagan", None, RESNET),
    ("biggan", None, RESNET | {"embedding": 5, "k": 1, "latent": 12}),
    ("pix2pix", None, TRANSLATION | {"dropout": 0.0}),
    ("cyclegan", None, TRANSLATION | {"blocks": 1, "pool": COUNT}),
    ("srgan", "pretrain", SRGAN | {"content": "pixels"}),
    ("srgan", "adversarial", SRGAN | {"content": "pixels"}),
    ("midinet", None, {"hidden": 8, "width_g": 4, "width_d": 3, "keys": "given", "latent": 5}),
]
NAMES = [f"{name}-{stage}" if stage else name for name, stage, _ in GAMES]


def drawn(*shape: int, high: int = 256) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(len(shape) + high))


def data_of(name: str) -> Examples:
    """Few examples, such as ``name`` learns from."""
    if name == "midinet":
        tensors = {"bar": drawn(COUNT, 1, 16, high=PITCHES), "chord": torch.zeros(COUNT, 13)}
        tensors["previous"] = drawn(COUNT, 1, 16, high=PITCHES + 1)
        tensors["chord"][torch.arange(COUNT), torch.arange(COUNT) % 12] = 1
        return Examples(tensors, melody_spec(16), "noise")
    shape = (1, 8, 8) if name in ("gan", "cgan") else (3, 16, 16)
    tensors = {"image": drawn(COUNT, *shape).to(torch.uint8), "label": torch.arange(COUNT) % 3}
    specs = {"image": TensorSpec(shape, -1.0, 1.0), "label": TensorSpec((), classes=3)}
    if name in ("pix2pix", "cyclegan"):
        tensors["input"] = drawn(COUNT, *shape, high=255).to(torch.uint8)
        specs["input"] = TensorSpec(shape, -1.0, 1.0, series="b" if name == "cyclegan" else "")
    if name == "stackgan":
        tensors["text"], specs["text"] = drawn(COUNT, 6, 5).float() / 256, TensorSpec((6, 5))
    return Examples(tensors, DataSpec(specs), "noise")


def in_float64(batch: Batch) -> Batch:
    return {n: t.double() if t.is_floating_point() else t for n, t in batch.items()}


def given_to_textbook(variant: Any, stage: str | None, batch: Batch) -> list[Tensor]:
    """The engine's ``batch`` as the textbook's DataLoader would give it."""
    if variant.name == "lapgan":
        level = int(str(stage)[-1])
        image, coarse = variant.real(level, batch)
        return [image, image if coarse is None else coarse, batch.get("label", torch.zeros(4))]
    if variant.name == "srgan":
        return list(variant.pair(batch))
    if variant.name == "stackgan":
        text, _ = variant._choose(batch["text"], batch["choice"])
        return [batch["image"], text, *variant.wrong_text(batch)]
    if variant.name == "midinet":
        return [batch[name] for name in ("bar", "previous", "chord")]
    if variant.name in ("pix2pix", "cyclegan"):
        return [batch["input"], batch["image"]]
    return [batch["image"], batch["label"]] if variant.conditional else [batch["image"]] * 2


NOISE = ("latent", "latent_0", "latent_1", "epsilon", "epsilon_2")


class Replay:
    """Lets the textbook's ``loop`` take what the engine's turn has taken."""

    def __init__(self, loop: Any) -> None:
        self.loop, self.noise = loop, iter(())
        loop.noise = loop.gaussian = lambda *_: next(self.noise)

    def turn(self, variant: Any, player: str, stage: str | None, batch: Batch) -> None:
        self.noise: Iterator[Tensor] = iter([batch[name] for name in NOISE if name in batch])
        loop = self.loop
        if variant.name == "stackgan" and player == "generator":
            loop.text, _ = variant._choose(batch["text"], batch["choice"])
        elif "image" in batch or "bar" in batch:
            loop.batches = iter([given_to_textbook(variant, stage, batch)])
        count = len(batch.get("latent", ()))
        loop.labels = lambda _: batch.get("label", torch.zeros(count, dtype=torch.int64))
        getattr(loop, f"update_{player}")()


def pairs_of(ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Our weights and the textbook's of the same names."""
    left = {name.replace("trunk.", ""): value for name, value in ours.named_parameters()}
    for name, value in theirs.named_parameters():
        yield left.pop(name.replace("parametrizations.weight.original", "weight")), value
    assert left == {}


def turned(values: Tensor, like: Tensor) -> Tensor:
    """``values``, transposed where a linear layer of classes is an embedding for the textbook."""
    return values if values.shape == like.shape else values.t()


@torch.no_grad()
def exact_vectors(*networks: nn.Module) -> None:
    """Let spectral norms, which textbook and engine estimate in as many steps as passes, be so."""
    for module in (m for network in networks for m in network.modules()):
        if isinstance(module, (SpectralConv2d, SpectralLinear)):
            module.u.copy_(torch.linalg.svd(module.weight.flatten(1))[0][:, 0])
        elif hasattr(module, "parametrizations"):
            u, _, v = torch.linalg.svd(module.parametrizations.weight.original.flatten(1))
            (norm,) = module.parametrizations.weight
            norm._u.copy_(u[:, 0])
            norm._v.copy_(v[0])


def trained(name: str, player: str, stage: str | None) -> list[str]:
    """The networks of ``player`` by their names in the variant."""
    if name == "lapgan":
        return [f"{player}_{str(stage)[-1]}"]
    if name == "cyclegan":
        return [player, {"generator": "inverse"}.get(player, "inverse_discriminator")]
    return [f"{player}_2" if stage == "stage2" else player]


def textbooks(loop: Any, name: str) -> nn.Module:
    """The textbook's network that is ours of that ``name``."""
    found: nn.Module = getattr(loop, name if "inverse" in name else name.partition("_")[0])
    return found


def keep_stage(variant: Variant, stage: str | None) -> Variant:
    stages = [s for s in variant.stages() if stage in (None, s.name)]
    variant.stages = lambda: tuple(stages)  # type: ignore[method-assign]
    return variant


def both(name: str, stage: str | None, options: dict[str, Any]) -> tuple[Game, Any]:
    """The engine's game and the textbook's loop, float64, with the same weights."""
    data, options = data_of(name), {"batch_size": 4, **options}
    ours, theirs = (keep_stage(create(name, data.spec, options), stage) for _ in range(2))
    ours.double()
    game = Game(ours, data, data, batch_size=4)
    if name == "stackgan":
        ours._all_captions = ours._all_captions.double()  # type: ignore[union-attr]
    loop: Any = make_textbook(theirs.double(), data, 4, CPU)
    for player in loop.players:
        for network in trained(name, player, stage):
            theirs_of = textbooks(loop, network).double()
            with torch.no_grad():
                for mine, value in pairs_of(getattr(ours, network), theirs_of):
                    value.copy_(turned(mine, value))
            exact_vectors(getattr(ours, network), theirs_of)
    if stage == "stage2":
        loop.sketch.double().load_state_dict(ours.generator.state_dict())  # type: ignore[union-attr]
    return game, loop


@pytest.mark.parametrize(("name", "stage", "options"), GAMES, ids=NAMES)
def test_every_update_of_the_textbook_is_the_engines(
    name: str, stage: str | None, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # some losses are of single precision at least, here of the double
        Tensor, "float", lambda t: t if t.dtype == torch.float64 else t.to(torch.float32)
    )
    game, loop = both(name, stage, options)
    replay, batches, turns = Replay(loop), [], []
    for stream in (seat.stream for seat in game.seats):
        _record(stream, batches)
    if game._shared_stream:
        _record(game._shared_stream, batches)

    def compare(player: str) -> None:
        turns.append(player)
        replay.turn(game.variant, player, stage, batches[-1])
        for network in trained(name, player, stage):
            ours, theirs = getattr(game.variant, network), textbooks(loop, network)
            for mine, value in pairs_of(ours, theirs):
                assert mine.grad is not None
                assert value.grad is not None
                gradient = turned(mine.grad, value)
                torch.testing.assert_close(value.grad, gradient, rtol=1e-6, atol=1e-9)
                # A bias before batch normalisation has rounding for a gradient: Adam enlarges it.
                torch.testing.assert_close(value, turned(mine, value), rtol=0, atol=1e-8)
            exact_vectors(ours, theirs)

    game.variant.on_turn_end = compare  # type: ignore[method-assign]
    game.play(2)
    wanted = [p.name for p in game.stage.players for _ in range(p.turns)]
    assert turns == wanted * 2


def _record(stream: Any, batches: list[Batch]) -> None:
    """Let ``stream`` give float64, and ``batches`` keep it."""
    following = stream.next

    def next_batch() -> Batch:
        batches.append(in_float64(following()))
        return batches[-1]

    stream.next = next_batch


def test_every_system_has_a_textbook() -> None:
    own = [n for n in list_variants() if VARIANTS[n].__module__.startswith("gan_core.")]
    assert sorted(LOOPS) == sorted(own)  # other tests may have registered some of their own
    assert {name for name, _, _ in GAMES} == set(LOOPS)


@pytest.mark.parametrize(("name", "stage", "options"), GAMES, ids=NAMES)
def test_an_iteration_of_its_own_data_moves_each_network_in_its_turns(
    name: str, stage: str | None, options: dict[str, Any]
) -> None:
    """With real DataLoaders and noise, and dropout and jitter as papers have them."""
    noisy = {"dropout", "dropout_input", "dropout_d", "dropout_g", "enlarged", "flip", "keys"}
    kept = {n: v for n, v in options.items() if n not in noisy}
    variant = keep_stage(create(name, data_of(name).spec, {"batch_size": 4, **kept}), stage)
    loop: Any = make_textbook(variant, data_of(name), 4, CPU)
    moved: list[str] = []
    for player in loop.players:
        setattr(loop, f"update_{player}", _noted(loop, player, name, stage, moved))
    loop.iterate()
    assert moved == [p.name for p in loop.stage.players for _ in range(p.turns)]
    assert all(isinstance(loss, float) for loss in loop.history[0])


def _noted(loop: Any, player: str, name: str, stage: str | None, moved: list[str]) -> Any:
    update = getattr(loop, f"update_{player}")

    def noted() -> float:
        before = {p: _weights(loop, p, name, stage) for p in loop.players}
        loss: float = update()
        after = {p: _weights(loop, p, name, stage) for p in loop.players}
        moved.extend(p for p, w in before.items() if not torch.equal(w, after[p]))
        return loss

    return noted


def _weights(loop: Any, player: str, name: str, stage: str | None) -> Tensor:
    networks = [textbooks(loop, network) for network in trained(name, player, stage)]
    return torch.cat([p.detach().flatten() for n in networks for p in n.parameters()])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("stackgan", {"contrast": 1.0}, "--contrast"),
        ("lapgan", {"r1": 1.0}, "--r1"),
        ("midinet", {"match_tones": 1.0, "output": "softmax"}, "--match-tones"),
        ("midinet", {"keys": "root"}, "--keys root"),
        ("pix2pix", {"residual": True}, "--residual"),
        ("cgan", {"wrong_label": 0.5}, "--wrong-label"),
    ],
)
def test_what_the_textbooks_do_not_play_they_refuse(
    name: str, options: dict[str, Any], told: str
) -> None:
    tiny = next(own for game, _, own in GAMES if game == name)
    variant = create(name, data_of(name).spec, tiny | options)
    with pytest.raises(UserError, match=told):
        make_textbook(variant, data_of(name), 4, CPU)


def test_a_level_is_cut_as_the_variant_cuts_it() -> None:
    data = data_of("lapgan")
    batch = {"image": to_unit_range(data.tensors["image"])}
    for level in range(3):
        variant: Any = create("lapgan", data.spec, {"levels": 2, "hidden": 8, "width": 4})
        variant.options = variant.recipe = type(variant.options)(levels=3)
        image, coarse = variant.real(level, batch)
        cut = PyramidLevel(data, 2 - level, level == 0)
        torch.testing.assert_close(torch.stack([cut[i][0] for i in range(COUNT)]), image)
        if coarse is not None:
            torch.testing.assert_close(torch.stack([cut[i][1] for i in range(COUNT)]), coarse)


def test_bars_are_rolls_in_any_of_twelve_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of("midinet")
    for key in (0, 7, 11):
        monkeypatch.setattr(textbook_data.random, "randrange", lambda _, key=key: key)
        found = [torch.stack(each) for each in zip(*Bars(data, True), strict=True)]
        moved = torch.full((COUNT,), key - ROOM)
        for made, name in zip(found, ("bar", "previous"), strict=False):
            torch.testing.assert_close(
                made, transpose_roll(to_roll(data.tensors[name]), moved), rtol=0, atol=0
            )
        assert torch.equal(found[2], transpose_chord(data.tensors["chord"], moved))
    assert torch.equal(to_pitches(Bars(data, False)[3][0]), data.tensors["bar"][3])


def test_a_text_is_a_mean_of_captions_and_a_wrong_one_is_anothers() -> None:
    data = data_of("stackgan")
    captions = data.tensors["text"]
    drawn_all = Captioned(data, 64, 6)  # all six captions: a text has but one value
    own = captions.mean(dim=1)
    others = set()
    for index in range(COUNT):
        image, text, wrong, counts = drawn_all[index]
        assert image.shape == (3, 64, 64)
        torch.testing.assert_close(text, own[index])
        (source,) = (own - wrong).abs().sum(dim=1).lt(1e-5).nonzero().flatten().tolist()
        assert counts == (source != index)
        others.add(source)
    assert len(others) > 5
    some = Captioned(data, 64, 2)[0][1]
    both = (captions[0, :, None] + captions[0, None]) / 2
    assert (both - some).abs().sum(dim=2).lt(1e-5).any()


def test_pairs_are_cropped_and_mirrored_alike() -> None:
    data = data_of("pix2pix")
    same = {**data.tensors, "input": data.tensors["image"]}
    pairs = Pairs(Examples(same, data.spec, "noise"), Jitter(16, 20, flip=True))
    seen = [pairs[0] for _ in range(20)]
    assert all(torch.equal(*both) for both in seen)
    assert len({float(image[0, 0, 0]) for image, _ in seen}) > 5
    plain = Pairs(data, Jitter(16, 16, flip=False))
    torch.testing.assert_close(plain[2][1], to_unit_range(data.tensors["image"])[2])
    assert torch.equal(plain[2][0], to_unit_range(data.tensors["input"])[2])


def test_a_square_is_part_of_its_picture_and_reduced_with_it() -> None:
    ramp = torch.arange(24, dtype=torch.uint8) * 8
    image = torch.stack([ramp[:, None].expand(24, 24), ramp.expand(24, 24), ramp.expand(24, 24)])
    data = Examples({"image": image[None]}, data_of("srgan").spec, "ramps")
    for _ in range(8):
        high, low = Squares(data, 16, 4)[0]
        assert (high.shape, low.shape) == ((3, 16, 16), (3, 4, 4))
        values = set(((high + 1) * 127.5).round().flatten().tolist())
        assert values <= set(ramp.tolist())
        means = torch.nn.functional.avg_pool2d(high, 4)
        assert (low - means).abs().max() < 0.05  # of a ramp any smooth reduction is the mean


def test_a_full_pool_exchanges_about_half_of_what_it_is_shown() -> None:
    pool = Pool(4)
    shown = torch.arange(1, 201.0)[:, None]
    assert torch.equal(pool.query(shown[:4]), shown[:4])
    given = torch.cat([pool.query(part) for part in shown[4:].split(7)])
    assert 60 < int((given != shown[4:]).sum()) < 136
    kept = {float(image) for image in pool.images}
    assert kept | set(given.flatten().tolist()) == set(shown.flatten().tolist())
    assert torch.equal(Pool(0).query(shown), shown)


@pytest.mark.parametrize(
    ("name", "options"), [("dcgan", {"width": 4, "image_size": 16}), ("stackgan", STACKGAN)]
)
def test_with_the_same_fakes_g_learns_from_what_d_has_seen(
    name: str, options: dict[str, Any]
) -> None:
    data = data_of(name)
    passes = {}
    for shared in (False, True):
        variant = create(name, data.spec, options)
        loop: Any = make_textbook(variant, data, 4, CPU, same_fakes=shared)
        made: list[Tensor] = []
        kept = made.append
        loop.generator.register_forward_hook(
            lambda _, __, out, kept=kept: kept(out if isinstance(out, Tensor) else out[0])
        )
        before = [p.detach().clone() for p in loop.generator.parameters()]
        loop.iterate()
        passes[shared] = len(made)
        assert all(image.requires_grad for image in made)
        after = list(loop.generator.parameters())
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True) if a.dim() > 1)
    assert passes == {False: 2, True: 1}


def test_where_both_batches_are_not_one_there_are_no_same_fakes() -> None:
    data = data_of("dcgan")
    for name, told in (("cyclegan", "no textbook loop with the same fakes"), ("dcgan", "one size")):
        options = TRANSLATION | {"blocks": 1} if name == "cyclegan" else {"batch_scale_g": 2}
        small = options if name == "cyclegan" else options | {"width": 4, "image_size": 16}
        examples = data_of(name) if name == "cyclegan" else data
        with pytest.raises(UserError, match=told):
            make_textbook(create(name, examples.spec, small), examples, 4, CPU, same_fakes=True)
