"""A split's events as plans read them, also those of new sessions and of other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from paropt.training.registry import Needs

Ints = NDArray[np.int64]
NOTHING = Needs()  # beside items and times


@dataclass(frozen=True)
class Events:
    """A split's events without the items that training never saw; neighbours become adjacent.

    ``items`` int32, ``times`` int64, ``targets`` bool and each of ``columns`` are [events],
    ``offsets`` int64 is [sessions + 1], ``users`` int32 is [sessions] or None. ``unknown`` counts
    the flagged targets that cannot be predicted without them: their own item is one, or all items
    before them are.
    """

    items: NDArray[np.int32]
    times: NDArray[np.int64]
    targets: NDArray[np.bool_]
    offsets: Ints
    unknown: int = 0
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    users: NDArray[np.int32] | None = None

    def take(self, kept: NDArray[np.bool_]) -> Events:
        """The events of a mask [events]; every session stays, if only with none."""
        before = np.concatenate(([0], np.cumsum(kept, dtype=np.int64)))
        return replace(
            self,
            items=self.items[kept],
            times=self.times[kept],
            targets=self.targets[kept],
            offsets=before[self.offsets],
            columns={name: column[kept] for name, column in self.columns.items()},
        )

    def strangers(self, n_items: int) -> NDArray[np.int32]:
        """Nothing: what a model doesn't know has its number here already."""
        return np.zeros(0, np.int32)

    def recode(
        self,
        items: NDArray[np.int32],
        columns: Mapping[str, NDArray[np.int32]],
        users: NDArray[np.int32] | None,
    ) -> Events:
        """With other indices of items, codes of columns and indices of users.

        Each array holds the new value of every old one, and ends in what becomes of −1.
        """
        return replace(
            self,
            items=items[self.items],
            columns={
                name: columns[name][column] if name in columns else column
                for name, column in self.columns.items()
            },
            users=users[self.users] if users is not None and self.users is not None else None,
        )

    def sessions(self, begin: int, end: int) -> Events:
        """The sessions from ``begin`` to before ``end``."""
        offsets = self.offsets[begin : end + 1]
        events = slice(offsets[0], offsets[-1])
        return replace(
            self,
            items=self.items[events],
            times=self.times[events],
            targets=self.targets[events],
            offsets=offsets - offsets[0],
            columns={name: column[events] for name, column in self.columns.items()},
            users=None if self.users is None else self.users[begin:end],
        )

    def choose(self, sessions: Ints) -> Events:
        """The sessions of an index [n], in its order."""
        begins, sizes = self.offsets[sessions], np.diff(self.offsets)[sessions]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        at = np.repeat(begins - offsets[:-1], sizes) + np.arange(offsets[-1])
        return replace(
            self,
            items=self.items[at],
            times=self.times[at],
            targets=self.targets[at],
            offsets=offsets,
            columns={name: column[at] for name, column in self.columns.items()},
            users=None if self.users is None else self.users[sessions],
        )

    def with_queries(self, wanted: Mapping[str, float] | None = None) -> Events:
        """One more event at the end of each session, the only target: what comes next.

        It is asked for at the time of the session's last event. Nothing else is known of it but
        the values or codes of the columns in ``wanted``.
        """
        said = wanted or {}
        ends = self.offsets[1:]
        last = self.times[np.maximum(ends - 1, 0)] if len(self.times) else np.zeros_like(ends)
        return replace(
            self,
            items=np.insert(self.items, ends, 0),
            times=np.insert(self.times, ends, last),
            targets=np.insert(np.zeros(len(self.items), bool), ends, True),
            offsets=self.offsets + np.arange(len(self.offsets)),
            columns={
                name: np.insert(column, ends, said.get(name, unknown_value(column)))
                for name, column in self.columns.items()
            },
        )

    def queries(self) -> tuple[Ints, Ints]:
        """Positions of the targets that have a prefix, and where the session of each begins."""
        positions = np.flatnonzero(_with_prefix(self.targets, self.offsets))
        session = np.searchsorted(self.offsets, positions, side="right") - 1
        return positions, self.offsets[session]


def unknown_value(values: NDArray[Any]) -> Any:
    """What stands for an unknown value: NaN among numbers, −1 among codes."""
    return np.nan if values.dtype.kind == "f" else -1


class EventArrays(Protocol):
    """The arrays of a split, as :class:`paropt.data.Split` has them.

    ``columns``, ``users`` and ``strangers`` are asked for only where a model needs them.
    """

    @property
    def items(self) -> NDArray[np.int32]: ...
    @property
    def times(self) -> NDArray[np.int64]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def targets(self) -> NDArray[np.bool_]: ...
    @property
    def columns(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def users(self) -> NDArray[np.int32] | None: ...
    def strangers(self, n_items: int) -> NDArray[np.int32]: ...


def together(parts: Sequence[Events]) -> Events:
    """All sessions of all parts, one part after the other."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    users = [part.users for part in parts if part.users is not None]
    return Events(
        items=np.concatenate([part.items for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        columns={
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        },
        users=np.concatenate(users) if len(users) == len(parts) else None,
    )


def known_events(split: EventArrays, n_items: int, needs: Needs = NOTHING) -> Events:
    """The split's events whose item index is below ``n_items``, with the columns needed; all of
    them where items that training never saw are needed too."""
    items = np.asarray(split.items)
    if needs.unknown_items and not isinstance(split, Events) and (items >= n_items).any():
        numbers = np.concatenate([np.arange(n_items, dtype=np.int32), split.strangers(n_items)])
        items = numbers[items]
    targets = np.asarray(split.targets)
    events = Events(
        items,
        np.asarray(split.times),
        targets,
        np.asarray(split.offsets),
        columns={name: np.asarray(split.columns[name]) for name in needs.columns},
        users=split.users if needs.who else None,
    )
    known = items < n_items
    if known.all() or needs.unknown_items:
        return events
    kept = events.take(known)
    asked = np.count_nonzero(_with_prefix(targets, events.offsets))
    return replace(
        kept, unknown=int(asked - np.count_nonzero(_with_prefix(kept.targets, kept.offsets)))
    )


def _with_prefix(targets: NDArray[np.bool_], offsets: Ints) -> NDArray[np.bool_]:
    """The targets but for those that begin a session."""
    begins = offsets[:-1][np.diff(offsets) > 0]
    found = np.array(targets)
    found[begins] = False
    return found
