"""Columns of values beside ids and times: numbers, or codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.encoding import pack_ids
from paropt.data.reading.arrow import as_text, is_number
from paropt.data.reading.read import Place


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
