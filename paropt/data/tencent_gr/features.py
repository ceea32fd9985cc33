"""Features of items and users: codes by the feature's number, from JSON objects or Parquet.

0 is no code: it says that there is none, as ``[0]`` does where a feature has several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet

from paropt.data.features.fields import Kind
from paropt.data.features.tables import Fields, Told, encode_field, opened
from paropt.data.reading.layouts import DAMAGED, Layout, damaged, one_line
from paropt.data.reading.read import Place
from paropt.errors import DataError

CHUNK = 16 << 20  # bytes of JSON that are parsed at once
_ENTRY = re.compile(rb'"([^"\\]*)"\s*:\s*(\{[^{}]*\})')
_BETWEEN = b" \t\r\n,{}"
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
Pair = tuple[bytes, bytes]
"""An id, and its features as a JSON object."""


def fields_of(table: pa.Table, key: str, ids: pa.Array, path: Path) -> Fields:
    """A table's columns, but for ``key``, as fields of all ``ids`` [n].

    Raises:
        DataError: an id is there twice, or a column holds other than codes.
    """
    known = table.column(key).cast(pa.string()).combine_chunks()
    if pc.count_distinct(known).as_py() < len(known):
        codes = pc.dictionary_encode(known).indices.to_numpy()
        again = known[int(np.flatnonzero(np.bincount(codes)[codes] > 1)[0])]
        raise DataError(f"{path}: {key} {again} has features twice")
    rows = pc.index_in(ids, value_set=known)
    place = Place([Layout(path, tuple(table.column_names))], [0])
    found: Fields = {}
    for name in sorted(table.column_names):
        if name == key:
            continue
        column = table.column(name)
        kind: Kind = "category"
        if _is_list(column.type):
            kind = "categories"
        elif pa.types.is_floating(column.type):
            kind = "number"
        found[name] = encode_field(column, name, rows, Told({name: kind}), place)
    return found


def _is_list(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _LISTS)


# -- out of JSON -------------------------------------------------------------------------------


def read_dict(path: Path, key: str) -> pa.Table:
    """``{"17": {"100": 3, …}, …}`` as a table of texts ``key`` and codes, read a part at a time.

    Raises:
        DataError: it cannot be read, or is no such object.
    """
    return table_of(_entries(path), key, path)


def _entries(path: Path) -> Iterator[Pair]:
    rest = b""
    try:
        with opened(path) as file:
            if not (rest := file.read(1 << 10).lstrip()).startswith(b"{"):
                raise DataError(f"{path} is no JSON object of features by id")
            while chunk := file.read(CHUNK):
                text = rest + chunk
                # not the last one: it may be what closes the whole
                end = text.rfind(b"}", 0, len(text.rstrip()) - 1) + 1
                yield from _parsed(path, text[:end])
                rest = text[end:]
    except DAMAGED as error:
        raise damaged(path, error) from None
    if _ENTRY.sub(b"", rest).strip(b" \t\r\n,{") != b"}":
        raise DataError(f"{path} is cut short: the object that it begins with is not closed")
    yield from _parsed(path, rest)


def _parsed(path: Path, text: bytes) -> Iterator[Pair]:
    left = _ENTRY.sub(b"", text).strip(_BETWEEN)
    if left:
        shown = left[:40].decode(errors="replace")
        raise DataError(f"{path} is no JSON object of features by id: it has {shown!r}")
    yield from _ENTRY.findall(text)


def table_of(pairs: Iterable[Pair], key: str, path: Path) -> pa.Table:
    """Objects by id as a table of texts ``key`` and codes, with null where there is none.

    Raises:
        DataError: an object is no JSON, or of other than codes.
    """
    tables, lines, size = [], [], 0
    for one, body in pairs:
        inner = body[1:].lstrip()
        lines.append(b'{"%s":"%s"%s%s' % (
            key.encode(), one, b"" if inner.startswith(b"}") else b",", inner))  # fmt: skip
        size += len(inner)
        if size > CHUNK:
            tables.append(_parse(lines, key, path))
            lines, size = [], 0
    if lines:
        tables.append(_parse(lines, key, path))
    if not tables:
        raise DataError(f"{path} has no features")
    return _stacked(tables)


def _parse(lines: list[bytes], key: str, path: Path) -> pa.Table:
    try:
        text = pa.BufferReader(b"\n".join(lines))
        table = pa.json.read_json(text, pa.json.ReadOptions(block_size=2 * CHUNK))
    except pa.ArrowException:  # a column of numbers and texts, for one
        table = _parse_slowly(lines, path)
    return without_zeros(table, key, path)


def _parse_slowly(lines: list[bytes], path: Path) -> pa.Table:
    rows = []
    for line in lines:
        try:
            rows.append({name: _text(value) for name, value in json.loads(line).items()})
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: {line[:60].decode(errors='replace')!r}… are no features: {error}"
            ) from None
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except pa.ArrowException as error:
        raise DataError(f"{path}: features are not all of one kind: {one_line(error)}") from None


def _text(value: object) -> object:
    if isinstance(value, list):
        return [str(one) for one in value]
    if isinstance(value, dict):
        raise ValueError("an object is no code")
    return None if value is None else str(value)


def _stacked(tables: list[pa.Table]) -> pa.Table:
    """One under the other; a column that is of numbers in one and of texts in another is text."""
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    columns = {}
    for name in names:
        there = [t.column(name) if name in t.column_names else None for t in tables]
        types = {column.type for column in there if column is not None}
        kind = types.pop() if len(types) == 1 else pa.string()
        parts = [
            pa.chunked_array([pa.nulls(len(table), kind)]) if column is None else column.cast(kind)
            for table, column in zip(tables, there, strict=True)
        ]
        columns[name] = pa.chunked_array([chunk for part in parts for chunk in part.chunks], kind)
    return pa.table(columns)


# -- out of Parquet ----------------------------------------------------------------------------


def read_folder(folder: Path, key: str) -> pa.Table:
    """A folder of Parquet files as a table of texts ``key`` and codes.

    Raises:
        DataError: a file is cut short, or lacks the key.
    """
    try:
        table = pa.parquet.read_table(folder)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder} cannot be read: {one_line(error)}") from None
    if key not in table.column_names:
        raise DataError(f"{folder} has no column {key!r} (it has {', '.join(table.column_names)})")
    ids = table.column(key).cast(pa.string())
    table = table.set_column(table.column_names.index(key), key, ids)
    return without_zeros(table, key, folder)


# -- zeros -------------------------------------------------------------------------------------


def without_zeros(table: pa.Table, key: str, path: Path) -> pa.Table:
    """With null for 0, and lists of texts without 0, null where nothing is left."""
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        kind = column.type
        if name == key:
            columns[name] = column
        elif _is_list(kind):
            columns[name] = pa.chunked_array(
                [_filtered(chunk) for chunk in column.chunks], pa.list_(pa.string())
            )
        elif pa.types.is_null(kind):
            columns[name] = column.cast(pa.int64())
        elif pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_floating(kind):
            zero = pc.equal(column, pa.scalar("0" if pa.types.is_string(kind) else 0, kind))
            columns[name] = pc.if_else(pc.fill_null(zero, True), pa.scalar(None, kind), column)
        else:
            raise DataError(f"{path}: feature {name!r} holds {kind}, not codes")
    return pa.table(columns)


def _filtered(lists: pa.ListArray) -> pa.ListArray:
    lists = lists.cast(pa.list_(pa.string()))
    values, parents = lists.flatten(), pc.list_parent_indices(lists).to_numpy()
    real = pc.fill_null(pc.not_equal(values, "0"), False)
    left = np.bincount(parents[real.to_numpy(zero_copy_only=False)], minlength=len(lists))
    offsets = np.concatenate(([0], np.cumsum(left))).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), values.filter(real), mask=pa.array(left == 0)
    )
