"""Which options of ``sample`` go together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gan_core.errors import UserError
from gan_core.options import flag

if TYPE_CHECKING:
    from pipelines.sample import SampleOptions

_ALWAYS = ("n", "out", "seed", "storage", "device")


def refuse_others(options: SampleOptions, *used: str, with_: str) -> None:
    """Raises ``UserError`` for an option that is given and would be ignored: what is made
    ``with_`` such an option, or such a generator, needs the options ``used`` and those of the run.
    """
    for field in dataclasses.fields(options):
        given = getattr(options, field.name) != field.default
        if given and field.name not in (*used, *_ALWAYS):
            raise UserError(f"{flag(field.name)} does not go with {with_}: leave it out")
