"""Where a study's checkpoints lie: one file per attempt, so that no owner overwrites another's.

``ROOT-ATTEMPT.ckpt`` with ``ROOT-ATTEMPT.json`` beside it. ROOT is the number of the lineage's
first trial. An attempt writes its own file only, and reads the newest of those before it. An owner
that lost its trial therefore leaves its file to its successor; whoever ends the lineage removes
them all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from paropt.worker.checkpoint_store import NAME, StoreCleaner

CLOSE_SECONDS = 10.0  # that a slot's end waits for what a store is to forget


def kept_model(directory: Path, root: int, attempt: int) -> Path:
    """A saved model beside a study's checkpoints; unlike these it outlives the trial."""
    return directory / "models" / f"{root}-{attempt}"


@dataclass(frozen=True)
class Checkpoints:
    """A directory of one study's checkpoints, shared by its machines if the disk is.

    Its machines may share a ``store`` instead, to which trainers copy them. In ``earlier`` an
    earlier version kept them: they are read and removed there, and none is written.
    """

    directory: Path
    earlier: Path | None = None
    store: str | None = None
    cleaner: StoreCleaner | None = None

    def path(self, root: int, attempt: int) -> Path:
        return self.directory / f"{root}-{attempt}.ckpt"

    def kept(self, root: int, attempt: int) -> Path:
        """Where an attempt keeps the model that it trained, of a test that wants it."""
        return kept_model(self.directory, root, attempt)

    def usable(self, root: int, attempt: int) -> list[Path]:
        """What attempt ``attempt`` may go on from, newest attempt first."""
        found = [
            (of, path)
            for lineage, of, path in self._files()
            if lineage == root and of <= attempt and path.suffix == ".ckpt"
        ]
        return [path for _, path in sorted(found, reverse=True) if path.name[0] != "."]

    def remove(self, root: int, attempts: int) -> None:
        """The lineage has ended: all its files go."""
        self._remove(path for lineage, _, path in self._files() if lineage == root)
        if self.cleaner is not None:
            self.cleaner.remove(root, attempts)

    def sweep(self, open_roots: Collection[int], newest: int | None = None) -> None:
        """Remove what belongs to no lineage that is still open: what killed processes left.

        ``newest`` is the newest trial's number when ``open_roots`` was asked for.
        """
        self._remove(path for lineage, _, path in self._files() if lineage not in open_roots)
        if self.cleaner is not None:
            self.cleaner.sweep(open_roots, newest)

    def close(self) -> None:
        """The slot ends."""
        if self.cleaner is not None:
            self.cleaner.close(CLOSE_SECONDS)

    def size(self) -> int:
        """Bytes on the disk."""
        total = 0
        for _, _, path in self._files():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def _files(self) -> list[tuple[int, int, Path]]:
        paths: list[Path] = []
        for place in (self.directory, self.earlier):
            with contextlib.suppress(OSError):
                paths += place.iterdir() if place else ()
        matches = ((path, NAME.fullmatch(path.name)) for path in paths)
        return [(int(m[1]), int(m[2]), path) for path, m in matches if m]

    @staticmethod
    def _remove(paths: Iterable[Path]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()
