"""Users' sequences as columns, whichever of the two layouts they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Bools, Ints
from paropt.errors import DataError

Note = Callable[[str], None]
UNKNOWN = -1  # an action that is null
LARGEST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Sequences:
    """Sequences of users [S], their events [E] one after the other.

    Attributes:
        users: ids as text; null where a line names none.
        profiles: what a line says of its user, as JSON, or None.
        lengths: events per user.
        items: re-indexed ids, 0 where an event has none that can be one.
        actions: int8, −1 where unknown.
        times: milliseconds.
    """

    users: pa.Array
    profiles: Sequence[bytes | None]
    lengths: Ints
    items: NDArray[np.int32]
    actions: NDArray[np.int8]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sessions(self) -> Ints:
        """The user's number of each event [E]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def offsets(self) -> Ints:
        """Where each user's events begin, and where the last one's end [S + 1]."""
        return np.concatenate(([0], np.cumsum(self.lengths)))

    def in_order(self) -> Sequences:
        """By time within each user; of equal times as they were."""
        sessions = self.sessions
        back = (np.diff(self.times) < 0) & (sessions[1:] == sessions[:-1])
        if not back.any():
            return self
        order = np.lexsort((self.times, sessions))
        items, actions, times = self.items[order], self.actions[order], self.times[order]
        return replace(self, items=items, actions=actions, times=times)


@dataclass
class Tally:
    """What was found on the way that is no event, with the first place of each."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, many: int, place: str) -> None:
        if many:
            self.counts[what] = self.counts.get(what, 0) + many
            self.first.setdefault(what, place)

    def say(self, note: Note) -> None:
        """A line for each kind."""
        for what, many in self.counts.items():
            note(f"{many:,} {what} (the first is in {self.first[what]})")


@dataclass(frozen=True)
class Raw:
    """Records as they were written [R], ``counts`` [S] of them for each line or row.

    ``users`` [S] are ids as text; ``named`` [R] says which records are about the user; items,
    actions and times are int64 with nulls. ``place`` is where they stand, in words.
    """

    place: str
    counts: Ints
    users: pa.Array
    named: Bools
    items: pa.Array
    actions: pa.Array
    times: pa.Array
    profiles: Sequence[bytes | None] = ()


def settle(raw: Raw, most_items: int | None, tally: Tally) -> Sequences:
    """The events among records, in order of time.

    ``most_items`` is the largest re-indexed id; None: any is taken, and one that is none is 0.

    Raises:
        DataError: a time is missing, or an id is beyond ``most_items``.
    """
    items, actions = _plain(raw.items, 0), _plain(raw.actions, UNKNOWN)
    events = raw.items.is_valid().to_numpy(zero_copy_only=False)
    if (events & raw.times.is_null().to_numpy(zero_copy_only=False)).any():
        raise DataError(f"{raw.place}: an event has no timestamp; mend it or leave it out")
    beyond = items > (LARGEST if most_items is None else most_items)
    if most_items is not None and beyond.any():
        raise DataError(
            f"{raw.place}: item {items[beyond][0]} is beyond the {most_items:,} items of"
            " indexer.pkl; are these files of one release?"
        )
    padding = events & (items <= 0) & (most_items is not None)
    odd = events & ((actions < UNKNOWN) | (actions > 2))
    for what, those in (
        ("records have neither a user nor an item, and are left out", ~events & ~raw.named),
        ("events have an item that is no number above 0, and are left out", padding),
        ("events have an action_type other than 0, 1 and 2, which counts as unknown", odd),
        ("users have no name, and get one", raw.users.is_null().to_numpy(zero_copy_only=False)),
    ):
        tally.add(what, int(np.count_nonzero(those)), raw.place)
    kept = events & ~padding
    lines = np.repeat(np.arange(len(raw.counts)), raw.counts)
    found = np.where(beyond | (items < 0), 0, items)[kept].astype(np.int32)
    return Sequences(
        raw.users,
        raw.profiles,
        np.bincount(lines[kept], minlength=len(raw.counts)),
        found,
        np.where(odd, UNKNOWN, actions)[kept].astype(np.int8),
        _plain(raw.times, 0)[kept] * 1000,
    ).in_order()


def _plain(values: pa.Array, missing: int) -> NDArray[np.int64]:
    filled: NDArray[np.int64] = values.fill_null(missing).to_numpy(zero_copy_only=False)
    return filled


def named_once(users: pa.Array) -> pa.Array:
    """Ids of users [S], where none is missing or there twice.

    Raises:
        DataError: a user has two lines.
    """
    number = pa.array(np.arange(1, len(users) + 1)).cast(pa.string())
    named = pc.coalesce(users, pc.binary_join_element_wise("line", number, "-"))
    different = pc.dictionary_encode(named)
    if len(different.dictionary) < len(named):
        codes = different.indices.to_numpy()
        again = int(np.argmax(np.bincount(codes) > 1))
        raise DataError(f"user {different.dictionary[again]} has two sequences; join them")
    return named


def joined(parts: Iterable[Sequences]) -> Sequences:
    """All parts as one; their arrays are let go on the way."""
    given = list(parts)
    users = pa.concat_arrays([part.users for part in given])
    profiles = [profile for part in given for profile in part.profiles]

    def one(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in given])

    return Sequences(users, profiles, one("lengths"), one("items"), one("actions"), one("times"))
