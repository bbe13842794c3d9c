"""What follows ``--set`` in a benchmark's command: options of the runs it makes."""

from __future__ import annotations

from collections.abc import Sequence

from gan_core.errors import UserError


def read_settings(pairs: Sequence[str] | None) -> dict[str, str]:
    """The values by name of ``pairs`` like "steps=500"; raises ``UserError`` for other words."""
    found = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UserError(f"--set takes name=value, not '{pair}': for example steps=500")
        found[name.replace("-", "_")] = value
    return found
