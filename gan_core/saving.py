"""What a run keeps of itself in files: checkpoints of its whole state, and released generators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.config import RunConfig
from gan_core.engine import checkpoint as checkpoints
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.sampling import Sampler
from gan_core.errors import UserError
from gan_core.observers import Observer
from gan_core.release import save_generator

Record = dict[str, Any]
"""What a run remembers beside its game: plain values by name, ``figures`` among them."""
Judged = Mapping[str, Mapping[str, Any]]
"""``figures`` and their ``protocol``, of the networks as they are; empty where none are known."""


class Saver:
    """Writes the state of the run ``config``, which plays ``game``, and reads it back.

    ``fingerprint``: of its training data. Every rank has one, and calls the same of its methods.
    """

    def __init__(self, config: RunConfig, game: Game, fingerprint: str, observer: Observer) -> None:
        self._config, self._game, self._observer = config, game, observer
        self._fingerprint, self._world = fingerprint, game.world

    def release(self, name: str, sampler: Sampler, judged: Judged) -> None:
        """Write the networks of ``sampler`` to the run's folder, as its generator ``name``."""
        if self._world.leads and self._config.name:
            self._save_generator(self._config.folder / "generator" / name, sampler, judged)

    def checkpoint(self, sampler: Sampler, record: Record, judged: Judged) -> None:
        """Save everything: the game, ``record``, and the networks of ``sampler`` as a generator."""

        def write(folder: Path) -> None:
            checkpoints.write_rank(folder, self._world.rank, self._game.rank_state())
            if self._world.leads:
                self._save_generator(folder, sampler, judged)
                state = {"game": self._game.state_dict(), **record}
                checkpoints.write_shared(folder, state, self._manifest())

        self._observer.checkpoint(self._game.step, write, dict(record["figures"]))

    def _save_generator(self, folder: Path, sampler: Sampler, judged: Judged) -> None:
        save_generator(
            folder,
            sampler,
            config=self._config.to_dict(),
            spec=self._game.train.spec,
            step=self._game.step,
            **judged,
        )

    def _manifest(self) -> dict[str, Any]:
        return {
            "step": self._game.step,
            "world_size": self._world.size,
            "config": self._config.to_dict(),
            "data": self._fingerprint,
        }

    def restore(self, folder: Path) -> Record:
        """Go on with the game of the checkpoint ``folder``; what the run remembered then.

        Raises ``UserError`` if it is damaged, of other networks or of other data.
        """
        manifest = checkpoints.verify(folder)
        self.check_data(folder, manifest)
        shared = checkpoints.read_shared(folder, self._world.device)
        try:
            self._game.load_state_dict(shared.pop("game"))
        except UserError as error:
            raise UserError(f"cannot resume from {folder}: {error}") from None
        if manifest["world_size"] == self._world.size:
            own = checkpoints.read_rank(folder, self._world.rank, self._world.device)
            self._game.load_rank_state(own)
        else:
            self._go_on_from_others(folder, manifest["world_size"])
        return shared

    def _go_on_from_others(self, folder: Path, count: int) -> None:
        """Go on with what ``count`` other ranks kept for themselves, and say that it is not exact.

        Their files are read only if the variant looks at them.
        """
        world, game = self._world, self._game
        dealt = game.deal_out(checkpoints.read_rank(folder, r, world.device) for r in range(count))
        seed_rank(self._config.seed, world, game.step)
        self._observer.message(
            game.step,
            f"resumed with {world.size} workers from a checkpoint of {count}: batch "
            "statistics go on from rank 0's, dropout is drawn anew"
            f"{f' and {dealt} are dealt out anew' if dealt else ''}, so the run is not exactly the "
            "one that was interrupted",
            "warning",
        )

    def check_data(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ``UserError`` if the checkpoint of ``manifest`` has learned from other data."""
        if manifest["data"] != self._fingerprint:
            raise UserError(
                f"cannot resume from {folder}: the training data have changed since "
                f"(fingerprint {manifest['data']}, now {self._fingerprint})"
            )
