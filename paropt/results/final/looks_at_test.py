"""Who has looked at a test set: a final test counts once, a second look must be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.search.study.plan import FinalPlan
from paropt.storage.engine import lock

_LOOKS = """
CREATE TABLE IF NOT EXISTS paropt_look (
    fingerprint text NOT NULL,
    study       text NOT NULL,
    number      integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (fingerprint, study, number))
"""


@dataclass(frozen=True)
class Look:
    """A final test that judged on a test set, or a training that did (its ``study`` says so)."""

    study: str
    number: int
    at: datetime

    def to_json(self) -> dict[str, Any]:
        return {"study": self.study, "number": self.number, "at": self.at.isoformat("T", "seconds")}


def looks(connection: Connection, fingerprint: str) -> list[Look]:
    """Who has looked at the test set of this data, in order."""
    if not connection.execute(text("SELECT to_regclass('paropt_look') IS NOT NULL")).scalar():
        return []
    rows = connection.execute(
        text(
            "SELECT study, number, at FROM paropt_look WHERE fingerprint = :fingerprint"
            " ORDER BY at, study, number"
        ),
        {"fingerprint": fingerprint},
    )
    return [Look(*row) for row in rows]


def count_looks(connection: Connection, fingerprint: str, found: Sequence[Look]) -> None:
    """Count looks that were noted elsewhere, each once."""
    if not found:
        return
    lock(connection, "looks", "all")
    connection.execute(text(_LOOKS))
    for look in found:
        connection.execute(
            text(
                "INSERT INTO paropt_look (fingerprint, study, number, at)"
                " VALUES (:fingerprint, :study, :number, :at) ON CONFLICT DO NOTHING"
            ),
            {
                "fingerprint": fingerprint,
                "study": look.study,
                "number": look.number,
                "at": look.at,
            },
        )


def check_looks(connection: Connection, fingerprint: str, plan: FinalPlan) -> None:
    """Raises :class:`StudyError` if another final test looked there, and the plan says not again.

    A test set looked at twice is a validation set.
    """
    if plan.again:
        return
    others = [x for x in looks(connection, fingerprint) if (x.study, x.number) != _key(plan)]
    if others:
        first = others[0]
        times = "once" if len(others) == 1 else f"{len(others)} times"
        raise StudyError(
            f"the test set of data {fingerprint[:12]} was looked at {times} (first by "
            f"{first.study!r} on {first.at:%Y-%m-%d}), and looked at again it is a validation set; "
            "add --again to do so, which the report will say"
        )


def take_look(connection: Connection, fingerprint: str, plan: FinalPlan) -> list[Look]:
    """Count this final test's look, once; all looks up to this one.

    Of two that come at the same time without ``again``, one is refused.

    Raises:
        StudyError: see :func:`check_looks`.
    """
    lock(connection, "looks", "all")
    connection.execute(text(_LOOKS))
    check_looks(connection, fingerprint, plan)
    connection.execute(
        text(
            "INSERT INTO paropt_look (fingerprint, study, number)"
            " VALUES (:fingerprint, :study, :number) ON CONFLICT DO NOTHING"
        ),
        {"fingerprint": fingerprint, "study": plan.of, "number": plan.number},
    )
    found = looks(connection, fingerprint)
    own = [(look.study, look.number) for look in found].index(_key(plan))
    return found[: own + 1]


def _key(plan: FinalPlan) -> tuple[str, int]:
    return plan.of, plan.number
