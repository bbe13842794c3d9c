"""Who is told what happens in a run: nobody, or a folder with journal and checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_core.engine.checkpoint import BEST, all_bests, find_best, next_best, remove_outdated
from gan_core.engine.world import World
from gan_core.journal import Journal

KEPT_CHECKPOINTS = 2
"""How many of the newest checkpoints a run keeps."""


class Observer:
    """Whoever is told what happens in a run. All methods do nothing; override what you need."""

    def start(self, step: int, info: dict[str, Any]) -> None:
        """The run starts or goes on at ``step``."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name, at logging points and evaluations."""

    def picture(self, step: int, name: str, image: Tensor) -> str | None:
        """A picture, uint8 (C, H, W). Returns its file, as the run's summary is to name it: by its
        path from the run's folder; ``None`` where it is in none.
        """
        return None

    def message(self, step: int, text: str, level: str = "info") -> None:
        """A line for the user; ``level`` is "info" or "warning"."""

    def tag(self, step: int, name: str, value: str) -> None:
        """A fact about the whole run."""

    def checkpoint(
        self, step: int, write: Callable[[Path], None], figures: dict[str, float]
    ) -> None:
        """Called on every rank at the same steps; ``write(folder)`` writes this rank's files."""

    def keep_best(self, step: int, write: Callable[[Path], None]) -> Path | None:
        """Called on every rank whenever the tracked figure is better than ever; ``write(folder)``
        writes this rank's files. Returns the folder, which stays until the next call; ``None``:
        nothing is kept.
        """
        return None

    def kept_best(self) -> Path | None:
        """The folder that was kept last, by whatever process; asked on rank 0 of a resumed run."""
        return None

    def should_stop(self) -> bool:
        """Asked on rank 0 whenever it logs, evaluates or saves, and every few seconds; the other
        ranks are told.
        """
        return False

    def end(self, step: int, status: str, summary: dict[str, Any]) -> None:
        """The run ended: ``status`` is "finished" or "stopped"."""


class FolderObserver(Observer):
    """Keeps a run in a folder: checkpoints, its best state, and by rank 0 alone the journal, sample
    grids, and the run's ``config.yaml``, by its last start (that of a subclass, where none is
    there).

    A file called STOP in the folder asks the run to stop: it does within seconds.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.journal = Journal(folder) if world.leads else None

    def _write(self, kind: str, step: int, **content: Any) -> None:
        if self.journal:
            self.journal.write(kind, step, **content)

    def start(self, step: int, info: dict[str, Any]) -> None:
        self._write("start", step, **info)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._write("metrics", step, values=values)

    def picture(self, step: int, name: str, image: Tensor) -> str | None:
        from gan_core.pictures import save_png

        if not self.journal:
            return None
        path = f"samples/{name}_{step:08d}.png"
        save_png(image, self.folder / path)
        self._write("picture", step, name=name, path=path)
        return path

    def message(self, step: int, text: str, level: str = "info") -> None:
        self._write("message", step, text=text, level=level)

    def tag(self, step: int, name: str, value: str) -> None:
        self._write("tag", step, name=name, value=value)

    def checkpoint(
        self, step: int, write: Callable[[Path], None], figures: dict[str, float]
    ) -> None:
        final = self.folder / "checkpoints" / f"step_{step:08d}"
        self._gather(final, write)
        if self.world.leads:
            self._write("checkpoint", step, path=str(final.relative_to(self.folder)))
            self._tidy(final)

    def _gather(self, final: Path, write: Callable[[Path], None]) -> None:
        """The files of all ranks in the folder ``final``, which is there once all are written."""
        partial = final.with_suffix(".partial")
        if self.world.leads:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.world.barrier()
        write(partial)
        self.world.barrier()
        if self.world.leads:
            shutil.rmtree(final, ignore_errors=True)
            partial.replace(final)
        self.world.barrier()  # it is in its place when any rank goes on

    def _tidy(self, newest: Path) -> None:
        """Remove what is older than the last checkpoints, and what a crash left half written.

        Later ones (passed over as damaged when the run was resumed) do not count.
        """
        whole = sorted(p for p in newest.parent.glob("step_????????") if p.name <= newest.name)
        for old in [*whole[:-KEPT_CHECKPOINTS], *newest.parent.glob("step_*.partial")]:
            shutil.rmtree(old, ignore_errors=True)
        if len(whole) >= KEPT_CHECKPOINTS:
            remove_outdated(self.folder, whole[-KEPT_CHECKPOINTS:])

    def keep_best(self, step: int, write: Callable[[Path], None]) -> Path | None:
        final: Path = self.world.broadcast_object(next_best(self.folder, step))
        self._gather(final, write)
        if self.world.leads:
            path = str(final.relative_to(self.folder))
            self._write("tag", step, name="best_state", value=path)
            self._tidy_best(final)
        return final

    def kept_best(self) -> Path | None:
        found = find_best(self.folder)
        self._tidy_best(found)  # there need not be another best that does it
        return found

    def _tidy_best(self, kept: Path | None) -> None:
        """Remove the best states before ``kept``, and what a crash left half written."""
        bests = all_bests(self.folder)
        former = bests[bests.index(kept) + 1 :] if kept in bests else []
        for old in [*former, *(self.folder / BEST).glob("*.partial")]:
            shutil.rmtree(old, ignore_errors=True)

    def should_stop(self) -> bool:
        return (self.folder / "STOP").exists()

    def end(self, step: int, status: str, summary: dict[str, Any]) -> None:
        self._write("end", step, status=status, summary=summary)
