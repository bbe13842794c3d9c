"""The verb ``evaluate``: figures of a trained generator, each with its protocol."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core import journal
from gan_core.errors import UserError
from gan_core.extractor_words import extractor_words
from gan_core.journal import finite
from gan_core.options import option
from pipelines.command_line import Parser, add_fields, checked_options
from pipelines.runs import check_run_writable, open_generator, resolve, without_extractor

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.config import RunConfig
    from gan_core.data.examples import DataSpec, Examples
    from gan_core.engine.world import World
    from gan_core.release import ReleasedGenerator
    from pipelines.tracking import Tracker

PREFIXES = {"test/": "test", "validation/": "validation", "evaluate/": "train"}
"""How the names of tracked figures begin, and the split that ``evaluate`` measured them on."""

TEST_SAMPLES = 2**32
"""The number of the first sample by which the test split of a mixture is judged. It holds nothing
out: by the samples that have chosen a run its figures would be those of validation once more."""


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``evaluate``."""

    extractor: str | None = option(
        None, "features for fid, kid, precision... (default: the run's)",
        choices=extractor_words,
    )  # fmt: skip
    extractor_weights: str | None = option(None, "file with the extractor's weights")
    samples: int = option(10_000, "generated examples to look at", minimum=2)
    split: str = option(
        "train", "the real examples to compare with: train as during training (systems that are "
        "asked for held-out examples, such as pix2pix and stackgan, for validation's), validation "
        "to choose between runs, test to report what was chosen (of ring and grid, whose modes are "
        "known and which hold nothing out, by other samples)",
        choices=("train", "validation", "test"),
    )  # fmt: skip
    parzen: bool = option(
        False, "add the Parzen log-likelihood of the test images by the first GAN's protocol, and "
        "beside it that of 10,000 training images",
    )  # fmt: skip
    data_root: str | None = option(None, "the folder of the source's files (default: the run's)")
    storage: str = option("runs", "where the runs are")
    device: str = option("auto", "auto takes CUDA where there is one",
                         choices=("auto", "cpu", "cuda"))  # fmt: skip


@dataclasses.dataclass
class Scores:
    """Figures by name, their protocols by family, and figures of each class."""

    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    protocol: dict[str, str] = dataclasses.field(default_factory=dict)
    per_class: dict[str, list[float]] = dataclasses.field(default_factory=dict)


def evaluate_command(arguments: list[str]) -> int:
    """``evaluate``: returns the exit code."""
    parser = Parser(
        "evaluate",
        description="Score the generator of a run (its best, else its last), of a checkpoint, or "
        "a released one. The figures are printed and kept in evaluation-SPLIT.json in the run's "
        "folder; compare shows them, and MLflow where it has the run.",
        epilog="example:\n  python -m pipelines evaluate first --samples 10000 --split test",
    )
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="a run's name, or a folder")
    names = [field.name for field in dataclasses.fields(EvaluateOptions)]
    add_fields(parser.add_argument_group("options of evaluate"), EvaluateOptions, names)
    given = parser.read(arguments)
    options = checked_options(EvaluateOptions, without_extractor(given))
    path = resolve(given["run"], options.storage)
    folder = run_folder(path) or path
    check_run_writable(folder)
    generator = open_generator(path, options.device)
    options = checked_options(EvaluateOptions, given)  # the run's plugins are here now
    scores = evaluate(generator, options, cache=cache_beside(path))
    step = int(generator.info["step"])
    # Printed last: whoever reads that may have gone.
    track(folder, scores, step, options.split)
    write_scores(scores_file(folder, options.split), scores, generator, options)
    print(f"{generator.info['config']['variant']} at step {step}: {path}\n\n{as_table(scores)}")
    return 0


def scores_file(folder: Path, split: str) -> Path:
    """Where the figures on ``split`` are kept of the run in ``folder``."""
    return folder / f"evaluation-{split}.json"


def cache_beside(path: Path) -> Path:
    """Where what is known of data is kept for the run that ``path`` (or a folder in it) is."""
    return (run_folder(path) or path).parent / "cache"


def run_folder(path: Path) -> Path | None:
    """The folder of the run that ``path`` (itself, a checkpoint, a generator) lies in."""
    places = [path, *list(path.parents)[:3]]
    return next((place for place in places if (place / "config.yaml").is_file()), None)


def evaluate(generator: ReleasedGenerator, options: EvaluateOptions, cache: Path) -> Scores:
    """All figures that ``options`` ask for; ``cache`` keeps classifiers and statistics."""
    from gan_core.engine.world import World
    from gan_core.judging import told_of_training

    config = evaluation_config(generator, options, cache)
    world = World(device=generator.device)
    scores = Scores()
    if options.parzen:
        check_parzen(generator)
    compare(generator, config, options, world, scores)
    split = judged_split(generator, options.split)
    scores.protocol = told_of_training(config, split, scores.protocol)
    if options.parzen:
        add_parzen(generator, config, world, scores)
    if not scores.figures:
        raise UserError(nothing_to_measure(generator.spec, config, options))
    return scores


def nothing_to_measure(spec: DataSpec, config: RunConfig, options: EvaluateOptions) -> str:
    """What to say where no figure can be made: which extractor is in use, and what to do."""
    from gan_core.judging import extractor_names

    if not spec.pictures:
        return "nothing to measure: extractors see pictures, and these data are none"
    if config.extractor == "none":
        whose = "the run's " if options.extractor is None else ""
        return f"nothing to measure with {whose}--extractor none: name one, or add --parzen"
    names = " or ".join(extractor_names(config, spec.labelled))
    return (
        f"nothing to measure: --extractor {config.extractor} takes {names}, and there is none "
        "here: give the file of one by --extractor-weights, name another, or add --parzen"
    )


def evaluation_config(
    generator: ReleasedGenerator, options: EvaluateOptions, cache: Path
) -> RunConfig:
    """The run's configuration, with what the user wants otherwise now."""
    from gan_core.config import make_config

    values = {**generator.info["config"], "samples": options.samples}
    values["cache"] = values.get("cache") or str(cache)
    for name in ("extractor", "extractor_weights", "data_root"):
        chosen = getattr(options, name)
        if chosen is not None:
            values[name] = chosen
    return make_config(values)


def load(generator: ReleasedGenerator, config: RunConfig, split: str) -> Examples:
    """A split of the run's source; ``UserError`` if it is not what the generator learned."""
    from gan_core.splits import load_split

    examples = load_split(config, split)  # type: ignore[arg-type]
    if examples.spec.to_dict() != generator.spec.to_dict():
        raise UserError(
            f"the data at {config.data_root} are not like those that the generator learned "
            f"({_difference(examples.spec, generator.spec)}): check --data-root"
        )
    return examples


def _difference(found: DataSpec, learned: DataSpec) -> str:
    """What the data ``found`` have otherwise than those ``learned``."""
    one, other = ((spec.target_shape, spec.classes) for spec in (found, learned))
    lost = [name for name in learned.class_names if name not in found.class_names]
    if one == other and lost:
        return f"no class is called '{lost[0]}'"
    return f"{one[0]} and {one[1]} classes, not {other[0]} and {other[1]}"


def compare(
    generator: ReleasedGenerator,
    config: RunConfig,
    options: EvaluateOptions,
    world: World,
    scores: Scores,
) -> None:
    """Add the evaluator's figures; those on a split but train have it before their names."""
    from gan_core.data.mixtures import MIXTURES
    from gan_core.judging import check_reference, make_extractors
    from gan_core.metrics.evaluation import Evaluator

    if generator.variant.asks_held_out:
        compare_held_out(generator, config, options, world, scores)
        return
    train = load(generator, config, config.train_split)
    extractors = make_extractors(config, train, world, _warn)
    mixture = MIXTURES.get(config.data)
    if not extractors and mixture is None:
        return
    reference = train if options.split == "train" else load(generator, config, options.split)
    if extractors:
        check_reference(reference)
    evaluator = Evaluator(
        reference=reference,
        extractors=extractors,
        samples=config.samples,
        world=world,
        cache=config.cache_folder,
        mixture=mixture,
        conditional=generator.conditional,
        resizer=generator.variant.view(generator.spec).describe(generator.spec.target_shape),
    )
    labels = asked_labels(train, config) if generator.conditional else None
    first = TEST_SAMPLES if mixture is not None and options.split == "test" else 0
    found = evaluator(maker(generator, labels, first), labels)
    if mixture is not None and first:
        found.protocol["modes"] += "; no held-out examples, but other points than validation's"
    prefix = prefix_of(options.split)
    scores.figures |= {prefix + name: value for name, value in found.figures.items()}
    scores.protocol |= found.protocol
    scores.per_class |= {prefix + name: row for name, row in found.per_class.items()}


def judged_split(generator: ReleasedGenerator, split: str) -> str:
    """The split that figures asked for on ``split`` are of: held-out examples are of validation."""
    return "validation" if generator.variant.asks_held_out and split == "train" else split


def prefix_of(split: str) -> str:
    """What stands before the names of figures on ``split``."""
    return "" if split == "train" else f"{split}/"


def compare_held_out(
    generator: ReleasedGenerator,
    config: RunConfig,
    options: EvaluateOptions,
    world: World,
    scores: Scores,
) -> None:
    """Add the figures of a variant that is asked for held-out examples: its own, and the
    evaluator's against these examples. Held out from training is the validation split, or test.
    """
    import torch

    from gan_core.engine.sampling import Sampler
    from gan_core.judging import make_evaluator
    from gan_core.metrics.held_out import held_out_figures

    split = judged_split(generator, options.split)
    native, variant, stage = load(generator, config, split), generator.variant, generator.stage
    prepared = stage.view.prepare(native).tensors
    held_out = stage.view.present({n: t.to(world.device) for n, t in prepared.items()})
    asked = {name: held_out[name] for name in variant.conditions()}
    sampler = Sampler(variant, stage.name, config.seed, world.device, asked)
    count, prefix = min(config.samples, native.shortest), prefix_of(options.split)
    own = held_out_figures(sampler, held_out, count, world)
    scores.figures |= {prefix + name: value for name, value in own.items()}
    where = f"{count} examples of {native.told}"
    if own:
        told = filter(None, (variant.protocol(stage.name), where))
        scores.protocol[variant.name] = ": ".join(told)
    train = load(generator, config, config.train_split)
    evaluator = make_evaluator(
        config, train, world, reference=native, conditional=generator.conditional,
        resizer=stage.view.describe(generator.spec.target_shape), say=_warn,
    )  # fmt: skip
    if not evaluator:
        return

    def generate(index: torch.Tensor) -> torch.Tensor:
        target = sampler(index)[generator.spec.target]
        return stage.view.restore(target, generator.spec.target_shape)

    wanted = sampler.conditions(torch.arange(evaluator.samples))
    found = evaluator(generate, wanted.get("label"), wanted.get("text"))
    scores.figures |= {prefix + name: value for name, value in found.figures.items()}
    scores.protocol |= found.protocol


def asked_labels(train: Examples, config: RunConfig, count: int | None = None) -> Tensor:
    """The labels (samples,) that are asked for, as in training: in the real proportions."""
    import torch

    from gan_core.randomness import stream_key

    key = stream_key(config.seed, "conditions") & (2**63 - 1)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(key))
    return train.tensors["label"][order[torch.arange(count or config.samples) % len(order)]]


def maker(generator: ReleasedGenerator, labels: Tensor | None, first: int = 0) -> Any:
    """From sample numbers, counted from the generator's number ``first``, to targets at native
    size.
    """

    def generate(index: Tensor) -> Tensor:
        own = None if labels is None else labels.to(index.device)[index]
        return generator.generate(first + index, own, native=True)

    return generate


def check_parzen(generator: ReleasedGenerator) -> None:
    """Raises ``UserError`` where the protocol means nothing."""
    target = generator.spec.target
    if not generator.spec.pictures:
        raise UserError(f"--parzen is for pictures, this generator makes {target}s: leave it out")
    if generator.variant.asks_held_out:
        raise UserError(
            "--parzen is for pictures that are made of noise, and this generator's are made for "
            "given examples: leave it out"
        )


def add_parzen(
    generator: ReleasedGenerator, config: RunConfig, world: World, scores: Scores
) -> None:
    """Add the Parzen figures of the generator and of as many training images."""
    import torch

    from gan_core.data.examples import to_unit_range
    from gan_core.metrics.parzen import SAMPLES, parzen_figures, parzen_protocol

    train = load(generator, config, config.train_split)
    validation, test = (load(generator, config, split) for split in ("validation", "test"))
    labels = asked_labels(train, config, SAMPLES) if generator.conditional else None
    scores.figures |= parzen_figures(
        maker(generator, labels), validation=validation, test=test, world=world
    )
    count = min(SAMPLES, len(train))
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
    stored = train.tensors[train.spec.target][chosen]

    def copies(index: Tensor) -> Tensor:
        images = stored[index.cpu()].to(index.device)
        return to_unit_range(images) if images.dtype == torch.uint8 else images

    beside = parzen_figures(copies, validation=validation, test=test, world=world, samples=count)
    scores.figures |= {name.replace("parzen_", "parzen_training_"): v for name, v in beside.items()}
    scores.protocol["parzen"] = parzen_protocol(validation, test)
    scores.protocol["parzen_training"] = (
        f"{count} training images in the place of the generated ones: what memory would score"
    )


_FAMILIES = (
    "inception", "classifier", "mobilenet_v2", "modes", "retrieval", "parzen", "parzen_training",
)  # fmt: skip
"""The families of protocols that are not a variant's own, which has its name."""
_OF_FEATURES = (
    "fid", "kid", "inception_score", "precision", "recall", "density", "coverage",
    "min_class_recall", "ndb", "bin_divergence", "vendi", "distance", "birthday", "copied",
    "ms_ssim",
)  # fmt: skip
"""How the evaluator's figures begin; all others are a variant's own."""


def plain(figure: str) -> str:
    """The figure's name without the split that it was measured on."""
    prefix = next((p for p in PREFIXES if figure.startswith(p)), "")
    return figure.removeprefix(prefix)


def family(figure: str, protocol: dict[str, str]) -> str | None:
    """Which of the ``protocol`` lines is about ``figure``."""
    name = plain(figure)
    for key in ("parzen_training", "parzen"):
        if name.startswith(key):
            return key
    if name.startswith("retrieval"):
        return "retrieval" if "retrieval" in protocol else None
    suffixed = [key for key in protocol if name.endswith(f"_{key}")]
    if suffixed:
        return suffixed[0]
    modes = ("mode", "class_accuracy", "high_quality", "classes")
    if name.startswith(modes):
        return "modes" if "modes" in protocol else None
    own = next((key for key in protocol if key not in _FAMILIES), None)
    if own is not None and not name.startswith(_OF_FEATURES):
        return own
    return next((key for key in ("inception", "modes") if key in protocol), None)


def as_table(scores: Scores) -> str:
    """Figure, value and the number of the protocol, which stands in full below."""
    numbers = {name: place for place, name in enumerate(scores.protocol, start=1)}
    width = max(len(name) for name in scores.figures)
    lines = [f"{'figure':<{width}}  {'value':>10}  protocol"]
    for name, value in scores.figures.items():
        about = family(name, scores.protocol)
        mark = "" if about is None else f"[{numbers[about]}]"
        lines.append(f"{name:<{width}}  {value:>10.4g}  {mark}".rstrip())
    notes = [f"[{numbers[name]}] {text}" for name, text in scores.protocol.items()]
    return "\n".join([*lines, "", *notes])


def write_scores(
    path: Path, scores: Scores, generator: ReleasedGenerator, options: EvaluateOptions
) -> None:
    """Keep the figures as JSON; what is not finite becomes null."""
    content = {
        "step": int(generator.info["step"]),
        "time": time.time(),
        "options": dataclasses.asdict(options),
        "figures": {name: finite(value) for name, value in scores.figures.items()},
        "protocol": scores.protocol,
        "per_class": {n: [finite(v) for v in row] for n, row in scores.per_class.items()},
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def track(folder: Path, scores: Scores, step: int, split: str) -> None:
    """Add the figures to those of the run in ``folder``, if it is one: to its journal, where
    ``compare`` finds them, and to its MLflow run, if it has one. A failure is only told.

    What cannot be sent now is sent by ``sync``. Their names begin with one of :data:`PREFIXES`:
    those of training are of other samples. A figure that the run has at this step already, measured
    in the same way, is not logged again.
    """
    from pipelines import tracking
    from pipelines.run_folder import unplayed

    if not (folder / "config.yaml").is_file():
        return
    alone = f"its figures are in {scores_file(folder, split).name} alone"
    with unplayed(folder) as free:
        if not free:
            _warn(f"the run is being trained: {alone}")
            return
        if tracking.State.load(folder) is None:
            _write_to_journal(folder, scores, step)
            return
        try:
            tracker = tracking.Tracker(folder, say=lambda text: _warn(text, "note"))
        except tracking.Busy:
            _warn(f"the run is being sent: {alone}")
            return
        _write_and_send(tracker, scores, step)


def _write_and_send(tracker: Tracker, scores: Scores, step: int) -> None:
    from pipelines.mlflow_client import reason

    folder = tracker.folder
    try:
        _write_to_journal(folder, scores, step)
        tracker.send()
    except Exception as error:
        _warn(
            f"MLflow does not take the figures ({reason(error)}); send them later with: "
            f"python -m pipelines sync {shlex.quote(str(folder))}"
        )
    finally:
        tracker.close()


def _write_to_journal(folder: Path, scores: Scores, step: int) -> None:
    """Add the figures that the journal lacks at ``step``, and how these were measured.

    Those that it has by another protocol (of fewer samples) are replaced.
    """
    events = [event for event, _ in journal.read(folder / journal.FILE) if event["step"] == step]
    known = {name for e in events if e["kind"] == "metrics" for name in e["values"]}
    told = {e["name"]: e["value"] for e in events if e["kind"] == "tag"}
    values = {tracked_name(name): value for name, value in scores.figures.items()}

    def has(name: str) -> bool:
        kind = family(name, scores.protocol)
        same = kind is None or told.get(_protocol_tag(name, kind)) == scores.protocol[kind]
        return name in known and same

    new = {name: value for name, value in values.items() if not has(name)}
    # By the names, as they are read: Parzen's have no split before them, whatever --split was.
    about = {(family(name, scores.protocol), split_of(name)) for name in new}
    book = journal.Journal(folder)
    if new:
        book.replace_metrics(step, new)
    for name, text in scores.protocol.items():
        for where in sorted(where for kind, where in about if kind == name):
            book.write("tag", step, name=f"protocol.evaluate.{where}.{name}", value=text)
    book.close()


def _protocol_tag(tracked: str, kind: str) -> str:
    return f"protocol.evaluate.{split_of(tracked)}.{kind}"


def split_of(tracked: str) -> str:
    """The split whose protocols are those of a figure, by its name among those of training."""
    return next(split for prefix, split in PREFIXES.items() if tracked.startswith(prefix))


def tracked_name(figure: str) -> str:
    """The figure's name among those of training."""
    return figure if plain(figure) != figure else f"evaluate/{figure}"


def _warn(text: str, level: str = "warning") -> None:
    print(f"warning: {text}" if level == "warning" else text, file=sys.stderr)
