"""How often Python looks for garbage: seldom while a command starts, as usual while it plays."""

from __future__ import annotations

import gc

USUAL = gc.get_threshold()
SELDOM = 50_000
"""New objects until garbage is looked for. Imports make hundreds of thousands and no garbage:
looking for it every 700 takes a fifth of a start."""


def collect_seldom() -> None:
    """For the time of the imports."""
    gc.set_threshold(SELDOM, *USUAL[1:])


def collect_as_usual() -> None:
    """Before tensors that only cycles keep alive could pile up."""
    gc.set_threshold(*USUAL)
