"""What has happened in a study, kept in memory and brought up to date with one statement."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy.engine import Connection

from paropt.search import ledger
from paropt.search.pruning import Curve

OPEN = ("RUNNING", "WAITING")
LOST = "lost"  # why an attempt ended that another one continues


def key_of(searched: Mapping[str, Any]) -> str:
    """What tells configurations apart: values are on their grids, so their text will do."""
    return json.dumps(searched, sort_keys=True)


@dataclass(frozen=True)
class Record:
    """One attempt at one configuration, as the database has it."""

    id: int
    number: int
    state: str
    value: float | None
    started: datetime | None
    ended: datetime | None
    meta: Mapping[str, Any]
    owner: Mapping[str, Any]
    curves: Mapping[str, list[Any]]
    end: Mapping[str, Any]

    # cached, because every ask looks at all records

    @cached_property
    def root(self) -> int:
        root: int = self.meta["root"]
        return root

    @cached_property
    def ended_at(self) -> float:
        """Seconds since 1970; 0 while it is open."""
        return self.ended.replace(tzinfo=UTC).timestamp() if self.ended else 0.0

    @cached_property
    def key(self) -> str:
        """What tells configurations apart."""
        return key_of(self.meta["searched"])

    @property
    def open(self) -> bool:
        return self.state in OPEN

    @property
    def scored(self) -> bool:
        """Ended with a value: what a budget counts."""
        return self.state in ("COMPLETE", "PRUNED") and self.value is not None

    @property
    def failed(self) -> bool:
        return not self.open and not self.scored and self.end.get("why") != LOST

    @property
    def outcome(self) -> str:
        """complete, pruned, failed, running or waiting."""
        if self.open or self.scored:
            return self.state.lower()
        return "failed"

    def curve(self, metric: str) -> Curve:
        values: list[float | None] = self.curves.get(metric, [])
        return values


def _loads(attrs: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(attrs.get(key, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _record(row: Any) -> Record | None:
    trial, number, state, started, ended, value, attrs = row
    attrs = attrs or {}
    meta = _loads(attrs, ledger.META)
    if not {"root", "index", "attempt", "model", "params", "searched", "seed"} <= meta.keys():
        return None  # not made by paropt
    return Record(
        id=trial,
        number=number,
        state=state,
        value=value,
        started=started,
        ended=ended,
        meta=meta,
        owner=_loads(attrs, ledger.OWNER),
        curves=_loads(attrs, ledger.CURVE),
        end=_loads(attrs, ledger.END),
    )


@dataclass
class History:
    """The records of a study by id. Trials that other programs added are not among them."""

    study: int
    records: dict[int, Record] = field(default_factory=dict)
    strangers: int = 0
    _open: set[int] = field(default_factory=set)
    _last: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self, connection: Connection) -> None:
        """Reads what is new, and again what had not ended."""
        with self._lock:
            for row in ledger.read_trials(connection, self.study, self._last, sorted(self._open)):
                trial = row[0]
                self._last = max(self._last, trial)
                record = _record(row)
                if record is None:
                    self.strangers += 1
                    continue
                self.records[trial] = record
                (self._open.add if record.open else self._open.discard)(trial)

    def all(self) -> list[Record]:
        with self._lock:
            return list(self.records.values())

    def lineages(self) -> list[Record]:
        """Of every configuration its latest attempt, in the order of their first."""
        latest: dict[int, Record] = {}
        for record in self.all():
            latest[record.root] = record
        return list(latest.values())

    def in_state(self, *states: str) -> list[Record]:
        with self._lock:
            held = [self.records[trial] for trial in sorted(self._open)]
        return [record for record in held if record.state in states]


def counts(lineages: Iterable[Record]) -> dict[str, int]:
    """Configurations by what became of them."""
    found = dict.fromkeys(("complete", "pruned", "failed", "running", "waiting"), 0)
    for record in lineages:
        found[record.outcome] += 1
    return found


def best_first(lineages: Iterable[Record]) -> list[Record]:
    """Those with a value, best first; of equals the earlier one."""
    scored = [record for record in lineages if record.scored]
    return sorted(scored, key=lambda record: (-(record.value or 0.0), record.number))
