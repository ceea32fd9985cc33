"""What has happened in a study, kept in memory and brought up to date with one statement."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy.engine import Connection

from paropt.search.space.parameter import Parameter
from paropt.storage import row_schema, trial_rows
from paropt.training.evaluation import epochs
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.limits import keeps, scaled_excesses
from paropt.training.evaluation.objective import Curve, Objective, honest

log = logging.getLogger(__name__)

OPEN = ("RUNNING", "WAITING")
LOST = "lost"  # why an attempt ended that another one continues
RETRAINED = "retrained_seconds"  # of epochs that the same record no longer holds
BEYOND = "constraint"  # why a trial ended whose model is beyond a limit


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Of thousands of records that are made none is thrown away: looking for some costs a third."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


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
    def valued(self) -> bool:
        """With a value: ended with one, or handed back after some epochs, so that it may go on.

        While it does, it keeps the value that it had; time that is over costs nothing learned."""
        return self.scored or (self.open and self.value is not None)

    @property
    def failed(self) -> bool:
        return not self.open and not self.scored and self.end.get("why") not in (LOST, BEYOND)

    @property
    def outcome(self) -> str:
        """complete, pruned, failed, beyond (a limit, and so ended), running or waiting."""
        if self.open or self.scored:
            return self.state.lower()
        return "beyond" if self.end.get("why") == BEYOND else "failed"

    @cached_property
    def reports(self) -> list[EpochReport]:
        """What each epoch ended in."""
        return epochs.reports(self.curves)

    def report(self, epoch: int) -> EpochReport | None:
        """That of one epoch, from 1; None if it has none."""
        return next((report for report in self.reports if report.epoch == epoch), None)

    @property
    def best_report(self) -> EpochReport | None:
        """That of the epoch which gave an ended trial its value."""
        return self.report(self.end.get("epoch") or 0)

    @cached_property
    def values(self) -> dict[str, float]:
        """What was recorded of it, by metric and measure; metrics are those of its best epoch, or
        while it runs of its last."""
        report = self.best_report or (self.reports[-1] if self.reports and self.open else None)
        found = honest(report) if report else {}
        return {**found, **epochs.costs(self.reports), **self.end.get("measures", {})}

    def keeps(self, objective: Objective) -> bool:
        """Whether it is within all limits; one that ended must have a value for each."""
        return not objective.limits or keeps(objective.limits, self.values)

    @cached_property
    def seconds(self) -> float:
        """Device seconds of training and ranking, of epochs that were trained again too."""
        told = sum(took for took in self.curves.get("seconds", ()) if took is not None)
        return float(told + self.meta.get(RETRAINED, 0.0))

    def curve(self, objective: Objective) -> Curve:
        """What every epoch is worth."""
        if objective.metric in self.curves and "conservative" not in self.curves:
            values: list[float | None] = self.curves[objective.metric]
            return values
        if objective not in self._worked_out:
            self._worked_out[objective] = objective.curve(self.reports)
        return self._worked_out[objective]

    @cached_property
    def _worked_out(self) -> dict[Objective, Curve]:
        return {}

    def worth(self, objective: Objective) -> float | None:
        """What trials are compared by, the mean of its best epochs; None without a value."""
        if self.value is None:
            return None
        found = objective.steady(self.curve(objective))
        return self.value if found is None else found


def _record(row: Any, meta: row_schema.RowSchema) -> Record | None:
    """A row of :func:`trial_rows.read_trials`; None if it is damaged, in whichever part."""
    trial, number, state, started, ended, value, attrs = row
    if number is None or not row_schema.is_value(value) or (state == "COMPLETE" and value is None):
        return None
    parts = []
    for key, kind in (*trial_rows.TRIAL.items(),):
        part = trial_rows.trial_attr(
            key, attrs.get(key, "{}"), meta if key == trial_rows.META else kind
        )
        if part is None:
            return None
        parts.append(part)
    return Record(trial, number, state, value, started, ended, *parts)


@functools.cache  # said once by a process, however often it looks
def _tell(study: str, unread: int) -> None:
    log.warning(
        "study %r is shown without %d trial%s, which cannot be read: another program changed what "
        "is stored of %s",
        study,
        unread,
        *(("", "it") if unread == 1 else ("s", "them")),
    )


@dataclass
class History:
    """The records of a study by id.

    Trials that other programs added, the ``strangers``, are not among them, nor are those that
    cannot be read any more, ``unread``: every process leaves out the same ones. ``meta`` is what a
    trial of this study may say of itself.
    """

    study: int
    name: str = ""
    meta: row_schema.RowSchema = row_schema.META
    records: dict[int, Record] = field(default_factory=dict)
    strangers: int = 0
    _unread: set[int] = field(default_factory=set)
    _open: set[int] = field(default_factory=set)
    _last: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self, connection: Connection) -> None:
        """Reads what is new, and again what had not ended."""
        with self._lock:
            rows = trial_rows.read_trials(connection, self.study, self._last, sorted(self._open))
            self._take_all(rows)

    def take(self, rows: Iterable[Any]) -> None:
        """What :meth:`refresh` would read, if somebody has read it already."""
        with self._lock:
            self._take_all(rows)

    def _take_all(self, rows: Iterable[Any]) -> None:
        with _uncollected():
            for row in rows:
                self._last = max(self._last, row[0])
                self._take(row)
        if self._unread:
            _tell(self.name, self.unread)

    def _take(self, row: Any) -> None:
        trial, state, attrs = row[0], row[2], row[6] or {}
        if trial_rows.META not in attrs:
            self.strangers += 1
            return
        record = _record(row, self.meta)
        if record is None:
            self.records.pop(trial, None)
            self._unread.add(trial)
        else:
            self.records[trial] = record
            self._unread.discard(trial)
        # a damaged one that still runs may be written anew
        (self._open.add if state in OPEN else self._open.discard)(trial)

    @property
    def unread(self) -> int:
        """How many trials cannot be read."""
        return len(self._unread)

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
            held = [self.records.get(trial) for trial in sorted(self._open)]
        return [record for record in held if record is not None and record.state in states]


def searched_values(parameters: Iterable[Parameter]) -> row_schema.Kind:
    """What a row may hold as values of some searched parameters, by label."""
    by_label = {parameter.label: parameter for parameter in parameters}

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(
            label in by_label and by_label[label].within(chosen) for label, chosen in value.items()
        )

    return row_schema.Kind("values of the space", holds)


def counts(lineages: Iterable[Record]) -> dict[str, int]:
    """Configurations by what became of them."""
    found = dict.fromkeys(("complete", "pruned", "failed", "running", "waiting"), 0)
    for record in lineages:
        found[record.outcome] = found.get(record.outcome, 0) + 1
    return found


def constraint_attributes(
    objective: Objective, values: Mapping[str, float], end: Mapping[str, Any]
) -> dict[str, float]:
    """What Optuna keeps of an ended trial's limits: above 0 where it is beyond one.

    What was not measured is beyond, unless the trial ended before it could be.
    """
    if not objective.limits:
        return {}
    known = scaled_excesses(objective.limits, values)
    if end.get("why") != BEYOND:
        known = {limit.text: 1.0 for limit in objective.limits} | known
    return {f"constraints:{limit}": value for limit, value in known.items()}


def best_first(lineages: Iterable[Record], objective: Objective) -> list[Record]:
    """Those with a value and within the limits, best first by their worth; of equals the earlier
    one. Trials that wait to go on are among them."""
    valued = [record for record in lineages if record.valued and record.keeps(objective)]
    return sorted(
        valued, key=lambda record: (-objective.key(record.worth(objective) or 0.0), record.number)
    )
