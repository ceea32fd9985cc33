"""Who works on which trial, and who is there at all: paropt's own two tables.

A slot that works on a trial holds its *lease* and beats: it raises a counter. Another slot watches
the counters through an :class:`Observer`, and when one has not moved for the grace period it may
:meth:`Leases.seize` the lease. The old owner learns of it by its next beat.

No two clocks are ever compared. The observer measures, on its own monotonic clock, how long it has
*seen* a counter stand still; so it doesn't matter what time it is on the owner's machine, here, or
on the server, nor in which time zone. What the observer has not watched without a gap (the server
restarted, the connection broke, this machine slept), it does not hold against anybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, text

from paropt.storage import row_schema, trial_rows
from paropt.storage.engine import transaction

# the period, in seconds, that promises are made in: two of them, and a lost trial is taken over
HEARTBEAT = 30.0
_THERE = "SELECT to_regclass('paropt_lease') IS NOT NULL AND to_regclass('paropt_slot') IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often slots beat and how long observers wait, in seconds, out of one period.

    A lost trial is taken over after at most ``grace + look`` = 1.67 periods. A live slot that is
    cut off from a server that stays up is seen to stand still for at most
    ``gap + beat`` < ``grace`` before its observer, cut off too, starts watching anew.
    """

    heartbeat: float = HEARTBEAT

    @property
    def beat(self) -> float:
        """A slot raises its counter this often."""
        return self.heartbeat / 3

    @property
    def look(self) -> float:
        """An observer should look this often."""
        return self.heartbeat / 6

    @property
    def gap(self) -> float:
        """An observer that has not looked for longer has not watched."""
        return self.heartbeat / 2

    @property
    def grace(self) -> float:
        """A counter that stood still for so long belongs to nobody."""
        return 1.5 * self.heartbeat

    @property
    def settle(self) -> float:
        """How long an observer watches before it takes anything: every owner beats meanwhile."""
        return 2 * self.heartbeat


@dataclass(frozen=True, slots=True)
class Lease:
    """One trial's lease as the server has it; ``age`` is the server's seconds since the beat."""

    trial_id: int
    owner: str
    beats: int
    age: float
    gone: bool  # the owner ran on this machine, and its process has ended


@dataclass(frozen=True, slots=True)
class Stale:
    """A RUNNING trial that nobody works on. ``owner`` is None if it never had a lease."""

    trial_id: int
    owner: str | None
    beats: int
    age: float  # seconds that the observer saw no sign of life
    why: Literal["no heartbeat", "process ended", "no lease"]


@dataclass(frozen=True, slots=True)
class Beat:
    """What the server answers to a slot's beat."""

    mine: bool  # False: the trial was given away; stop it and write nothing
    command: str | None  # what somebody asked of this slot (``release``, say)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot as others see it; times are the server's, ``quiet`` is seconds since its beat."""

    id: str
    study: str
    host: str
    pid: int
    device: str
    slot: int
    command: str | None
    uptime: float
    quiet: float
    state: dict[str, Any] = field(default_factory=dict)
    gone: bool = False  # it ran on this machine, and its process has ended


class Leases:
    """The leases of all studies in one database. Every method raises StorageUnreachable."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @staticmethod
    def take(connection: Connection, study: str, trial_id: int, owner: str) -> None:
        """Make ``owner`` (a slot's id) the trial's owner, in the transaction that gives it out.

        So there is no trial without a lease, however slow its slot is. Whoever held one of it
        before, a trial that waited, held it wrongly.
        """
        connection.execute(
            text(
                "INSERT INTO paropt_lease AS held (trial_id, study, owner) VALUES (:trial, :study,"
                " :owner) ON CONFLICT (trial_id) DO UPDATE SET owner = excluded.owner,"
                " beats = held.beats + 1, beaten_at = clock_timestamp()"
            ),
            {"trial": trial_id, "study": study, "owner": owner},
        )

    def beat(self, trial_id: int, owner: str) -> bool:
        """Show that ``owner`` lives; False if the trial isn't its own any more."""
        return self._changes(
            "UPDATE paropt_lease SET beats = beats + 1, beaten_at = clock_timestamp()"
            " WHERE trial_id = :trial AND owner = :owner",
            trial=trial_id,
            owner=owner,
        )

    def drop(self, trial_id: int, owner: str) -> bool:
        """Give the trial up, after its end or when it is handed back; False if it wasn't ours."""
        return self._changes(
            "DELETE FROM paropt_lease WHERE trial_id = :trial AND owner = :owner",
            trial=trial_id,
            owner=owner,
        )

    def seize(self, stale: Stale) -> bool:
        """Take a stale trial from its owner; False if it beat again, or somebody was faster.

        Whoever gets True fails the trial and enqueues its next attempt.
        """
        if stale.owner is None:
            with transaction(self.engine) as connection:
                held = "SELECT count(*) FROM paropt_lease WHERE trial_id = :trial"
                found = connection.execute(text(held), {"trial": stale.trial_id}).scalar_one()
                return bool(found == 0)
        return self._changes(
            "DELETE FROM paropt_lease"
            " WHERE trial_id = :trial AND owner = :owner AND beats = :beats",
            trial=stale.trial_id,
            owner=stale.owner,
            beats=stale.beats,
        )

    def of(self, study: str) -> tuple[str, list[Lease]]:
        """The study's leases, and what tells one run of the server from the next."""
        with transaction(self.engine) as connection:
            run = connection.execute(text("SELECT pg_postmaster_start_time()::text")).scalar_one()
            rows = connection.execute(
                text(
                    "SELECT trial_id, owner, beats, machine, pid, born,"
                    f" coalesce({_since('lease.beaten_at')}, 0) AS age FROM paropt_lease lease"
                    " LEFT JOIN paropt_slot slot ON slot.id = lease.owner"
                    " WHERE lease.study = :study ORDER BY trial_id"
                ),
                {"study": study},
            ).all()
        return str(run), [
            Lease(r.trial_id, r.owner, r.beats, r.age, _ended_here(r.machine, r.pid, r.born))
            for r in rows
        ]

    def stale(self, study: str, grace: float) -> list[tuple[int, str, float]]:
        """(trial, owner, age) of leases whose beat is older than ``grace`` by the server's clock.

        For display. Taking a trial away needs an :class:`Observer`.
        """
        return [(v.trial_id, v.owner, v.age) for v in self.of(study)[1] if v.age > grace]

    def _changes(self, statement: str, **values: Any) -> bool:
        with transaction(self.engine) as connection:
            return connection.execute(text(statement), values).rowcount == 1


class Slots:
    """The slots of all studies in one database. Every method raises StorageUnreachable."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def register(self, study: str, *, device: str, slot: int, host: str | None = None) -> str:
        """Tell others that this process is a slot of ``study``; returns its id, a new one."""
        identity = uuid.uuid4().hex
        with transaction(self.engine) as connection:
            forget = "DELETE FROM paropt_slot WHERE beaten_at < clock_timestamp() - interval '7 d'"
            connection.execute(text(forget))
            connection.execute(
                text(
                    "INSERT INTO paropt_slot (id, study, host, machine, pid, born, device, slot)"
                    " VALUES (:id, :study, :host, :machine, :pid, :born, :device, :slot)"
                ),
                {
                    "id": identity,
                    "study": study,
                    "host": host or socket.gethostname(),
                    "machine": _machine(),
                    "pid": os.getpid(),
                    "born": _born(os.getpid()) or 0,
                    "device": device,
                    "slot": slot,
                },
            )
        return identity

    def beat(
        self, identity: str, state: dict[str, Any] | None = None, trial_id: int | None = None
    ) -> Beat:
        """One round trip: the slot lives, does what ``state`` says, and works on ``trial_id``.

        ``state`` None leaves the state shown as it was.
        """
        with transaction(self.engine) as connection:
            row = connection.execute(
                text(
                    "WITH held AS (UPDATE paropt_lease SET beats = beats + 1,"
                    " beaten_at = clock_timestamp() WHERE trial_id = :trial AND owner = :id"
                    " RETURNING 1), seen AS (UPDATE paropt_slot SET"
                    " beaten_at = clock_timestamp(),"
                    " state = coalesce(CAST(:state AS jsonb), state)"
                    " WHERE id = :id RETURNING command)"
                    " SELECT (SELECT count(*) FROM held) AS held,"
                    " (SELECT command FROM seen) AS command"
                ),
                {
                    "id": identity,
                    "trial": trial_id,
                    "state": None if state is None else json.dumps(_finite(state)),
                },
            ).one()
        return Beat(trial_id is None or row.held == 1, row.command)

    def leave(self, identity: str) -> None:
        """Take the slot off the list; its leases, if any, are left to the observers."""
        with transaction(self.engine) as connection:
            connection.execute(text("DELETE FROM paropt_slot WHERE id = :id"), {"id": identity})

    def alive(self, study: str | None = None, within: float = Rhythm().grace) -> list[Slot]:
        """The slots (of one study) that beat within so many seconds by the server's clock."""
        with transaction(self.engine) as connection:
            if not connection.execute(text(_THERE)).scalar():
                return []  # no worker was ever here, and who only looks makes no tables
            rows = connection.execute(
                text(
                    "SELECT id, study, host, pid, device, slot, CAST(state AS text) AS state,"
                    f" command, {_since('started')} AS uptime, {_since('beaten_at')} AS quiet,"
                    " machine, born"
                    " FROM paropt_slot WHERE (CAST(:study AS text) IS NULL OR study = :study)"
                    " AND isfinite(started) AND isfinite(beaten_at)"
                    " AND beaten_at > clock_timestamp() - make_interval(secs => :within)"
                    " ORDER BY study, host, slot, id"
                ),
                {"study": study, "within": within},
            ).all()
        return [_slot(row) for row in rows]

    def at_work(self, study: str) -> list[Slot]:
        """The slots of a study that may still write to it: within the grace of its heartbeat."""
        alive = self.alive(study, within=Rhythm(_heartbeat(self.engine, study)).grace)
        return [slot for slot in alive if not slot.gone]

    def command(
        self,
        study: str,
        command: str | None,
        *,
        host: str | None = None,
        identity: str | None = None,
    ) -> int:
        """Ask something of a study's slots: all, those of a host, or one (by its id's start).

        Returns how many slots it reaches; each finds it in the answer to its next beat.
        """
        with transaction(self.engine) as connection:
            done = connection.execute(
                text(
                    "UPDATE paropt_slot SET command = :command WHERE study = :study"
                    " AND (CAST(:host AS text) IS NULL OR host = :host)"
                    " AND (CAST(:id AS text) IS NULL OR starts_with(id, :id))"
                ),
                {"study": study, "command": command, "host": host, "id": identity},
            )
            return done.rowcount


def _heartbeat(engine: Engine, study: str) -> float:
    """A study's own; the usual one where it says none."""
    with transaction(engine) as connection:
        found = connection.execute(
            text(
                "SELECT value_json FROM study_user_attributes JOIN studies USING (study_id)"
                " WHERE study_name = :study AND key = :key"
            ),
            {"study": study, "key": trial_rows.DEFINITION},
        ).scalar()
    with contextlib.suppress(ValueError):
        value = json.loads(found or "{}").get("heartbeat")
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return HEARTBEAT


def _slot(row: Any) -> Slot:
    facts = {**row._mapping, "state": row_schema.said(row.state)}
    gone = _ended_here(facts.pop("machine"), row.pid, facts.pop("born"))
    return Slot(**facts, gone=gone)


class Observer:
    """One process's watch over a study's leases; it says which trials nobody works on.

    Call :meth:`observe` every ``rhythm.look`` seconds. Any error, a pause of more than
    ``rhythm.gap`` and a restart of the server begin the watch anew.
    """

    def __init__(
        self,
        leases: Leases,
        study: str,
        rhythm: Rhythm | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leases = leases
        self.study = study
        self.rhythm = rhythm or Rhythm()
        self._clock = clock
        self._server_run = ""
        self._since = self._last = float("-inf")
        # trial -> (what was seen, since when it has been seen so)
        self._seen: dict[int, tuple[Lease | None, float]] = {}

    def observe(self, running: Iterable[int] = ()) -> list[Stale]:
        """Look once.

        Args:
            running: the study's RUNNING trials (their database ids), read before this call; one
                without any lease for the grace period is reported too.

        Raises:
            StorageUnreachable: no answer; the watch begins anew.
        """
        try:
            server_run, leases = self.leases.of(self.study)
        except BaseException:
            self._server_run = ""
            raise
        now = self._clock()
        if server_run != self._server_run or now - self._last > self.rhythm.gap:
            self._server_run, self._since, self._seen = server_run, now, {}
        self._last = now
        found: dict[int, Lease | None] = {trial: None for trial in running}
        found.update((lease.trial_id, lease) for lease in leases)
        self._seen = {trial: self._note(trial, lease, now) for trial, lease in found.items()}
        judged = (self._judge(trial, *seen, now) for trial, seen in self._seen.items())
        return [stale for stale in judged if stale is not None]

    def _note(self, trial: int, lease: Lease | None, now: float) -> tuple[Lease | None, float]:
        old, since = self._seen.get(trial, (None, now))
        same = _sign_of_life(old) == _sign_of_life(lease)
        return lease, since if same else now

    def _judge(self, trial: int, lease: Lease | None, since: float, now: float) -> Stale | None:
        still = now - since
        if lease is not None and lease.gone and still >= self.rhythm.beat:
            # its process is dead: only its trainer, which sees that, needs a moment to end
            return Stale(trial, lease.owner, lease.beats, still, "process ended")
        if still < self.rhythm.grace or now - self._since < self.rhythm.settle:
            return None
        if lease is None:
            return Stale(trial, None, 0, still, "no lease")
        return Stale(trial, lease.owner, lease.beats, still, "no heartbeat")


def _since(column: str) -> str:
    """The seconds since a time; null of one that is infinite, which somebody else wrote."""
    seconds = f"extract(epoch FROM clock_timestamp() - {column})::float8"
    return f"CASE WHEN isfinite({column}) THEN {seconds} END"


def _sign_of_life(lease: Lease | None) -> tuple[str, int, bool] | None:
    return None if lease is None else (lease.owner, lease.beats, lease.gone)


def _finite(value: Any) -> Any:
    """JSON has no NaN, and PostgreSQL's refuses it."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _machine() -> str:
    """Names the process table that pids of this process belong to; empty where we can't tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> int | None:
    """When a process started, in ticks since the boot: with the pid it names one process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the name, in parentheses, may hold anything
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _ended_here(machine: str | None, pid: int | None, born: int | None) -> bool:
    """Whether that process was one of this machine and has ended; False where we can't tell."""
    if not machine or machine != _machine() or pid is None:
        return False
    return _born(pid) != born
