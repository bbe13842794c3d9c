"""What a run keeps of itself in files: checkpoints of its whole state, the best, generators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.best import Best
from gan_core.config import RunConfig
from gan_core.engine import checkpoint as checkpoints
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.sampling import Sampler
from gan_core.errors import UserError
from gan_core.observers import Observer
from gan_core.release import FILES, save_generator

Record = dict[str, Any]
"""What a run remembers beside its game: plain values by name, ``figures`` among them."""
Judged = Mapping[str, Mapping[str, Any]]
"""``figures`` and their ``protocol``, of the networks as they are; empty where none are known."""


class Saver:
    """Writes the state of the run ``config``, which plays ``game``, and reads it back.

    ``fingerprint``: of its training data. Every rank has one, and calls the same of its methods.
    """

    def __init__(self, config: RunConfig, game: Game, fingerprint: str, observer: Observer) -> None:
        self.config, self._game, self._observer = config, game, observer
        self._fingerprint, self._world = fingerprint, game.world
        self._kept: Path | None = None
        self._written: tuple[int, Path] | None = None  # the best state, by this process

    def release(self, name: str, sampler: Sampler, judged: Judged) -> None:
        """Write the networks of ``sampler`` to the run's folder, as its generator ``name``."""
        if self._world.leads and self.config.name:
            self._save_generator(self.config.folder / "generator" / name, sampler, judged)

    def checkpoint(self, sampler: Sampler, record: Record, judged: Judged) -> None:
        """Save everything: the game, ``record``, and the networks of ``sampler`` as a generator."""

        def write(folder: Path) -> None:
            if self._written is None or self._written[0] != self._game.step:
                self._write(folder, sampler, record, judged)
            else:
                rank = self._world.rank
                generator = FILES if self._world.leads else ()
                names = (*generator, *checkpoints.files_of(rank))
                checkpoints.copy_files(self._written[1], folder, names)

        self._observer.checkpoint(self._game.step, write, dict(record["figures"]))

    def keep_best(self, sampler: Sampler, record: Record, judged: Judged) -> None:
        """Save everything as the best state, and the networks of ``sampler`` as the generator
        "best". The latter first: a run that is killed between the two finds this best again.
        """
        self.release("best", sampler, judged)
        step = self._game.step
        folder = self._observer.keep_best(
            step, lambda folder: self._write(folder, sampler, record, judged)
        )
        self._kept = folder
        self._written = None if folder is None else (step, folder)

    def kept_best(self, best: Best) -> str | None:
        """Where the state of ``best`` is, by its path from the run's folder if it is below that."""
        folder = self._kept
        if folder is None or not folder.name.endswith(f"_step_{best['step']:08d}"):
            return None
        if self.config.name and folder.is_relative_to(self.config.folder):
            folder = folder.relative_to(self.config.folder)
        return str(folder)

    def _write(self, folder: Path, sampler: Sampler, record: Record, judged: Judged) -> None:
        """This rank's part of a checkpoint."""
        checkpoints.write_rank(folder, self._world.rank, self._game.rank_state())
        if self._world.leads:
            self._save_generator(folder, sampler, judged)
            state = {"game": self._game.state_dict(), **record}
            manifest = {**self._manifest(), "best": record["best"]}
            checkpoints.write_shared(folder, state, manifest)

    def _save_generator(self, folder: Path, sampler: Sampler, judged: Judged) -> None:
        save_generator(
            folder,
            sampler,
            config=self.config.to_dict(),
            spec=self._game.train.spec,
            step=self._game.step,
            **judged,
        )

    def _manifest(self) -> dict[str, Any]:
        return {
            "step": self._game.step,
            "world_size": self._world.size,
            "config": self.config.to_dict(),
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

    def later_best(self, best: Best | None) -> Best | None:
        """The best that the run is to go on with, which remembers ``best`` at the present step.

        A run that goes on from an older checkpoint has had, and has kept, what it is still to come
        to: if that was its best, it stays so until there is a better one.
        """
        if self._world.leads:
            self._kept = self._observer.kept_best()
            found = self._kept and checkpoints.read_manifest(self._kept).get("best")
            if found and found["step"] > self._game.step:
                best = found
        return self._world.broadcast_object(best)

    def _go_on_from_others(self, folder: Path, count: int) -> None:
        """Go on with what ``count`` other ranks kept for themselves, and say that it is not exact.

        Their files are read only if the variant looks at them.
        """
        world, game = self._world, self._game
        dealt = game.deal_out(checkpoints.read_rank(folder, r, world.device) for r in range(count))
        seed_rank(self.config.seed, world, game.step)
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
            remedy = "name the folder of those with --data-root"
            if self.config.data_root is None:
                remedy = "let the source give those again (what it draws, from a fixed seed)"
            raise UserError(
                f"cannot resume from {folder}: the training data have changed since "
                f"(fingerprint {manifest['data']}, now {self._fingerprint}): {remedy}, or learn "
                "from these in a new run, with --begin-from"
            )
