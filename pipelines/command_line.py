"""Command-line options made from option dataclasses, and mistakes answered in one line."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import shutil
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from gan_core.errors import UserError
from gan_core.options import check, choices_of, field_hints, flag, parse, value_type

T = TypeVar("T")
_NEGATIVE = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Words with a hyphen stay whole, so that they can be found and copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``UserError`` and knows the nearest right option.

    Options that are not given leave no trace in the result, so that what the user said can be
    laid over a configuration file.
    """

    def __init__(self, command: str, **words: Any) -> None:
        width = min(100, shutil.get_terminal_size().columns)
        super().__init__(
            prog=f"python -m pipelines {command}",
            formatter_class=lambda prog: _HelpFormatter(prog, max_help_position=28, width=width),
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            **words,
        )
        self.elsewhere: Mapping[str, str] = {}
        """Options that exist, but not here: what has them, to be named in the error."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse has to say in this program's words."""
        found = re.fullmatch(r"argument (\S+?)(?:/\S+)?: expected (.*) arguments?", message)
        if found:
            raise UserError(f"{found[1]} needs a value (see `{self.prog} --help`)")
        found = re.fullmatch(r"argument (\S+?)(?:/\S+)?: ignored explicit argument (.*)", message)
        if found:
            raise UserError(f"{found[1]} takes no value, not {found[2]}")
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            raise UserError(f"{missing[1]} is missing (see `{self.prog} --help`)")
        raise UserError(f"{message.removeprefix('argument ')} (see `{self.prog} --help`)")

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """What the user gave, by destination; ``UserError`` for anything unknown."""
        found, extra = self.parse_known_args(join_negative_numbers(arguments))
        for word in extra:
            if word.startswith("-") and word != "-":
                raise self.unknown_option(word.partition("=")[0])
        if extra:
            raise UserError(f"unexpected argument '{extra[0]}' (see `{self.prog} --help`)")
        return vars(found)

    def unknown_option(self, word: str) -> UserError:
        """The error for an option that does not exist, with the nearest that does."""
        if word in self.elsewhere:
            return UserError(f"{word} is an option of {self.elsewhere[word]}: leave it out")
        known = [text for action in self._actions for text in action.option_strings]
        nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"see `{self.prog} --help`"
        usual = ELSEWHERE_CALLED.get(word, ())
        if usual and set(usual) <= set(known):
            hint = f"here it is {' and '.join(usual)}"
        return UserError(f"unknown option '{word}': {hint}")


ELSEWHERE_CALLED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("--lr", "--learning-rate", "--learning_rate"), ("--lr-g", "--lr-d")),
    **dict.fromkeys(("--epochs", "--iterations", "--iters", "--max-iter"), ("--steps",)),
    "--bs": ("--batch-size",),
    **dict.fromkeys(("--z-dim", "--latent-dim", "--nz", "--z"), ("--latent",)),
    **dict.fromkeys(("--dataset",), ("--data",)),
    **dict.fromkeys(("--dataroot", "--data-dir", "--data-path"), ("--data-root",)),
    **dict.fromkeys(("--gpus", "--num-gpus", "--num-workers", "--n-gpus"), ("--workers",)),
    **dict.fromkeys(("--output", "--out-dir", "--output-dir", "--save-dir"), ("--storage",)),
    **dict.fromkeys(("--amp", "--fp16", "--mixed-precision"), ("--precision",)),
}
"""What other programs call these options, which are spelt too differently to be guessed."""


def join_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """``--lr-d -1e-3`` as ``--lr-d=-1e-3``; argparse takes ``-1e-3`` for an option otherwise."""
    joined: list[str] = []
    for word in arguments:
        waiting = joined and joined[-1].startswith("--") and "=" not in joined[-1]
        if waiting and _NEGATIVE.match(word):
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def show(value: object) -> str:
    """A default as the user would type it."""
    if isinstance(value, (tuple, list)):
        return ",".join(show(v) for v in value)
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"  # of six digits; what these do not tell is shown in full
    return short if float(short) == value else repr(value).removesuffix(".0")


def _metavar(kind: type, choices: Sequence[str] | None) -> str:
    if choices and kind is not tuple:
        return "|".join(choices)
    return {int: "N", float: "X", tuple: "A,B"}.get(kind, "TEXT")


def add_option(
    group: argparse._ArgumentGroup,
    name: str,
    kind: type,
    default: object,
    *,
    help: str = "",
    choices: Sequence[str] | None = None,
    dest: str | None = None,
    metavar: str | None = None,
) -> None:
    """One option to ``group``: ``--x VALUE``, or ``--x`` and ``--no-x`` for a truth value.

    Values stay text: :func:`gan_core.options.check` converts them and words the mistakes.
    """
    text = help
    if default not in (None, (), dataclasses.MISSING):
        shown = ("on" if default else "off") if kind is bool else show(default)
        text = f"{text} (default: {shown})".strip()
    text, dest = text.replace("%", "%%"), dest or name
    if kind is bool:
        group.add_argument(flag(name), dest=dest, action=argparse.BooleanOptionalAction, help=text)
    else:
        metavar = metavar or _metavar(kind, choices)
        group.add_argument(flag(name), dest=dest, metavar=metavar, help=text)


def add_fields(
    group: argparse._ArgumentGroup, cls: type, names: Iterable[str], prefix: str = ""
) -> None:
    """The options for the fields ``names`` of the options class ``cls``."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in names:
        field = fields[name]
        kind, _ = value_type(cls, name)
        add_option(
            group, name, kind, field.default,
            help=field.metadata.get("help", ""), choices=choices_of(cls, field), dest=prefix + name,
            metavar=field.metadata.get("metavar"),
        )  # fmt: skip


def add_plugin(group: argparse._ActionsContainer) -> None:
    """The option ``--plugin``, which may be repeated, to ``group``."""
    group.add_argument(
        "--plugin", action="append", metavar="MODULE",
        help="module to import that registers a variant, source, loss or extractor of your own; "
        "may be repeated",
    )  # fmt: skip


def plain_value(cls: type, name: str, value: Any) -> Any:
    """The text that the user gave for the field ``name`` of ``cls``, checked and converted.

    Sequences are written with commas: ``0.5,0.999``.
    """
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    kind, _ = value_type(cls, name)
    if kind in (tuple, list) and isinstance(value, str):
        return tuple(_element(cls, name, part) for part in value.split(",") if part)
    return check(cls, field, value)


def checked_options(cls: type[T], given: Mapping[str, Any]) -> T:
    """The options ``cls`` from what the user gave; other keys of ``given`` are passed over."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return parse(cls, {n: plain_value(cls, n, v) for n, v in given.items() if n in names})


def _element(cls: type, name: str, text: str) -> Any:
    """One element of a sequence option, as the type that the annotation names."""
    hint = field_hints(cls)[name]
    inner = next((a for a in typing.get_args(hint) if typing.get_origin(a) is tuple), hint)
    kind = (typing.get_args(inner) or (str,))[0]
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{flag(name)} must be numbers with commas, not '{text}'") from None
