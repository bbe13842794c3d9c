"""Released generators: weights as safetensors and, beside them, all that it takes to use them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_core.config import import_plugins
from gan_core.data.examples import Batch, DataSpec
from gan_core.engine.averaging import (
    STATISTICS_BATCH,
    STATISTICS_BATCHES,
    has_batch_statistics,
    measure_batch_statistics,
)
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.sampling import Sampler, copy_networks
from gan_core.errors import UserError, unknown_word
from gan_core.paths import user_path
from gan_core.randomness import stream_key
from gan_core.variant import Stage, Variant, create

FORMAT = 1
WEIGHTS, DESCRIPTION = FILES = "generator.safetensors", "generator.json"
EXAMPLES = 64
"""How many examples of what it is asked for (pictures to translate) a generator comes with."""
_SETTLING = STATISTICS_BATCH * STATISTICS_BATCHES
_CONDITION = "condition/"  # before a condition's name in the file of weights


def save_generator(
    folder: Path,
    sampler: Sampler,
    *,
    config: Mapping[str, Any],
    spec: DataSpec,
    step: int,
    figures: Mapping[str, float] | None = None,
    protocol: Mapping[str, str] | None = None,
) -> None:
    """Write the networks of ``sampler`` and their description into ``folder``.

    ``spec`` is the source's own (native) specification, ``config`` the run's configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"{name}.{key}": value.detach().clone(memory_format=torch.contiguous_format).cpu()
        for name in sampler.variant.sampling_networks(sampler.stage)
        for key, value in sampler.network(name).state_dict().items()
    }
    conditions = sampler.conditions(torch.arange(EXAMPLES))
    weights |= {
        _CONDITION + name: values.detach().contiguous().cpu()
        for name, values in conditions.items()
        if name != "label"
    }
    counts: list[int] = []
    if "label" in conditions:  # how often each class is asked for, as in training
        asked = sampler.conditions(torch.arange(_SETTLING))["label"]
        counts = torch.bincount(asked.flatten().cpu(), minlength=spec.classes).tolist()
    description = {
        "format": FORMAT,
        "class_counts": counts,
        "config": dict(config),
        "spec": spec.to_dict(),
        "stage": sampler.stage,
        "step": step,
        "conditions": sorted(conditions),
        "figures": dict(figures or {}),
        "protocol": dict(protocol or {}),
    }
    partial = {name: folder / f"{name}.partial" for name in (WEIGHTS, DESCRIPTION)}
    save_file(weights, partial[WEIGHTS])
    partial[DESCRIPTION].write_text(json.dumps(description, indent=1))
    for name, path in partial.items():
        path.replace(folder / name)


@dataclasses.dataclass(frozen=True)
class ReleasedGenerator:
    """A trained generator, ready to sample. ``spec`` is the source's; ``info`` the description.

    ``examples``: by name, up to 64 of what it was asked for in training's evaluations, if that is
    more than a class (pictures to translate, captions); samples without conditions are of these.
    """

    variant: Variant
    spec: DataSpec
    info: dict[str, Any]
    device: torch.device
    examples: Batch = dataclasses.field(default_factory=dict)

    def _sampler(self, seed: int) -> Sampler:
        return Sampler(self.variant, self.info["stage"], seed, self.device)

    @property
    def conditional(self) -> bool:
        """Whether samples are asked for by class."""
        return "label" in self.info["conditions"]

    def noise(
        self, index: Tensor, seed: int | None = None, truncation: float | None = None
    ) -> Batch:
        """The noise, by name, of the samples ``index`` (int64, (N,)); ``seed``: the run's.

        ``truncation``: no number is beyond that, see ``Sampler.noise``.
        """
        sampler = self._sampler(self.info["config"]["seed"] if seed is None else seed)
        return sampler.noise(index, truncation)

    def settled(self, truncation: float) -> ReleasedGenerator:
        """Itself, with its batch statistics measured anew under truncated noise.

        Those of training belong to noise of full width: with them, truncated samples lose contrast
        (Brock et al. 2018 measure "standing statistics" at sampling, appendix C.1).
        """
        names = self.variant.sampling_networks(self.info["stage"])
        if not any(has_batch_statistics(getattr(self.variant, name)) for name in names):
            return self
        copy = dataclasses.replace(self, variant=copy_networks(self.variant, names))
        labels = self._usual_labels()

        def generate(number: int) -> object:
            index = torch.arange(number * STATISTICS_BATCH, (number + 1) * STATISTICS_BATCH)
            asked = None if labels is None else labels[index]
            return copy.generate(index, asked, copy.noise(index, truncation=truncation))

        networks = nn.ModuleList([getattr(copy.variant, name) for name in names])
        measure_batch_statistics(networks, generate, STATISTICS_BATCHES)
        return copy

    def generate(
        self,
        index: Tensor,
        labels: Tensor | None = None,
        noise: Batch | None = None,
        native: bool = False,
        seed: int | None = None,
        *,
        conditions: Batch | None = None,
    ) -> Tensor:
        """Samples (N, ...) of the target, pictures in [-1, 1], for the numbers ``index``.

        ``labels`` (int64, (N,)) are the classes of a conditional variant, or (floats, (N, classes))
        mixtures of them; without them, classes are drawn evenly as a function of ``index``.
        ``conditions`` are other things asked for, by name (N, ...), as the networks see them;
        without them, sample i is of example i % 64 of those that the generator came with.
        ``noise`` replaces what ``index`` would give.
        ``native`` resizes to the source's own size. Raises ``UserError`` for a label out of range,
        and for what this generator cannot be asked for or given.
        """
        conditions = dict(conditions or {})
        if "label" in conditions and labels is None and self.conditional:
            labels = conditions.pop("label")
        self._check_asked(labels, conditions, noise or {})
        place = index.to(self.device)
        asked = {name: values[place % len(values)] for name, values in self.examples.items()}
        asked |= {name: values.to(self.device) for name, values in conditions.items()}
        if self.conditional:
            asked["label"] = self._asked_labels(index, labels).to(self.device)
        sampler = self._sampler(self.info["config"]["seed"] if seed is None else seed)
        given = {name: values.to(self.device) for name, values in (noise or {}).items()}
        target = sampler(index, given, asked)[self.spec.target]
        return self.stage.view.restore(target, self.spec.target_shape) if native else target

    def _check_asked(self, labels: Tensor | None, conditions: Batch, noise: Batch) -> None:
        variant, stage = self.info["config"]["variant"], self.info["stage"]
        if labels is not None and not self.conditional:
            raise UserError(f"this generator ({variant}) knows no classes: leave labels out")
        known = {*self.info["conditions"], *self.examples} - {"label"}
        for name in conditions.keys() - known:
            raise unknown_word(f"condition of {variant}", name, known or ["none"])
        takes = [spec.name for spec in self.variant.noise(stage) if spec.read_by("sample")]
        for name in noise.keys() - set(takes):
            raise unknown_word(f"noise of {variant}", name, takes or ["none"])

    def _usual_labels(self) -> Tensor | None:
        """Labels in the proportions of training, in a fixed order; ``None`` (evenly) of generators
        without classes, or of earlier versions.
        """
        counts = torch.tensor(self.info.get("class_counts") or [], dtype=torch.int64)
        if not len(counts):
            return None
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        return labels[order]

    def _asked_labels(self, index: Tensor, labels: Tensor | None) -> Tensor:
        classes = self.spec.classes
        if labels is None:
            return (stream_key(0, "labels") % classes + index) % classes
        if len(labels) != len(index):
            raise UserError(f"{len(index)} samples need as many labels, not {len(labels)}")
        mixed = labels.is_floating_point()
        if mixed and labels.shape[1:] != (classes,):
            raise UserError(f"mixtures of {classes} classes have a column for each of them")
        if not mixed and not bool(((labels >= 0) & (labels < classes)).all()):
            raise UserError(f"classes go from 0 to {classes - 1}")
        return labels

    @property
    def stage(self) -> Stage:
        """The stage that the generator was trained in."""
        return next(s for s in self.variant.stages() if s.name == self.info["stage"])


def _generator_folder(path: Path) -> Path:
    """The folder with the weights that ``path`` (run, generator or checkpoint) stands for."""
    kept = [place / kind for place in (path / "generator", path) for kind in ("best", "last")]
    for folder in (path, *kept):
        if any((folder / name).exists() for name in FILES):  # one that lacks the other is damaged
            return folder
    checkpoint = find_checkpoint(path) if path.is_dir() else None
    if checkpoint is not None and (checkpoint / WEIGHTS).exists():
        return checkpoint
    raise UserError(
        f"no generator at {path}: give the folder of a run, of a checkpoint, "
        "or of a released generator"
    )


def load_generator(path: Path | str, device: str | torch.device = "cpu") -> ReleasedGenerator:
    """The generator of a run (the best, else the last), of a checkpoint, or a released one.

    Raises ``UserError`` where there is none, or where a file is damaged.
    """
    folder = _generator_folder(user_path(path))
    try:
        info = json.loads((folder / DESCRIPTION).read_text())
        weights = load_file(folder / WEIGHTS, device=str(device))
    except (OSError, ValueError, SafetensorError) as error:
        last = folder.parent / "last"
        instead = f"; {last} is there" if folder.name == "best" and last.exists() else ""
        raise UserError(f"the generator in {folder} is damaged: {error}{instead}") from None
    promised = {"config", "spec", "stage", "conditions"}
    if not isinstance(info, dict) or info.get("format") != FORMAT or promised - set(info):
        raise UserError(f"{folder / DESCRIPTION} is not of this program's format {FORMAT}")
    config = info["config"]
    import_plugins(config.get("plugins") or ())
    import gan_core.variants  # noqa: F401

    spec = DataSpec.from_dict(info["spec"])
    variant = create(config["variant"], spec, config["options"], config["seed"])
    names = variant.sampling_networks(info["stage"])
    for name in names:
        own = {
            k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(name + ".")
        }
        try:
            getattr(variant, name).load_state_dict(own)
        except RuntimeError:
            raise UserError(
                f"the weights in {folder / WEIGHTS} do not fit the {name} that {DESCRIPTION} "
                "describes: one of the two is damaged, or of another run"
            ) from None
    variant = copy_networks(variant.to(device), names)
    examples = {
        name.removeprefix(_CONDITION): values
        for name, values in weights.items()
        if name.startswith(_CONDITION)
    }
    return ReleasedGenerator(variant, spec, info, torch.device(device), examples)
