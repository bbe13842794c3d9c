"""Names for things that users choose by name: variants, sources, losses, priors, extractors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from gan_core.errors import unknown_word

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to things; a wrong name is answered with the nearest right one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that enters its argument under ``name``; a name is given only once."""

        def enter(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ValueError(f"{self.kind} '{name}' is registered already")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """The thing called ``name``; raises ``UserError`` with the nearest name otherwise."""
        if name not in self._entries:
            raise unknown_word(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
