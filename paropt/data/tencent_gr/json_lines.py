"""``seq.jsonl``: a user a line, a list of records of six.

``[user | null, item | null, user's features | null, item's features | null, action, timestamp]``

A line of a hundred records holds a hundred times the features of an item, which are in
``item_feat_dict.json`` as well and are not looked at here. They are cut out, and what is left is
read as CSV, in bulk. Whatever that cannot read goes through a JSON parser line by line, which is
right, slow, and knows the number of a line that is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from paropt.data.events import Ints
from paropt.data.features.tables import opened
from paropt.data.reading.layouts import DAMAGED, damaged
from paropt.data.tencent_gr.sequences import Raw, Sequences, Tally, settle
from paropt.errors import DataError

CHUNK = 16 << 20  # bytes that are read at once
_NUMBER = pa.int64()
_TYPES = {
    "user": _NUMBER,
    "item": _NUMBER,
    "user_feat": pa.null(),
    "item_feat": pa.null(),
    "action": _NUMBER,
    "time": _NUMBER,
}
_WANTED = "a line is a list of records [user, item, features, features, action_type, timestamp]"
_BROKEN = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)
_PROFILE = re.compile(rb"\[\s*\d+\s*,\s*(?:null|\d+)\s*,\s*(\{[^{}]*\})")
_OPEN, _CLOSE = ord("{"), ord("}")


def read_json_lines(path: Path, most_items: int | None, tally: Tally) -> Iterator[Sequences]:
    """The file's users, some at a time, as :func:`~paropt.data.tencent_gr.sequences.settle` does.

    Raises:
        DataError: it cannot be read; a line is no list of records.
    """
    number, found = 1, False
    try:
        with opened(path) as file:
            while chunk := file.read(CHUNK):
                chunk += file.readline()
                raw = in_bulk(path, number, chunk) or one_by_one(path, number, chunk)
                number += chunk.count(b"\n")
                if len(raw.counts):
                    found = True
                    yield settle(raw, most_items, tally)
    except DAMAGED as error:
        raise damaged(path, error) from None
    if not found:
        raise DataError(f"{path} has no sequences")


def _raw(
    path: Path,
    number: int,
    chunk: bytes,
    counts: Ints,
    columns: Mapping[str, pa.Array],
    profiles: Sequence[bytes | None],
) -> Raw:
    user, last = columns["user"], number + chunk.rstrip(b"\n").count(b"\n")
    named = user.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(named)
    lines, first = np.unique(np.repeat(np.arange(len(counts)), counts)[rows], return_index=True)
    at = np.full(len(counts), -1)
    at[lines] = rows[first]
    users = user.cast(pa.string()).take(pa.array(at, mask=at < 0))
    place = f"{path}, lines {number} to {last}"
    of_records = columns["item"], columns["action"], columns["time"]
    return Raw(place, counts, users, named, *of_records, profiles)


# -- in bulk -----------------------------------------------------------------------------------


def in_bulk(path: Path, number: int, chunk: bytes) -> Raw | None:
    """Whole lines of numbers and nulls as records; None where anything is out of the ordinary."""
    rest = _without_objects(chunk)
    if rest is None or b'"' in rest:
        return None
    lines = [line for line in rest.translate(None, b" \t\r").split(b"\n") if line]
    whole = [line for line in chunk.split(b"\n") if line.strip()]
    if len(lines) != len(whole):
        return None
    if not all(line.startswith(b"[[") and line.endswith(b"]]") for line in lines):
        return None
    counts = np.array([line.count(b"[") - 1 for line in lines], np.int64)
    text = b"\n".join(lines).replace(b"],[", b"\n").translate(None, b"[]")
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            pa.csv.ReadOptions(column_names=list(_TYPES), block_size=len(text) + 1),
            pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=_TYPES, null_values=["null", ""]),
        ).combine_chunks()
    except pa.ArrowException:
        return None
    if len(table) != counts.sum():
        return None
    columns = {name: table.column(name).chunk(0) for name in _TYPES}
    if _names_two(columns["user"], counts):
        return None
    return _raw(path, number, chunk, counts, columns, [_profile(line) for line in whole])


def _names_two(users: pa.Array, counts: Ints) -> bool:
    """Whether a line names two users."""
    there = users.is_valid().to_numpy(zero_copy_only=False)
    lines = np.repeat(np.arange(len(counts)), counts)[there]
    different = np.diff(users.drop_null().to_numpy()) != 0
    return bool((different & (np.diff(lines) == 0)).any())


def _without_objects(chunk: bytes) -> bytes | None:
    """The text without what is in braces; None where these do not take turns."""
    text = np.frombuffer(chunk, np.uint8)
    opens, closes = np.flatnonzero(text == _OPEN), np.flatnonzero(text == _CLOSE)
    if len(opens) != len(closes):
        return None
    if (opens >= closes).any() or (opens[1:] <= closes[:-1]).any():
        return None
    begins, ends = [0, *(closes + 1).tolist()], [*opens.tolist(), len(chunk)]
    return b"".join([chunk[b:e] for b, e in zip(begins, ends, strict=True)])


def _profile(line: bytes) -> bytes | None:
    found = _PROFILE.search(line)
    return found[1] if found else None


# -- line by line ------------------------------------------------------------------------------


def one_by_one(path: Path, number: int, chunk: bytes) -> Raw:
    """Whole lines as records, by a JSON parser.

    Raises:
        DataError: a line is no list of records of six.
    """
    counts: list[int] = []
    profiles: list[bytes | None] = []
    rows: list[Record] = []
    for n, line in enumerate(chunk.split(b"\n"), number):
        if not line.strip():
            continue
        try:
            records = [_record(one) for one in _list(json.loads(line))]
            names = {record.user for record in records} - {None}
            if len(names) > 1:
                raise ValueError(f"it names {len(names)} users")
        except (ValueError, RecursionError) as error:
            why = "no complete JSON" if isinstance(error, _BROKEN) else error
            raise DataError(f"{path}:{n}: {why}; {_WANTED}") from None
        counts.append(len(records))
        rows += records
        profiles.append(next((r.profile for r in records if r.profile), None))
    columns = {
        "user": pa.array([r.user for r in rows], pa.string()),
        "item": pa.array([r.item for r in rows], pa.int64()),
        "action": pa.array([r.action for r in rows], pa.int64()),
        "time": pa.array([r.time for r in rows], pa.int64()),
    }
    return _raw(path, number, chunk, np.array(counts, np.int64), columns, profiles)


@dataclass(frozen=True)
class Record:
    """One of a line's records; ``item`` is 0 where it is no number, as of unseen items."""

    user: str | None
    profile: bytes | None
    item: int | None
    action: int | None
    time: int | None


def _list(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError("it is no list")
    return found


def _record(found: Any) -> Record:
    if not isinstance(found, list) or len(found) != 6:
        raise ValueError(f"{json.dumps(found)[:40]} is no record of six")
    user, item, profile, features, action, time = found
    for value in (profile, features):
        if not (value is None or isinstance(value, dict)):
            raise ValueError(f"{json.dumps(value)[:40]} are no features")
    if isinstance(item, str):
        item = 0
    for value in (item, action, time):
        if not (value is None or (isinstance(value, int | float) and abs(value) < 2**53)):
            raise ValueError(f"{json.dumps(value)[:40]} is no number that it can be")
    known = json.dumps(profile).encode() if profile and user is not None else None
    numbers = [None if value is None else int(value) for value in (item, action, time)]
    return Record(None if user is None else str(user), known, *numbers)
