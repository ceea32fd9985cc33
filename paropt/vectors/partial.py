"""Files that grow beside their place until they are whole, and are gone on with after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paropt.errors import VectorsError
from paropt.files import write_text
from paropt.machine.file_locks import FileLock
from paropt.vectors.about import About
from paropt.vectors.store import Note


class Partial:
    """The directory ``.NAME.partial`` beside a place, with a journal of how far it is.

    One process at a time holds it.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place.parent / f".{place.name}.partial"
        self._journal = self.path / "journal.json"
        self._lock: FileLock | None = None
        self._facts: dict[str, Any] = {}

    def open(self, about: About, note: Note) -> int:
        """How many vectors of this very run are safe in it; 0 after it was emptied for another.

        Raises:
            VectorsError: another process holds it, or it can't be made.
        """
        with written_to(self.place):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock")
        if not lock.try_exclude():
            lock.close()
            raise VectorsError(f"another paropt embed is writing {self.place}; wait for its end")
        self._lock = lock
        facts = self._read()
        done = int(facts.get("done", 0)) if about.same_run(facts) else 0
        if facts and not done:
            note(f"what was begun for {self.place} is of another model or other data: begun anew")
        self._facts = about.to_json()
        if not done:
            self._empty()
        return done

    def note(self, done: int) -> None:
        """Write down that so many vectors are safe."""
        write_text(self._journal, json.dumps(self._facts | {"done": done}), overwrite=True)

    def remove(self) -> None:
        """Take it away: all of it is in place."""
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(self._journal.read_text(encoding="utf-8"))
            if isinstance(facts, dict) and isinstance(facts.get("done"), int):
                return facts
        return {}

    def _empty(self) -> None:
        with written_to(self.place):
            for file in self.path.iterdir():
                if file.name != "lock":
                    shutil.rmtree(file) if file.is_dir() else file.unlink()


@contextmanager
def written_to(place: Path) -> Iterator[None]:
    """Says in a sentence why a place can't be written.

    Raises:
        VectorsError: in place of an :class:`OSError`.
    """
    try:
        yield
    except OSError as error:
        raise VectorsError(f"{place} cannot be written: {error.strerror or error}") from None


def check_parent(place: Path) -> None:
    """Refuse a place whose directory can't be written to.

    Raises:
        VectorsError: see above.
    """
    above = next(parent for parent in place.absolute().parents if parent.exists())
    if not above.is_dir():
        raise VectorsError(f"{place} cannot be written: {above} is a file; choose another place")
    if not os.access(above, os.W_OK):
        raise VectorsError(f"{place} cannot be written: no permission to write to {above}")


def flush(path: Path) -> None:
    """See that a file, or a directory's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
