"""Options as dataclass fields: one declaration gives the default, the help, the check and the kind.

Three kinds (what a resumed run may change):

- ``identity``: networks and data; a difference refuses to resume and is named,
- ``schedule``: steps, rates, k, prior; a difference is allowed and logged,
- ``runtime``: workers, device, folders; free.

A field without :func:`option` is of the kind ``identity``, without help and bounds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from gan_core.errors import UserError, unknown_word

Kind = Literal["identity", "schedule", "runtime"]
Choices = Iterable[str] | Callable[[], Iterable[str]]
T = TypeVar("T")


def option(
    default: Any,
    help: str,
    *,
    kind: Kind = "identity",
    choices: Choices | None = None,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that the command line, the configuration file and the checks all read.

    ``choices`` are the words allowed; a registry, or a function that gives them, is looked at
    when they are needed, so that what plugins have registered is among them. ``minimum`` and
    ``maximum`` are allowed values themselves, ``above`` and ``below`` are not. ``metavar`` stands
    for the value in the help (default: by the type).
    """
    metadata = {
        "help": help,
        "metavar": metavar,
        "kind": kind,
        "choices": tuple(choices) if isinstance(choices, Sequence) else choices,
        "bounds": {"minimum": minimum, "above": above, "below": below, "maximum": maximum},
    }
    return dataclasses.field(default=default, metadata=metadata)


@functools.lru_cache(maxsize=256)
def field_hints(cls: type) -> Mapping[str, Any]:
    """The types of all fields of ``cls``; resolving them takes as long for one as for all."""
    return typing.get_type_hints(cls)


def value_type(cls: type, name: str) -> tuple[type, bool]:
    """The plain type of the field ``name`` of ``cls`` and whether it may be ``None``."""
    hint = field_hints(cls)[name]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return (typing.get_origin(inner[0]) or inner[0]), True
    return (typing.get_origin(hint) or hint), False


def choices_of(cls: type, field: dataclasses.Field[Any]) -> tuple[str, ...] | None:
    """The words that ``field`` of the options class ``cls`` takes, as they are now: those of its
    :func:`option`, or of its type where that is a ``Literal``; ``None``: any.
    """
    choices = field.metadata.get("choices")
    if choices is None:
        values = literals(cls, field.name)
        return tuple(map(str, values)) if values else None
    return tuple(choices() if callable(choices) else choices)


def literals(cls: type, name: str) -> tuple[Any, ...]:
    """The values of a ``Literal``, which the field ``name`` of ``cls`` may have; else none."""
    hint = field_hints(cls)[name]
    kinds = (hint, *typing.get_args(hint))  # it may stand beside None
    return next((typing.get_args(k) for k in kinds if typing.get_origin(k) is Literal), ())


def flag(name: str) -> str:
    """``lr_d`` as the user types it: ``--lr-d``."""
    return "--" + name.replace("_", "-")


def _number(text: object, kind: type, name: str) -> Any:
    wanted = "a whole number" if kind is int else "a number"
    try:
        if isinstance(text, bool):
            raise ValueError
        value = kind(text)
        if isinstance(text, float) and kind is int and text != value:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{flag(name)} must be {wanted}, not '{text}'") from None
    if not math.isfinite(value):
        raise UserError(f"{flag(name)} must be finite, not '{text}'")
    return value


def _boolean(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if str(value).lower() not in words:
        raise UserError(f"{flag(name)} must be true or false, not '{value}'")
    return words[str(value).lower()]


def _check_bounds(value: Any, name: str, bounds: Mapping[str, float | None]) -> None:
    rules = {
        "minimum": ("at least", lambda v, b: v >= b),
        "above": ("greater than", lambda v, b: v > b),
        "below": ("less than", lambda v, b: v < b),
        "maximum": ("at most", lambda v, b: v <= b),
    }
    for rule, bound in bounds.items():
        words, holds = rules[rule]
        if bound is not None and not holds(value, bound):
            limit = str(bound) if isinstance(bound, int) else f"{bound:g}"  # a large one in full
            raise UserError(f"{flag(name)} must be {words} {limit}, not {value}")


def _several(cls: type, field: dataclasses.Field[Any], value: object) -> tuple[Any, ...]:
    """The elements of a sequence; of words with choices also as one text with commas."""
    choices = choices_of(cls, field)
    if choices is None:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    words = value if isinstance(value, (list, tuple)) else str(value).split(",")
    found = tuple(str(word).strip() for word in words if str(word).strip())
    for word in found:
        if word not in choices:
            raise unknown_word(flag(field.name), word, choices)
    return found


def check(cls: type, field: dataclasses.Field[Any], value: object) -> Any:
    """``value`` in the type of ``field``, or ``UserError`` saying what is wrong with it."""
    kind, optional = value_type(cls, field.name)
    if value is None:
        if optional:
            return None
        raise UserError(f"{flag(field.name)} needs a value")
    if kind is bool:
        return _boolean(value, field.name)
    if kind in (int, float):
        value = _number(value, kind, field.name)
        _check_bounds(value, field.name, field.metadata.get("bounds", {}))
        return value
    if kind in (tuple, list):
        return _several(cls, field, value)
    if kind is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{flag(field.name)} must be a mapping, not '{value}'")
        return dict(value)
    choices = choices_of(cls, field)
    if choices is not None and str(value) not in choices:
        raise unknown_word(flag(field.name), str(value), choices)
    found = {str(literal): literal for literal in literals(cls, field.name)}
    return found.get(str(value), str(value))


def parse(cls: type[T], values: Mapping[str, object]) -> T:
    """An instance of the options class ``cls`` from plain values (a file's or a command line's).

    Raises ``UserError`` for an unknown name (with the nearest), a wrong type, a value out of range.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    checked = {}
    for name, value in values.items():
        key = name.replace("-", "_")
        if key not in fields:
            raise unknown_word("option", key, fields)
        checked[key] = check(cls, fields[key], value)
    return cls(**checked)


def differences(old: Any, new: Any, kind: Kind) -> list[tuple[str, Any, Any]]:
    """The fields of one kind in which two instances of the same options class differ."""
    return [
        (f.name, getattr(old, f.name), getattr(new, f.name))
        for f in dataclasses.fields(old)
        if f.metadata.get("kind", "identity") == kind
        and getattr(old, f.name) != getattr(new, f.name)
    ]
