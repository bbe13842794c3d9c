"""The verb ``sample``: pictures from the generator of a run."""

from __future__ import annotations

import dataclasses
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError, unknown_word
from gan_core.extractor_words import extractor_words
from gan_core.options import flag, option
from pipelines.command_line import Parser, add_fields, checked_options
from pipelines.evaluate import cache_beside
from pipelines.neighbours import with_neighbours
from pipelines.runs import open_generator, out_file, resolve, without_extractor
from pipelines.sample_enlarged import enlarges, write_enlarged
from pipelines.sample_inputs import write_translations
from pipelines.sample_texts import write_texts
from pipelines.sample_tune import write_tune
from pipelines.walks import class_walks, latent_walks

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.data.examples import Batch
    from gan_core.release import ReleasedGenerator

_COLUMNS = 8
_BATCH = 500


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """The options of ``sample``."""

    n: int = option(
        64, "how many examples; where a row is a class or a walk, as many whole rows as these give",
        minimum=1, maximum=1_000_000,
    )  # fmt: skip
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
    inputs: str | None = option(
        None, "a folder of your own pictures to translate (pix2pix, cyclegan), each cropped to its "
        "central square and resized; --out may then be a folder for the results; or to enlarge "
        "(srgan), whole, into the folder --out",
    )  # fmt: skip
    texts: str | None = option(
        None, "what to draw, with semicolons: a row for each text (generators of captions)"
    )
    interpolate: bool = option(
        False, "rows that go from one point of the latent space to another (on the sphere for a "
        "gaussian prior, straight for a uniform one)",
    )  # fmt: skip
    interpolate_classes: bool = option(
        False, "rows that go from one class to the next while the noise stays (conditional "
        "variants)",
    )  # fmt: skip
    truncation: float | None = option(
        None, "draw the noise's numbers again while they are larger than this (of a uniform prior: "
        "while they are outside of this share of it): 0.5 gives more typical and less diverse "
        "pictures",
        above=0,
    )  # fmt: skip
    neighbours: int = option(
        0, "beside each picture, in a row, as many training pictures: the nearest in the features "
        "of --extractor",
        minimum=0,
    )  # fmt: skip
    extractor: str | None = option(
        None, "whose features --neighbours compares (default: the run's)",
        choices=lambda: extractor_words(none=False),
    )  # fmt: skip
    extractor_weights: str | None = option(None, "file with the weights of --extractor")
    data_root: str | None = option(
        None, "the folder of the source's files, for --neighbours (default: the run's)"
    )
    seed: int | None = option(None, "which noise is drawn (default: the run's seed)", minimum=0)
    storage: str = option("runs", "where the runs are")
    device: str = option("auto", "auto takes CUDA where there is one",
                         choices=("auto", "cpu", "cuda"))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rows:
    """Samples to make: their numbers (N,), labels or mixtures of classes (N, ...) where there are
    classes, noise by name (N, ...), and how many stand in a row (``None``: as is best).
    """

    index: Tensor
    labels: Tensor | None
    columns: int | None
    noise: Batch


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
    options = checked_options(SampleOptions, without_extractor(given))
    out = out_file(options.out)
    check_ending(out, translates=options.inputs is not None)
    path = resolve(given["run"], options.storage)
    generator = open_generator(path, options.device)
    options = checked_options(SampleOptions, given)  # the run's plugins are here now
    if options.inputs is not None and enlarges(generator):
        for line in write_enlarged(generator, options, out):
            print(line, flush=True)
    elif options.inputs is not None:
        print(*write_translations(generator, options, out), sep="\n")
    elif options.texts is not None:
        print(write_texts(generator, options, out))
    elif generator.spec.target == "bar":
        print(*write_tune(generator, options, out), sep="\n")
    else:
        print(draw_picture(generator, options, out, cache_beside(path)))
    return 0


def check_ending(out: Path, translates: bool) -> None:
    """Raises ``UserError`` if ``out`` can hold nothing that any generator makes."""
    ending = out.suffix.lower()
    if not translates and ending not in (".png", ".mid"):
        raise UserError(f"--out {out} must end in .png, or for melodies in .mid")


def draw_picture(
    generator: ReleasedGenerator, options: SampleOptions, out: Path, cache: Path
) -> Path:
    """Write the picture that ``options`` ask for to ``out``; raises ``UserError``.

    ``cache``: where features of real examples are kept, if the run does not say it.
    """
    from gan_core.pictures import sample_picture, save_png

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out} must end in .png: only melodies are MIDI files")
    if options.chords is not None:
        raise UserError("--chords needs a generator of melodies (midinet): leave it out")
    check_possible(generator, options)
    if options.truncation is not None:
        generator = generator.settled(options.truncation)
    rows = arranged(generator, options)
    targets = generate_all(generator, rows)
    if options.neighbours:
        picture = with_neighbours(generator, options, targets, cache)
    else:
        real = None if generator.spec.pictures else real_points(generator, len(rows.index))
        picture = sample_picture(targets.cpu(), generator.spec, real, rows.columns)
    if names := class_of_rows(rows, generator.spec.class_names):
        print(f"rows, from the top: {', '.join(names)}", file=sys.stderr)
    return save_png(picture, out)


def class_of_rows(rows: Rows, names: Sequence[str]) -> list[str]:
    """The names of the classes that ``rows`` are of, one each; none where a row has several."""
    labels = rows.labels
    if labels is None or labels.is_floating_point() or not rows.columns or not names:
        return []
    parts = labels.split(rows.columns)
    if any(len(set(part.tolist())) > 1 for part in parts):
        return []
    return [names[int(part[0])] for part in parts]


def real_points(generator: ReleasedGenerator, count: int) -> Tensor | None:
    """As many real points (N, D) to draw behind the generated ones, where they need no files."""
    import gan_core.data

    config = generator.info["config"]
    if config["data"] not in gan_core.data.MIXTURES:
        return None
    examples = gan_core.data.load_examples(config["data"], None, "test")
    return examples.tensors[generator.spec.target][: max(count, 1000)]


def generate_all(generator: ReleasedGenerator, rows: Rows) -> Tensor:
    """Targets (N, ...) at the networks' size, made a few hundred at a time."""
    import torch

    parts = []
    for places in torch.arange(len(rows.index)).split(_BATCH):
        own = None if rows.labels is None else rows.labels[places]
        fed = {name: values[places.to(values.device)] for name, values in rows.noise.items()}
        parts.append(generator.generate(rows.index[places], own, fed))
    return torch.cat(parts)


def check_possible(generator: ReleasedGenerator, options: SampleOptions) -> None:
    """Raises ``UserError`` for options that exclude each other, or that have nothing to act on."""
    walks = options.interpolate + options.interpolate_classes
    if walks > 1 or (walks and options.neighbours):
        raise UserError("choose one of --interpolate, --interpolate-classes and --neighbours")
    for name in ("extractor", "extractor_weights", "data_root"):
        if getattr(options, name) is not None and not options.neighbours:
            raise UserError(f"{flag(name)} is for --neighbours, of which none are asked for")
    for name in ("truncation", "interpolate"):
        if getattr(options, name) and not has_latent(generator):
            variant = generator.info["config"]["variant"]
            raise UserError(
                f"{flag(name)} is about the generator's noise, and {variant}'s takes none that has "
                "a middle and tails: leave it out"
            )


def has_latent(generator: ReleasedGenerator) -> bool:
    """Whether any of the noise that samples are made of is continuous (dropout's masks are not)."""
    from gan_core.priors import truncated

    specs = generator.variant.noise(generator.info["stage"])
    return any(s.read_by("sample") and truncated(s.prior, 1.0) is not None for s in specs)


def arranged(generator: ReleasedGenerator, options: SampleOptions) -> Rows:
    """What to make, and how many images stand in a row; raises ``UserError``."""
    if options.interpolate or options.interpolate_classes:
        return walking(generator, options)
    index, labels, columns = layout(generator, options)
    noise = generator.noise(index, options.seed, options.truncation)
    return Rows(index, labels, columns, noise)


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
        return torch.arange(options.n), None, None
    if options.classes is None and options.n < 2 * len(classes):
        labels = torch.tensor(classes)[torch.arange(options.n) % len(classes)]
        return torch.arange(options.n), labels, min(_COLUMNS, options.n)
    columns = max(1, options.n // len(classes))
    labels = torch.tensor(classes).repeat_interleave(columns)
    return torch.arange(len(labels)), labels, columns


def walking(generator: ReleasedGenerator, options: SampleOptions) -> Rows:
    """Rows that go through the latent space (each of one class), or from class to class."""
    import torch

    classes = chosen_classes(generator, options.classes)
    if options.interpolate_classes and not classes:
        raise UserError("--interpolate-classes needs a conditional variant: leave it out")
    share = options.n // max(1, len(classes))
    columns = min(_COLUMNS, share if share > 1 else options.n)
    if columns < 2:
        raise UserError("rows that go somewhere have two images or more: ask for a larger --n")
    rows = options.n // columns
    # A row is one sample but for what walks: what else it is asked for (a caption) stays.
    index = torch.arange(rows).repeat_interleave(columns)
    drawn = (options.seed, options.truncation)
    if options.interpolate:
        labels = torch.tensor([classes[r % len(classes)] for r in range(rows)]) if classes else None
        labels = None if labels is None else labels.repeat_interleave(columns)
        ends = generator.noise(torch.arange(2 * rows), *drawn)
        return Rows(index, labels, columns, latent_walks(generator, ends, columns))
    still = generator.noise(torch.arange(rows), *drawn)
    noise = {name: values.repeat_interleave(columns, dim=0) for name, values in still.items()}
    mixtures = class_walks(classes, generator.spec.classes, rows, columns)
    return Rows(index, mixtures, columns, noise)


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
    # A class may have commas in its name.
    words = [text] if text in spec.class_names else [word.strip() for word in text.split(",")]
    return [_class_number(word, spec.classes, spec.class_names) for word in words]


def _class_number(word: str, classes: int, names: tuple[str, ...]) -> int:
    # A name may be written in another form of Unicode, as folders of macOS are.
    plain = [unicodedata.normalize("NFC", name) for name in names]
    named = unicodedata.normalize("NFC", word)
    if named in plain:
        return plain.index(named)
    other = any(name.isdecimal() and int(name) != n for n, name in enumerate(names))
    if not word.isdecimal() or other:  # where names are other numbers, a number is a name
        raise unknown_word("class", word, names or [f"0 to {classes - 1}"])
    if int(word) >= classes:
        raise UserError(f"--classes {word}: the classes go from 0 to {classes - 1}")
    return int(word)
