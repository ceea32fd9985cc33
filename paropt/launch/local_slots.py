"""This machine's slots of one study: started, watched, started again, sent home."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paropt.errors import EXIT_OK, EXIT_STORAGE
from paropt.machine.devices import Place
from paropt.machine.file_locks import FileLock
from paropt.machine.slot_files import Seat

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a dead slot is started again
MOST_DEATHS = 8  # in a row, of a slot that got nothing done in between
# what a slot says when starting it again would change nothing
FINAL = {
    "budget", "space", "stopped", "timeout", "failures", "deleted", "left", "trainer", "failed",
}  # fmt: skip


@dataclass(frozen=True)
class Post:
    """What every slot of a crew is told."""

    study: str
    data: Path
    seats: Path
    checkpoints: Path
    environment: dict[str, str] = field(repr=False)


class Member:
    """One seat of the crew and the slot on it, which may be one that an earlier launch started."""

    def __init__(self, place: Place, post: Post) -> None:
        self.place, self.post = place, post
        self.seat = Seat(post.seats, place.name)
        self.state: dict[str, Any] = {}
        self.ended: dict[str, Any] | None = None  # its last state, once it will not come back
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted = False
        self._deaths = 0
        self._done = 0  # trials that it had ended when it died last
        self._again_at: float | None = None

    def start(self) -> None:
        """Start a slot, unless one sits there already: then that one is ours to watch."""
        self._again_at = None
        self._adopted = self.seat.taken()
        if self._adopted:
            return
        self.post.seats.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self.seat.file("state").unlink()
        with self.seat.file("log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env={**os.environ, **self.post.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # neither our death nor a terminal's Ctrl-C ends it
            )

    def _command(self) -> list[str]:
        place, post = self.place, self.post
        options = {
            "--study": post.study,
            "--data": str(post.data),
            "--seats": str(post.seats),
            "--place": place.name,
            "--visible": place.device.visible,
            "--device-name": place.device.name,
            "--threads": str(place.threads),
            "--checkpoints": str(post.checkpoints),
        }
        words = [f"{name}={value}" for name, value in options.items()]
        return [sys.executable, "-P", "-m", "paropt.worker.slot", *words]

    def look(self) -> None:
        """Take note of what the slot does, and of its end."""
        if self.ended is not None:
            return
        self.state = self.seat.state() or self.state
        if self._again_at is not None:
            if time.monotonic() >= self._again_at:
                self.start()
        elif self._adopted:
            if not self.seat.taken():
                self._gone(self.state.get("exit_code"))
        elif self._process is not None and (status := self._process.poll()) is not None:
            self.state = self.seat.state() or self.state
            if self.state.get("pid") not in (None, self._process.pid):
                self._adopted = True  # somebody sat down before it did
            else:
                self._gone(status)

    def _gone(self, status: int | None) -> None:
        """It has ended; for good, or to be started again a little later."""
        finished = self.state.get("phase") == "ended"
        if status == EXIT_STORAGE or (finished and self.state.get("reason") in FINAL):
            self.ended = {**self.state, "exit_code": status or EXIT_OK}
            return
        self._deaths = 0 if self.state.get("trials", 0) > self._done else self._deaths + 1
        self._done = self.state.get("trials", 0)
        if self._deaths >= MOST_DEATHS:
            message = f"slot {self.place.name} died {MOST_DEATHS} times in a row"
            log = self.seat.file("log")
            self.ended = {
                "phase": "ended",
                "reason": "died",
                "message": f"{message}; its log is {log}",
                "exit_code": 1,
            }
            return
        pause = min(FIRST_PAUSE * 2**self._deaths, LONGEST_PAUSE)
        self._again_at = time.monotonic() + pause
        self.state = {"phase": "starting again"}

    def dismiss(self, *, adopted: bool) -> None:
        """Ask it to hand back its trial and end; asked again it does not wait for a checkpoint.

        Without ``adopted``, a slot that somebody else started is left alone, and not watched on.
        """
        if self.ended is not None:
            return
        if self._again_at is not None or (self._adopted and not adopted):
            self.ended = {"phase": "ended", "reason": "left", "message": "", "exit_code": EXIT_OK}
            return
        pid = self._process.pid if self._process and not self._adopted else self.state.get("pid")
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)

    def describe(self, host: str) -> dict[str, Any]:
        """The slot as ``status --json`` describes a live one."""
        return {
            "id": self.state.get("slot"),
            "study": self.post.study,
            "host": host,
            "pid": self.state.get("pid"),
            "device": self.place.device.label,
            "slot": self.place.index,
            "state": self.state,
        }


class Crew:
    """All slots of this machine for one study. Close it when the launch ends."""

    def __init__(self, places: Sequence[Place], post: Post) -> None:
        self.post = post
        self.members = [Member(place, post) for place in places]
        self.leaving: list[Member] = []  # sent home while the others go on
        post.seats.mkdir(parents=True, exist_ok=True, mode=0o700)
        # held by every launch that watches these seats
        self._watched = FileLock(post.seats / "watched.lock")
        self._watched.share()

    def start(self) -> None:
        for member in self.members:
            member.start()

    def look(self) -> None:
        for member in [*self.members, *self.leaving]:
            member.look()
        self.leaving = [member for member in self.leaving if member.ended is None]

    def on(self, label: str) -> list[Member]:
        """Those on one device."""
        return [member for member in self.members if member.place.device.label == label]

    def resize(self, label: str, slots: int) -> None:
        """Put so many slots on a device; those that go hand their trials to the others."""
        here = self.on(label)
        for member in here[slots:]:
            member.dismiss(adopted=True)
            self.members.remove(member)
            self.leaving.append(member)
        everybody = [*self.members, *self.leaving]
        used = {m.place.index for m in everybody if m.place.device.label == label}
        free = (index for index in itertools.count() if index not in used)
        for index in itertools.islice(free, max(0, slots - len(here))):
            member = Member(replace(here[0].place, index=index), self.post)
            self.members.append(member)
            member.start()

    def dismiss(self) -> None:
        """Send the slots home; those of another launch only if it has gone itself."""
        alone = self._watched.try_exclude()
        for member in self.members:
            member.dismiss(adopted=alone)

    @property
    def over(self) -> bool:
        """No slot is left that does something or will."""
        return all(member.ended is not None for member in [*self.members, *self.leaving])

    @property
    def endings(self) -> list[dict[str, Any]]:
        return [member.ended for member in self.members if member.ended is not None]

    def close(self) -> None:
        self._watched.close()
