"""Which rows of a log are events at all: what ``--event``, ``--where``, … leave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Bools, Ints
from paropt.data.log.command import option_text
from paropt.data.log.filtering.conditions import Condition, Value, parse_condition
from paropt.data.log.formats import Schema
from paropt.data.log.options import Options
from paropt.data.log.values.ids import missing_ids
from paropt.data.log.values.times import parse_moment, to_milliseconds, to_numbers
from paropt.data.reading.arrow import as_text, is_moment, is_number, is_text
from paropt.data.reading.read import Place

_A_NUMBER = "number, and --where compares it with one"
_WHOLE = re.compile(r"\s*\+?(-?)0*(\d+)(?:\.0*)?\s*")


@dataclass(frozen=True)
class Filter:
    """One step: which rows [rows] it leaves, and the option that asked for it."""

    name: str
    option: str
    leaves: Bools


def filters(
    table: pa.Table, place: Place, schema: Schema, options: Options, kind: Bools | None
) -> Iterator[Filter]:
    """The filters that ``options`` ask for, in the order in which they are counted.

    ``kind`` tells which rows are of the wanted kind; the others may lack an item.

    Raises:
        DataError: a value cannot be compared as a condition asks.
    """
    for number, text in enumerate(options.where, 1):
        holds = _holds(parse_condition(text), table, place, schema)
        name = "where" if number == 1 else f"where {number}"
        yield Filter(name, option_text("where", (text,)), holds)
    if options.drop_missing:
        words = not (options.words_are_ids or options.text_ids)
        missing = _lacking(table, place, schema, kind, words)
        yield Filter("missing", option_text("drop_missing", True), ~missing)
    if options.drop_ids:
        named = _named(table, schema, options.drop_ids)
        yield Filter("ids", option_text("drop_ids", options.drop_ids), ~named)


def of_kind(column: pa.ChunkedArray, kinds: tuple[str, ...]) -> Bools:
    """Which rows [rows] are one of these kinds, as text or as the same whole number (4, 4.0).

    Raises:
        LookupError: none is; the message lists kinds that there are.
    """
    encoded = _encoded(column)
    seen = pc.cast(encoded.dictionary, pa.string()).to_pylist()
    wanted = {*kinds, *map(as_whole, kinds)}
    codes = [code for code, text in enumerate(seen) if text in wanted or as_whole(text) in wanted]
    if not codes:
        raise LookupError(", ".join(map(repr, seen[:5])))
    found: Bools = np.isin(_codes(encoded), codes)
    return found


def as_whole(text: str | None) -> str:
    """``4`` of ``4.0``: a column of floats writes whole numbers so."""
    match = _WHOLE.fullmatch(text or "")
    return f"{match[1]}{match[2]}" if match else (text or "")


def raw_codes(column: pa.ChunkedArray) -> Ints:
    """Codes [rows] of what is written in a column, −1 where nothing is."""
    encoded = _encoded(column)
    codes = _codes(encoded)
    nothing = np.flatnonzero(_empty(encoded.dictionary))
    return np.where(np.isin(codes, nothing), -1, codes) if len(nothing) else codes


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = pc.dictionary_encode(column).combine_chunks()
    return encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded


def _codes(encoded: pa.DictionaryArray) -> Ints:
    codes: Ints = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return codes


def _empty(values: pa.Array | pa.ChunkedArray) -> Bools:
    """Where nothing is written: null, not a number, no text."""
    nothing = pc.is_null(values, nan_is_null=True)
    if is_text(values.type):
        blank = pc.equal(pc.utf8_trim_whitespace(values), "")
        nothing = pc.or_(nothing, pc.fill_null(blank, True))
    return np.asarray(nothing, bool)


# -- missing and unwanted ids ---------------------------------------------------------------


def _lacking(
    table: pa.Table, place: Place, schema: Schema, kind: Bools | None, words: bool
) -> Bools:
    """Rows without a session, an item or a time."""
    session, item = schema.session_key, schema.item_key
    missing = missing_ids(table.column(session), session, place, words)
    for name in (schema.time_key, schema.order_column):
        if name is not None:
            missing = missing | _empty(table.column(name))
    without_item = missing_ids(table.column(item), item, place, words)
    return missing | (without_item if kind is None else without_item & kind)


def _named(table: pa.Table, schema: Schema, ids: tuple[str, ...]) -> Bools:
    """Rows whose session or item is one of ``--drop-id``."""
    wanted = {text.strip() for text in ids}
    named = np.zeros(table.num_rows, bool)
    for name in (schema.session_key, schema.item_key):
        column = table.column(name)
        encoded = _encoded(as_text(column))
        seen = [(text or "").strip() for text in encoded.dictionary.to_pylist()]
        if pa.types.is_floating(column.type):
            seen = list(map(as_whole, seen))
        codes = [code for code, text in enumerate(seen) if text in wanted]
        named |= np.isin(_codes(encoded), codes)
    return named


# -- conditions -----------------------------------------------------------------------------


def _holds(condition: Condition, table: pa.Table, place: Place, schema: Schema) -> Bools:
    def fetch(name: str, value: Value | None) -> tuple[pa.ChunkedArray, Any]:
        return _Compared(table.column(name), name, place, schema).with_value(value)

    return np.asarray(pc.fill_null(condition.holds(fetch), False), bool)


class _Compared:
    """A column in a form that compares with a value: null where nothing is written."""

    def __init__(self, column: pa.ChunkedArray, name: str, place: Place, schema: Schema) -> None:
        self.column = column
        self.name = name
        self.place = place
        self.schema = schema
        self.there = ~_empty(column)

    def with_value(self, value: Value | None) -> tuple[pa.ChunkedArray, Any]:
        kind = self.column.type
        if value is None:
            return self.spread(np.ones(int(self.there.sum()), bool)), None
        if isinstance(value, bool):
            if pa.types.is_boolean(kind):
                return self.column, value
            return self.texts(), str(value).lower()
        if isinstance(value, int | float):
            if not (is_text(kind) or is_number(kind)):
                raise self.place.refuse(
                    self.name, f"holds {kind}; --where compares it with {value}"
                )
            values, place = self.column.filter(pa.array(self.there)), self.place.of(self.there)
            return self.spread(to_numbers(values, self.name, place, _A_NUMBER)), value
        moment = _moment(value) if self.is_time() else None
        return (self.texts(), value) if moment is None else (self.times(), moment)

    def is_time(self) -> bool:
        return self.name == self.schema.time_key or is_moment(self.column.type)

    def times(self) -> pa.ChunkedArray:
        of_schema = self.schema.time_format if self.name == self.schema.time_key else None
        values, place = self.column.filter(pa.array(self.there)), self.place.of(self.there)
        return self.spread(to_milliseconds(values, self.name, place, of_schema))

    def texts(self) -> pa.ChunkedArray:
        if is_number(self.column.type):
            raise self.place.refuse(
                self.name, "holds numbers, and --where compares it with a text; write it unquoted"
            )
        trimmed = pc.utf8_trim_whitespace(as_text(self.column))
        return pc.if_else(pa.array(self.there), trimmed, pa.scalar(None, pa.string()))

    def spread(self, values: NDArray[Any]) -> pa.ChunkedArray:
        """Values of the rows that have one, at their rows; null elsewhere."""
        whole = np.zeros(len(self.there), values.dtype)
        whole[self.there] = values
        return pa.chunked_array([pa.array(whole, mask=~self.there)])


def _moment(text: str) -> int | None:
    try:
        return parse_moment(text)
    except ValueError:
        return None
