"""Names for things that users choose by name: variants, sources, losses, extractors."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from gan_core.errors import UserError, unknown_word

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Registry(Generic[T]):
    """A mapping from names to things; a wrong name is answered with the nearest right one.

    ``form``: the type that they are of, where it is none that they derive from.
    """

    def __init__(self, kind: str, form: type | None = None) -> None:
        self.kind, self._form = kind, form
        self._entries: dict[str, T] = {}
        self._origins: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that enters its argument under ``name``; a name is given only once.

        What is defined anew in the same place (a notebook's cell is run again) replaces what was;
        of what is neither a class nor a function, what is entered by the same module. Raises
        ``UserError`` for what cannot be used: a class that lacks methods, a thing of another type.
        """
        if not isinstance(name, str):
            given = getattr(name, "__name__", name)
            raise UserError(f'{given} is registered as a {self.kind} without a name: give ("NAME")')
        if not _NAME.fullmatch(name):
            raise UserError(
                f"the name '{name}' of a {self.kind} must be of letters, digits, '.', '-' and '_', "
                "a letter or digit first: folders and protocols are called by it"
            )

        def enter(entry: T) -> T:
            self._check(name, entry)
            origin = _origin(entry) or caller
            if self._entries.get(name, entry) is not entry and self._origins[name] != origin:
                raise ValueError(f"{self.kind} '{name}' is registered already")
            self._entries[name], self._origins[name] = entry, origin
            return entry

        caller = str(sys._getframe(1).f_globals.get("__name__"))
        return enter

    def _check(self, name: str, entry: T) -> None:
        missing = sorted(getattr(entry, "__abstractmethods__", ()))
        if missing:
            raise UserError(
                f"{self.kind} '{name}' lacks {', '.join(missing)}: write what is missing"
            )
        if self._form is not None and not isinstance(entry, self._form):
            raise UserError(
                f"{self.kind} '{name}' is a {type(entry).__name__}, not an {self._form.__name__}"
            )

    def __getitem__(self, name: str) -> T:
        """The thing called ``name``; raises ``UserError`` with the nearest name otherwise."""
        if name not in self._entries:
            raise unknown_word(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


class Names(Generic[T]):
    """The names in ``registry`` of the things that are ``wanted``, whenever they are looked at."""

    def __init__(self, registry: Registry[T], wanted: Callable[[T], bool]) -> None:
        self._registry, self._wanted = registry, wanted

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._registry if self._wanted(self._registry[name]))


def _origin(entry: Any) -> tuple[str, str] | None:
    """Where a class or a function was defined; ``None`` of other objects."""
    if hasattr(entry, "__qualname__"):
        return entry.__module__, entry.__qualname__
    return None
