"""Leases and slots on a real server: nobody alive loses a trial, nobody dead keeps one."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from paropt.errors import StorageUnreachable
from paropt.storage.engine import open_engine
from paropt.storage.leases import Leases, Observer, Rhythm, Slots, Stale
from paropt.storage.schema import create_tables

STUDY = "shop"


@dataclass
class Clock:
    """The observer's monotonic clock, moved by the test."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    create_tables(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def leases(engine: Engine) -> Leases:
    return Leases(engine)


def _engine_with(url: str, connect: dict[str, str]) -> Engine:
    """Connections with settings of their own, not paropt's."""
    return create_engine(make_url(url).set(drivername="postgresql+psycopg2"), connect_args=connect)


def _watch(observer: Observer, clock: Clock, seconds: float, running: Any = ()) -> list[Stale]:
    """Look as often as a reaper does, for so long; what the last look found."""
    end = clock.now + seconds
    found = observer.observe(running)
    while clock.now < end:
        clock.now = min(clock.now + observer.rhythm.look, end)
        found = observer.observe(running)
    return found


def take(leases: Leases, study: str, trial: int, owner: str) -> None:
    with leases.engine.begin() as connection:
        leases.take(connection, study, trial, owner)


def test_rhythm_keeps_its_promises() -> None:
    rhythm = Rhythm(30)
    assert rhythm.grace + 2 * rhythm.look <= 60, "taken over within two heartbeat periods"
    assert rhythm.gap + rhythm.beat < rhythm.grace, "an outage that nobody noticed is harmless"
    assert rhythm.settle >= 2 * rhythm.heartbeat
    assert rhythm.look < rhythm.gap


def test_one_owner_at_a_time(leases: Leases) -> None:
    take(leases, STUDY, 7, "a")
    take(leases, STUDY, 7, "a")  # again, its answer was lost
    assert leases.beat(7, "a")
    assert not leases.beat(7, "b")
    assert not leases.drop(7, "b")
    assert leases.drop(7, "a")
    assert not leases.beat(7, "a")
    take(leases, STUDY, 7, "b")
    take(leases, STUDY, 7, "c")  # a trial that waited, and b did not let go of it
    assert not leases.beat(7, "b")
    assert leases.beat(7, "c")


def test_silent_owner_loses_its_trial_and_learns_of_it(leases: Leases) -> None:
    clock = Clock()
    observer = Observer(leases, STUDY, clock=clock)
    take(leases, STUDY, 1, "dead")
    take(leases, STUDY, 2, "alive")
    take(leases, "another study", 3, "dead")
    end = clock.now + 60
    while clock.now < end:
        assert observer.observe() == []
        clock.now += 5
        leases.beat(2, "alive")
    (stale,) = observer.observe()
    assert (stale.trial_id, stale.owner, stale.why) == (1, "dead", "no heartbeat")
    assert leases.seize(stale)
    assert not leases.seize(stale), "only one takes it"
    assert not leases.beat(1, "dead"), "the old owner is fenced"
    assert observer.observe() == []


def test_beat_at_the_last_moment_wins(leases: Leases) -> None:
    clock = Clock()
    observer = Observer(leases, STUDY, clock=clock)
    take(leases, STUDY, 1, "slow")
    (stale,) = _watch(observer, clock, 60)
    assert leases.beat(1, "slow")
    assert not leases.seize(stale)
    assert leases.beat(1, "slow")


def test_observer_takes_nothing_before_it_has_watched(leases: Leases) -> None:
    take(leases, STUDY, 1, "dead")
    clock = Clock()
    rhythm = Rhythm(30)
    observer = Observer(leases, STUDY, rhythm, clock)
    assert _watch(observer, clock, rhythm.settle - 0.1) == []
    clock.now += 0.2
    assert len(observer.observe()) == 1


def test_observer_that_slept_begins_anew(leases: Leases) -> None:
    """A laptop closed for an hour: others may have been cut off as well."""
    take(leases, STUDY, 1, "cut off")
    clock = Clock()
    observer = Observer(leases, STUDY, clock=clock)
    _watch(observer, clock, 30)
    clock.now += 3600
    assert observer.observe() == []
    assert _watch(observer, clock, observer.rhythm.settle - 0.1) == []
    clock.now += 0.2
    assert len(observer.observe()) == 1


def test_restart_of_the_server_gives_owners_two_heartbeats(own_postgres_server: Any) -> None:
    engine = open_engine(own_postgres_server.url)
    create_tables(engine)
    leases, clock = Leases(engine), Clock()
    observer = Observer(leases, STUDY, clock=clock)
    take(leases, STUDY, 1, "waiting for the server")
    assert _watch(observer, clock, observer.rhythm.settle - 5) == []
    own_postgres_server.stop()
    with pytest.raises(StorageUnreachable):
        observer.observe()
    own_postgres_server.start()
    clock.now += 10
    assert _watch(observer, clock, observer.rhythm.settle - 0.1) == []
    # a restart that the observer's pool of connections hid from it
    own_postgres_server.stop()
    own_postgres_server.start()
    clock.now += 1
    assert observer.observe() == []
    assert _watch(observer, clock, observer.rhythm.settle - 0.1) == []
    clock.now += 0.2
    (stale,) = observer.observe()
    assert stale.trial_id == 1
    engine.dispose()


def test_time_zones_and_clocks_do_not_matter(database_url: str) -> None:
    """Each session has a zone of its own, and the server's clock reads hours wrong."""
    engines = []
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin"):
        connect = {"options": f"-c timezone={zone}"}
        engines.append(_engine_with(database_url, connect))
    owner, watcher, other = (Leases(engine) for engine in engines)
    create_tables(engines[0])
    slots = Slots(engines[1])
    clock = Clock()
    observer = Observer(watcher, STUDY, clock=clock)
    slots.register(STUDY, device="cpu", slot=0)
    take(owner, STUDY, 1, "alive")
    take(owner, STUDY, 2, "dead")
    assert [slot.quiet < 30 for slot in Slots(engines[2]).alive(STUDY)] == [True]
    assert other.stale(STUDY, grace=30) == []
    with engines[2].begin() as connection:  # as if the server's clock had been set back and forth
        shift = "UPDATE paropt_lease SET beaten_at = beaten_at + interval '5 h'"
        connection.execute(text(f"{shift} WHERE trial_id = 2"))
        connection.execute(text(f"{shift.replace('+', '-')} WHERE trial_id = 1"))
    for _ in range(12):
        assert observer.observe() == []
        clock.now += 5
        assert owner.beat(1, "alive")
    assert [stale.trial_id for stale in observer.observe()] == [2]
    for engine in engines:
        engine.dispose()


def test_role_with_a_time_zone(database_url: str, engine: Engine, leases: Leases) -> None:
    take(leases, STUDY, 1, "a")
    with engine.begin() as connection:
        connection.execute(text("ALTER ROLE paropt SET timezone = 'Asia/Kathmandu'"))
    try:
        fresh = _engine_with(database_url, {})
        with fresh.connect() as connection:
            assert connection.execute(text("SHOW timezone")).scalar_one() == "Asia/Kathmandu"
        ((_, _, age),) = Leases(fresh).stale(STUDY, grace=-1)
        assert abs(age) < 60
        fresh.dispose()
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER ROLE paropt RESET timezone"))


def test_running_trial_without_a_lease(leases: Leases) -> None:
    """Somebody deleted it."""
    clock = Clock()
    observer = Observer(leases, STUDY, clock=clock)
    assert _watch(observer, clock, 60) == []
    assert _watch(observer, clock, observer.rhythm.grace - 0.1, running=[4]) == []
    clock.now += 0.2
    (stale,) = observer.observe(running=[4])
    assert (stale.trial_id, stale.owner, stale.why) == (4, None, "no lease")
    take(leases, STUDY, 4, "late")
    assert not leases.seize(stale), "somebody works on it by now"
    assert observer.observe(running=[4]) == []


def test_process_that_ended_on_this_machine_is_not_waited_for(
    database_url: str, leases: Leases
) -> None:
    program = (
        "import sys\n"
        "from paropt.storage.leases import Leases, Slots\n"
        "from paropt.storage.engine import open_engine\n"
        "engine = open_engine(sys.argv[1])\n"
        "slot = Slots(engine).register('shop', device='cpu', slot=0)\n"
        "with engine.begin() as connection:\n"
        "    Leases.take(connection, 'shop', 1, slot)\n"
        "print(slot, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, database_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    owner = process.stdout.readline().strip()
    clock = Clock()
    observer = Observer(leases, STUDY, clock=clock)
    assert _watch(observer, clock, 30) == []
    process.kill()
    process.communicate()
    assert _watch(observer, clock, observer.rhythm.beat - 0.1) == []
    clock.now += 0.2
    (stale,) = observer.observe()
    assert (stale.owner, stale.why) == (owner, "process ended")
    assert leases.seize(stale)


def test_slots_show_what_they_do_and_hear_commands(engine: Engine, leases: Leases) -> None:
    slots = Slots(engine)
    first = slots.register(STUDY, device="cuda:0", slot=0, host="rome")
    second = slots.register(STUDY, device="cpu", slot=1, host="oslo")
    slots.register("another study", device="cpu", slot=0, host="rome")
    take(leases, STUDY, 5, first)
    doing = {"trial": 5, "epoch": 3, "mrr@20": 0.25, "loss": math.nan}
    answer = slots.beat(first, doing, trial_id=5)
    assert (answer.mine, answer.command) == (True, None)
    assert [slot.id for slot in slots.alive(STUDY)] == [second, first]  # by host
    shown = slots.alive(STUDY)[1]
    assert shown.state == {"trial": 5, "epoch": 3, "mrr@20": 0.25, "loss": None}
    assert (shown.device, shown.host, shown.slot) == ("cuda:0", "rome", 0)
    assert len(slots.alive()) == 3
    assert slots.alive(STUDY, within=0) == []

    assert slots.command(STUDY, "release", host="rome") == 1
    assert slots.beat(first).command == "release"
    assert slots.beat(second).command is None
    assert slots.command(STUDY, "release", identity=second[:8]) == 1
    assert slots.command(STUDY, None) == 2
    assert slots.beat(second).command is None
    assert slots.alive(STUDY)[1].state["epoch"] == 3, "a beat without a state keeps it"

    assert not slots.beat(second, trial_id=5).mine, "another slot's trial"
    leases.drop(5, first)
    assert not slots.beat(first, trial_id=5).mine
    slots.leave(first)
    assert [slot.id for slot in slots.alive(STUDY)] == [second]


def test_many_create_the_tables_at_once(database_url: str) -> None:
    errors: list[BaseException] = []
    gate = threading.Barrier(16)

    def create() -> None:
        engine = open_engine(database_url)
        try:
            gate.wait()
            create_tables(engine)
            Slots(engine).register(STUDY, device="cpu", slot=0)
        except BaseException as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=create) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_only_one_of_many_seizes(database_url: str, leases: Leases) -> None:
    take(leases, STUDY, 1, "dead")
    stale = Stale(1, "dead", 0, 60.0, "no heartbeat")
    engines = [open_engine(database_url) for _ in range(8)]
    gate, won = threading.Barrier(8), []

    def seize(engine: Engine) -> None:
        mine = Leases(engine)
        gate.wait()
        if mine.seize(stale):
            won.append(engine)

    threads = [threading.Thread(target=seize, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    for engine in engines:
        engine.dispose()


def test_user_who_may_not_make_tables(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE paropt_lease, paropt_slot"))
    refused = _engine_with(database_url, {"options": "-c search_path=pg_catalog"})
    with pytest.raises(StorageUnreachable, match="may not make paropt's tables"):
        create_tables(refused)
    refused.dispose()
