"""How networks see bars of pitches: piano rolls, and transpositions of them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from gan_core.data.examples import Batch, DataSpec, TensorSpec
from gan_core.data.midi import PITCHES
from gan_core.data.views import View


@dataclasses.dataclass(frozen=True)
class RollView(View):
    """Bars and the bars before them as piano rolls (1, T, 128), 1 where a pitch sounds, else 0.

    They are stored as pitches; a bar of silence becomes zeros.
    """

    def through(self, spec: DataSpec) -> DataSpec:
        seen = {
            name: TensorSpec((*spec.tensors[name].shape, PITCHES), 0.0, 1.0)
            for name in ("bar", "previous")
        }
        return dataclasses.replace(spec, tensors={**spec.tensors, **seen})

    def present(self, stored: Batch) -> Batch:
        return {n: v if n == "chord" else to_roll(v) for n, v in stored.items()}

    def restore(self, target: Tensor, native: tuple[int, ...]) -> Tensor:
        return target.argmax(dim=-1)


def to_roll(pitches: Tensor) -> Tensor:
    """Pitches (..., T), 128 for silence, as a piano roll (..., T, 128) of zeros and ones."""
    sounds = pitches[..., None] == torch.arange(PITCHES, device=pitches.device)
    return sounds.to(torch.get_default_dtype())


def to_pitches(roll: Tensor) -> Tensor:
    """The inverse of :func:`to_roll`: the strongest pitch of each step, 128 where all are 0."""
    strength, pitches = roll.max(dim=-1)
    return torch.where(strength > 0, pitches, PITCHES)


def transpose_roll(roll: Tensor, semitones: Tensor) -> Tensor:
    """Each roll (N, ..., 128) moved up by its own of ``semitones`` (N,), round the end."""
    return _moved(roll, semitones)


def transpose_chord(chord: Tensor, semitones: Tensor) -> Tensor:
    """Each chord (N, 13) with its root moved up by its own of ``semitones`` (N,)."""
    return torch.cat((_moved(chord[:, :12], semitones), chord[:, 12:]), dim=1)


def _moved(values: Tensor, places: Tensor) -> Tensor:
    """Every example's last dimension rolled by its own number of ``places``."""
    size = values.shape[-1]
    source = (torch.arange(size, device=values.device) - places[:, None]) % size
    shape = (len(values), *[1] * (values.dim() - 2), size)
    return values.gather(-1, source.reshape(shape).expand_as(values))
