"""The verb ``sample``: pictures from the generator of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError, unknown_word
from gan_core.options import option
from pipelines.command_line import Parser, add_fields, checked_options
from pipelines.runs import open_generator, resolve
from pipelines.sample_tune import write_tune

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.data.examples import Batch
    from gan_core.priors import Prior
    from gan_core.release import ReleasedGenerator

_COLUMNS = 8
_BATCH = 500


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """The options of ``sample``."""

    n: int = option(64, "how many examples", minimum=1)
    out: str = option(
        "samples.png", "the PNG file to write; of melodies a .mid file, and a PNG beside it"
    )
    classes: str | None = option(
        None, "a row for each class, by number or name, with commas: 0,1,2 (conditional variants)"
    )
    chords: str | None = option(
        None, "the chords of a melody, one a bar and repeated for --n bars, with commas: C,Am,F,G "
        "(default: those of a held-out tune)",
    )  # fmt: skip
    interpolate: bool = option(
        False, "rows that go from one point of the latent space to another (on the sphere for a "
        "gaussian prior, straight for a uniform one)",
    )  # fmt: skip
    seed: int | None = option(None, "which noise is drawn (default: the run's seed)", minimum=0)
    storage: str = option("runs", "where the runs are")
    device: str = option("auto", "auto takes CUDA where there is one",
                         choices=("auto", "cpu", "cuda"))  # fmt: skip


def sample_command(arguments: list[str]) -> int:
    """``sample``: returns the exit code."""
    parser = Parser(
        "sample",
        description="Draw from the generator of a run (its best, else its last), of a checkpoint, "
        "or of a released generator, into one PNG.",
        epilog="example:\n  python -m pipelines sample first --n 64 --out grid.png",
    )
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="a run's name, or a folder")
    names = [field.name for field in dataclasses.fields(SampleOptions)]
    add_fields(parser.add_argument_group("options of sample"), SampleOptions, names)
    given = parser.read(arguments)
    options = checked_options(SampleOptions, given)
    out = Path(options.out).expanduser()
    if out.suffix.lower() not in (".png", ".mid"):
        raise UserError(f"--out {options.out} must end in .png, or for melodies in .mid")
    generator = open_generator(resolve(given["run"], options.storage), options.device)
    if generator.spec.target == "bar":
        print(*write_tune(generator, options, out), sep="\n")
    else:
        print(draw_picture(generator, options, out))
    return 0


def draw_picture(generator: ReleasedGenerator, options: SampleOptions, out: Path) -> Path:
    """Write the picture that ``options`` ask for to ``out``; raises ``UserError``."""
    from gan_core.pictures import sample_picture, save_png

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out} must end in .png: only melodies are MIDI files")
    if options.chords is not None:
        raise UserError("--chords needs a generator of melodies (midinet): leave it out")
    index, labels, columns = layout(generator, options)
    noise = None
    if options.interpolate:
        noise = interpolated(generator, index, columns, options.seed)
    targets = generate_all(generator, index, labels, noise, options.seed)
    real = None if len(generator.spec.target_shape) > 1 else real_points(generator, len(index))
    return save_png(sample_picture(targets.cpu(), generator.spec, real, columns), out)


def real_points(generator: ReleasedGenerator, count: int) -> Tensor | None:
    """As many real points (N, D) to draw behind the generated ones, where they need no files."""
    import gan_core.data

    config = generator.info["config"]
    if config["data"] not in gan_core.data.MIXTURES:
        return None
    examples = gan_core.data.load_examples(config["data"], None, "test")
    return examples.tensors[generator.spec.target][: max(count, 1000)]


def generate_all(
    generator: ReleasedGenerator,
    index: Tensor,
    labels: Tensor | None,
    noise: Batch | None,
    seed: int | None,
) -> Tensor:
    """Targets (N, ...) at the networks' size, made a few hundred at a time."""
    import torch

    parts = []
    for places in torch.arange(len(index)).split(_BATCH):
        own = None if labels is None else labels[places]
        fed = None if noise is None else {k: v[places.to(v.device)] for k, v in noise.items()}
        parts.append(generator.generate(index[places], own, fed, seed=seed))
    return torch.cat(parts)


def layout(
    generator: ReleasedGenerator, options: SampleOptions
) -> tuple[Tensor, Tensor | None, int | None]:
    """Sample numbers (N,), labels (N,) if there are any, and the images in a row.

    With classes every row is one class; without a choice of classes all have a row where ``n``
    gives each two images or more. Only whole rows are drawn then.
    """
    import torch

    classes = chosen_classes(generator, options.classes)
    if not classes:
        count = options.n
        if options.interpolate:
            columns = min(_COLUMNS, count)
            return torch.arange(count // columns * columns), None, columns
        return torch.arange(count), None, None
    if options.classes is None and options.n < 2 * len(classes):
        labels = torch.tensor(classes)[torch.arange(options.n) % len(classes)]
        return torch.arange(options.n), labels, min(_COLUMNS, options.n)
    columns = max(1, options.n // len(classes))
    rows = classes
    if options.interpolate:
        columns = min(_COLUMNS, columns)
        count = max(len(classes), options.n // columns)
        rows = [classes[row % len(classes)] for row in range(count)]
    labels = torch.tensor(rows).repeat_interleave(columns)
    return torch.arange(len(labels)), labels, columns


def chosen_classes(generator: ReleasedGenerator, text: str | None) -> list[int]:
    """The classes that the user asked for, else all; none for an unconditional generator."""
    spec = generator.spec
    if not generator.conditional:
        if text is not None:
            raise UserError(
                f"--classes needs a conditional variant, this generator is "
                f"{generator.info['config']['variant']}: leave it out"
            )
        return []
    if text is None:
        return list(range(spec.classes))
    return [_class_number(word.strip(), spec.classes, spec.class_names) for word in text.split(",")]


def _class_number(word: str, classes: int, names: tuple[str, ...]) -> int:
    if word in names:
        return names.index(word)
    if not word.isdecimal():
        raise unknown_word("class", word, names or [f"0 to {classes - 1}"])
    if int(word) >= classes:
        raise UserError(f"--classes {word}: the classes go from 0 to {classes - 1}")
    return int(word)


def interpolated(
    generator: ReleasedGenerator, index: Tensor, columns: int | None, seed: int | None
) -> Batch:
    """Noise (N, ...) by name: each row of ``columns`` goes from one sample's to another's."""
    import torch

    from gan_core.priors import Integers

    if columns is None or columns < 2:
        raise UserError("--interpolate needs rows of at least two: ask for a larger --n")
    rows = len(index) // columns
    ends = generator.noise(torch.arange(2 * rows), seed)
    share = torch.linspace(0, 1, columns, dtype=torch.float64)
    priors = {spec.name: spec.prior for spec in generator.variant.noise(generator.info["stage"])}
    paths = {}
    for name, values in ends.items():
        first, last = values[0::2], values[1::2]
        if isinstance(priors[name], Integers):
            paths[name] = first.repeat_interleave(columns, dim=0)
        else:
            paths[name] = path_between(first, last, share, priors[name])
    return paths


def path_between(first: Tensor, last: Tensor, share: Tensor, prior: Prior) -> Tensor:
    """From ``first`` to ``last`` (R, ...), each row in the steps ``share`` (C,): (R * C, ...).

    For a gaussian prior the path is spherical (White 2016, arXiv:1609.04468, section 2.1), for
    others straight: inner points then look as likely to the generator as the ends. The ends are
    exact.
    """
    import torch

    from gan_core.priors import Gaussian

    a, b = first.double().flatten(1)[:, None], last.double().flatten(1)[:, None]
    t = share.to(a.device)[None, :, None]
    points = (1 - t) * a + t * b
    if isinstance(prior, Gaussian):
        cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1) * b.norm(dim=-1))[..., None]
        angle = torch.arccos(cosine.clamp(-1, 1))
        round_way = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        # Parallel ends have no great circle between them, or no single one.
        points = torch.where(torch.sin(angle) > 1e-6, round_way, points)
    return points.reshape(-1, *first.shape[1:]).to(first.dtype)
