"""Splits as arrays, over one item index that serves every view."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Bools, Events, Ints
from paropt.data.log.rules import PART, Protocol
from paropt.data.log.splitting.long_short import short_targets
from paropt.errors import DataError


@dataclass(frozen=True)
class SplitArrays:
    """What is stored of a split; see ``docs/architecture.md``."""

    items: NDArray[np.int32]
    times: NDArray[np.int64]
    offsets: NDArray[np.int64]
    targets: Bools
    sessions: NDArray[Any]
    columns: Mapping[str, NDArray[Any]]
    users: NDArray[np.int32] | None = None

    def named(self) -> dict[str, NDArray[Any]]:
        """The arrays by file name, without ``.npy``."""
        extra = {f"column_{name}": column for name, column in self.columns.items()}
        if self.users is not None:
            extra["users"] = self.users
        return {
            "items": self.items,
            "times": self.times,
            "offsets": self.offsets,
            "targets": self.targets,
            "sessions": self.sessions,
            **extra,
        }


@dataclass(frozen=True)
class Index:
    """From codes of items (or users) to indices: those of train, then of train_full, then the rest.

    ``index_of`` [codes] int32 is −1 where a code is in no split; ``code_of`` [n_items] is its
    reverse. ``n_train`` and ``n_train_full`` are how many a model of that split knows.
    """

    index_of: NDArray[np.int32]
    code_of: Ints
    n_train: int
    n_train_full: int


def index_items(splits: Mapping[str, Events], ids: pa.Array) -> Index:
    """Items in the order of their first event's time, part by part; of equal ones, by id.

    Raises:
        DataError: ``train`` has items that ``train_full`` lacks.
    """
    return _index({name: (part.item, part.time) for name, part in splits.items()}, ids, "items")


def index_users(splits: Mapping[str, Events], ids: pa.Array) -> Index:
    """Users likewise, where events have them.

    Raises:
        DataError: ``train`` has users that ``train_full`` lacks.
    """
    known = {}
    for name, part in splits.items():
        assert part.user is not None
        there = part.user >= 0
        known[name] = (part.user[there], part.time[there])
    return _index(known, ids, "users")


def _index(splits: Mapping[str, tuple[Ints, Ints]], ids: pa.Array, what: str) -> Index:
    first = {name: first_times([part], len(ids)) for name, part in splits.items()}
    return index_by_first_times(first, ids, what)


NEVER = np.iinfo(np.int64).max
_TEXTS = 1 << 20  # texts that are Python's at once


def first_times(parts: Iterable[tuple[Ints, Ints]], n: int) -> Ints:
    """When each code [n] is first there, by (codes, times) of parts; ``NEVER`` if it isn't."""
    first = np.full(n, NEVER)
    for codes, times in parts:
        np.minimum.at(first, codes, times)
    return first


def index_by_first_times(first: Mapping[str, Ints], ids: pa.Array, what: str) -> Index:
    """An index from when each code [codes] is first there, by split.

    Raises:
        DataError: ``train`` has some that ``train_full`` lacks.
    """
    train, full = _in_order(first["train"], ids), _in_order(first["train_full"], ids)
    lacking = np.setdiff1d(train, full)
    if len(lacking):
        raise DataError(
            f"train has {len(lacking)} {what} that train_full lacks;"
            " train and valid must be parts of train_full"
        )
    seen = _in_order(np.minimum.reduce(list(first.values())), ids)
    in_full = np.concatenate([train, full[~np.isin(full, train)]])
    code_of = np.concatenate([in_full, seen[~np.isin(seen, full)]])
    index_of = np.full(len(ids), -1, np.int32)
    index_of[code_of] = np.arange(len(code_of), dtype=np.int32)
    return Index(index_of, code_of, len(train), len(full))


def _in_order(first: Ints, ids: pa.Array) -> Ints:
    present = np.flatnonzero(first < NEVER)
    return present[by_time_and_id(first[present], ids.take(pa.array(present)))]


def by_time_and_id(times: Ints, ids: pa.Array) -> Ints:
    """The order [n] of things by time; of those with one time by id, as number if all are numbers.

    So that it does not depend on the order in which a file names them.
    """
    order = np.argsort(times, kind="stable")
    same = times[order][1:] == times[order][:-1]
    tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
    if len(tied):
        which = order[tied]
        order[tied] = which[np.lexsort((_ranks(ids.take(pa.array(which))), times[which]))]
    return order


def _ranks(ids: pa.Array) -> Ints:
    packed = _as_integers(ids)
    if packed is not None:
        return packed
    rank = np.empty(len(ids), np.int64)
    rank[pc.sort_indices(ids).to_numpy()] = np.arange(len(ids))
    return rank


def encode_split(
    name: str,
    events: Events,
    index: Index,
    session_names: pa.Array,
    protocol: Protocol,
    users: Index | None = None,
) -> SplitArrays:
    """A split's arrays, its sessions in the order of their first event's time, then of their id.

    A session is that of the first user that its events name: who logs in meanwhile is no other.
    """
    starts, lengths = events.starts(), events.lengths()
    ids = session_names.take(pa.array(events.session[starts]))
    order = by_time_and_id(events.time[starts], ids)
    sessions = pack_ids(ids.take(pa.array(order)))
    offsets = np.r_[0, np.cumsum(lengths[order])]
    gather = np.arange(len(events))
    gather += np.repeat(starts[order] - offsets[:-1], lengths[order])
    columns = {key: column[gather] for key, column in events.columns.items()}
    of_sessions = None
    if users is not None:
        codes = events.session_users()[order]
        of_sessions = np.where(codes >= 0, users.index_of[codes], -1).astype(np.int32)
    return SplitArrays(
        items=index.index_of[events.item[gather]],
        times=events.time[gather].astype(np.int64, copy=False),
        offsets=offsets.astype(np.int64, copy=False),
        targets=_targets(name, offsets, protocol, columns),
        sessions=sessions,
        columns=columns,
        users=of_sessions,
    )


def _targets(
    name: str, offsets: Ints, protocol: Protocol, columns: Mapping[str, NDArray[Any]]
) -> Bools:
    """Every event but each session's first; in evaluation, leave-one-out has only its last, and
    long-short those of the short part."""
    evaluated = name in ("valid", "test")
    if protocol == "leave-one-out" and evaluated:
        targets = np.zeros(offsets[-1], bool)
        targets[offsets[1:] - 1] = np.diff(offsets) > 1
        return targets
    targets = np.ones(offsets[-1], bool)
    if protocol == "long-short" and evaluated:
        targets = short_targets(columns[PART])
    targets[offsets[:-1]] = False
    return targets


def stranger_numbers(ids: Iterable[str], n_items: int) -> NDArray[np.int32]:
    """Numbers from ``n_items`` on for items that a model of ``n_items`` doesn't know [ids].

    They follow from the id alone, so that an item has the same number in any data; two items may
    share one, as in any hash of 31 bits.
    """
    room = np.iinfo(np.int32).max - n_items
    hashes = np.fromiter((zlib.crc32(text.encode()) for text in ids), np.int64)
    return (n_items + hashes % room).astype(np.int32)


def pack_ids(ids: pa.Array) -> NDArray[Any]:
    """Text ids as an array that can be mapped: int64 where all are integers, else UTF-8 bytes."""
    integers = _as_integers(ids)
    if integers is not None:
        return integers
    longest = max(1, pc.max(pc.binary_length(ids)).as_py() or 0)
    packed = np.empty(len(ids), f"S{longest}")
    for begin in range(0, len(ids), _TEXTS):  # a text as a Python object is many times as large
        texts = ids[begin : begin + _TEXTS].to_pylist()
        packed[begin : begin + _TEXTS] = [text.encode() for text in texts]
    return packed


def _as_integers(ids: pa.Array) -> NDArray[np.int64] | None:
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if not numbers.cast(pa.string()).equals(ids):
        return None
    integers: NDArray[np.int64] = numbers.to_numpy()
    return integers


def unpack_ids(packed: NDArray[Any]) -> NDArray[Any]:
    """The text of packed ids, an array of ``str`` objects."""
    texts = np.empty(len(packed), object)
    for begin in range(0, len(packed), _TEXTS):  # numpy's own texts have four bytes a letter
        some = packed[begin : begin + _TEXTS]
        wide = np.char.decode(some, "utf-8") if packed.dtype.kind == "S" else some.astype(str)
        texts[begin : begin + _TEXTS] = wide.astype(object)
    return texts
