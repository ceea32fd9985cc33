"""Breaks the database of a good run in one place at a time: the checker has to see each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checker

ONE = "(SELECT trial_id FROM trials WHERE state = 'COMPLETE' ORDER BY trial_id LIMIT 1)"
TAMPERINGS = {
    "a finished trial that is gone": (
        "lost",
        f"UPDATE trials SET state = 'FAIL' WHERE trial_id = {ONE}",
    ),
    "a trial finished twice": (
        "doubled",
        "WITH twin AS (INSERT INTO trials (number, study_id, state, datetime_complete)"
        " SELECT (SELECT max(number) + 1 FROM trials), study_id, state, datetime_complete"
        f" FROM trials WHERE trial_id = {ONE} RETURNING trial_id),"
        " valued AS (INSERT INTO trial_values (trial_id, objective, value, value_type)"
        " SELECT twin.trial_id, 0, value, value_type FROM trial_values v, twin"
        f" WHERE v.trial_id = {ONE})"
        " INSERT INTO trial_system_attributes (trial_id, key, value_json)"
        f" SELECT twin.trial_id, key, value_json FROM trial_system_attributes a, twin"
        f" WHERE a.trial_id = {ONE}",
    ),
    "a value that changed in its last bit": (
        "wrong",
        "UPDATE trial_values SET value = value + 1.1102230246251565e-16"
        " WHERE value BETWEEN 0.5 AND 1",
    ),
    "an acknowledged epoch that is gone": (
        "lost",
        f"DELETE FROM trial_intermediate_values WHERE step = 2 AND trial_id = {ONE}",
    ),
    "a trial that still runs": (
        "stuck",
        f"UPDATE trials SET state = 'RUNNING' WHERE trial_id = {ONE}",
    ),
    "a write after the end": (
        "fenced writes",
        f"UPDATE trial_intermediate_values SET step = step WHERE trial_id = {ONE}",
    ),
    "a trial taken over late": (
        "late",
        "UPDATE trials t SET datetime_complete = datetime_complete + interval '1 hour'"
        " FROM trial_system_attributes a WHERE a.trial_id = t.trial_id AND a.key = 'paropt:end'"
        " AND a.value_json LIKE '%its worker was lost%'",
    ),
    "a password in the database": (
        "leaked",
        """UPDATE trial_system_attributes SET value_json = '{"message": "SECRET"}'"""
        f" WHERE key = 'paropt:end' AND trial_id = {ONE}",
    ),
}


def unseen(run: Path, connection: Any, secret: str) -> Iterator[str]:
    """The tamperings that the checker misses; the database stays as it was."""
    for name, (kind, statement) in TAMPERINGS.items():
        connection.rollback()
        with connection.cursor() as cursor:
            cursor.execute(statement.replace("SECRET", secret))
        verdict = checker.Verdict()
        checker.check(run, connection, verdict, secret=secret)
        connection.rollback()
        if not verdict.broken.get(kind):
            yield f"{name} ({kind}): {dict(verdict.broken)}"
