"""paropt's own two tables (beside Optuna's): made, and brought from one version to the next.

``STEPS[n]`` brings a database from version n to n + 1. Steps are only ever added at the end, and
only add (a table, a column that may be missing): slots of an older paropt may still be at work.
Version 1 is that of paropt 0.1.0, which wrote no number; from then on ``paropt_schema`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, text

from paropt.errors import StorageUnreachable, StudyError
from paropt.storage.engine import lock, place, transaction

INSUFFICIENT_PRIVILEGE = "42501"

STEPS: Sequence[str] = (
    """
CREATE TABLE IF NOT EXISTS paropt_lease (
    trial_id  bigint PRIMARY KEY,
    study     text NOT NULL,
    owner     text NOT NULL,
    beats     bigint NOT NULL DEFAULT 0,
    beaten_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX IF NOT EXISTS paropt_lease_study ON paropt_lease (study);
CREATE TABLE IF NOT EXISTS paropt_slot (
    id        text PRIMARY KEY,
    study     text NOT NULL,
    host      text NOT NULL,
    machine   text NOT NULL,
    pid       bigint NOT NULL,
    born      bigint NOT NULL,
    device    text NOT NULL,
    slot      integer NOT NULL,
    state     jsonb NOT NULL DEFAULT '{}',
    command   text,
    started   timestamptz NOT NULL DEFAULT clock_timestamp(),
    beaten_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX IF NOT EXISTS paropt_slot_study ON paropt_slot (study);
""",
)
_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS paropt_schema (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL)
"""


def create_tables(engine: Engine, steps: Sequence[str] = STEPS) -> None:
    """Make paropt's tables if they are missing, and bring older ones up to date.

    Any number of processes may do so at once.

    Raises:
        StorageUnreachable: no answer, or this user may not make or change tables there.
        StudyError: a newer paropt has changed them.
    """
    try:
        with transaction(engine) as connection:
            # a role without CREATE may use tables that somebody else made
            if _version(connection, engine, steps) == len(steps):
                return
            lock(connection, "slots")
            for step in steps[_version(connection, engine, steps) :]:
                for statement in filter(str.strip, step.split(";")):
                    connection.execute(text(statement))
            connection.execute(text(_VERSION_TABLE))
            connection.execute(
                text(
                    "INSERT INTO paropt_schema (version) VALUES (:version)"
                    " ON CONFLICT (one) DO UPDATE SET version = excluded.version"
                ),
                {"version": len(steps)},
            )
    except StudyError as error:
        refused = getattr(error.__cause__, "orig", None)
        if getattr(refused, "pgcode", None) != INSUFFICIENT_PRIVILEGE:
            raise
        first = str(refused).strip().splitlines()[0]
        raise StorageUnreachable(
            f"this user may not make paropt's tables ({first}); "
            "let it own the database, or GRANT CREATE ON SCHEMA public"
        ) from error


def _version(connection: Connection, engine: Engine, steps: Sequence[str]) -> int:
    """How many of ``steps`` were done.

    Raises:
        StudyError: more than these.
    """
    there = "to_regclass('{}') IS NOT NULL".format
    own = " AND ".join(map(there, ("paropt_lease", "paropt_slot")))
    numbered, of_0_1_0 = connection.execute(text(f"SELECT {there('paropt_schema')}, {own}")).one()
    if not numbered:
        return int(of_0_1_0)
    found = connection.execute(text("SELECT version FROM paropt_schema")).scalar()
    if found is not None and found > len(steps):
        raise StudyError(
            f"the tables at {place(engine.url)} are of version {found}, which a newer paropt made, "
            f"and this one knows {len(steps)}; use the newer one, or another database"
        )
    return int(found or 0)
