"""MidiNet's shapes, losses and training against the paper (Yang et al. 2017) and torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core import UserError
from gan_core.data.bars import RollView, to_pitches, to_roll, transpose_chord, transpose_roll
from gan_core.data.examples import Batch, Examples
from gan_core.data.midi import SILENCE, bars_before, encode_chord, melody_spec
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.losses import feature_matching
from gan_core.metrics.melody import chord_share, note_starts, pitch_classes
from gan_core.variant import create
from gan_core.variants.midinet import MidiNet, compose, held, scales, tones

TINY = {"latent": 3, "hidden": 10, "width_g": 6, "width_d": 3}
N = 5


def examples(count: int = 40, steps: int = 16) -> Examples:
    generator = torch.Generator().manual_seed(0)
    bars = torch.randint(55, 80, (count, 1, steps), generator=generator)
    chords = torch.tensor([encode_chord(i % 12, i % 3 == 0) for i in range(count)])
    first = torch.arange(count) % 8 == 0
    tensors = {"bar": bars, "previous": bars_before(bars, first), "chord": chords}
    return Examples(tensors, melody_spec(steps), "toys")


def midinet(steps: int = 16, **options: object) -> MidiNet:
    variant = create("midinet", melody_spec(steps), {**TINY, **options}, seed=2)
    assert isinstance(variant, MidiNet)
    return variant


def batch(steps: int = 16, key: int = 6) -> Batch:
    """As the networks see it; key 6 transposes by nothing."""
    stored = {n: t[:N] for n, t in examples(steps=steps).tensors.items()}
    noise = torch.randn(N, 3, generator=torch.Generator().manual_seed(4))
    return RollView().present(stored) | {"latent": noise, "key": torch.full((N,), key)}


# -- the data's form -------------------------------------------------------------------------------


def test_a_bar_is_16_by_128_and_the_bar_before_a_first_one_is_zeros() -> None:
    found = examples()
    seen = RollView().through(found.spec)
    shown = RollView().present(dict(found.tensors))
    for name in ("bar", "previous"):
        assert seen.tensors[name].shape == (1, 16, 128)
        assert shown[name].shape == (40, 1, 16, 128)
        assert torch.equal(to_pitches(shown[name]), found.tensors[name])
    assert bool((shown["bar"].sum(-1) == 1).all())
    assert shown["previous"][0].sum() == shown["previous"][8].sum() == 0
    assert torch.equal(shown["previous"][1], shown["bar"][0])
    restored = RollView().restore(shown["bar"], (1, 16))
    assert torch.equal(restored, found.tensors["bar"])


def test_transposition_moves_pitches_and_roots_alike() -> None:
    found = examples().tensors
    semitones = torch.arange(40) % 12 - 6
    rolls = transpose_roll(to_roll(found["bar"]), semitones)
    assert torch.equal(to_pitches(rolls), found["bar"] + semitones[:, None, None])
    chords = transpose_chord(found["chord"], semitones)
    for before, after, up in zip(found["chord"], chords, semitones.tolist(), strict=True):
        root = int(before[:12].argmax())
        assert after.tolist() == encode_chord((root + up) % 12, bool(before[12]))
    share = chord_share(found["bar"][:, 0], found["chord"])
    assert chord_share(to_pitches(rolls)[:, 0], chords) == share
    silence = transpose_roll(to_roll(torch.full((1, 1, 16), SILENCE)), torch.tensor([3]))
    assert silence.sum() == 0


# -- the networks ----------------------------------------------------------------------------------


def test_maps_grow_as_in_the_paper() -> None:
    assert [scales(steps) for steps in (8, 12, 16, 24)] == [
        [2, 4, 8], [3, 6, 12], [2, 4, 8, 16], [3, 6, 12, 24],
    ]  # fmt: skip


def test_the_paper_s_sizes() -> None:
    variant = create("midinet", melody_spec(16), {})
    assert isinstance(variant, MidiNet)
    generator, discriminator = variant.generator, variant.discriminator
    assert generator.hidden[0].weight.shape == (1024, 100 + 13)
    assert generator.project[0].weight.shape == (2 * 1 * 128, 1024 + 13)
    known = generator.conditioner(torch.zeros(N, 1, 16, 128))
    assert [tuple(maps.shape) for maps in known] == [(N, t, 16) for t in (2, 4, 8, 16)]
    assert [tuple(e.weight.shape) for e in generator.enlarge] == [(2 * 128, 128 + 13 + 16)] * 3
    assert generator.output.weight.shape == (128, 128 + 13 + 16)
    seen = discriminator.features(torch.zeros(N, 1, 16, 128), torch.zeros(N, 13))
    assert seen.shape == (N, 8, 14)
    assert discriminator.second[0].weight.shape == (77, 4 * (14 + 13))
    assert discriminator.hidden[0].weight.shape == (1024, 231 + 13)
    assert discriminator.output.weight.shape == (1, 1024 + 13)
    normal = torch.cat(
        [p.flatten() for p in (generator.project[0].weight, generator.hidden[0].weight)]
    )
    assert normal.std().item() == pytest.approx(0.02, rel=0.02)


def test_the_paper_s_training() -> None:
    options = midinet().recipe
    assert (options.lr_d, options.lr_g, options.beta1) == (5e-5, 5e-5, 0.5)
    assert (options.batch_size, options.label_smoothing, options.generator_turns) == (72, 0.1, 2)
    assert (options.match_features, options.match_bars, options.output) == (0.1, 0.01, "sigmoid")
    (stage,) = midinet().stages()
    assert stage.batch == "iteration"
    assert [(p.name, p.turns) for p in stage.players] == [("discriminator", 1), ("generator", 2)]


def planes(chord: Tensor, like: Tensor) -> Tensor:
    """The chord as 13 channels of a map (N, C, t, w), joined to it."""
    return torch.cat((like, chord[:, :, None, None].expand(-1, -1, *like.shape[2:])), 1)


def norm(layer: nn.Module, maps: Tensor) -> Tensor:
    """Batch statistics' normalisation of maps (N, C, t, w) with that of (N, t, C)'s weights."""
    return F.batch_norm(maps, None, None, layer.weight, layer.bias, training=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [16, 12])
def test_the_generator_is_the_convolutional_network_of_the_paper(steps: int) -> None:
    variant, given = midinet(steps).double(), batch(steps)
    given = {n: v.double() if v.is_floating_point() else v for n, v in given.items()}
    generator, chord = variant.generator, given["chord"]
    known, current = [], given["previous"]
    for number, (linear, normed, _) in enumerate(generator.conditioner.layers):
        weight = linear.weight
        kernel = (
            weight[:, None, None] if number == 0 else weight.unflatten(1, (2, 16)).mT[..., None]
        )
        current = F.leaky_relu(
            norm(normed, F.conv2d(current, kernel, stride=kernel.shape[2:])), 0.2
        )
        known.append(current)
    hidden = generator.hidden(torch.cat((given["latent"], chord), 1))
    vector = generator.project(torch.cat((hidden, chord), 1))
    maps = vector.unflatten(1, (scales(steps)[0], 6)).mT[..., None]
    for enlarge, normed in zip(generator.enlarge, generator.norms, strict=True):
        kernel = enlarge.weight.unflatten(0, (2, 6)).permute(2, 1, 0)[..., None]
        joined = torch.cat((planes(chord, maps), known.pop()), 1)
        maps = F.relu(norm(normed, F.conv_transpose2d(joined, kernel, stride=(2, 1))))
    joined = torch.cat((planes(chord, maps), known.pop()), 1)
    scores = F.conv_transpose2d(joined, generator.output.weight.T[:, None, None])
    found = generator(given["latent"], given["previous"], chord)
    assert found.shape == (N, 1, steps, 128)
    torch.testing.assert_close(found, scores)


@pytest.mark.parametrize(
    ("steps", "options"), [(16, {}), (12, {}), (16, {"see_previous": True, "features_d": 5})]
)
def test_the_discriminator_is_the_convolutional_network_of_the_paper(
    steps: int, options: dict[str, object]
) -> None:
    variant, given = midinet(steps, norm_d="none", **options).double(), batch(steps)
    discriminator, chord = variant.discriminator, given["chord"].double()
    bars = [given["bar"], given["previous"]][: 1 + bool(options)]
    bar = torch.cat(bars, dim=1).double()
    weights = torch.cat((discriminator.of_bars.weight, discriminator.of_chord.weight), dim=1)
    first = F.leaky_relu(F.conv2d(planes(chord, bar), weights, stride=2), 0.2)
    torch.testing.assert_close(discriminator.features(bar, chord), first[..., 0].mT)
    kernel = discriminator.second[0].weight.unflatten(1, (-1, 4))[..., None]
    second = F.leaky_relu(F.conv2d(planes(chord, first), kernel, stride=(2, 1)), 0.2)
    hidden = discriminator.hidden(torch.cat((second[..., 0].mT.flatten(1), chord), 1))
    logits = discriminator.output(torch.cat((hidden, chord), 1))
    torch.testing.assert_close(discriminator(bar, chord), logits)


def test_the_chord_may_enter_the_discriminator_under_one_weight() -> None:
    whole, single = midinet().discriminator, midinet(chord_d="vector").discriminator
    with torch.no_grad():
        single.of_bars.weight.copy_(whole.of_bars.weight)
        single.of_chord.weight.copy_(whole.of_chord.weight.sum(dim=(2, 3), keepdim=True))
    given = batch()
    features = [d.features(given["bar"], given["chord"]) for d in (whole, single)]
    torch.testing.assert_close(*features)


# -- the losses ------------------------------------------------------------------------------------


def test_feature_matching_is_half_the_squared_distance_of_means() -> None:
    real, fake = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    expected = 0.5 * sum(
        (real.mean(0) - fake.mean(0)).flatten().tolist()[i] ** 2 for i in range(12)
    )
    assert feature_matching(real, fake).item() == pytest.approx(expected)
    assert feature_matching(real, real.flip(0)).item() == pytest.approx(0, abs=1e-30)
    real.requires_grad_(), fake.requires_grad_()
    feature_matching(real, fake).backward()
    assert real.grad is None
    torch.testing.assert_close(
        fake.grad, (fake.mean(0) - real.mean(0)).detach().expand(6, 3, 4) / 6
    )


def test_the_discriminator_s_loss_has_labels_of_nine_tenths_for_real() -> None:
    variant, given = midinet(), batch()
    loss = variant.discriminator_loss(given)
    real = variant.discriminator(given["bar"], given["chord"])
    fake = variant.discriminator(variant.generate(given), given["chord"])
    expected = F.binary_cross_entropy_with_logits(real, torch.full_like(real, 0.9))
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(loss.total, expected)


def test_the_generator_s_loss_is_the_paper_s() -> None:
    variant, given = midinet(), batch()
    loss = variant.generator_loss(given)
    made = variant.generate(given)
    features = [variant.discriminator.features(b, given["chord"]) for b in (given["bar"], made)]
    logits = variant.discriminator(made, given["chord"])
    expected = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    for weight, (real, fake) in ((0.1, features), (0.01, (given["bar"], made))):
        expected = expected + weight * 0.5 * (real.mean(0) - fake.mean(0)).square().sum()
    torch.testing.assert_close(loss.total, expected)


def test_both_players_see_the_batch_in_its_key() -> None:
    variant = midinet()
    moved = batch(key=6 + 3)
    rolls = {n: transpose_roll(moved[n], torch.full((N,), 3)) for n in ("bar", "previous")}
    chord = transpose_chord(moved["chord"], torch.full((N,), 3))
    there = {**moved, **rolls, "chord": chord, "key": torch.full((N,), 6)}
    for loss in (variant.discriminator_loss, variant.generator_loss):
        assert torch.equal(loss(moved).total, loss(there).total)
        assert not torch.equal(loss(moved).total, loss(batch()).total)
    untouched = midinet(keys="given")
    assert torch.equal(
        untouched.generator_loss(moved).total, untouched.generator_loss(batch()).total
    )
    assert [spec.name for spec in untouched.noise("train")] == ["latent"]


def test_counted_from_the_root_all_keys_are_one() -> None:
    variant = midinet(keys="root", output="straight-through").eval()
    plain, bars = batch(), []
    for up in range(-6, 2):  # roots 0 to 4 stay between six semitones below C and five above
        semitones = torch.full((N,), up)
        rolls = {n: transpose_roll(plain[n], semitones) for n in ("bar", "previous")}
        chord = transpose_chord(plain["chord"], semitones)
        given = {**plain, **rolls, "chord": chord}
        for loss in (variant.discriminator_loss, variant.generator_loss):
            torch.testing.assert_close(loss(given).total, loss(plain).total)
        for name, value in variant.judge(given).items():
            torch.testing.assert_close(value, variant.judge(plain)[name])
        bars.append(to_pitches(variant.sample("train", given)["bar"]) - up)
    assert all(torch.equal(other, bars[0]) for other in bars)
    assert "key" not in {spec.name for spec in variant.noise("train")}


def test_the_root_may_stay_in_sight_where_pitches_are_counted_from_it() -> None:
    variant, shown = midinet(keys="root-shown", output="held").eval(), batch()
    semitones = torch.tensor([0, -1, -2, -3, -4])  # the roots are C to E
    assert shown["chord"][:, :12].argmax(1).tolist() == (-semitones).tolist()
    moved = {n: transpose_roll(shown[n], semitones) for n in ("bar", "previous")}
    plain = midinet(keys="given", output="held").eval()
    for name in ("discriminator_loss", "generator_loss"):
        found, expected = (getattr(v, name) for v in (variant, plain))
        torch.testing.assert_close(found(shown).total, expected({**shown, **moved}).total)
    bars, expected = variant.sample("train", shown), plain.sample("train", {**shown, **moved})
    assert torch.equal(bars["bar"], transpose_roll(expected["bar"], -semitones))
    unseen = midinet(keys="root", output="held").eval().generator_loss(shown)
    assert unseen.total.item() != variant.generator_loss(shown).total.item()


def test_tones_are_the_notes_that_the_histogram_counts() -> None:
    pitches = examples().tensors["bar"][:, 0].clone()
    pitches[:, 5] = pitches[:, 4]  # a longer note counts once
    counts = tones(to_roll(pitches)[:, None])
    assert counts.sum(dim=1).tolist() == note_starts(pitches).sum(dim=1).tolist()
    torch.testing.assert_close(counts.sum(0).double() / counts.sum(), pitch_classes(pitches))
    shares = torch.softmax(torch.randn(4, 1, 16, 128), dim=-1).requires_grad_()
    tones(shares)[:, 3].sum().backward()
    assert shares.grad is not None
    begins = F.pad(shares.argmax(3).diff(dim=2) != 0, (1, 0), value=True)
    assert torch.equal(
        shares.grad, (begins[..., None] & (torch.arange(128) % 12 == 3)).to(shares.dtype)
    )


@pytest.mark.parametrize("keys", ["given", "random", "root", "root-shown"])
def test_tones_are_matched_as_the_data_have_them(keys: str) -> None:
    options = {"keys": keys, "output": "held", "match_features": 0.0, "match_bars": 0.0}
    variant, plain = midinet(match_tones=50.0, **options), midinet(**options)
    assert isinstance(variant, MidiNet)
    given = batch(key=9)
    loss, without = variant.generator_loss(given), plain.generator_loss(given)
    learnt = variant._learnt(given)
    pitches = to_pitches(variant.generate(learnt))[:, 0]
    # Three semitones up, or down to the root: what undoes it.
    back = {"random": [-3] * N, "given": [0] * N}.get(keys, list(range(N)))
    made = torch.zeros(N, 12)
    for n, step in note_starts(pitches).nonzero().tolist():
        made[n, (int(pitches[n, step]) + back[n]) % 12] += 1
    apart = made.mean(0) - tones(given["bar"]).mean(0)
    torch.testing.assert_close(variant.tones.difference, 0.01 * apart, atol=1e-6, rtol=1e-4)
    found = 0.5 * (0.01 * apart).square().sum()
    torch.testing.assert_close(loss.diagnostics["matching/tones"], found, atol=1e-7, rtol=1e-3)
    torch.testing.assert_close(loss.total, without.total + 50 * found, atol=1e-5, rtol=1e-5)
    noisy = midinet(match_tones=50.0, instance_noise=1.0, **options)
    disturbed = noisy.generator_loss(
        given | {f"instance_noise_{k}": torch.randn(N, 1, 16, 128) for k in ("real", "fake")}
    )
    assert torch.equal(disturbed.diagnostics["matching/tones"], loss.diagnostics["matching/tones"])


def test_an_iteration_is_one_turn_of_d_and_two_of_g_on_one_batch() -> None:
    variant, data = midinet(), examples()
    turns: list[str] = []
    variant.on_turn_end = turns.append  # type: ignore[method-assign]
    seen: list[Tensor] = []
    generate = variant.generate

    def watched(given: Batch) -> Tensor:
        seen.append(given["latent"])
        return generate(given)

    variant.generate = watched  # type: ignore[method-assign]
    game = Game(variant, data, data, batch_size=8)
    game.play(2)
    assert turns == ["discriminator", "generator", "generator"] * 2
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])
    assert game.examples_seen == 16


def test_instance_noise_falls_with_iterations_however_many_turns_they_have() -> None:
    data, falling = examples(), {"instance_noise": 1.0, "instance_noise_until": 0.5, "steps": 8}
    variant = create("midinet", data.spec, {**TINY, **falling, "k": 3})
    assert isinstance(variant, MidiNet)
    bars = torch.zeros(N, 1, 16, 128)
    noise = {"instance_noise_real": torch.ones(N, 1, 16, 128)}
    left: list[float] = []
    end = variant.on_turn_end

    def look(player: str) -> None:
        left.append(variant.real_targets({"bar": bars} | noise).mean().item())
        end(player)

    variant.on_turn_end = look  # type: ignore[method-assign]
    Game(variant, data, data, batch_size=8).play(6)
    assert left[::5] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert left == [share for share in left[::5] for _ in range(3 + 2)]


@pytest.mark.parametrize("options", [{}, {"norm_d": "layer"}, {"accumulate": 2}])
def test_a_worker_s_share_of_one_example_is_refused_before_the_game(
    options: dict[str, object],
) -> None:
    data, few = examples(), 2 * int(options.get("accumulate", 1))  # type: ignore[call-overload]
    with pytest.raises(UserError, match="needs 2 of a worker's examples at once") as caught:
        Game(midinet(**options), data, data, batch_size=few, world=World(1, 2))
    assert "\n" not in str(caught.value)
    Game(midinet(**options), data, data, batch_size=few).play(1)


# -- what is generated -----------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["sigmoid", "softmax", "straight-through", "held"])
def test_a_sample_is_monophonic_and_what_d_sees_has_the_same_winner(output: str) -> None:
    variant, given = midinet(output=output).eval(), batch()
    bars, seen = variant.sample("train", given)["bar"], variant.generate(given)
    assert bars.shape == seen.shape == (N, 1, 16, 128)
    assert set(bars.unique().tolist()) == {0.0, 1.0}
    assert bool((bars.sum(-1) == 1).all())
    assert torch.equal(to_pitches(bars), seen.argmax(-1))
    assert 0 <= seen.min().item() <= seen.max().item() <= 1 + 1e-6
    if output != "sigmoid":
        torch.testing.assert_close(seen.sum(-1), torch.ones(N, 1, 16))


def test_straight_through_shows_the_winner_alone_and_has_the_softmax_s_gradient() -> None:
    hard, soft = midinet(output="straight-through"), midinet(output="softmax")
    weights = torch.randn(N, 1, 16, 128)
    gradients = []
    for variant in (hard, soft):
        seen = variant.generate(batch())
        (seen * weights).sum().backward()
        gradients.append(variant.generator.output.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    seen = hard.generate(batch())
    torch.testing.assert_close(seen, to_roll(seen.argmax(-1)))


def held_by_loop(pitches: list[list[int]], begins: list[list[bool]]) -> list[list[int]]:
    """The pitch of every step where each bar's begin to sound as ``begins`` says."""
    bars = []
    for choice, starts in zip(pitches, begins, strict=True):
        bar: list[int] = []
        for step, pitch in enumerate(choice):
            bar.append(pitch if step == 0 or starts[step] else bar[-1])
        bars.append(bar)
    return bars


@pytest.mark.parametrize("steps", [16, 12])
def test_a_held_note_sounds_until_the_next_begins(steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    pitches = torch.randint(128, (N, steps), generator=generator)
    begins = torch.rand(N, steps, generator=generator)
    begins[0], begins[1] = 0, 1  # one note in the bar; one in each step
    bars = held(to_roll(pitches)[:, None], begins[:, None, :, None])
    expected = held_by_loop(pitches.tolist(), (begins > 0.5).tolist())
    assert to_pitches(bars)[:, 0].tolist() == expected
    assert expected[0] == [int(pitches[0, 0])] * steps
    assert expected[1] == pitches[1].tolist()
    torch.testing.assert_close(bars.sum(-1), torch.ones(N, 1, steps))


def test_held_notes_have_the_gradient_of_what_they_are_made_of() -> None:
    """A step's weight falls to the pitch that sounds in it, and to the begins that decide it."""
    generator = torch.Generator().manual_seed(1)
    pitches = torch.randn(2, 1, 16, 128, generator=generator, dtype=torch.float64).requires_grad_()
    begins = torch.rand(2, 1, 16, 1, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, 1, 16, 128, generator=generator, dtype=torch.float64)
    (held(pitches, begins) * weights).sum().backward()
    of_pitches, of_begins = torch.zeros_like(pitches), torch.zeros_like(begins)
    for bar in range(2):
        starts = [step == 0 or bool(begins[bar, 0, step] > 0.5) for step in range(16)]
        for step in range(16):
            sounding = max(s for s in range(step + 1) if starts[s])
            of_pitches[bar, 0, sounding] += weights[bar, 0, step]
            for begin in range(1, step + 1):
                if any(starts[begin + 1 : step + 1]):
                    continue  # another begins in between: whatever was before, it is not heard
                before = max(s for s in range(begin) if starts[s])
                change = (pitches[bar, 0, begin] - pitches[bar, 0, before]).detach()
                of_begins[bar, 0, begin] += (change * weights[bar, 0, step]).sum()
    torch.testing.assert_close(pitches.grad, of_pitches)
    torch.testing.assert_close(begins.grad, of_begins)
    assert not begins.grad[:, :, 0].any()
    assert bool(begins.grad[:, :, 1:].all())


@pytest.mark.parametrize("steps", [16, 12])
def test_the_generator_gives_a_pitch_and_a_begin_for_each_step(steps: int) -> None:
    variant, given = midinet(steps, output="held"), batch(steps)
    scores = variant.generator(given["latent"], given["previous"], given["chord"])
    assert scores.shape == (N, 1, steps, 129)
    choice, begins = scores[:, 0, :, :128].argmax(-1), scores[:, 0, :, 128] > 0
    seen = variant.generate(given)
    assert to_pitches(seen)[:, 0].tolist() == held_by_loop(choice.tolist(), begins.tolist())
    torch.testing.assert_close(seen, to_roll(seen.argmax(-1)))
    (seen * torch.randn(N, 1, steps, 128)).sum().backward()
    gradient = variant.generator.output.weight.grad
    assert bool(gradient[:128].any())
    assert bool(gradient[128].any())


def test_a_tune_goes_on_from_its_own_bars_and_knows_no_other_tune() -> None:
    first = torch.tensor([True, False, False, True, False, True])
    chords = torch.tensor([encode_chord(i, False) for i in range(6)])
    asked: list[tuple[list[int], list[int]]] = []

    def generate(index: Tensor, conditions: Batch) -> Tensor:
        """A semitone above the bar before; a first bar is its number's."""
        before = to_pitches(conditions["previous"])
        asked.append((index.tolist(), before[:, 0, 0].tolist()))
        assert torch.equal(conditions["chord"], chords[index])
        own = torch.where(before == SILENCE, 40 + 10 * index[:, None, None], before + 1)
        return to_roll(own)

    bars = compose(generate, chords, first, 16)
    assert bars[:, 0].tolist() == [40, 41, 42, 70, 71, 90]
    assert bars.shape == (6, 16)
    assert asked == [([0, 3, 5], [SILENCE] * 3), ([1, 4], [40, 70]), ([2], [41])]


def test_figures_compare_with_the_held_out_bars() -> None:
    variant, given = midinet(), batch()
    figures = variant.figures("train", {"bar": given["bar"]}, given)
    assert figures["melody_distance"] == 0
    assert figures["chord_share"] == figures["chord_share_real"]
    other = variant.figures("train", {"bar": given["bar"].roll(1, -1)}, given)
    assert other["melody_distance"] > 0.05
    assert other["length_distance"] == 0
    picture = variant.picture("train", {"bar": given["bar"]}, given)
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3


def test_losses_without_labels_have_none_and_penalties_no_batch_statistics() -> None:
    recipe = midinet(loss="wasserstein", label_smoothing=0).recipe
    assert (recipe.norm_d, recipe.gradient_penalty) == ("layer", 10.0)
    variant, given = midinet(loss="hinge", label_smoothing=0), batch()
    real, fake = (variant.discriminate(b, given) for b in (given["bar"], variant.generate(given)))
    expected = (1 - real).relu().mean() + (1 + fake).relu().mean()
    torch.testing.assert_close(variant.discriminator_loss(given).total, expected)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "options", "words"),
    [
        (6, {}, "bars of 8, 12, 16, ... sixteenths, not of 6: choose another --metre"),
        (14, {}, "sixteenths, not of 14"),
        (16, {"batch_scale_g": 2}, "--batch-scale-g is not for midinet, whose networks share"),
        (16, {"packing": 2}, "--packing is not for midinet"),
        (16, {"gradient_penalty": 1, "norm_d": "batch"}, "--norm-d batch mixes examples"),
        (
            16,
            {"loss": "wasserstein", "label_smoothing": 0, "norm_d": "batch"},
            "--norm-d batch mixes examples",
        ),
        (16, {"loss": "hinge"}, "the hinge loss has no labels: give --label-smoothing 0 with it"),
        (16, {"diffaug": "color"}, "--diffaug"),
        (16, {"match_tones": 1}, "--output sigmoid makes none while it trains: choose held"),
    ],
)
def test_what_midinet_cannot_do_is_refused(
    steps: int, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        midinet(steps, **options)
    assert words in str(refused.value)
