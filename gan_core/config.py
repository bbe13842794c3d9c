"""The configuration of a run: everything that decides what is trained, and how it is watched."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gan_core.diagnostics.diagnosis import STOP_WORDS
from gan_core.engine.hosted import EXAMPLES_ON
from gan_core.errors import UserError, first_line, unknown_word
from gan_core.extractor_words import extractor_words
from gan_core.options import differences, flag, option, parse
from gan_core.paths import user_path
from gan_core.variant import VARIANTS, GameOptions


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run. ``options`` are the variant's own, complete (defaults filled in)."""

    variant: str = option("", "the system to train (see `list`)")
    data: str = option("digits", "what to learn from: a data source (see `list`)")
    data_root: str | None = option(None, "the folder that holds the source's files", kind="runtime")
    data_options: dict[str, Any] = option(None, "options of the data source")
    train_split: str = option(
        "train",
        "what to train on: train, or train+validation once nothing is left to be chosen",
        choices=("train", "train+validation"),
    )
    options: dict[str, Any] = option(None, "options of the variant")
    begin_from: str | None = option(
        None,
        "begin with the networks and averages of weights of another run's best state, else of its "
        "newest checkpoint: by its name or folder, or the folder of one checkpoint; optimisers and "
        "iterations begin afresh",
        metavar="RUN",
    )
    begun_from: dict[str, Any] = option(
        None, "what that state is: its run, step, and figure", kind="runtime"
    )
    seed: int = option(
        0,
        "initial weights, noise and data order all follow from it",
        minimum=0,
        maximum=2**64 - 1,
    )

    workers: int = option(
        1,
        "data-parallel workers started by Ray Train; 0 plays here, without Ray and MLflow",
        kind="runtime",
        minimum=0,
    )
    device: str = option(
        "auto",
        "auto takes CUDA where there is one",
        kind="runtime",
        choices=("auto", "cpu", "cuda"),
    )
    engine: str = option(
        "auto",
        "eager plays kernel by kernel; compile lets torch.compile write the networks' kernels (a "
        "minute at the start); graph records a player's turn as a CUDA graph and replays it: "
        "several times faster for small networks; compiled-graph does both, the fastest for runs "
        "of minutes; auto: graph on one GPU, else eager",
        kind="runtime",
        choices=("auto", "eager", "compile", "graph", "compiled-graph"),
    )
    precision: str = option(
        "auto",
        "bf16 multiplies and convolves in bfloat16 (weights, norms and losses stay float32): the "
        "fastest on CPUs that have it, and on GPUs with compiled-graph; tf32 lets a GPU do it with "
        "10 bits of mantissa; auto: tf32 on a GPU, else fp32",
        kind="runtime",
        choices=("auto", "fp32", "tf32", "bf16"),
    )
    memory_format: str = option(
        "auto",
        "channels_last keeps a pixel's channels together, as convolutions on CPUs and tensor cores "
        "want them; auto: where there are convolutions, but not with fp32 on a GPU, nor with "
        "instance normalisation on a CPU",
        kind="runtime",
        choices=("auto", "contiguous", "channels_last"),
    )
    examples_on: str = option(
        "auto",
        "where the training examples are kept: device, or host (batches are copied to the device "
        "ahead of their turn); auto: on the device, but for what does not fit half of its memory",
        kind="runtime",
        choices=EXAMPLES_ON,
    )
    log_every: int = option(50, "iterations between logging points", kind="runtime", minimum=1)
    evaluate_every: int = option(
        1000,
        "iterations between evaluations (figures and a sample grid); 0: only at the end",
        kind="runtime",
        minimum=0,
    )
    checkpoint_every: int = option(
        1000, "iterations between checkpoints; 0: only at the end", kind="runtime", minimum=0
    )
    extractor: str = option(
        "auto",
        "features for fid, kid, precision...: classifier, mobilenet_v2, inception, none; "
        "auto: the classifier where there are labels, else the best whose weights are at hand",
        kind="runtime",
        choices=extractor_words,
    )
    extractor_weights: str | None = option(
        None, "file with the extractor's weights (mobilenet_v2, inception)", kind="runtime"
    )
    samples: int = option(
        2000, "generated examples an evaluation looks at", kind="runtime", minimum=2
    )
    stop_on: tuple[str, ...] = option(
        (),
        "end the run when the diagnosis confirms one of these: collapse, divergence, "
        "non-convergence, overfitting, vanishing-gradient (several with commas)",
        kind="runtime",
        choices=tuple(STOP_WORDS),
    )
    stop_patience: float = option(
        0.0,
        "share of the run's iterations that a finding must have stood before --stop-on ends the "
        "run; divergence ends it at once",
        kind="runtime",
        minimum=0,
        maximum=1,
    )
    storage: str = option(
        "runs",
        "folder for runs and checkpoints; on a cluster a folder that all nodes share",
        kind="runtime",
    )
    cache: str | None = option(
        None,
        "folder for trained classifiers and statistics (default: STORAGE/cache)",
        kind="runtime",
    )
    experiment: str = option("gan", "the MLflow experiment", kind="runtime")
    name: str | None = option(
        None, "name of the run (default: variant, data and the time)", kind="runtime"
    )
    plugins: tuple[str, ...] = option(
        (),
        "modules to import that register variants, sources, losses or extractors of your own",
        kind="runtime",
    )

    @property
    def folder(self) -> Path:
        """Where the run's files are: storage / name."""
        if not self.name:
            raise ValueError("a run needs a name before it has a folder")
        return user_path(self.storage, "--storage").resolve() / self.name

    @property
    def cache_folder(self) -> Path:
        """Where trained classifiers and statistics are kept between runs."""
        if self.cache:
            return user_path(self.cache, "--cache").resolve()
        return user_path(self.storage, "--storage").resolve() / "cache"

    @property
    def game(self) -> GameOptions:
        """The variant's options, checked."""
        return parse(VARIANTS[self.variant].Options, self.options)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, JSON and a worker's arguments."""
        return {
            **dataclasses.asdict(self),
            "plugins": list(self.plugins),
            "stop_on": list(self.stop_on),
        }


def import_plugins(names: tuple[str, ...] | list[str]) -> None:
    """Import the user's modules, which register their variants and sources as they load.

    Raises ``UserError`` for one that cannot be imported, with the place where it fails.
    """
    if names:  # first what is here: a plugin that takes one of its names is to be told so
        import gan_core.data
        import gan_core.metrics.extractors
        import gan_core.variants  # noqa: F401
    for name in names:
        if name.endswith(".py") or "/" in name:
            module = name.removesuffix(".py").strip("./").replace("/", ".")
            raise UserError(
                f"--plugin {name} is a file, and a module's import path is wanted: leave out .py "
                f"(--plugin {module})"
            )
        try:
            importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(_import_failure(name, error)) from error


_OURS, _PYTHONS = Path(__file__).parent, Path(sysconfig.get_path("stdlib"))


def _is_theirs(file: str) -> bool:
    """Whether ``file`` may be of a plugin: it is neither this package's nor the standard library's,
    below which Python has the packages that are installed, where it is no virtual environment's.
    """
    path = Path(file)
    if path.is_relative_to(_OURS) or file.startswith("<frozen "):
        return False
    return not path.is_relative_to(_PYTHONS) or "site-packages" in path.parts


def _import_failure(name: str, error: Exception) -> str:
    """What to say of the plugin ``name``: it is not there, or it fails in some line."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and f"{name}.".startswith(f"{missing}."):
        return (
            f"--plugin {name} cannot be imported ({error}): give a module's import path "
            "and start where it can be found"
        )
    if isinstance(error, SyntaxError):
        reason, place = error.msg, f"{error.filename}, line {error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if _is_theirs(frame.filename)]
        frame = (theirs or frames)[-1]
        reason, place = str(error), f"{frame.filename}, line {frame.lineno}"
    return f"--plugin {name} cannot be imported: {type(error).__name__}: {reason} ({place})"


_WORDS = ("config", "resume", "plugin", "help")
"""What the command line has beside the fields of :class:`RunConfig`."""


def check_option_names(variant: str) -> None:
    """Raises ``UserError`` if an option of ``variant`` has the name of one that every run has, or
    if its options are no dataclass of their own, which would not know them.
    """
    cls = VARIANTS[variant].Options
    if "__dataclass_fields__" not in vars(cls) and inspect.get_annotations(cls):
        raise UserError(
            f"the options of variant '{variant}' are no dataclass: put "
            f"@dataclasses.dataclass(frozen=True) before its class {cls.__name__}"
        )
    taken = {field.name for field in dataclasses.fields(RunConfig)} | set(_WORDS)
    for field in dataclasses.fields(cls):
        if field.name in taken:
            raise UserError(
                f"the option {flag(field.name)} of variant '{variant}' has the name of one that "
                "every run has: give it another"
            )


def make_config(values: Mapping[str, Any]) -> RunConfig:
    """A checked configuration from plain values, with the variant's defaults filled in.

    Options of the variant may stand in ``options`` or beside the others (as on the command line).
    Raises ``UserError`` for anything unknown, of a wrong type or out of range.
    """
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    if isinstance(values.get("plugins"), str):
        values["plugins"] = (values["plugins"],)
    import_plugins(tuple(values.get("plugins") or ()))
    import gan_core.data
    import gan_core.variants  # noqa: F401

    own = {f.name for f in dataclasses.fields(RunConfig)}
    variant = VARIANTS[str(values.get("variant", ""))]
    check_option_names(str(values["variant"]))
    values.setdefault("data", variant.default_data)
    cls = variant.Options
    options = values.pop("options", None) or {}
    if not isinstance(options, Mapping):
        raise UserError(f"--options must be a mapping, not '{options}'")
    beside = {key: values.pop(key) for key in [k for k in values if k not in own]}
    known = own | {f.name for f in dataclasses.fields(cls)}
    for key in beside:
        if key not in known:
            raise unknown_word("option", key, known)
    for name in ("data_options", "begun_from"):
        values[name] = values.get(name) or {}
    config = parse(RunConfig, {**values, "options": {}})
    parsed = parse(cls, {**options, **beside})
    return dataclasses.replace(config, options=dataclasses.asdict(parsed))


def _told(error: Exception) -> str:
    """What is wrong with a file, and in which line where that is known, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return first_line(error)


def read_config(path: Path) -> dict[str, Any]:
    """The values of a YAML configuration file; ``UserError`` if it is none."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"configuration file {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(
            f"configuration file {path} cannot be read as YAML: {_told(error)}"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"configuration file {path} must hold names and values")
    return values


def write_config(config: RunConfig, path: Path) -> None:
    """Write ``config`` as the YAML file that ``--config`` takes, which is whole at any moment."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
    partial.replace(path)


def check_resumable(old: RunConfig, new: RunConfig) -> list[str]:
    """What changed in the schedule, in words; ``UserError`` if what changed is the identity."""
    old, new = _comparable(old), _comparable(new)
    pairs = ((old, new), (_decided(old.game), _decided(new.game)))
    free = {"options", *old.game.unused}
    schedule = []
    for before, after in pairs:  # the variant first: another one has other options
        changed = differences(before, after, "identity")
        identity = [d for d in changed if d[0] not in free]
        if identity:
            name, was, now = identity[0]
            why, remedy = "", "leave the option out"
            causes = _what_decides(old.game, new.game, name) if before is not old else []
            if causes:
                why = f" by {' and '.join(causes)}"
                remedy = f"give {new.game.keeping(name, was)}, leave that out"
            raise UserError(
                f"cannot resume: {name} was {was} and is now {now}{why}; a run keeps its networks "
                f"and data ({remedy}, or start a new run)"
            )
        schedule += differences(before, after, "schedule")
        schedule += [d for d in changed if d[0] in old.game.unused]
    return [f"{name}: {was} -> {now}" for name, was, now in schedule]


def _decided(game: GameOptions) -> GameOptions:
    """``game`` with what its options decide of others that are left open."""
    left_open = {n: value for n, value in game.decided.items() if getattr(game, n) is None}
    return dataclasses.replace(game, **left_open)


def _what_decides(old: GameOptions, new: GameOptions, name: str) -> list[str]:
    """The changed options, as the user types them, that decide anew of ``name``, left open."""
    if name not in new.decided or getattr(new, name) is not None:
        return []
    changed = differences(old, new, "schedule")
    alone = [
        (n, was, now)
        for n, was, now in changed
        if dataclasses.replace(old, **{n: now}).decided.get(name) != old.decided.get(name)
    ]
    return [f"{flag(n)} {now} (before: {was})" for n, was, now in alone or changed]


def _comparable(config: RunConfig) -> RunConfig:
    """``config`` without the source's ``..._cache``, as where something is kept changes nothing,
    and with the one spelling of its folders.
    """
    options = {n: v for n, v in config.data_options.items() if not n.endswith("_cache")}
    absolute = {name: absolute_option(name, value, Path.cwd()) for name, value in options.items()}
    return dataclasses.replace(config, data_options=absolute)


def absolute_option(name: str, value: Any, base: Path) -> Any:
    """A source's option, absolute if it is a folder: a cache below ``base``, an encoder below the
    current folder. What it is called elsewhere, such as a model's name, stays.
    """
    from gan_core.data.kept_pictures import NONE
    from gan_core.data.texts import names_folder

    if name.endswith("_cache") and isinstance(value, str) and value != NONE:
        return str((base / user_path(value, flag(name))).resolve())
    if name.endswith("_encoder") and isinstance(value, str) and names_folder(value):
        return str(user_path(value).absolute())
    return value
