"""A plugin: a variant that fails after some iterations, by refusing or by an error."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gan_core.errors import UserError
from gan_core.options import option
from gan_core.variant import GameOptions, register
from gan_core.variants.gan import GAN, GANOptions


@dataclasses.dataclass(frozen=True)
class FailingOptions(GANOptions):
    """One more option: how to fail."""

    refuse: bool = option(False, "fail as if the user had to do something")


@register("failing")
class Failing(GAN):
    """The original GAN for some iterations."""

    Options: ClassVar[type[GameOptions]] = FailingOptions
    turns = 0

    def on_turn_end(self, player: str) -> None:
        """Counts turns, and fails."""
        super().on_turn_end(player)
        self.turns += 1
        if self.turns >= 60:
            raise self._failure()

    def _failure(self) -> Exception:
        if self.options.refuse:
            return UserError("cannot go on, by order")
        return ArithmeticError("lost count")
