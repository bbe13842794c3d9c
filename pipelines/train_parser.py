"""The options of ``train`` for a variant and a source: parser and help.

They are those of the run's configuration, in groups, and what the variant and the source have.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from gan_core.options import flag
from pipelines.command_line import Parser, add_fields, add_option, add_plugin

if TYPE_CHECKING:
    from gan_core.variant import GameOptions, Variant

NESTED = ("options", "data_options")
TOLD = ("begun_from",)
"""Of a run's configuration what is no option: it is found out."""
_LEARNT = ("data", "data_root", "train_split")
_WATCHING = (
    "log_every", "evaluate_every", "samples", "extractor", "extractor_weights", "experiment",
    "name", "stop_on", "stop_patience",
)  # fmt: skip
_PLACE = ("workers", "device", "checkpoint_every", "storage", "cache")
# How options stand in the parser's result beside RunConfig's fields, which have no prefix.
GAME, SOURCE = "options.", "data_options."


def build_parser(variant: str | None, source: str) -> Parser:
    """The parser of ``train``, with the options of ``variant`` and ``source``, in groups."""
    from gan_core.config import RunConfig, check_option_names
    from gan_core.variant import VARIANTS, GameOptions

    if variant is not None:
        check_option_names(variant)
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
    game = parser.add_argument_group(GameOptions.heading)
    options = GameOptions if cls is None else cls.Options
    for heading, names in _headings(options).items():
        group = game if heading == game.title else parser.add_argument_group(heading)
        add_fields(group, options, names, GAME)
    add_fields(game, RunConfig, ["seed", "begin_from"])
    add_fields(parser.add_argument_group("watching"), RunConfig, _WATCHING)
    place = parser.add_argument_group("where it runs")
    # Options that RunConfig has and no group above names still get a flag.
    named = {"variant", "plugins", "begin_from", "seed", *_LEARNT, *_WATCHING, *_PLACE}
    special = named | {*NESTED, *TOLD}
    rest = [f.name for f in dataclasses.fields(RunConfig) if f.name not in special]
    add_fields(place, RunConfig, [*_PLACE, *rest])
    place.add_argument(
        "--config", metavar="FILE", help="YAML file of options; the command line wins"
    )
    place.add_argument("--resume", metavar="RUN", help="continue a run: its name, or its folder")
    add_plugin(place)
    place.add_argument("-h", "--help", action="help", help="show this and leave")
    _add_source_options(learnt, parser, source)
    parser.elsewhere = _owners()
    return parser


def _headings(options: type[GameOptions]) -> dict[str, list[str]]:
    """The names of options under the headings of the classes that state them first."""
    from gan_core.variant import GameOptions

    found: dict[str, list[str]] = {GameOptions.heading: []}
    for field in dataclasses.fields(options):
        stating = (c for c in options.__mro__ if field.name in inspect.get_annotations(c))
        *_, first = stating
        heading = vars(first).get("heading", GameOptions.heading)
        found.setdefault(heading, []).append(field.name)
    return found


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
    from gan_core.data.loading import source_options, source_options_class

    taken = {text for action in parser._actions for text in action.option_strings}
    cls = source_options_class(source)
    meanings = {field.name: field.metadata["help"] for field in dataclasses.fields(cls)}
    for name, (kind, _) in source_options(source).items():
        if flag(name) not in taken:
            add_fields(group, cls, [name], prefix=SOURCE)
        else:
            # The variant has it too: the plain flag is for both, this one for the source alone.
            told = f"{meanings[name]} (not given: as {flag(name)} if that is given)"
            add_option(group, f"data_{name}", kind, None, help=told, dest=SOURCE + name)


def _about_source(source: str) -> str:
    from gan_core.data.sources import SOURCES

    told = (inspect.getdoc(SOURCES[source]) or "").replace("``", "")
    return f"{source}: {SOURCES[source].summary}\n\n{told}".strip()


def _about(cls: type[Variant]) -> str:
    lines = [f"{cls.name}: {cls.summary}"]
    if cls.paper:
        lines += textwrap.wrap(f"After {cls.paper}; the defaults are {cls.defaults}.", 98)
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


def valueless_flags() -> set[str]:
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
