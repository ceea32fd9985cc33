"""The files of a slot on this machine, by which others see it.

``PAROPT_HOME/slots/STUDY-…/`` holds for each slot (``cpu-0``, ``gpu0-1``)::

    cpu-0.lock    locked while the slot runs, by whichever launch or worker started it
    cpu-0.state   JSON: what it does now; replaced several times a minute
    cpu-0.jsonl   the slot's own record of what it was told was saved; appended
    cpu-0.log     what it and its trainer say to people
    study         the study's name
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paropt.files import readable

NAME = "study"
LARGEST_RECORD = 32 << 20  # bytes of .jsonl and .log, each, before the old half goes


def slots_directory(home: Path, storage: str, study: str) -> Path:
    """Where the files of a study's slots are; ``storage`` is its URL without a password."""
    place = f"{storage}\n{study}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(place).hexdigest()[:8]
    return home / "slots" / f"{readable(study, 40)}-{digest}"


def name_study(directory: Path, study: str) -> None:
    """Keep the study's name, which the directory's own name may only resemble."""
    with contextlib.suppress(OSError):
        (directory / NAME).write_text(study, encoding="utf-8")


def study_of(directory: Path) -> str:
    """The name of the study whose slots have their files there."""
    with contextlib.suppress(OSError, ValueError):
        return (directory / NAME).read_text(encoding="utf-8")
    return directory.name.rpartition("-")[0]


@dataclass(frozen=True)
class SlotFiles:
    """The files of one slot."""

    directory: Path
    name: str

    def file(self, ending: str) -> Path:
        return self.directory / f"{self.name}.{ending}"

    def taken(self) -> bool:
        """Whether the slot runs."""
        if not self.directory.is_dir():
            return False
        lock = self._try_lock()
        if lock is None:
            return True
        os.close(lock)
        return False

    def take(self) -> int | None:
        """Be this slot until this process ends; None if another process is."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for ending in ("jsonl", "log"):
            _shorten(self.file(ending))
        return self._try_lock()

    def _try_lock(self) -> int | None:
        lock = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def show(self, state: dict[str, Any]) -> None:
        """Replace the state; a full disk costs the view, not the slot."""
        beside = self.file("state.new")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps({"pid": os.getpid(), "time": time.time(), **state}))
            beside.replace(self.file("state"))

    def state(self) -> dict[str, Any]:
        """What the slot does; empty if there is nothing to read."""
        try:
            state = json.loads(self.file("state").read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def record(self, event: str, **facts: Any) -> None:
        """Append a line to the slot's record."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts})
        with contextlib.suppress(OSError), self.file("jsonl").open("a") as file:
            file.write(line + "\n")


def _shorten(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size > LARGEST_RECORD:
            path.replace(path.with_name(path.name + ".old"))
