"""The verbs ``train`` and ``sync``: from the user's words to a checked configuration.

Everything that can be wrong with a configuration is said here, before Ray is imported. The data
are checked next: by the driver, or on a cluster, where only workers may see them, by a small task.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.errors import UserError
from gan_core.options import flag
from pipelines.cluster import in_job
from pipelines.command_line import (
    Parser,
    add_fields,
    add_option,
    join_negative_numbers,
    plain_value,
)
from pipelines.runs import (
    check_checkpoints,
    check_writable,
    find_run,
    named,
    pick_device,
    runs_folder,
)

if TYPE_CHECKING:
    from gan_core.config import RunConfig
    from gan_core.variant import Variant

_EXAMPLE = "python -m pipelines train dcgan --data digits --workers 2"
_NESTED = ("options", "data_options")
_LEARNT = ("data", "data_root", "train_split")
_WATCHING = (
    "log_every", "evaluate_every", "samples", "extractor", "extractor_weights", "experiment",
    "name", "stop_on", "stop_patience",
)  # fmt: skip
_PLACE = ("workers", "device", "checkpoint_every", "storage", "cache")
STOPPED_BY_DIAGNOSIS = 3
"""The exit code of a run that --stop-on ended; 130 is that of one stopped by Ctrl-C."""
# How options stand in the parser's result beside RunConfig's fields, which have no prefix.
_GAME, _SOURCE = "options.", "data_options."


def train_command(arguments: list[str]) -> int:
    """``train``: returns the exit code; ``UserError`` for anything wrong before it starts."""
    config, resume = plan(arguments)
    if config is None:
        return 0
    from pipelines.train import RunFailed, train

    try:
        summary = train(config, resume=resume)
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Stopped: what a shell has chained behind must not go on as if all were done.
    if summary["status"] == "finished":
        return 0
    return STOPPED_BY_DIAGNOSIS if summary.get("stopped_by") else 130


def plan(arguments: list[str]) -> tuple[RunConfig | None, bool]:
    """The configuration that the words after ``train`` mean, and whether a run is resumed.

    ``None`` if they asked for help, which has been printed. Nothing is trained or written beyond
    the storage folder.
    """
    help = any(word in ("-h", "--help") for word in arguments)
    draft = _Draft(arguments)
    if help:
        print(draft.parser().format_help(), end="")
        return None, False
    config = draft.config()
    check_here(config, resume=draft.resumed is not None)
    return config, draft.resumed is not None


def configuration(arguments: list[str], verb: str) -> tuple[RunConfig, dict[str, Any]]:
    """For another verb that takes the words of ``train``: the configuration that they mean,
    checked against this machine, and what the command line itself said of it.
    """
    draft = _Draft(arguments)
    if draft.variant is None:
        raise UserError(f"{verb} needs a variant, such as `python -m pipelines {verb} dcgan`")
    config = draft.config()
    check_here(config, resume=False)
    return config, draft.given()


class _Draft:
    """The words after ``train``, half understood: a variant's options need its name first."""

    def __init__(self, arguments: list[str]) -> None:
        self.words = join_negative_numbers(arguments)
        plugins = tuple(find_values(self.words, "--plugin"))
        self.file = _file_values(find_values(self.words, "--config"))
        self.resumed = _find_run(
            find_values(self.words, "--resume"), find_values(self.words, "--storage"), self.file
        )
        self.old = _run_values(self.resumed)
        named = (self.file or self.old).get("plugins") or ()
        self.plugins = plugins or ((named,) if isinstance(named, str) else tuple(named))
        register_everything(self.plugins)
        self.variant = self._variant()
        self.source = self._source()

    def _variant(self) -> str | None:
        from gan_core.variant import VARIANTS

        place = positional(self.words, _valueless_flags())
        named = None if place is None else self.words.pop(place)
        found = named or self.file.get("variant") or self.old.get("variant")
        if found is not None:
            VARIANTS[str(found)]  # a wrong name is answered here
            self._same("variant", found)
        return found

    def _source(self) -> str:
        from gan_core.data.sources import SOURCES
        from gan_core.variant import VARIANTS, Variant

        named = find_values(self.words, "--data")[-1:]
        usual = Variant if self.variant is None else VARIANTS[self.variant]
        earlier = self.file.get("data") or self.old.get("data") or usual.default_data
        found = str(named[0] if named else earlier)
        SOURCES[found]
        self._same("data", found)
        return found

    def _same(self, name: str, value: object) -> None:
        """The resumed run's own: with another variant or source nothing else would make sense."""
        was = self.old.get(name, value)
        if was != value:
            raise UserError(
                f"cannot resume {self.resumed}: its {name} is {was}, not {value} "
                "(leave it out, or start a new run)"
            )

    def parser(self) -> Parser:
        """The parser for this variant and source."""
        return build_parser(self.variant, self.source)

    def config(self) -> RunConfig:
        """Defaults, then the resumed run, then the file, then the command line, checked."""
        from gan_core.config import check_resumable, make_config

        given = self.given()
        if self.variant is None:
            raise UserError(f"train needs a variant, such as `{_EXAMPLE}` (see `list` for all)")
        values = merge(merge(_nested(self.old), _nested(self.file)), given)
        values.update(variant=self.variant, data=self.source, plugins=self.plugins)
        if self.resumed is not None:
            self._keep_place(values, given)
        config = make_config(values)
        if self.resumed is None:
            return named(config)
        check_resumable(make_config(self.old), config)
        return config

    def given(self) -> dict[str, Any]:
        """What the command line says, as nested configuration values."""
        from gan_core.config import RunConfig
        from gan_core.data.loading import source_options
        from gan_core.variant import VARIANTS

        found = self.parser().read(self.words)
        values: dict[str, Any] = {"options": {}, "data_options": {}}
        # What the variant and the source both have, one flag sets for both.
        for name in source_options(self.source):
            if _GAME + name in found:
                found.setdefault(_SOURCE + name, found[_GAME + name])
        for key, value in found.items():
            if key.startswith(_GAME) and self.variant is not None:
                name = key.removeprefix(_GAME)
                options = VARIANTS[self.variant].Options
                values["options"][name] = plain_value(options, name, value)
            elif key.startswith(_SOURCE):
                name = key.removeprefix(_SOURCE)
                kind, default = source_options(self.source)[name]
                values["data_options"][name] = _source_value(name, kind, default, value)
            elif key not in ("config", "resume", "plugin"):
                values[key] = plain_value(RunConfig, key, value)
        return values

    def _keep_place(self, values: dict[str, Any], given: dict[str, Any]) -> None:
        """A resumed run stays where it is, under its name."""
        assert self.resumed is not None
        if given.get("name") not in (None, self.resumed.name):
            raise UserError(
                f"--name cannot rename the resumed run {self.resumed.name}: leave it out"
            )
        values.update(name=self.resumed.name, storage=str(self.resumed.parent))


def build_parser(variant: str | None, source: str) -> Parser:
    """The parser of ``train``, with the options of ``variant`` and ``source``, in groups."""
    from gan_core.config import RunConfig
    from gan_core.variant import VARIANTS, GameOptions

    cls = None if variant is None else VARIANTS[variant]
    parser = Parser(
        "train" if cls is None else f"train {variant}",
        usage=f"python -m pipelines train {variant or 'VARIANT'} --data SOURCE [OPTION ...]",
        description=_teaching() if cls is None else _about(cls),
        epilog=_epilog(variant, source),
        add_help=False,
    )
    learnt = parser.add_argument_group("what is learnt", _about_source(source))
    add_fields(learnt, RunConfig, _LEARNT)
    usual = RunConfig.data if cls is None else cls.default_data
    for action in parser._actions:
        if "--data" in action.option_strings and action.help:
            action.help = action.help.replace(f"default: {RunConfig.data}", f"default: {usual}")
    game = parser.add_argument_group("the game")
    add_fields(game, RunConfig, ["seed"])
    options = GameOptions if cls is None else cls.Options
    own = [f.name for f in dataclasses.fields(options)]
    add_fields(game, options, own, _GAME)
    add_fields(parser.add_argument_group("watching"), RunConfig, _WATCHING)
    place = parser.add_argument_group("where it runs")
    # Options that RunConfig has and no group above names still get a flag.
    special = {"variant", "plugins", "seed", *_NESTED, *_LEARNT, *_WATCHING, *_PLACE}
    rest = [f.name for f in dataclasses.fields(RunConfig) if f.name not in special]
    add_fields(place, RunConfig, [*_PLACE, *rest])
    place.add_argument(
        "--config", metavar="FILE", help="YAML file of options; the command line wins"
    )
    place.add_argument("--resume", metavar="RUN", help="continue a run: its name, or its folder")
    place.add_argument(
        "--plugin", action="append", metavar="MODULE",
        help="module to import that registers a variant or source of your own; may be repeated",
    )  # fmt: skip
    place.add_argument("-h", "--help", action="help", help="show this and leave")
    _add_source_options(learnt, parser, source)
    parser.elsewhere = _owners()
    return parser


def _owners() -> dict[str, str]:
    """Which sources and variants have an option, by flag."""
    from gan_core.data.loading import source_options
    from gan_core.data.sources import SOURCES
    from gan_core.variant import VARIANTS

    variants: dict[str, list[str]] = {}
    for variant in VARIANTS:
        for field in dataclasses.fields(VARIANTS[variant].Options):
            variants.setdefault(flag(field.name), []).append(variant)
    sources: dict[str, list[str]] = {}
    for source in SOURCES:
        for name in source_options(source):
            sources.setdefault(flag(name), []).append(source)
    found = {word: ", ".join(names) for word, names in variants.items()}
    for word, names in sources.items():
        told = f"--data {', '.join(names)}"
        found[word] = f"{found[word]} and {told}" if word in found else told
    return found


def _add_source_options(group: Any, parser: Parser, source: str) -> None:
    from gan_core.data.loading import source_options

    taken = {text for action in parser._actions for text in action.option_strings}
    for name, (kind, default) in source_options(source).items():
        if flag(name) not in taken:
            add_option(group, name, kind, default, help=f"of {source}", dest=_SOURCE + name)
        else:
            # The variant has it too: the plain flag is for both, this one for the source alone.
            told = f"of {source}; not given: as {flag(name)} if that is given"
            add_option(group, f"data_{name}", kind, None, help=told, dest=_SOURCE + name)


def _about_source(source: str) -> str:
    from gan_core.data.sources import SOURCES

    told = (inspect.getdoc(SOURCES[source]) or "").replace("``", "")
    return f"{source}: {SOURCES[source].summary}\n\n{told}".strip()


def _about(cls: type[Variant]) -> str:
    lines = [f"{cls.name}: {cls.summary}"]
    if cls.paper:
        lines.append(f"After {cls.paper}; the defaults are the paper's.")
    if cls.data_help:
        lines += ["", *textwrap.wrap(f"Data: {cls.data_help}", 98)]
    return "\n".join(lines)


def _teaching() -> str:
    from gan_core.variant import VARIANTS

    rows = [f"  {name:<10}{VARIANTS[name].summary}" for name in VARIANTS]
    return (
        "Train a GAN: name the variant, then what it learns from.\n\n"
        + "\n".join(rows)
        + "\n\n`train VARIANT --help` lists the variant's own options, with its paper's values."
    )


def _epilog(variant: str | None, source: str) -> str:
    from gan_core.data.sources import SOURCES
    from gan_core.variant import VARIANTS

    learnt = f"--data {source}" + " --data-root FOLDER" * SOURCES[source].needs_root
    if variant is not None:
        learnt = VARIANTS[variant].data_example or learnt
    return (
        "example:\n"
        f"  python -m pipelines train {variant or 'dcgan'} {learnt} --workers 2\n"
        "  (--workers 0 plays in this process, without Ray and MLflow)"
    )


def find_values(words: Sequence[str], option: str) -> list[str]:
    """The values of ``option`` in ``words``, written ``--x VALUE`` or ``--x=VALUE``."""
    found = []
    for place, word in enumerate(words):
        if word == option:
            if place + 1 == len(words):
                raise UserError(f"{option} needs a value")
            found.append(words[place + 1])
        elif word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
    return found


def positional(words: Sequence[str], valueless: set[str]) -> int | None:
    """The place of the first of ``words`` that is neither an option nor an option's value."""
    after_option = False
    for place, word in enumerate(words):
        if word.startswith("-"):
            after_option = "=" not in word and word not in valueless
        elif after_option:
            after_option = False
        else:
            return place
    return None


def _valueless_flags() -> set[str]:
    """Every flag of a truth value that any variant or source has."""
    from gan_core.data.loading import source_options
    from gan_core.data.sources import SOURCES
    from gan_core.options import value_type
    from gan_core.variant import VARIANTS

    names = {n for s in SOURCES for n, (kind, _) in source_options(s).items() if kind is bool}
    for variant in VARIANTS:
        cls = VARIANTS[variant].Options
        fields = dataclasses.fields(cls)
        names |= {f.name for f in fields if value_type(cls, f.name)[0] is bool}
    plain = {flag(n) for n in names} | {flag(f"data_{n}") for n in names}
    return plain | {f"--no-{text[2:]}" for text in plain} | {"-h", "--help"}


def register_everything(plugins: tuple[str, ...]) -> None:
    """Import what registers variants and sources."""
    import gan_core.data
    import gan_core.variants  # noqa: F401
    from gan_core.config import import_plugins

    import_plugins(plugins)


def _file_values(paths: Sequence[str]) -> dict[str, Any]:
    if not paths:
        return {}
    from gan_core.config import read_config

    values = read_config(Path(paths[-1]).expanduser())
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _find_run(names: Sequence[str], storages: Sequence[str], file: dict[str, Any]) -> Path | None:
    if not names:
        return None
    from pipelines.tuning.study import is_study

    found = find_run(names[-1], runs_folder(str((storages or [file.get("storage") or "runs"])[-1])))
    if is_study(found):
        raise UserError(f"{names[-1]} is a search: go on with `python -m pipelines tune --resume`")
    return found


def _run_values(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    from gan_core.config import read_config

    return read_config(folder / "config.yaml")


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Configuration values with the variant's options, which may stand beside, in ``options``."""
    from gan_core.config import RunConfig

    own = {f.name for f in dataclasses.fields(RunConfig)}
    for name in _NESTED:
        if not isinstance(values.get(name) or {}, dict):
            raise UserError(f"'{name}' in the configuration must hold names and values")
    beside = {name: value for name, value in values.items() if name not in own}
    return {
        **{name: value for name, value in values.items() if name in own},
        "options": {**(values.get("options") or {}), **beside},
        "data_options": dict(values.get("data_options") or {}),
    }


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, option by option."""
    values = {**below, **above}
    for name in _NESTED:
        values[name] = {**below.get(name, {}), **above.get(name, {})}
    return values


def _source_value(name: str, kind: type, default: object, value: object) -> Any:
    """A source's option, checked as its annotation says."""
    from gan_core.options import check, option

    hint = kind if default is not None else kind | None
    cls = dataclasses.make_dataclass("SourceOption", [(name, hint, option(default, ""))])
    return check(cls, dataclasses.fields(cls)[0], value)


def check_here(config: RunConfig, resume: bool) -> None:
    """Everything about ``config`` that this machine can tell; raises ``UserError``."""
    from gan_core.variant import VARIANTS

    if config.workers and config.options["batch_size"] % config.workers:
        raise UserError(
            f"--batch-size {config.options['batch_size']} cannot be divided by --workers "
            f"{config.workers}: every worker takes an equal share of the batch"
        )
    share = config.options["batch_size"] // max(1, config.workers)
    VARIANTS[config.variant](config.game).check_share(share)
    _check_source(config)
    if _runs_here(config):
        pick_device(config.device)
    check_writable(runs_folder(config.storage), f"--storage {config.storage}")
    if resume:
        check_checkpoints(config.folder)


def _runs_here(config: RunConfig) -> bool:
    """Whether the training processes see this machine's files and devices."""
    return config.workers == 0 or not (in_job() or os.environ.get("RAY_ADDRESS"))


def _check_source(config: RunConfig) -> None:
    """The source's options; its folder only where the workers are on this machine."""
    from gan_core.data.loading import create_source

    root = config.data_root
    if root is not None and not _runs_here(config):
        root = "."
    create_source(config.data, root, **config.data_options)
    weights = config.extractor_weights
    if weights is not None and _runs_here(config) and not Path(weights).expanduser().is_file():
        raise UserError(f"--extractor-weights {weights} does not exist: give the weights' file")


def sync_command(arguments: list[str]) -> int:
    """``sync``: send to MLflow what runs have kept; returns the exit code."""
    parser = Parser(
        "sync",
        description="Send to MLflow what could not be sent while it was away. Without names: "
        "everything that any run in the storage has kept.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names or folders of runs")
    parser.add_argument("--storage", metavar="FOLDER", help="where the runs are (default: runs)")
    given = parser.read(arguments)
    storage = runs_folder(given.get("storage", "runs"))
    if not storage.is_dir():
        raise UserError(f"no folder {storage}: give the runs' with --storage")
    runs = [find_run(name, storage) for name in given.get("runs", [])]
    from pipelines.sync import sync

    sync(storage, runs)
    return 0
