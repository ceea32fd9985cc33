"""Events as columns: the form that a log has between its file and its encoded splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]


def counted(n: int) -> Ints:
    """0 … n − 1 as int32 where that holds them: of a large log that is half the memory."""
    return np.arange(n, dtype=np.int32 if n <= np.iinfo(np.int32).max else np.int64)


@dataclass(frozen=True)
class Events:
    """Parallel columns [E], sorted by (session, order in the session, raw row).

    ``session`` and ``item`` are codes into vocabularies kept elsewhere; ``time`` is int64
    milliseconds, or the running number of the event where a log has only an order; ``row`` is the
    event's row over all input files, which orders events of a session that have one time.
    ``user`` holds codes as well, −1 where unknown, or nothing at all.
    """

    session: Ints
    item: Ints
    time: Ints
    row: Ints
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    user: Ints | None = None

    def __len__(self) -> int:
        return len(self.session)

    def take(self, which: Bools | Ints) -> Events:
        """The events that a mask or an index array picks, in its order."""
        if which.dtype == bool and which.all():
            return self
        return Events(
            self.session[which],
            self.item[which],
            self.time[which],
            self.row[which],
            {name: column[which] for name, column in self.columns.items()},
            None if self.user is None else self.user[which],
        )

    def starts(self) -> Ints:
        """Where each session begins [S]; sessions must be contiguous."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.r_[True, self.session[1:] != self.session[:-1]])

    def lengths(self) -> Ints:
        """Events per session [S]."""
        lengths: Ints = np.diff(np.r_[self.starts(), len(self)])
        return lengths

    def session_users(self) -> Ints:
        """The user of each session [S]: the first that its events name, −1 where none does.

        Whoever logs in meanwhile was the same before.
        """
        assert self.user is not None
        starts = self.starts()
        if not len(starts):
            return np.zeros(0, np.int64)
        named = np.where(self.user >= 0, np.arange(len(self)), len(self))
        first = np.minimum.reduceat(named, starts)
        users = self.user[first.clip(max=len(self) - 1)]
        return np.where(first < len(self), users, -1)


def in_order(events: Events, order: NDArray[Any] | None = None) -> Events:
    """Sorted stably by (session, ``order`` or else the time, row)."""
    key = events.time if order is None else order
    session = events.session
    same = session[1:] == session[:-1]
    if np.all((session[1:] > session[:-1]) | (same & (key[1:] >= key[:-1]))):
        return events
    return events.take(np.lexsort((key, session)))


def number_by_order(events: Events, order: NDArray[Any], base: int) -> Events:
    """Events of a log without times, timed by their running number from ``base``.

    An order is taken to be global unless it :func:`restarts`: then it orders the events of a
    session only, and sessions follow each other by their first row.
    """
    if restarts(events.session, order):
        first_row = np.full(int(events.session.max(initial=-1)) + 1, len(events), np.int64)
        np.minimum.at(first_row, events.session, np.arange(len(events)))
        by_order = np.lexsort((order, first_row[events.session]))
    else:
        by_order = np.argsort(order, kind="stable")
    time = np.empty(len(events), np.int64)
    time[by_order] = np.arange(base, base + len(events))
    return replace(events, time=time)


def counts_anew(session: Ints, order: NDArray[Any]) -> int:
    """How many times an order counts the log's rows, each time from the same number on: in every
    file, or on every day. Then it says nothing else than the rows do. 1 where it counts once, or
    may count the events of each session [rows]."""
    falls = np.flatnonzero(order[1:] <= order[:-1]) + 1
    begins = np.r_[0, falls]
    many = 2 <= len(begins) <= len(np.unique(session)) / SESSIONS_A_COUNT
    if not many or np.any(order[begins] != order[0]) or restarts(session, order):
        return 1
    return len(begins)


SESSIONS_A_COUNT = 4  # or more, in the mean, where it isn't they that are counted
MOST_ALIKE = 0.9  # of the numbers of an order that may differ where it restarts


def restarts(session: Ints, order: NDArray[Any]) -> bool:
    """Whether an order is one of positions in sessions: numbers are there again and again, and most
    sessions begin among the lowest quarter of them."""
    if not len(order) or len(np.unique(order)) > MOST_ALIKE * len(order):
        return False
    begins = np.full(int(session.max()) + 1, np.inf)
    np.minimum.at(begins, session, order)
    begins = begins[np.isfinite(begins)]
    return bool(np.mean(begins <= np.quantile(order, 0.25, method="lower")) > 0.6)


def cut_at_gaps(events: Events, names: pa.Array, gap_ms: int) -> tuple[Events, pa.Array]:
    """Sessions cut where more than ``gap_ms`` pass between two events of what was a session.

    Returns the events and the new sessions' names, ``user-1``, ``user-2``, ….
    """
    old_start = np.zeros(len(events), bool)
    old_start[events.starts()] = True
    late = np.r_[True, np.diff(events.time) > gap_ms]
    begins = old_start | late
    code = np.cumsum(begins) - 1
    old = events.session[begins]
    first_of_old = np.flatnonzero(old_start[begins])
    number = np.arange(len(old)) - np.repeat(first_of_old, np.diff(np.r_[first_of_old, len(old)]))
    new_names = pc.binary_join_element_wise(
        names.take(pa.array(old)), pa.array(number + 1).cast(pa.string()), "-"
    )
    return replace(events, session=code.astype(np.int32)), new_names
