"""One study on scripted trainers, under all the faults there are."""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evidence
import faults
import psycopg2
from burst import definition
from hosts import Diary, Host, Server
from proxy import Proxy
from store import ObjectStore

from paropt.search.study.study import Study
from paropt.storage.connect import open_storage
from paropt.storage.schema import create_tables

PATIENCE = 180.0  # seconds without any progress before the suite gives up
SAID_UNREACHABLE = 3  # paropt's exit code


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    trials: int
    faults: int
    hosts: int
    slots: int  # per host
    epochs: int
    epoch_seconds: float
    heartbeat: float
    outage: float = 7.0
    silence: float = 4.0
    only: tuple[str, ...] = ()  # names of faults; all of them without
    store: bool = False  # checkpoints are copied to an object store, which has faults, too


# one fault of each sort: killed, frozen, cut off, filled up, damaged, told
REPRESENTATIVE = (
    "kill_trainer", "kill_slot", "power_loss", "stop_slot_long", "preempt", "restart_immediate",
    "drop_connections", "blackhole", "corrupt_checkpoint", "full_disk", "pause_study",
)  # fmt: skip
SHORT = Size(
    16, len(REPRESENTATIVE), hosts=3, slots=2, epochs=4, epoch_seconds=0.3, heartbeat=1.5,
    outage=5.0, only=REPRESENTATIVE,
)  # fmt: skip
# s3fs is slow to import, and a trainer says nothing meanwhile
STORE = Size(
    40, 30, hosts=3, slots=2, epochs=6, epoch_seconds=0.4, heartbeat=3.0, silence=20.0, store=True
)
FULL = Size(320, 230, hosts=5, slots=3, epochs=8, epoch_seconds=0.4, heartbeat=2.0)
# by how many seconds the clocks of the hosts are wrong, and where they think that they are
CLOCKS = (0.0, 7200.0, -10800.0, 86400.0, -1.5)
ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "", "Asia/Tokyo")


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """The end of a verb; of one that hangs it is its stack."""
    try:
        _, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        _, said = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, "", said)


class Main:
    """Hosts with slots, a study, and a time line of faults."""

    def __init__(
        self, run: Path, server: Server, size: Size, seed: int, mutation: str = ""
    ) -> None:
        self.run, self.server, self.size, self.mutation = run / "main", server, size, mutation
        self.run.mkdir()
        self.run.chmod(0o711)
        self.chance = random.Random(seed)
        self.diary = Diary(self.run / "diary.jsonl")
        self.url = server.create_database()
        self._create()
        self.store = ObjectStore() if size.store else None
        self.hosts = [self._host(number) for number in range(size.hosts)]
        self.endings: list[tuple[float, Callable[[], None]]] = []
        self._orders: queue.SimpleQueue[tuple[tuple[str, ...], bool] | None] = queue.SimpleQueue()
        self.world = faults.World(
            server,
            self.url,
            self.hosts,
            self,
            size.heartbeat,
            size.outage,
            size.silence,
            self.chance,
            self.diary,
            self.store,
        )

    def _create(self) -> None:
        size, seed = self.size, self.chance.randrange(1 << 30)
        wanted = definition("chaos", size.epochs, size.heartbeat, seed)
        Study.create(self.url, wanted, budget=size.trials).close()
        with open_storage(self.url) as storage:
            create_tables(storage.engine())
        connection = psycopg2.connect(self.url)
        with connection, connection.cursor() as cursor:
            cursor.execute(evidence.AUDIT)
        connection.close()

    def _host(self, number: int) -> Host:
        """The first one reaches the database directly; the others by a proxy of their own."""
        proxy = Proxy(("127.0.0.1", self.server.port)) if number else None
        url = self.url.replace(f":{self.server.port}/", f":{proxy.port}/") if proxy else self.url
        size = self.size
        host = Host(
            f"h{number}",
            self.run / f"h{number}",
            "chaos",
            url,
            self.diary,
            clock=CLOCKS[number % len(CLOCKS)],
            proxy=proxy,
            environment={
                "PAROPT_OUTAGE": str(size.outage),
                "PAROPT_SILENCE": str(size.silence),
                "PAROPT_GRACE": "6",
                "SCRIPT_EPOCH": str(size.epoch_seconds),
                "TZ": ZONES[number % len(ZONES)],
                "CHAOS_MUTATION": self.mutation,
            },
        )
        if self.store:
            host.store = "s3://chaos/checkpoints"
            host.environment |= self.store.environment
        if number and not faults.mount_small(host.checkpoints):
            self.diary.note("note", message="no tmpfs may be mounted here: directories vanish")
        host.staff(size.slots if number else 1)
        return host

    # -- steering, as somebody does it from elsewhere ---------------------------------------

    def steer(self, *words: str, calm: bool = False) -> None:
        """``paropt WORDS`` in its turn, while the faults go on; ``calm`` notes that it is done."""
        self._orders.put((words, calm))

    def _steer(self) -> None:
        while order := self._orders.get():
            words, calm = order
            done = self._paropt(*words)
            while done.returncode == SAID_UNREACHABLE:  # until another fault has ended
                done = self._paropt(*words)
            # a slot that was to be released may have ended meanwhile
            if done.returncode and "--slot" not in words:
                self.diary.note("surprise", message=f"paropt {words}: {done.stderr}")
            if calm:
                self.diary.note("calm")

    def _paropt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return ended(
            subprocess.Popen(
                [sys.executable, "-m", "paropt", *words],
                env={**os.environ, "PAROPT_STORAGE": self.url, "PYTHONFAULTHANDLER": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    # -- the time of faults -----------------------------------------------------------------

    def play(self) -> None:
        """All faults, then until every trial has ended."""
        left = faults.deck(self.size.faults, self.chance)
        if self.size.only:
            left = [fault for fault in faults.FAULTS if fault.__name__ in self.size.only]
            self.chance.shuffle(left)
        if self.store:
            left += faults.OF_STORE * max(1, self.size.faults // 15)
            self.chance.shuffle(left)
        steering = threading.Thread(target=self._steer, daemon=True)
        steering.start()
        moved, before, pace, done = time.monotonic(), -1, 0.0, 0
        while any(not slot.ended for host in self.hosts for slot in host.slots):
            self._end_faults()
            for host in self.hosts:
                host.keep_staffed(self.chance)
            now, finished = time.monotonic(), self._finished()
            if left and now >= pace and finished >= self._owed(done) and self._hit(left[-1]):
                left.pop()
                done += 1
                pace = now + self.chance.uniform(0.1, 0.6)
            if finished != before:
                before, moved = finished, now
            if self.hosts[0].closed.is_set():
                return  # somebody ends the suite
            if now - moved > PATIENCE:
                self.diary.note("surprise", message=f"nothing has ended for {PATIENCE:g} s")
                break
            self._look_for_passwords()
            time.sleep(0.05)
        while self.endings:
            self._end_faults(at_once=True)
        self._orders.put(None)
        steering.join()
        if left:
            self.diary.note("surprise", message=f"{len(left)} faults found nothing to hit")

    def _hit(self, fault: faults.Fault) -> bool:
        ending = fault(self.world)
        if ending is None:
            return False
        self.endings.append((time.monotonic() + ending[0], ending[1]))
        return True

    def _owed(self, done: int) -> float:
        """How many trials must have ended before the next fault: faults last as trials do."""
        return self.size.trials * 0.75 * done / max(1, self.size.faults) - 4

    def _finished(self) -> int:
        """The trainers' logs tell without the database, which may be away."""
        ended = set()
        for host in self.hosts:
            for line in evidence.lines(host.directory / "epochs.txt"):
                root, _, epoch, *_ = line.split()
                if int(epoch) == self.size.epochs:
                    ended.add(root)
        return len(ended)

    def _end_faults(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        for ending in [e for e in self.endings if at_once or e[0] <= now]:
            self.endings.remove(ending)
            ending[1]()

    def _look_for_passwords(self) -> None:
        secret = self.server.password.encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found = secret in path.read_bytes()
            except OSError:
                continue
            if found:
                self.diary.note("leak", message=f"the password is in {path}")

    # -- afterwards -------------------------------------------------------------------------

    @property
    def secret(self) -> str:
        return self.server.password

    def manifest(self) -> dict[str, Any]:
        """What the checker has to know."""
        return {
            "study": "chaos",
            "trials": self.size.trials,
            "epochs": self.size.epochs,
            "heartbeat": self.size.heartbeat,
            "hosts": [host.facts() for host in self.hosts],
            "witness": self.hosts[0].name,
            "store": sorted(self.store.objects) if self.store else None,
        }

    def close(self) -> None:
        for host in self.hosts:
            host.close()

    def clean(self) -> None:
        """After the checker's look."""
        if self.store:
            self.store.close()
        for host in self.hosts:
            if os.path.ismount(host.checkpoints):
                subprocess.run(["umount", "-l", str(host.checkpoints)], check=False)
