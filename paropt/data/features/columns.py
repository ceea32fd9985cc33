"""Columns of values beside ids and times: numbers, or codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.encoding import pack_ids
from paropt.data.events import Bools
from paropt.data.log.values.ids import names_no_value
from paropt.data.reading.arrow import (
    INEXACT_FROM,
    WHOLE_AS_FLOAT,
    as_text,
    is_number,
    without_zeros,
)
from paropt.data.reading.read import Place

EXACT = INEXACT_FROM[32]  # whole numbers up to it are float32
FIRST = 1000  # values that are looked at before all are
NEARLY_ALL = 0.95  # of the values that are numbers, where those that are not seem mistakes
_A_NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


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

    Beside numbers a word for "no value" is a missing one; as a category it is one of its own. The
    vocabulary is sorted, so that the order of the rows does not matter, and a whole number is one
    category however it is written (``7``, ``7.0``).

    Raises:
        DataError: a value holds a NUL character, is a number that float32 doesn't have or can't
            tell from others, or its type cannot be read.
    """
    place = place or Place([], [])
    column = place.plain(column, name)
    if not categorical and is_number(column.type):
        return Column(_numbers(column, name, place))
    text = pc.utf8_trim_whitespace(as_text(column))
    text = pc.if_else(pc.equal(text, ""), None, text)
    numbers = None if categorical else numbers_in(text)
    return _codes(text, name, place) if numbers is None else Column(_numbers(numbers, name, place))


def numbers_in(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Texts as numbers, words for "no value" as null; None where some are no numbers, or all are
    such words. Integers where they are too large for float32 to have all of them."""
    if _floats(text[:FIRST]) is None:  # a cast that fails goes through all rows
        return None
    found = _floats(text)
    if found is None or (pc.max(pc.abs(found)).as_py() or 0) < EXACT:
        return found
    try:
        return _without_words(text).cast(pa.int64())
    except pa.ArrowInvalid:
        return found


def no_numbers_in(text: pa.ChunkedArray) -> Bools:
    """Which texts [n] are something, and no numbers."""
    number = pc.or_(pc.match_substring_regex(text, _A_NUMBER), names_no_value(text))
    found: Bools = pc.invert(pc.fill_null(number, True)).to_numpy()
    return found


def _floats(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        values = _without_words(text)
    if values.null_count == len(values) > text.null_count:
        return None
    try:
        return values.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _without_words(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(names_no_value(text), None, text)


def _numbers(column: pa.ChunkedArray, name: str, place: Place) -> NDArray[np.float32]:
    values = column.cast(pa.float64(), safe=False).to_numpy()
    with np.errstate(over="ignore"):
        numbers: NDArray[np.float32] = values.astype(np.float32)
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers)))
        what = f"{values[row]:g} is no number to learn from; --where leaves rows out"
        raise place.fail(row, name, f"{what}, and nothing written is a missing number")
    if np.abs(numbers).max(initial=0, where=~np.isnan(numbers)) >= EXACT:
        _check_apart(column, values, name, place)
    return numbers


def _check_apart(
    column: pa.ChunkedArray, values: NDArray[np.float64], name: str, place: Place
) -> None:
    """Refuse whole numbers, one in a hundred of which would be another's: ids of categories."""
    there = values[~np.isnan(values)]
    if (np.floor(there) != there).any():
        return
    different = pc.count_distinct(column, mode="only_valid").as_py()
    apart = len(np.unique(there.astype(np.float32)))
    if apart < 0.99 * different:
        raise place.refuse(
            name,
            f"holds {different:,} whole numbers of which float32 tells {apart:,} apart; say"
            f" --categorical {name} (of a table: --kind {name}=category) if they name something,"
            " or write them smaller",
        )


def _written_once(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """``7.0`` as ``7`` where both are there: files of one log, of which one had gaps."""
    found = pc.unique(text).drop_null()
    floats = found.filter(pc.match_substring_regex(found, WHOLE_AS_FLOAT))
    if not pc.any(pc.is_in(without_zeros(floats), found)).as_py():
        return text
    return without_zeros(text)


def _codes(text: pa.ChunkedArray, name: str, place: Place) -> Column:
    text = _written_once(text)
    found = pc.unique(text).drop_null()
    nul = pc.match_substring(found, "\0")
    if pc.any(nul).as_py():
        row = pc.index(text, found.filter(nul)[0]).as_py()
        raise place.fail(row, name, "holds a NUL character")
    vocabulary = found.take(pc.sort_indices(found))
    codes = pc.fill_null(pc.index_in(text, value_set=vocabulary), -1).to_numpy()
    return Column(codes.astype(np.int32), pack_ids(vocabulary))
