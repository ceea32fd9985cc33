"""Statements about a study as a whole: it goes, or gets another name, though slots write to it.

Optuna deletes row by row, and swallows it when a row that came meanwhile makes the database take
all of it back; it renames by copying, and a slot knows its study by its rows. Here each is one
transaction that first locks out whoever writes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from paropt.errors import StudyError
from paropt.files import readable
from paropt.names import quoted
from paropt.storage import trial_rows
from paropt.storage.engine import lock, storage_errors, transaction

T = TypeVar("T")
TRIES = 5  # of a transaction that another one crossed
CROSSED = ("40P01", "40001", "55P03")  # a deadlock, a lost race, a lock that did not come
# Optuna's tables whose rows belong to a trial, and to a study; a test compares them with Optuna's
OF_TRIALS = (
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_heartbeats",
)
OF_STUDIES = ("study_directions", "study_user_attributes", "study_system_attributes")

THIS_DATABASE = text("SELECT oid FROM pg_database WHERE datname = current_database()")
THIS_SERVER = text("SELECT system_identifier FROM pg_control_system()")
MAY_ASK = text("SELECT has_function_privilege('pg_control_system()', 'execute')")


def alone(engine: Engine, act: Callable[[Connection], T]) -> T:
    """What ``act`` returns in a transaction of its own, again if another one crossed it.

    Raises:
        StorageUnreachable: no answer, or the others did not give way.
    """
    for tried in range(TRIES):
        with storage_errors(engine.url):
            try:
                with engine.begin() as connection:
                    return act(connection)
            except OperationalError as error:
                if getattr(error.orig, "pgcode", None) not in CROSSED or tried == TRIES - 1:
                    raise
        time.sleep(0.05 * 2**tried)
    raise AssertionError("the last try returns or raises")


def identity(engine: Engine, name: str) -> str:
    """What no other study has, in whatever server, and every machine finds alike.

    Raises:
        StudyError: there is no such study.
        StorageUnreachable: no answer.
    """
    with transaction(engine) as connection:
        study = trial_rows.find_study(connection, name)
        if study is None:
            raise StudyError(f"there is no study {name!r}")
        database = connection.execute(THIS_DATABASE).scalar_one()
        server = "?"  # to a role that may not know; then two servers are told apart by less
        if connection.execute(MAY_ASK).scalar_one():
            server = connection.execute(THIS_SERVER).scalar_one()
    return f"{server}/{database}/{study}"


def folder(engine: Engine, name: str) -> str:
    """What a folder for a study's files is called: the same from every machine, however it spells
    the database, and another for every study, also for a later one of that name.

    Raises:
        StudyError: there is no such study.
        StorageUnreachable: no answer.
    """
    whole = f"{identity(engine, name)}\n{name}".encode("utf-8", "surrogatepass")
    return f"{readable(name, 40)}-{hashlib.sha256(whole).hexdigest()[:12]}"


def delete(connection: Connection, study: int) -> list[str]:
    """Delete a study, and the parts of its final tests; the names of what went.

    Its slots learn of it by their next heartbeat, and end. Looks at a test set stay counted, under
    a name that says that the study is gone: a test set stays looked at.

    Raises:
        StudyError: there is no such study.
    """
    name = name_of(connection, study)
    gone = []
    for identity, its_name in [(study, name), *parts(connection, name)]:
        _lock_out(connection, identity)
        _keep_looks(connection, identity, its_name)
        _delete_rows(connection, identity, its_name)
        gone.append(its_name)
    return gone


def rename(connection: Connection, study: int, new: str, slots: Callable[[str], object]) -> None:
    """Give a study, and the parts of its final tests, another name.

    ``slots`` tells of a study's name which slots work on it now, if any.

    Raises:
        StudyError: there is no such study, slots work on it, another one has that name, or it is
            part of a final test.
    """
    old = name_of(connection, study)
    lock(connection, "name", old)
    lock(connection, "name", new)
    if new == old:
        return
    if trial_rows.find_study(connection, new) is not None:
        raise StudyError(f"there is a study {new!r} already")
    if _plan(connection, study):
        raise StudyError(f"study {old!r} is part of a final test; rename the study that it tests")
    theirs = parts(connection, old)
    for identity, its_name in [(study, old), *theirs]:
        _lock_out(connection, identity)
        if slots(its_name):
            raise StudyError(
                f"slots work on study {its_name!r} and know it by this name; "
                f"{quoted('stop', its_name)} first"
            )
    for identity, its_name in [(study, old), *theirs]:
        renamed = new + its_name.removeprefix(old)
        connection.execute(
            text("UPDATE studies SET study_name = :new WHERE study_id = :study"),
            {"new": renamed, "study": identity},
        )
        _update_ours(connection, its_name, renamed)
    for identity, _ in theirs:
        stored = _definition(connection, identity)
        stored = {**stored, "plan": {**stored["plan"], "of": new}}
        trial_rows.set_study_attrs(connection, identity, {trial_rows.DEFINITION: stored})
    if _there(connection, "paropt_look"):
        connection.execute(
            text("UPDATE paropt_look SET study = :new WHERE study = :old"), {"new": new, "old": old}
        )


def name_of(connection: Connection, study: int) -> str:
    """
    Raises:
        StudyError: there is no such study.
    """
    found: str | None = connection.execute(
        text("SELECT study_name FROM studies WHERE study_id = :study"), {"study": study}
    ).scalar()
    if found is None:
        raise StudyError(f"there is no study with the number {study}; it was deleted")
    return found


def _lock_out(connection: Connection, study: int) -> None:
    """Nobody else writes to the study, its trials or anything of theirs until the end.

    In the order in which others lock: who asks for a trial, then trials, then the study's row.
    """
    lock(connection, "study", study)
    trials = "SELECT FROM trials WHERE study_id = :study ORDER BY trial_id FOR UPDATE"
    its_row = "SELECT FROM studies WHERE study_id = :study FOR UPDATE"
    for rows in (trials, its_row, trials):  # once more: those that came in between
        _execute(connection, rows, {"study": study})


def _delete_rows(connection: Connection, study: int, name: str) -> None:
    values: dict[str, Any] = {"study": study, "name": name}
    theirs = "trial_id IN (SELECT trial_id FROM trials WHERE study_id = :study)"
    if _there(connection, "paropt_lease"):
        _execute(connection, f"DELETE FROM paropt_lease WHERE {theirs} OR study = :name", values)
    if _there(connection, "paropt_slot"):
        _execute(connection, "DELETE FROM paropt_slot WHERE study = :name", values)
    for table in OF_TRIALS:
        _execute(connection, f"DELETE FROM {table} WHERE {theirs}", values)
    for table in ("trials", *OF_STUDIES, "studies"):
        _execute(connection, f"DELETE FROM {table} WHERE study_id = :study", values)


def _execute(connection: Connection, statement: str, values: dict[str, Any]) -> None:
    connection.execute(text(statement), values)


def _keep_looks(connection: Connection, study: int, name: str) -> None:
    if not _there(connection, "paropt_look"):
        return
    plan = _plan(connection, study)
    of, number = (plan["of"], plan["number"]) if plan else (name, None)
    connection.execute(
        text(
            "UPDATE paropt_look SET study = study || ' (deleted '"
            " || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || ')'"
            " WHERE study = :of AND (CAST(:number AS integer) IS NULL OR number = :number)"
        ),
        {"of": of, "number": number},
    )


def parts(connection: Connection, name: str) -> Sequence[tuple[int, str]]:
    """The studies of the final tests of a study."""
    begin = f"{name}.final-"
    rows = connection.execute(
        text(
            "SELECT study_id, study_name FROM studies WHERE starts_with(study_name, :begin)"
            " ORDER BY study_id"
        ),
        {"begin": begin},
    )
    found = [(identity, its_name) for identity, its_name in rows]
    return [part for part in found if (plan := _plan(connection, part[0])) and plan["of"] == name]


def _plan(connection: Connection, study: int) -> dict[str, Any]:
    plan = _definition(connection, study).get("plan") or {}
    return plan if isinstance(plan, dict) and {"of", "number"} <= plan.keys() else {}


def _definition(connection: Connection, study: int) -> dict[str, Any]:
    """What the study was made with, as it is stored; empty for one of another program."""
    stored = connection.execute(
        text("SELECT value_json FROM study_user_attributes WHERE study_id = :study AND key = :key"),
        {"study": study, "key": trial_rows.DEFINITION},
    ).scalar()
    try:
        found = json.loads(stored or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _update_ours(connection: Connection, old: str, new: str) -> None:
    for table in ("paropt_lease", "paropt_slot"):
        if _there(connection, table):
            connection.execute(
                text(f"UPDATE {table} SET study = :new WHERE study = :old"),
                {"new": new, "old": old},
            )


def _there(connection: Connection, table: str) -> bool:
    found: bool = connection.execute(
        text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table}
    ).scalar_one()
    return found
