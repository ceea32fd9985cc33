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
from paropt.machine.devices import DeviceShare
from paropt.machine.file_locks import FileLock
from paropt.machine.slot_files import SlotFiles, name_study

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a dead slot is started again
MOST_DEATHS = 8  # in a row, of a slot that got nothing done in between
# what a slot says when starting it again would change nothing
FINAL = {
    "budget", "space", "stopped", "timeout", "spent", "stale", "failures", "deleted", "left",
    "trainer", "failed",
}  # fmt: skip


@dataclass(frozen=True)
class SlotSpec:
    """What every slot of a study on this machine is told; ``files``: where the slots' files lie."""

    study: str
    data: Path
    files: Path
    checkpoints: Path
    earlier: Path | None  # where an earlier version of paropt kept them
    store: str | None  # the URL of the study's folder in an object store
    tensorboard: Path | None
    environment: dict[str, str] = field(repr=False)


class SlotProcess:
    """One slot of this machine: its process, which an earlier launch may have started."""

    def __init__(self, share: DeviceShare, spec: SlotSpec) -> None:
        self.share, self.spec = share, spec
        self.files = SlotFiles(spec.files, share.name)
        self.state: dict[str, Any] = {}
        self.ended: dict[str, Any] | None = None  # its last state, once it will not come back
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted = False
        self._deaths = 0
        self._done = 0  # trials that it had ended when it died last
        self._again_at: float | None = None

    def start(self) -> None:
        """Start it, unless it runs already: then that process is ours to watch."""
        self._again_at = None
        self._adopted = self.files.taken()
        if self._adopted:
            return
        self.spec.files.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self.files.file("state").unlink()
        with self.files.file("log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env={**os.environ, **self.spec.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # neither our death nor a terminal's Ctrl-C ends it
            )

    def _command(self) -> list[str]:
        share, spec = self.share, self.spec
        options = {
            "--study": spec.study,
            "--data": str(spec.data),
            "--files": str(spec.files),
            "--slot": share.name,
            "--visible": share.device.visible,
            "--device-name": share.device.name,
            "--threads": str(share.threads),
            "--checkpoints": str(spec.checkpoints),
        }
        if spec.earlier is not None:
            options["--earlier-checkpoints"] = str(spec.earlier)
        if spec.store is not None:
            options["--store"] = spec.store
        if spec.tensorboard is not None:
            options["--tensorboard"] = str(spec.tensorboard)
        words = [f"{name}={value}" for name, value in options.items()]
        return [sys.executable, "-P", "-m", "paropt.worker.slot", *words]

    def look(self) -> None:
        """Take note of what the slot does, and of its end."""
        if self.ended is not None:
            return
        self.state = self.files.state() or self.state
        if self._again_at is not None:
            if time.monotonic() >= self._again_at:
                self.start()
        elif self._adopted:
            if not self.files.taken():
                self._gone(self.state.get("exit_code"))
        elif self._process is not None and (status := self._process.poll()) is not None:
            self.state = self.files.state() or self.state
            if self.state.get("pid") not in (None, self._process.pid):
                self._adopted = True  # another one was there before it
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
            message = f"slot {self.share.name} died {MOST_DEATHS} times in a row"
            log = self.files.file("log")
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

    def dismiss(self, *, adopted: bool, hurry: bool = False) -> None:
        """Ask it to hand back its trial and end; in a hurry it does not wait for a checkpoint.

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
                # it may have heard so from somebody else, too, which SIGUSR1 only repeats
                os.kill(int(pid), signal.SIGUSR2 if hurry else signal.SIGUSR1)

    def describe(self, host: str) -> dict[str, Any]:
        """The slot as ``status --json`` describes a live one."""
        return {
            "id": self.state.get("slot"),
            "study": self.spec.study,
            "host": host,
            "pid": self.state.get("pid"),
            "device": self.share.device.label,
            "slot": self.share.index,
            "state": self.state,
        }


class LocalSlots:
    """All slots of this machine for one study. Close it when the launch ends."""

    def __init__(self, shares: Sequence[DeviceShare], spec: SlotSpec) -> None:
        self.spec = spec
        self.slots = [SlotProcess(share, spec) for share in shares]
        self.leaving: list[SlotProcess] = []  # sent home while the others go on
        spec.files.mkdir(parents=True, exist_ok=True, mode=0o700)
        name_study(spec.files, spec.study)
        # held by every launch that watches these slots
        self._watched = FileLock(spec.files / "watched.lock")
        self._watched.share()

    def start(self) -> None:
        for slot in self.slots:
            slot.start()

    def look(self) -> None:
        for slot in [*self.slots, *self.leaving]:
            slot.look()
        self.leaving = [slot for slot in self.leaving if slot.ended is None]

    def on(self, label: str) -> list[SlotProcess]:
        """Those on one device."""
        return [slot for slot in self.slots if slot.share.device.label == label]

    def resize(self, label: str, slots: int) -> None:
        """Have so many slots on a device; those that go hand their trials to the others."""
        here = self.on(label)
        for slot in here[slots:]:
            slot.dismiss(adopted=True)
            self.slots.remove(slot)
            self.leaving.append(slot)
        everybody = [*self.slots, *self.leaving]
        used = {m.share.index for m in everybody if m.share.device.label == label}
        free = (index for index in itertools.count() if index not in used)
        for index in itertools.islice(free, max(0, slots - len(here))):
            slot = SlotProcess(replace(here[0].share, index=index), self.spec)
            self.slots.append(slot)
            slot.start()

    def dismiss(self, *, hurry: bool = False) -> None:
        """Send the slots home; those of another launch only if it has gone itself."""
        alone = self._watched.try_exclude()
        for slot in self.slots:
            slot.dismiss(adopted=alone, hurry=hurry)

    @property
    def over(self) -> bool:
        """No slot is left that does something or will."""
        return all(slot.ended is not None for slot in [*self.slots, *self.leaving])

    @property
    def endings(self) -> list[dict[str, Any]]:
        return [slot.ended for slot in self.slots if slot.ended is not None]

    def close(self) -> None:
        self._watched.close()
