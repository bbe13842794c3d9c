"""MidiNet: a convolutional GAN for melodies, bar by bar (Yang et al. 2017, arXiv:1703.10847).

A bar is a piano roll of 16 sixteenths by 128 pitches. The generator makes it from noise, the
bar's chord and the bar before: the chord enters every layer, the bar before through a conditioner
network (section 3.3) whose maps are joined to the generator's at the same number of steps. The
discriminator sees the bar and the chord. Training as in section 3 and in the authors' code
(github.com/RichardYang40148/MidiNet): the generator is updated twice for each update of the
discriminator, on the same batch; real bars are labelled 0.9; the generator's loss has two terms of
feature matching, on the mean bar and on the mean of the discriminator's first layer
(section 3.4). Every batch is transposed to random keys, as the authors did with their files;
where ``keys`` is root it need not be, as the same bar in another key is then the same to both
networks (but for the chord's root, which root-shown leaves in sight).

Maps are held as (examples, steps, channels), for their other side is 1 wide: a convolution whose
kernel is as long as its stride is then a linear layer on groups of steps, with the same weights.
No layer has a bias, as one root of the chord, which is always 1, or the normalisation takes its
place.

A bar of another metre works the same way: 12 steps of a bar in 6/8 grow from 3 instead of 2.
Where ``output`` is not the paper's sigmoid, a step's pitches compete in a softmax, as only one of
them can sound; straight-through gives D the winner alone, with the softmax's gradient. Where it is
held, the generator also says in which steps a note begins, and the winner of such a step sounds
until the next: rhythm has scores of its own, and a note's pitch has the gradient of all its steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.data.bars import RollView, to_pitches, to_roll, transpose_chord, transpose_roll
from gan_core.data.examples import Batch, DataSpec
from gan_core.data.midi import CHORD, PITCHES, ROOM, SILENCE
from gan_core.data.views import View
from gan_core.errors import UserError
from gan_core.layers.init import normal_weights
from gan_core.layers.remembered import RememberedMatching
from gan_core.losses import LOSSES, feature_matching
from gan_core.options import flag, option
from gan_core.priors import Integers
from gan_core.variant import MOST_TURNS, Loss, NoiseSpec, Stage, register
from gan_core.variants.adversarial import AdversarialVariant, NormByPenaltyOptions, default

_CONDITIONER = 16
"""Channels of the conditioner's layers."""
_ALONE = {"batch_scale_g": 1, "packing": 1, "minibatch_stddev": 0, "unrolled": 0}
"""Options of adversarial variants that have no meaning here, with what they must be."""
_WINDOW = 4
"""Steps that the discriminator's second layer sees, two steps apart."""


@dataclasses.dataclass(frozen=True)
class MidiNetOptions(NormByPenaltyOptions):
    """The options of ``midinet``."""

    steps: int = default("steps", 14_000)
    batch_size: int = default("batch_size", 72)
    lr_d: float = default("lr_d", 5e-5)
    lr_g: float = default("lr_g", 5e-5)
    generator_turns: int = option(
        2,
        "generator updates for each iteration, on the same batch",
        kind="schedule",
        minimum=1,
        maximum=MOST_TURNS,
    )
    label_smoothing: float = default("label_smoothing", 0.1)
    match_features: float = option(
        0.1, "weight of the distance of D's mean features", kind="schedule", minimum=0
    )
    match_bars: float = option(
        0.01, "weight of the distance of the mean bars", kind="schedule", minimum=0
    )
    match_tones: float = option(
        0.0,
        "weight of the distance of the mean numbers of notes of each pitch class that a bar has, "
        "the means taken over about the last 100 updates; none in the paper",
        minimum=0,
    )
    output: str = option(
        "sigmoid",
        "the generator's last step: sigmoid as in the paper; pitches that compete (softmax, or the "
        "winner alone: straight-through); or held: the winner sounds until the next note begins",
        choices=("sigmoid", "softmax", "straight-through", "held"),
    )  # fmt: skip
    hidden: int = option(1024, "units of the fully connected layers", minimum=1)
    width_g: int = option(128, "channels of the generator's maps", minimum=1)
    width_d: int = option(64, "channels of the discriminator's second layer", minimum=1)
    features_d: int = option(1 + CHORD, "channels of the discriminator's first layer", minimum=1)
    chord_d: str = option(
        "planes",
        "how the chord enters D's first layer: as 13 planes under a whole kernel, as in the paper, "
        "or as a vector under one weight, so that it cannot drown the bar",
        choices=("planes", "vector"),
    )
    see_previous: bool = option(
        False, "show the discriminator the bar before as well, as a second channel"
    )
    keys: str = option(
        "random",
        "random moves every training example to one of 12 keys, as the authors did with their "
        "data; root shows both networks pitches from the chord's root, so that all keys are one; "
        "root-shown does too, but leaves the chord's root in sight, as it makes some keys of a "
        "tune likelier than others; given leaves the keys as they are",
        choices=("random", "root", "root-shown", "given"),
    )

    @property
    def examples_per_iteration(self) -> int:
        """Those of D's and of G's turns."""
        return self.batch_size * (self.k + self.generator_turns)


def scales(steps: int) -> list[int]:
    """The steps of the maps from the smallest (2 or 3) to the whole bar: 2, 4, 8, 16."""
    return [*scales(steps // 2), steps] if steps % 2 == 0 and steps > 3 else [steps]


class StepNorm(nn.BatchNorm1d):
    """Batch normalisation of maps (N, t, C) or vectors (N, C), a channel at a time."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).view_as(input)


def _pairs(maps: Tensor) -> Tensor:
    """Maps (N, t, C) as (N, t / 2, 2 C): what a kernel of two steps sees, two steps at a time."""
    return maps.reshape(len(maps), maps.shape[1] // 2, -1)


def _joined(maps: Tensor, *others: Tensor) -> Tensor:
    """Maps (N, t, C) with the channels of other maps, and of vectors (N, D) at every step."""
    steps = maps.shape[1]
    wide = [o if o.dim() == 3 else o[:, None].expand(-1, steps, -1) for o in others]
    return torch.cat((maps, *wide), dim=2)


class Conditioner(nn.Module):
    """The bar before (N, 1, T, 128) to maps (N, t, 16) for the scales t, smallest first."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        inputs = [PITCHES] + [2 * _CONDITIONER] * (len(scales(steps)) - 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, _CONDITIONER, bias=False),
                StepNorm(_CONDITIONER),
                nn.LeakyReLU(0.2),
            )
            for channels in inputs
        )

    def forward(self, previous: Tensor) -> list[Tensor]:
        maps = [self.layers[0](previous[:, 0])]
        for layer in self.layers[1:]:
            maps.append(layer(_pairs(maps[-1])))
        return maps[::-1]


class Generator(nn.Module):
    """Latent (N, latent), bar before (N, 1, T, 128), chord (N, 13) to scores (N, 1, T, 128).

    Where notes are held there is a score more, of a note's beginning: (N, 1, T, 129).
    """

    def __init__(self, options: MidiNetOptions, steps: int) -> None:
        super().__init__()
        self.conditioner = Conditioner(steps)
        sizes, width = scales(steps), options.width_g
        self.first = (sizes[0], width)
        self.hidden = _layer(options.latent + CHORD, options.hidden, nn.ReLU())
        self.project = _layer(options.hidden + CHORD, sizes[0] * width, nn.ReLU())
        joined = width + CHORD + _CONDITIONER
        self.enlarge = nn.ModuleList(nn.Linear(joined, 2 * width, bias=False) for _ in sizes[1:])
        self.norms = nn.ModuleList(StepNorm(width) for _ in sizes[1:])
        scores = PITCHES + (options.output == "held")
        self.output = nn.Linear(joined, scores, bias=False)
        normal_weights(self, 0.02)

    def forward(self, latent: Tensor, previous: Tensor, chord: Tensor) -> Tensor:
        *known, last = self.conditioner(previous)
        hidden = self.hidden(torch.cat((latent, chord), dim=1))
        maps = self.project(torch.cat((hidden, chord), dim=1)).unflatten(1, self.first)
        for enlarge, norm, before in zip(self.enlarge, self.norms, known, strict=True):
            wide = enlarge(_joined(maps, chord, before))
            maps = F.relu(norm(wide.reshape(len(wide), 2 * maps.shape[1], -1)))
        return self.output(_joined(maps, chord, last))[:, None]


class Discriminator(nn.Module):
    """Bars (N, C, T, 128) and chords (N, 13) to logits (N, 1); C is 2 with the bar before."""

    def __init__(self, options: MidiNetOptions, steps: int) -> None:
        super().__init__()
        first, second = options.features_d, options.width_d + CHORD
        rolls, whole = 1 + options.see_previous, (2, PITCHES)
        self.of_bars = nn.Conv2d(rolls, first, whole, stride=(2, 1), bias=False)
        kernel = whole if options.chord_d == "planes" else 1
        self.of_chord = nn.Conv2d(CHORD, first, kernel, bias=False)
        leaky, norm = nn.LeakyReLU(0.2), options.norm_d or "batch"
        self.second = _layer(_WINDOW * (first + CHORD), second, leaky, norm)
        places = (steps // 2 - _WINDOW) // 2 + 1
        self.hidden = _layer(second * places + CHORD, options.hidden, leaky, norm)
        self.output = nn.Linear(options.hidden + CHORD, 1, bias=False)
        normal_weights(self, 0.02)

    def features(self, bars: Tensor, chord: Tensor) -> Tensor:
        """The first layer (N, T / 2, 14), by which features are matched.

        A convolution of the bars and of planes that hold the chord everywhere, computed without
        the planes: what a kernel makes of one is the chord's number times the kernel's sum.
        """
        seen = F.linear(
            _pairs(bars.movedim(1, 2).flatten(2)), self.of_bars.weight.movedim(2, 1).flatten(1)
        )
        planes = F.linear(chord, self.of_chord.weight.sum(dim=(2, 3)))
        return F.leaky_relu(seen + planes[:, None], 0.2)

    def judge(self, features: Tensor, chord: Tensor) -> Tensor:
        """Logits (N, 1) of bars by their :meth:`features`."""
        windows = _joined(features, chord).unfold(1, _WINDOW, 2).flatten(2)
        second = self.second(windows).flatten(1)
        hidden = self.hidden(torch.cat((second, chord), dim=1))
        return self.output(torch.cat((hidden, chord), dim=1))

    def forward(
        self, bars: Tensor, chord: Tensor, *, features: bool = False, logits: bool = True
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The logits, the features or both, in this order: by a call, which can be compiled."""
        found = self.features(bars, chord)
        if not logits:
            return found
        judged = self.judge(found, chord)
        return (judged, found) if features else judged


def _layer(inputs: int, outputs: int, activation: nn.Module, norm: str = "batch") -> nn.Sequential:
    norms: dict[str, list[nn.Module]] = {
        "batch": [StepNorm(outputs)],
        "layer": [nn.LayerNorm(outputs)],
        "none": [],
    }
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), *norms[norm], activation)


def _height(chord: Tensor) -> Tensor:
    """The semitones (N,) from the nearest C to the root of each chord (N, 13): -6 to 5."""
    return (chord[:, :12].argmax(dim=1) + ROOM) % 12 - ROOM


def _moved(batch: Batch, semitones: Tensor) -> Batch:
    """The batch with each example's rolls and chord moved up by its own of ``semitones`` (N,)."""
    names: list[str] = [name for name in ("bar", "previous") if name in batch]
    rolls: Batch = {name: transpose_roll(batch[name], semitones) for name in names}
    return {**batch, **rolls, "chord": transpose_chord(batch["chord"], semitones)}


def tones(bars: Tensor) -> Tensor:
    """How many notes of each pitch class (N, 12) begin in bars (N, 1, T, 128), C first.

    A note begins where the strongest pitch is another than in the step before. Where that is has no
    gradient; how much of the step's pitch is of which class has.
    """
    pitches = bars[:, 0].argmax(dim=2)
    begins = F.pad(pitches[:, 1:] != pitches[:, :-1], (1, 0), value=True)
    sounding = (bars[:, 0] * begins[:, :, None]).sum(dim=1)
    return F.pad(sounding, (0, -PITCHES % 12)).unflatten(1, (-1, 12)).sum(dim=1)


def _lifted(counts: Tensor, semitones: Tensor) -> Tensor:
    """The :func:`tones` (N, 12) of the same bars moved up by their ``semitones`` (N,)."""
    classes = torch.arange(12, device=counts.device)
    return counts.gather(1, (classes - semitones[:, None]) % 12)


def winners(scores: Tensor) -> Tensor:
    """The strongest pitch of each step as a roll (..., T, 128), with the gradient of the softmax.

    The straight-through estimator of Bengio et al. 2013 (arXiv:1308.3432).
    """
    shares = torch.softmax(scores, dim=-1)
    return to_roll(scores.argmax(dim=-1)) + shares - shares.detach()


def held(pitches: Tensor, begins: Tensor) -> Tensor:
    """A roll (N, 1, T, 128) of notes that sound until the next begins, the first at the start.

    ``pitches``: what would sound in each step if a note began there, of that shape; ``begins``
    (N, 1, T, 1): the probability that one does. It is rounded, with the gradient of what it was.
    """
    rounded = ((begins > 0.5) + begins - begins.detach()).to(pitches.dtype)
    sounding = pitches[:, :, 0]
    steps = [sounding]
    for step in range(1, pitches.shape[2]):
        sounding = torch.lerp(sounding, pitches[:, :, step], rounded[:, :, step])
        steps.append(sounding)
    return torch.stack(steps, dim=2)


@register("midinet")
class MidiNet(AdversarialVariant):
    """The GAN for melodies with chords."""

    summary = "melodies, bar by bar, from a chord and the bar before"
    paper = "Yang et al. 2017, arXiv:1703.10847"
    defaults = (
        "the paper's, but for the second generator update of each iteration, which is its authors' "
        "code's"
    )
    default_data = "midi"
    data_help = (
        "melodies with chords, in bars of sixteenths (--data midi): a folder of MIDI files whose "
        "first track is the melody and whose second the chords, or melody/ and chords/ with files "
        "of the same names. Tunes in other metres than --metre (4/4) are counted and left out; "
        "--on-bad-file skip leaves out files that cannot be read, and tunes without chords."
    )
    data_example = "--data midi --data-root ~/nottingham/MIDI --on-bad-file skip"
    needs = frozenset({"previous", "chord"})
    targets = frozenset({"bar"})
    Options = MidiNetOptions
    asks_held_out = True
    best_by = (("melody_distance", "low"),)
    figure_names = (
        "chord_share", "chord_share_real", "pitch_class_distance", "degree_distance",
        "interval_distance", "length_distance", "melody_distance", "unique_share",
        "unique_share_real",
    )  # fmt: skip

    generator: Generator
    discriminator: Discriminator

    def check(self, spec: DataSpec) -> None:
        options = self.options
        if options.label_smoothing and not LOSSES[options.loss].cross_entropy:
            raise UserError(
                f"the {options.loss} loss has no labels: give --label-smoothing 0 with it"
            )
        if options.match_tones > 0 and options.output == "sigmoid":
            raise UserError(
                "--match-tones counts notes, and --output sigmoid makes none while it trains: "
                "choose held, straight-through or softmax"
            )
        super().check(spec)
        steps = spec.target_shape[-1]
        if steps < 8 or steps % 4:
            raise UserError(
                f"midinet makes bars of 8, 12, 16, ... sixteenths, not of {steps}: choose "
                "another --metre"
            )
        for name, usual in _ALONE.items():
            if getattr(options, name) != usual:
                raise UserError(
                    f"{flag(name)} is not for midinet, whose networks share a batch of single "
                    "bars: leave it out"
                )
        options.check_normalisation()

    def check_share(self, share: int) -> None:
        super().check_share(share)
        part = share // self.options.accumulate
        if part < 2:
            raise UserError(
                "midinet's batch normalisation needs 2 of a worker's examples at once, and this "
                f"is {part}: give a larger --batch-size, fewer --workers or a smaller --accumulate"
            )

    def build(self, data: DataSpec) -> None:
        super().build(data)
        if self.recipe.match_tones > 0:
            self.tones = RememberedMatching(12, self.recipe.accumulate)

    def view(self, spec: DataSpec) -> View:
        return RollView()

    def make_generator(self, data: DataSpec) -> Generator:
        return Generator(self.recipe, data.target_shape[1])

    def make_discriminator(self, data: DataSpec) -> Discriminator:
        return Discriminator(self.recipe, data.target_shape[1])

    def stages(self) -> tuple[Stage, ...]:
        (stage,) = super().stages()
        discriminator, generator = stage.players
        twice = dataclasses.replace(
            generator, reads=discriminator.reads, turns=self.recipe.generator_turns
        )
        return (dataclasses.replace(stage, players=(discriminator, twice), batch="iteration"),)

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        key = NoiseSpec("key", (), Integers(12), players=("discriminator", "generator"))
        return (*super().noise(stage), *[key] * (self.recipe.keys == "random"))

    def refused_options(self) -> frozenset[str]:
        return super().refused_options() | frozenset(_ALONE)

    def conditions(self) -> tuple[str, ...]:
        return ("previous", "chord")

    def generate(self, batch: Batch) -> Tensor:
        """Bars (N, 1, T, 128) in [0, 1] as D sees them."""
        scores = super().generate(batch)
        if self.recipe.output == "sigmoid":
            return torch.sigmoid(scores)
        if self.recipe.output == "held":
            return held(winners(scores[..., :-1]), torch.sigmoid(scores[..., -1:]))
        if self.recipe.output == "softmax":
            return torch.softmax(scores, dim=-1)
        return winners(scores)

    def outputs(self, targets: Tensor, batch: Batch) -> Tensor:
        return self.discriminator(self._seen(targets, batch), batch["chord"])

    def _seen(self, bars: Tensor, batch: Batch) -> Tensor:
        """What D is shown of ``bars`` (N, 1, T, 128)."""
        if not self.recipe.see_previous:
            return bars
        return torch.cat((bars, batch["previous"]), dim=1)

    @property
    def _from_root(self) -> bool:
        """Whether the networks see pitches from the chord's root."""
        return self.recipe.keys in ("root", "root-shown")

    def _learnt(self, batch: Batch) -> Batch:
        """The batch in the keys that the networks learn from."""
        if self.recipe.keys == "random":  # up to 6 semitones down, or 5 up
            return _moved(batch, batch["key"] - ROOM)
        return self._seen_from_root(batch)

    def _height_of_learnt(self, batch: Batch) -> Tensor:
        """By how many semitones (N,) the ``batch`` lies above what :meth:`_learnt` makes of it."""
        if self.recipe.keys == "random":
            return ROOM - batch["key"]
        height = _height(batch["chord"])
        return height if self._from_root else torch.zeros_like(height)

    def _seen_from_root(self, batch: Batch) -> Batch:
        """The batch as the networks see it outside training."""
        if not self._from_root:
            return batch
        moved = _moved(batch, -_height(batch["chord"]))
        return {**moved, "chord": batch["chord"]} if self.recipe.keys == "root-shown" else moved

    def discriminator_loss(self, batch: Batch) -> Loss:
        return super().discriminator_loss(self._learnt(batch))

    def generator_loss(self, batch: Batch) -> Loss:
        """The adversarial loss and the two of feature matching, over all workers' batch."""
        given, batch = batch, self._learnt(batch)
        chord, real, made = batch["chord"], self.real_targets(batch), self.generate(batch)
        fake = self._shown(made, batch, "fake")
        seen, made_seen = (self._seen(bars, batch) for bars in (real, fake))
        real_logits = None
        if self.loss.paired:
            real_logits, wanted = self.discriminator(seen, chord, features=True)
            real_logits = real_logits.flatten()
        else:
            wanted = self.discriminator(seen, chord, features=True, logits=False)
        fake_logits, features = self.discriminator(made_seen, chord, features=True)
        adversarial = self.loss.generator(fake_logits.flatten(), real_logits)
        matching, mean_bars = feature_matching(wanted, features), feature_matching(real, fake)
        total = (
            adversarial + self.recipe.match_features * matching + self.recipe.match_bars * mean_bars
        )
        diagnostics = {
            "loss/generator": adversarial,
            "matching/features": matching,
            "matching/bars": mean_bars,
        }
        if self.recipe.match_tones > 0:
            moved = self._height_of_learnt(given)
            apart = self.tones(*(_lifted(tones(b), moved) for b in (batch["bar"], made)))
            diagnostics["matching/tones"] = apart
            total = total + self.recipe.match_tones * apart
        return Loss(total, {name: value.detach() for name, value in diagnostics.items()})

    def sample(self, stage: str, batch: Batch) -> Batch:
        """Bars of ones and zeros: in every step the strongest pitch alone."""
        bars = to_roll(self.generate(self._seen_from_root(batch)).argmax(dim=-1))
        if self._from_root:
            bars = transpose_roll(bars, _height(batch["chord"]))
        return {"bar": bars}

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        return super().judge(self._seen_from_root(batch))

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        from gan_core.metrics.melody import Melody, melody_figures

        real, before = (to_pitches(held_out[name])[:, 0] for name in ("bar", "previous"))
        made, chords = to_pitches(generated["bar"])[:, 0], held_out["chord"]
        return melody_figures(Melody(made, before, chords), Melody(real, before, chords))

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor:
        from gan_core.piano_roll import piano_roll

        made, real = (to_pitches(rolls["bar"])[:, 0].cpu() for rolls in (generated, held_out))
        chords = held_out["chord"].cpu()
        return piano_roll([("generated", made, chords), ("real", real, chords)])

    def protocol(self, stage: str) -> str:
        return (
            "histograms of notes by total variation, each bar made from the chord and the real bar "
            "before of a held-out one"
        )


def compose(
    generate: Callable[[Tensor, Batch], Tensor], chords: Tensor, first: Tensor, steps: int
) -> Tensor:
    """Tunes bar after bar, each bar made from the one generated before it: pitches (N, steps).

    ``chords`` (N, 13) are those of all tunes one after another, ``first`` (N,) is true where one
    begins. ``generate(index, conditions)`` gives the bars (n, 1, steps, 128) of the numbers
    ``index`` (n,), as :meth:`MidiNet.sample` does. Tunes go on side by side, so that the longest
    takes as many calls as it has bars.
    """
    bars = torch.full((len(chords), steps), SILENCE)
    starts = first.nonzero().flatten()
    lengths = torch.diff(starts, append=starts.new_tensor([len(chords)]))
    for place in range(int(lengths.max())):
        index = starts[lengths > place] + place
        before = bars[index - 1] if place else torch.full((len(index), steps), SILENCE)
        conditions = {"previous": to_roll(before)[:, None], "chord": chords[index]}
        bars[index] = to_pitches(generate(index, conditions))[:, 0].cpu()
    return bars
