"""Whether a study's trials may run, and what else is stored of it beside its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.storage import trial_rows

State = Literal["run", "pause", "stop"]
Why = Literal[
    "budget", "space", "stopped", "timeout", "spent", "stale", "failures", "deleted",
]  # fmt: skip
Transaction = Callable[[], AbstractContextManager[Connection]]


class StudyEnded(StudyError):
    """There is nothing more to do in the study; ``reason`` says why, the message in a sentence."""

    def __init__(self, reason: Why, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StudyState:
    """The attributes of one study, by its number in the database."""

    def __init__(self, study: int, name: str, transaction: Transaction) -> None:
        self._study, self._name, self._transaction = study, name, transaction
        self.device_seconds: float | None = None  # that it may take, when it was read last

    def begin(self, connection: Connection, timeout: float | None) -> None:
        """Let trials run from now on, for ``timeout`` seconds if that is not None."""
        now = now_of(connection)
        attrs = self.read(connection)
        deadline = attrs.get(trial_rows.DEADLINE) if timeout is None else now + timeout
        changed: dict[str, Any] = {}
        if timeout is None and deadline is not None:
            # of a launch that is at work or about to be, or of one that is over
            since = attrs.get(trial_rows.DEADLINE_SINCE, 0.0)
            over = trial_rows.has_done_all(connection, self._study, since)
            deadline = deadline if deadline > now and not over else None
        elif timeout is not None:
            changed[trial_rows.DEADLINE_SINCE] = now
        changed[trial_rows.DEADLINE] = deadline
        state = attrs.get(trial_rows.STATE, {})
        if state.get("state") != "run" or "over" in state:
            changed[trial_rows.STATE] = {"state": "run", "since": now}
        trial_rows.set_study_attrs(connection, self._study, changed)

    def attributes(self) -> trial_rows.StudyAttributes:
        """What is stored of the study beside its trials."""
        with self._transaction() as connection:
            return self.read(connection)

    def read(self, connection: Connection) -> trial_rows.StudyAttributes:
        """:meth:`attributes`, in a transaction that there is.

        Raises:
            StudyEnded: the study was deleted.
        """
        attrs = trial_rows.study_attrs(connection, self._study)
        if trial_rows.DEFINITION not in attrs:
            raise StudyEnded("deleted", f"study {self._name!r} was deleted")
        self.device_seconds = attrs.get(trial_rows.DEVICE_SECONDS)
        return attrs

    def write(self, key: str, value: Any) -> None:
        """Replace one attribute."""
        with self._transaction() as connection:
            self.keep(connection)
            trial_rows.set_study_attrs(connection, self._study, {key: value})

    def keep(self, connection: Connection) -> None:
        """Nobody deletes the study until the end of this transaction; raises as :meth:`read`."""
        row = text("SELECT 1 FROM studies WHERE study_id = :study FOR KEY SHARE")
        connection.execute(row, {"study": self._study})
        self.read(connection)

    def state(self) -> State:
        """Whether trials may run; "stop" also when the time is over.

        Raises:
            StudyEnded: the study was deleted.
        """
        with self._transaction() as connection:
            attrs = self.read(connection)
            if overdue(connection, attrs):
                return "stop"
        found: State = attrs.get(trial_rows.STATE, {}).get("state", "run")
        return found

    def set_state(self, state: State, why: str = "") -> None:
        """Pauses, stops or resumes the study for all its workers."""
        with self._transaction() as connection:
            self.keep(connection)
            self.set_in(connection, state, {"message": why} if why else {})

    def say_over(self, connection: Connection, ended: StudyEnded) -> None:
        """Keep why there is nothing more to do, for those who look on."""
        state = self.read(connection).get(trial_rows.STATE, {})
        if state.get("over") != ended.reason:
            more = {key: state[key] for key in ("message", "failures") if key in state}
            self.set_in(connection, state.get("state", "run"), {**more, "over": ended.reason})

    def set_in(self, connection: Connection, state: State, more: Mapping[str, Any]) -> None:
        """:meth:`set_state`, in a transaction that there is."""
        value = {"state": state, "since": now_of(connection), **more}
        trial_rows.set_study_attrs(connection, self._study, {trial_rows.STATE: value})


def now_of(connection: Connection) -> float:
    """Seconds since 1970 by the server's clock, the only one that all workers share."""
    found = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    return float(found)


def seconds_left(attrs: trial_rows.StudyAttributes, now: float) -> float | None:
    """Of the time that the study may take: 0 when it is used up, None where there is no limit."""
    deadline = attrs.get(trial_rows.DEADLINE)
    return None if deadline is None else max(0.0, deadline - now)


def overdue(connection: Connection, attrs: trial_rows.StudyAttributes) -> bool:
    """Whether the study's time is over."""
    deadline = attrs.get(trial_rows.DEADLINE)
    return deadline is not None and now_of(connection) >= deadline
