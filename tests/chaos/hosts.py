"""The fault suite's machines: a PostgreSQL server, and hosts whose slots reach it by a proxy."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import PostgresServer
from proxy import Proxy

HERE = Path(__file__).parent
SCRIPTED = f"{sys.executable} {HERE / 'trainer.py'}"


class Server(PostgresServer):
    """A server that keeps what it has committed when it is stopped the hard way."""

    def start(self) -> None:
        settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 400,
            "fsync": "off",  # only the machine's own crash would lose anything
            "timezone": "Asia/Tokyo",
        }
        self.cluster.start(settings, ["host all paropt 127.0.0.1/32 scram-sha-256"])

    def halt(self, mode: str) -> None:
        """``fast`` ends all connections, ``immediate`` is a crash."""
        options = ["-D", str(self.cluster.data), "-m", mode, "-w", "-t", "60", "-s"]
        self.cluster.binaries.run("pg_ctl", "stop", *options)


class Diary:
    """What the driver did, one JSON line each: the checker reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def note(self, what: str, **facts: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), "what": what, **facts})
        with self._lock, self.path.open("a") as file:
            file.write(line + "\n")


@dataclass
class Slot:
    """A place for one slot, and the process that sits there."""

    host: Host
    place: str
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0  # when a new process should be started
    ended: bool = False  # the last one said that the study has ended
    # who came although the place was taken; one of them has it if it became free at that moment
    guests: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def shown(self) -> dict[str, Any]:
        """The place's state, whoever sits there."""
        try:
            state: dict[str, Any] = json.loads(
                (self.host.seats / f"{self.place}.state").read_text()
            )
        except (OSError, ValueError):
            return {}
        return state

    def state(self) -> dict[str, Any]:
        state = self.shown()
        own = self.process is not None and state.get("pid") == self.process.pid
        return state if own else {}

    @property
    def trainer(self) -> int | None:
        """The pid of the trainer while a trial is trained."""
        state = self.state()
        return state.get("trainer") if state.get("phase") == "training" else None

    def send(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)


@dataclass
class Host:
    """One machine: a home, checkpoints and a clock of its own."""

    name: str
    directory: Path
    study: str
    url: str  # by its proxy, with the password; empty for the embedded server
    diary: Diary
    clock: float = 0.0
    proxy: Proxy | None = None
    trainer: str = SCRIPTED
    data: str = "nowhere"
    store: str = ""  # the URL to which checkpoints are copied
    environment: dict[str, str] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    checkpoints: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        self.checkpoints = self.directory / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)

    @property
    def seats(self) -> Path:
        return self.directory / "seats"

    def facts(self) -> dict[str, Any]:
        """Where the checker finds this host's own records."""
        return {
            "name": self.name,
            "directory": str(self.directory),
            "records": "seats/*.jsonl",
            "clock": self.clock,
        }

    def staff(self, count: int) -> None:
        self.slots = [Slot(self, f"cpu-{index}") for index in range(count)]

    def start(self, slot: Slot, program: list[str] | None = None) -> subprocess.Popen[bytes]:
        """A slot process at this place; the caller remembers it."""
        command = program or [sys.executable, "-P", "-m", "paropt.worker.slot"]
        command = [*command, "--study", self.study, "--data", self.data]
        command += ["--files", str(self.seats), "--slot", slot.place]
        command += ["--checkpoints", str(self.checkpoints)]
        command += ["--store", self.store] if self.store else []
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE / "site"),
            "OMP_NUM_THREADS": "1",
            "PAROPT_STORAGE": self.url,
            "PAROPT_HOME": str(self.directory / "home"),
            "CHAOS_HOST": self.name,
            "CHAOS_CLOCK": str(self.clock),
            "SCRIPT_LOG": str(self.directory / "epochs.txt"),
            **({"PAROPT_TRAINER": self.trainer} if self.trainer else {}),
            **self.environment,
        }
        with (self.directory / f"{slot.place}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.diary.note("start", host=self.name, place=slot.place, pid=process.pid)
        return process

    def keep_staffed(self, chance: random.Random) -> None:
        """Note which processes ended, and start others in their places a little later."""
        with self._starting:
            if not self.closed.is_set():
                self._fill_places(chance)

    def _fill_places(self, chance: random.Random) -> None:
        now = time.monotonic()
        for slot in self.slots:
            if slot.process is not None and (code := slot.process.poll()) is not None:
                reason = slot.state().get("reason")
                self.diary.note(
                    "exit",
                    host=self.name,
                    place=slot.place,
                    pid=slot.process.pid,
                    code=code,
                    reason=reason,
                )
                slot.process, slot.due = None, now + chance.uniform(0.0, 0.6)
                slot.ended = code == 0 and reason in ("budget", "space")
            sitting = [guest for guest in slot.guests if guest.pid == slot.shown().get("pid")]
            if slot.process is None and sitting and sitting[0].poll() is None:
                slot.process = sitting[0]
                slot.guests.remove(sitting[0])
            if slot.process is None and not slot.ended and now >= slot.due:
                slot.process = self.start(slot)

    def close(self) -> None:
        """End everything here, also while the driver still plays."""
        with self._starting:
            self.closed.set()
        for slot in self.slots:
            for process in (slot.process, *slot.guests):
                if process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)  # a stopped trainer, too
                    process.wait()
        if self.proxy is not None:
            self.proxy.close()
