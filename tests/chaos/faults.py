"""What can happen to slots, trainers, hosts, disks and the database, each as one function.

A fault begins now and returns how long it lasts and what ends it; the driver calls that later, so
faults overlap. ``None`` means that there was nothing to hit: the driver tries again later.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg2
from hosts import Diary, Host, Server, Slot
from store import ObjectStore

Ending = tuple[float, Callable[[], None]]
NOTHING: Ending = (0.0, lambda: None)
STUDY = "chaos"


class Steering(Protocol):
    """The study as somebody steers it from elsewhere."""

    def steer(self, *words: str, calm: bool = False) -> None: ...


@dataclass
class World:
    """Everything that a fault may hit. The first host is the witness: it is left alone, so that
    somebody has watched the others without a gap and take-overs can be timed."""

    server: Server
    url: str  # of the study's database, without a proxy
    hosts: list[Host]
    steering: Steering
    heartbeat: float
    outage: float  # seconds that slots wait for the database
    silence: float  # seconds that a trainer may say nothing
    chance: random.Random
    diary: Diary
    store: ObjectStore | None = None

    @property
    def targets(self) -> list[Host]:
        return self.hosts[1:]

    def some_slot(self, *, training: bool = True) -> Slot | None:
        slots = [slot for host in self.targets for slot in host.slots if slot.alive]
        if training:
            slots = [slot for slot in slots if slot.trainer]
        return self.chance.choice(slots) if slots else None

    def note(self, fault: str, slot: Slot | None = None, **facts: Any) -> None:
        if slot is not None and slot.process is not None:
            facts |= {"host": slot.host.name, "place": slot.place, "pid": slot.process.pid}
            facts["trial"] = slot.state().get("trial")
        self.diary.note("fault", fault=fault, **facts)


# -- processes --------------------------------------------------------------------------------


def kill_trainer(world: World) -> Ending | None:
    slot = world.some_slot()
    trainer = slot.trainer if slot else None
    if not slot or not trainer:
        return None
    world.note("kill trainer", slot)
    send(trainer, signal.SIGKILL)
    return NOTHING


def kill_slot(world: World) -> Ending | None:
    slot = world.some_slot(training=world.chance.random() < 0.8)
    if not slot:
        return None
    world.note("kill slot", slot)
    slot.send(signal.SIGKILL)
    return NOTHING


def power_loss(world: World) -> Ending | None:
    """A slot and its trainer at once."""
    slot = world.some_slot()
    if not slot or slot.process is None:
        return None
    world.note("power loss", slot)
    os.killpg(slot.process.pid, signal.SIGKILL)
    return NOTHING


def stop_slot(world: World) -> Ending | None:
    return _freeze(world, "pause slot", 0.4 * world.heartbeat)


def stop_slot_long(world: World) -> Ending | None:
    """Longer than anybody waits: when it wakes up its trial belongs to somebody else."""
    return _freeze(world, "freeze slot", 2.6 * world.heartbeat)


def _freeze(world: World, name: str, seconds: float) -> Ending | None:
    slot = world.some_slot()
    if not slot or slot.process is None:
        return None
    process = slot.process
    world.note(name, slot)
    slot.send(signal.SIGSTOP)

    def go_on() -> None:
        world.note(f"{name} ends", slot)
        send(process.pid, signal.SIGCONT)

    return seconds, go_on


def hang_trainer(world: World) -> Ending | None:
    slot = world.some_slot()
    trainer = slot.trainer if slot else None
    if not slot or not trainer:
        return None
    world.note("hang trainer", slot)
    send(trainer, signal.SIGSTOP)
    return world.silence + 1.0, lambda: send(trainer, signal.SIGCONT)


def preempt(world: World) -> Ending | None:
    slot = world.some_slot()
    if not slot:
        return None
    world.note("preempt", slot)
    slot.send(signal.SIGTERM)
    return NOTHING


def two_at_once(world: World) -> Ending | None:
    """Two more processes for places that are taken."""
    slot = world.some_slot(training=False)
    if not slot:
        return None
    world.note("two at once", slot)
    slot.guests = [*slot.guests, *(slot.host.start(slot) for _ in range(2))]

    def collect() -> None:
        for guest in list(slot.guests):
            if guest.poll() is None:
                continue  # it waits to find the place taken, or found it free and sits there now
            slot.guests.remove(guest)
            if guest.returncode != 0:
                world.diary.note("surprise", message=f"a second slot ended: {guest.returncode}")

    return 4.0, collect


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# -- database and network ---------------------------------------------------------------------


def restart_fast(world: World) -> Ending | None:
    return _restart(world, "restart database", "fast", world.chance.uniform(0.2, 1.5))


def restart_immediate(world: World) -> Ending | None:
    return _restart(world, "crash database", "immediate", world.chance.uniform(0.2, 1.5))


def long_outage(world: World) -> Ending | None:
    """Longer than slots wait: they hand over and end with 3."""
    return _restart(world, "long outage", "fast", world.outage + 3.0)


def _restart(world: World, name: str, mode: str, seconds: float) -> Ending | None:
    if world.server.cluster.postmaster() is None:
        return None
    world.note(name)
    world.diary.note("disturbed")
    world.server.halt(mode)

    def start() -> None:
        world.server.start()
        world.diary.note("calm")

    return seconds, start


def drop_connections(world: World) -> Ending | None:
    try:
        connection = psycopg2.connect(world.url, connect_timeout=3)
    except psycopg2.OperationalError:
        return None
    world.note("drop connections")
    world.diary.note("disturbed")
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND usename = current_user"
            )
    finally:
        connection.close()
        world.diary.note("calm")
    return NOTHING


def refuse(world: World) -> Ending | None:
    return _partition(world, "refuse", 0.4 * world.heartbeat)


def refuse_long(world: World) -> Ending | None:
    return _partition(world, "refuse", 2.6 * world.heartbeat)


def blackhole(world: World) -> Ending | None:
    return _partition(world, "blackhole", 0.4 * world.heartbeat)


def blackhole_long(world: World) -> Ending | None:
    return _partition(world, "blackhole", 2.6 * world.heartbeat)


def _partition(world: World, how: str, seconds: float) -> Ending | None:
    whole = [h for h in world.targets if h.proxy and h.proxy.fault == "healthy"]
    if not whole:
        return None
    host = world.chance.choice(whole)
    assert host.proxy is not None
    long = " long" if seconds > world.heartbeat else ""
    world.note(f"{how}{long}", host=host.name)
    host.proxy.set("refuse" if how == "refuse" else "blackhole")

    def heal() -> None:
        assert host.proxy is not None
        host.proxy.set("healthy")
        world.note(f"{how} ends", host=host.name)

    return seconds, heal


# -- disks ------------------------------------------------------------------------------------


def corrupt_checkpoint(world: World) -> Ending | None:
    """Cut one short, or write into it, and kill the trainer that would use it."""
    slot = world.some_slot()
    trainer = slot.trainer if slot else None
    if not slot or not trainer:
        return None
    files = sorted(slot.host.checkpoints.glob("[0-9]*.ckpt"))
    if not files:
        return None
    world.note("corrupt checkpoint", slot, disk=True)
    send(trainer, signal.SIGSTOP)
    for file in files:
        damage(file, world.chance)
    send(trainer, signal.SIGKILL)
    return NOTHING


def damage(file: Path, chance: random.Random) -> None:
    try:
        content = bytearray(file.read_bytes())
        if chance.random() < 0.5:
            del content[len(content) // 2 :]
        else:
            content[len(content) // 2 :] = os.urandom(len(content) - len(content) // 2)
        file.write_bytes(content)
    except OSError:
        pass  # its owner removed it just now, or its disk is full


def full_disk(world: World) -> Ending | None:
    """Fill the file system of a host's checkpoints; where mounting is not permitted, take the
    directory away instead."""
    hosts = [h for h in world.targets if not (h.directory / "full").exists()]
    if not hosts:
        return None
    host = world.chance.choice(hosts)
    world.note("full disk", host=host.name, disk=True)
    marker = host.directory / "full"
    marker.touch()
    if os.path.ismount(host.checkpoints):
        filler = host.checkpoints / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

        def free() -> None:
            filler.unlink()
            marker.unlink()
    else:
        away = host.checkpoints.with_name("checkpoints-away")
        host.checkpoints.rename(away)
        host.checkpoints.touch()

        def free() -> None:
            host.checkpoints.unlink()
            away.rename(host.checkpoints)
            marker.unlink()

    def end() -> None:
        world.note("full disk ends", host=host.name, disk=True)
        free()

    return 1.5 * world.heartbeat, end


def mount_small(directory: Path) -> bool:
    """A file system of 256 KiB there, if this user may mount one."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "chaos", str(directory)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


# -- the object store -------------------------------------------------------------------------


def _trouble(world: World, kind: str) -> Ending | None:
    """Wrong for everybody, while trials go on; the slot that just wrote there is killed."""
    store, slot = world.store, world.some_slot()
    if store is None:
        return NOTHING
    if store.fault or not slot or slot.process is None:
        return None
    world.note(f"store {kind}", store=True)
    store.fault = kind
    process = slot.process

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        world.note("kill slot", slot)
        store.fault = ""
        world.note(f"store {kind} ends", store=True)

    return 1.2 * world.heartbeat, end


def store_away(world: World) -> Ending | None:
    return _trouble(world, "away")


def store_expired(world: World) -> Ending | None:
    return _trouble(world, "expired")


def store_half(world: World) -> Ending | None:
    return _trouble(world, "half")


OF_STORE: list[Callable[[World], Ending | None]] = [store_away, store_expired, store_half]

# -- steering ---------------------------------------------------------------------------------


def pause_study(world: World) -> Ending | None:
    world.note("pause study")
    world.steering.steer("pause", STUDY)
    return 0.8 * world.heartbeat, lambda: world.steering.steer("resume", STUDY)


def stop_study(world: World) -> Ending | None:
    """All slots end; new ones start when it goes on."""
    world.note("stop study")
    world.diary.note("disturbed")
    world.steering.steer("stop", STUDY)
    return 1.2 * world.heartbeat, lambda: world.steering.steer("resume", STUDY, calm=True)


def release_slot(world: World) -> Ending | None:
    slot = world.some_slot()
    identity = slot.state().get("slot") if slot else None
    if not slot or not identity:
        return None
    world.note("release slot", slot)
    world.steering.steer("stop", STUDY, "--slot", identity)
    return NOTHING


Fault = Callable[[World], Ending | None]
# how often in a hundred; the short form has one of each sort (main.REPRESENTATIVE)
FAULTS: dict[Fault, int] = {
    kill_trainer: 14,
    kill_slot: 12,
    power_loss: 6,
    stop_slot: 7,
    stop_slot_long: 6,
    hang_trainer: 3,
    preempt: 10,
    two_at_once: 3,
    restart_fast: 4,
    restart_immediate: 4,
    long_outage: 1,
    drop_connections: 6,
    refuse: 4,
    refuse_long: 3,
    blackhole: 3,
    blackhole_long: 3,
    corrupt_checkpoint: 5,
    full_disk: 3,
    pause_study: 2,
    stop_study: 1,
    release_slot: 4,
}


def deck(count: int, chance: random.Random) -> list[Fault]:
    """``count`` faults in a random order, every kind among them if there is room."""
    share = sum(FAULTS.values())
    faults = [
        fault for fault, often in FAULTS.items() for _ in range(max(1, often * count // share))
    ]
    while len(faults) < count:
        faults.append(chance.choice([kill_trainer, kill_slot, preempt, drop_connections]))
    rare = list(FAULTS)
    while len(faults) > count:
        extra = max(rare, key=faults.count)
        faults.remove(extra)
    chance.shuffle(faults)
    # all slots end by these; in the first half, nobody waits for the last of them at the end
    for fault in (long_outage, stop_study):
        if fault in faults[: count // 2]:
            faults.remove(fault)
            faults.insert(chance.randrange(count // 2, count), fault)
    return faults
