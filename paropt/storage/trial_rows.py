"""The statements that write trials, each one transaction on Optuna's tables.

Optuna's own storage writes an attribute, a value and a state in transactions of their own, and asks
nobody whether the trial is still the caller's. Here every write locks the trial's row, compares the
owner's token and writes everything or nothing, so that a worker which was cut off can never
overwrite what its successor does: there is no window between the check and the write.
The tables are those of Optuna's schema v3.2.0.a, which Optuna and its dashboard go on reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.storage import row_schema
from paropt.storage.report_schema import REPORT as REPORTED

META = "paropt:trial"  # what the trial is: never changes
OWNER = "paropt:owner"  # who runs it, with the token that its writes must carry
CURVE = "paropt:curve"  # what every epoch reported
END = "paropt:end"  # how it ended, or why it waits again

TRIAL: Mapping[str, row_schema.RowSchema] = {
    META: row_schema.META,
    OWNER: row_schema.OWNER,
    CURVE: row_schema.CURVES,
    END: row_schema.END,
}

DEFINITION = "paropt:definition"
STATE = "paropt:state"
BUDGET = "paropt:budget"
DEADLINE = "paropt:deadline"
DEADLINE_SINCE = "paropt:deadline_since"  # when a launch set it
DEVICE_SECONDS = "paropt:device_seconds"  # that trials may take on all slots together
STALE = "paropt:stale"  # after so many trials without a better one the study ends
FLOOR = "paropt:floor"
NOTE = "paropt:note"
REPORT = "paropt:report"
# what it holds, and what mends it
STUDY: Mapping[str, tuple[row_schema.RowSchema, str]] = {
    STATE: (row_schema.STATE, "; 'paropt resume STUDY' writes it anew"),
    BUDGET: (
        row_schema.optional(row_schema.whole()),
        "; 'paropt launch --study STUDY --trials N' writes it anew",
    ),
    DEADLINE: (
        row_schema.optional(row_schema.number()),
        "; 'paropt launch --study STUDY --timeout 2h' writes it anew",
    ),
    DEVICE_SECONDS: (
        row_schema.optional(row_schema.number()),
        "; 'paropt launch --study STUDY --device-hours H' writes it anew",
    ),
    STALE: (
        row_schema.optional(row_schema.whole()),
        "; 'paropt launch --study STUDY --stop-after-stale N' writes it anew",
    ),
    FLOOR: (row_schema.FLOOR, ""),
    NOTE: (row_schema.TEXT, ""),
    REPORT: (REPORTED, "; 'paropt final STUDY --again' makes another"),
}

NOW = "(now() AT TIME ZONE 'UTC')"  # Optuna keeps naive UTC; the server's clock is the only one


@dataclass(frozen=True)
class StoredParam:
    """A parameter as Optuna stores it."""

    label: str
    internal: float
    distribution: str


def dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def create_study(
    connection: Connection,
    name: str,
    metric: str,
    attrs: Mapping[str, Any],
    direction: str = "maximize",
) -> int:
    """A study that maximises (or minimises) ``metric``, with its attributes, all at once."""
    study: int = connection.execute(
        text("INSERT INTO studies (study_name) VALUES (:name) RETURNING study_id"), {"name": name}
    ).scalar_one()
    connection.execute(
        text(
            "INSERT INTO study_directions (direction, study_id, objective)"
            " VALUES (CAST(:direction AS studydirection), :study, 0)"
        ),
        {"study": study, "direction": direction.upper()},
    )
    connection.execute(
        text(
            "INSERT INTO study_system_attributes (study_id, key, value_json)"
            " VALUES (:study, 'study:metric_names', :names)"
        ),
        {"study": study, "names": dumps([metric])},
    )
    set_study_attrs(connection, study, attrs)
    return study


def find_study(connection: Connection, name: str) -> int | None:
    found: int | None = connection.execute(
        text("SELECT study_id FROM studies WHERE study_name = :name"), {"name": name}
    ).scalar()
    return found


class StudyAttributes:
    """A study's attributes that paropt wrote, each checked when it is asked for."""

    def __init__(self, texts: Mapping[str, Any]) -> None:
        self._texts = texts

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def get(self, key: str, default: Any = None) -> Any:
        """
        Raises:
            StudyError: another program wrote something else there.
        """
        if key not in self._texts:
            return default
        kind, remedy = STUDY.get(key, (row_schema.ANYTHING, ""))
        try:
            value = row_schema.loads(self._texts[key])
        except ValueError as error:
            raise StudyError(f"the study's {key!r} is damaged: {error}{remedy}") from None
        if fault := kind.fault(value):
            raise StudyError(f"the study's {key!r} is damaged: it{fault}{remedy}")
        return value


def study_attrs(connection: Connection, study: int) -> StudyAttributes:
    """The study's attributes that paropt wrote."""
    rows = connection.execute(
        text(
            "SELECT key, value_json FROM study_user_attributes"
            " WHERE study_id = :study AND key LIKE 'paropt:%'"
        ),
        {"study": study},
    )
    return StudyAttributes({key: value for key, value in rows})


def set_study_attrs(connection: Connection, study: int, attrs: Mapping[str, Any]) -> None:
    for key, value in attrs.items():
        connection.execute(
            text(
                "INSERT INTO study_user_attributes (study_id, key, value_json)"
                " VALUES (:study, :key, :value)"
                " ON CONFLICT (study_id, key) DO UPDATE SET value_json = EXCLUDED.value_json"
            ),
            {"study": study, "key": key, "value": dumps(value)},
        )


def insert_trial(
    connection: Connection,
    study: int,
    state: str,
    params: Sequence[StoredParam],
    system: Mapping[str, Any],
    user: Mapping[str, Any],
) -> tuple[int, int]:
    """A new trial; returns its id and number. Numbers are dense, as Optuna's.

    Raises:
        StudyError: the study was deleted.
    """
    found = connection.execute(
        text("SELECT 1 FROM studies WHERE study_id = :study FOR UPDATE"), {"study": study}
    ).scalar()
    if found is None:
        raise StudyError("the study was deleted while it was searched")
    trial, number = connection.execute(
        text(
            "INSERT INTO trials (number, study_id, state, datetime_start)"
            " SELECT count(*), :study, CAST(:state AS trialstate),"
            f" CASE WHEN :state = 'RUNNING' THEN {NOW} END"
            " FROM trials WHERE study_id = :study RETURNING trial_id, number"
        ),
        {"study": study, "state": state},
    ).one()
    if params:
        connection.execute(
            text(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
                " SELECT :trial, * FROM unnest(CAST(:labels AS text[]),"
                " CAST(:values AS double precision[]), CAST(:distributions AS text[]))"
            ),
            {
                "trial": trial,
                "labels": [p.label for p in params],
                "values": [p.internal for p in params],
                "distributions": [p.distribution for p in params],
            },
        )
    set_attrs(connection, "system", trial, system)
    set_attrs(connection, "user", trial, user)
    return trial, number


def set_attrs(connection: Connection, kind: str, trial: int, attrs: Mapping[str, Any]) -> None:
    """``kind`` is "system" (paropt's own) or "user" (what people look at)."""
    if not attrs:
        return
    connection.execute(
        text(
            f"INSERT INTO trial_{kind}_attributes (trial_id, key, value_json)"
            " SELECT :trial, * FROM unnest(CAST(:keys AS text[]), CAST(:values AS text[]))"
            " ON CONFLICT (trial_id, key) DO UPDATE SET value_json = EXCLUDED.value_json"
        ),
        {"trial": trial, "keys": list(attrs), "values": [dumps(v) for v in attrs.values()]},
    )


@dataclass(frozen=True)
class Held:
    """A trial's row, locked until the transaction ends, without attributes that are damaged."""

    state: str
    attrs: Mapping[str, Any]

    @property
    def token(self) -> str | None:
        token: str | None = self.attrs.get(OWNER, {}).get("token")
        return token


def has_done_all(connection: Connection, study: int, since: float) -> bool:
    """Whether a trial of the study has ended since then (seconds since 1970), and none runs."""
    running, ended = connection.execute(
        text(
            "SELECT count(*) FILTER (WHERE state = 'RUNNING'), max(datetime_complete)"
            " FROM trials WHERE study_id = :study"
        ),
        {"study": study},
    ).one()
    return not running and ended is not None and ended.replace(tzinfo=UTC).timestamp() >= since


def hold(connection: Connection, trial: int) -> Held | None:
    """Locks a trial's row, then reads it: in this order nothing read can be stale."""
    state = connection.execute(
        text("SELECT CAST(state AS text) FROM trials WHERE trial_id = :trial FOR UPDATE"),
        {"trial": trial},
    ).scalar()
    if state is None:
        return None
    rows = connection.execute(
        text(
            "SELECT key, value_json FROM trial_system_attributes"
            " WHERE trial_id = :trial AND key LIKE 'paropt:%'"
        ),
        {"trial": trial},
    )
    found = {key: trial_attr(key, value, TRIAL[key]) for key, value in rows if key in TRIAL}
    return Held(state, {key: value for key, value in found.items() if value is not None})


def trial_attr(key: str, text: Any, kind: row_schema.RowSchema) -> dict[str, Any] | None:
    """The object that an attribute of a trial holds; None if it is damaged."""
    try:
        value: dict[str, Any] = row_schema.loads(text)
    except ValueError:
        return None
    return None if kind.fault(value) else value


def set_state(connection: Connection, trial: int, state: str, value: float | None = None) -> None:
    """Moves a held trial; the server's clock says when it began or ended.

    One that runs keeps the value that it has; any other has this one, or none.
    """
    when = {"RUNNING": f", datetime_start = {NOW}", "WAITING": ""}
    stamp = when.get(state, f", datetime_complete = {NOW}")
    connection.execute(
        text(
            f"UPDATE trials SET state = CAST(:state AS trialstate){stamp} WHERE trial_id = :trial"
        ),
        {"trial": trial, "state": state},
    )
    if value is None and state != "RUNNING":
        connection.execute(
            text("DELETE FROM trial_values WHERE trial_id = :trial"), {"trial": trial}
        )
    elif value is not None:
        connection.execute(
            text(
                "INSERT INTO trial_values (trial_id, objective, value, value_type)"
                " VALUES (:trial, 0, :value, 'FINITE') ON CONFLICT (trial_id, objective)"
                " DO UPDATE SET value = EXCLUDED.value, value_type = EXCLUDED.value_type"
            ),
            {"trial": trial, "value": value},
        )


def set_curve(
    connection: Connection, trial: int, curve: Mapping[str, Any], values: Sequence[float | None]
) -> None:
    """Stores what all epochs reported; Optuna sees what they are worth as intermediate values."""
    steps = [epoch for epoch, value in enumerate(values, 1) if value is not None]
    connection.execute(
        text("DELETE FROM trial_intermediate_values WHERE trial_id = :trial AND step > :last"),
        {"trial": trial, "last": len(values)},
    )
    connection.execute(
        text(
            "INSERT INTO trial_intermediate_values"
            " (trial_id, step, intermediate_value, intermediate_value_type)"
            " SELECT :trial, step, value, 'FINITE'"
            " FROM unnest(CAST(:steps AS integer[]), CAST(:values AS double precision[]))"
            " AS reported(step, value)"
            " ON CONFLICT (trial_id, step) DO UPDATE"
            " SET intermediate_value = EXCLUDED.intermediate_value,"
            " intermediate_value_type = EXCLUDED.intermediate_value_type"
        ),
        {
            "trial": trial,
            "steps": steps,
            "values": [values[step - 1] for step in steps],
        },
    )
    set_attrs(connection, "system", trial, {CURVE: curve})


def copy_trial(
    connection: Connection,
    trial: int,
    study: int,
    system: Mapping[str, Any],
    *,
    value: bool = False,
) -> tuple[int, int]:
    """A WAITING trial with the same parameters and reported values, and its own ``system``.

    ``value``: also with the value that it has, having waited once before.
    """
    copy, number = insert_trial(connection, study, "WAITING", [], system, {})
    copied = {
        "trial_params": "param_name, param_value, distribution_json",
        "trial_intermediate_values": "step, intermediate_value, intermediate_value_type",
        **({"trial_values": "objective, value, value_type"} if value else {}),
    }
    for table, columns in copied.items():
        connection.execute(
            text(
                f"INSERT INTO {table} (trial_id, {columns})"
                f" SELECT :copy, {columns} FROM {table} WHERE trial_id = :trial"
            ),
            {"copy": copy, "trial": trial},
        )
    return copy, number


def _known(column: str) -> str:
    """A time if Python has it, else null: PostgreSQL knows infinity and the year 20000."""
    return f"CASE WHEN t.{column} BETWEEN '0001-01-02' AND '9999-12-30' THEN t.{column} END"


def read_trials(connection: Connection, study: int, after: int, also: Sequence[int]) -> list[Any]:
    """Trials with an id above ``after`` or in ``also``, in the order of their ids.

    Rows of (trial_id, number, state, datetime_start, datetime_complete, value, attrs), where attrs
    maps keys to JSON text.
    """
    wanted = "t.study_id = :study AND (t.trial_id > :after OR t.trial_id = ANY(:also))"
    values = {"study": study, "after": after, "also": list(also)}
    return list(connection.execute(text(_trials(wanted)), values))


def read_trials_of(connection: Connection, studies: Sequence[int]) -> Mapping[int, list[Any]]:
    """All trials of some studies, by study: rows as of :func:`read_trials`."""
    found: dict[int, list[Any]] = {study: [] for study in studies}
    statement = text(_trials("t.study_id = ANY(:studies)", ", t.study_id"))
    for row in connection.execute(statement, {"studies": list(studies)}):
        found[row.study_id].append(row[:-1])
    return found


def _trials(wanted: str, more: str = "") -> str:
    return (
        f"SELECT t.trial_id, t.number, CAST(t.state AS text), {_known('datetime_start')},"
        f" {_known('datetime_complete')}, v.value, a.attrs{more} FROM trials t"
        " LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0"
        " LEFT JOIN LATERAL (SELECT json_object_agg(s.key, s.value_json) AS attrs"
        "  FROM trial_system_attributes s"
        "  WHERE s.trial_id = t.trial_id AND s.key LIKE 'paropt:%') a ON true"
        f" WHERE {wanted} ORDER BY t.trial_id"
    )
