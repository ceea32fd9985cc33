"""What is kept beside ids and times: further columns of events, features of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.arrow import as_text, is_number
from paropt.data.encoding import pack_ids
from paropt.data.ids import encode_ids
from paropt.data.reading import Place, look_at, read_columns, require
from paropt.errors import DataError


@dataclass(frozen=True)
class Column:
    """Values float32, NaN where unknown; or codes int32 into a vocabulary, −1 where unknown."""

    values: NDArray[Any]
    vocabulary: NDArray[Any] | None = None

    @property
    def kind(self) -> str:
        return "numeric" if self.vocabulary is None else "categorical"


def encode_column(
    column: pa.ChunkedArray, categorical: bool, name: str = "", place: Place | None = None
) -> Column:
    """Numbers as float32 where all values are numbers, unless told ``categorical``; else codes.

    The vocabulary is sorted, so that the order of the rows does not matter.

    Raises:
        DataError: a value holds a NUL character, or its type cannot be read.
    """
    place = place or Place([], [])
    column = place.plain(column, name)
    if not categorical and is_number(column.type):
        return Column(_numbers(column.cast(pa.float64(), safe=False)))
    text = as_text(column)
    text = pc.if_else(pc.equal(text, ""), None, text)
    if not categorical:
        try:
            return Column(_numbers(text.cast(pa.float64())))
        except pa.ArrowInvalid:
            pass
    return _codes(text, name, place)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32: infinite
        numbers: NDArray[np.float32] = column.to_numpy().astype(np.float32)
    return numbers


def _codes(text: pa.ChunkedArray, name: str, place: Place) -> Column:
    found = pc.unique(text).drop_null()
    nul = pc.match_substring(found, "\0")
    if pc.any(nul).as_py():
        row = pc.index(text, found.filter(nul)[0]).as_py()
        raise place.fail(row, name, "holds a NUL character")
    vocabulary = found.take(pc.sort_indices(found))
    codes = pc.fill_null(pc.index_in(text, value_set=vocabulary), -1).to_numpy()
    return Column(codes.astype(np.int32), pack_ids(vocabulary))


def read_features(
    path: Path, item_key: str, items: pa.Array, categorical: Sequence[str]
) -> Mapping[str, Column]:
    """Features [n_items] from a table with one row per item; items it lacks are unknown.

    Raises:
        DataError: the table cannot be read, or has an item twice.
    """
    layout = look_at(path)
    require(layout, item_key)
    names = [name for name in layout.names if name != item_key]
    table, place = read_columns([layout], layout.names)
    codes, vocabulary = encode_ids(table.column(item_key), item_key, place, as_text=True)
    if len(vocabulary) < len(codes):
        row = int(np.argmax(codes != np.arange(len(codes))))
        raise place.fail(row, item_key, f"item {vocabulary[int(codes[row])]} is here twice")
    rows = pc.index_in(items, value_set=vocabulary)
    if rows.null_count == len(rows):
        raise DataError(f"{path} has none of the items of the log in its column {item_key!r}")
    unknown = rows.is_null().to_numpy(zero_copy_only=False)
    at = rows.fill_null(0).to_numpy()
    return {
        name: _at(encode_column(table.column(name), name in categorical, name, place), at, unknown)
        for name in names
    }


def _at(column: Column, rows: NDArray[Any], unknown: NDArray[np.bool_]) -> Column:
    values = column.values[rows]
    values[unknown] = np.nan if column.vocabulary is None else -1
    return Column(values, column.vocabulary)
