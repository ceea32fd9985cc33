"""Which rows of a log are events at all: what ``--event``, ``--where``, … leave."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Bools, Ints
from paropt.data.log.command import option_text
from paropt.data.log.filtering.conditions import Bound, Condition, Pattern, Value, parse_condition
from paropt.data.log.formats import Schema
from paropt.data.log.options import Options
from paropt.data.log.values.ids import missing_ids, names_no_value
from paropt.data.log.values.times import (
    UNITS,
    all_numbers,
    parse_moment,
    to_milliseconds,
    to_numbers,
    unreadable_times,
)
from paropt.data.log.values.truths import truths_of
from paropt.data.reading.arrow import as_text, is_moment, is_number, is_text
from paropt.data.reading.read import Place
from paropt.errors import DataError

_A_NUMBER = "number, and --where compares it with one"
_TEXT_WITH_NUMBERS = "holds numbers, and --where compares it with a text; write it unquoted"
# dates whose letters are in the order of time, and dates whose letters are not
_ISO = r"^\s*\d{4}-\d\d(-\d\d([T ].*)?)?\s*$"
_ISO_OR_YEAR = rf"{_ISO}|^\s*\d{{4}}\s*$"  # of some films only the year is known
_DAY_FIRST = r"\s*\d{1,2}[/.-]\d{1,2}[/.-]\d{4}\b"
_WHOLE = re.compile(r"\s*\+?(-?)0*(\d+)(?:\.0*)?\s*")


@dataclass(frozen=True)
class Filter:
    """One step: which rows [rows] it leaves, and the option that asked for it."""

    name: str
    option: str
    leaves: Bools


def filters(
    table: pa.Table,
    place: Place,
    schema: Schema,
    options: Options,
    kind: Bools | None,
    settled: Container[str] = (),
) -> Iterator[Filter]:
    """The filters that ``options`` ask for, in the order in which they are counted.

    ``kind`` tells which rows are of the wanted kind; the others may lack an item. Conditions that
    are ``settled`` were tried on another log: what they compare as texts there is text here too.

    Raises:
        DataError: a value cannot be compared as a condition asks.
    """
    for number, text in enumerate(options.where, 1):
        holds = _holds(parse_condition(text), table, place, schema, text in settled)
        name = "where" if number == 1 else f"where {number}"
        yield Filter(name, option_text("where", (text,)), holds)
    if options.drop_missing:
        words = not (options.words_are_ids or options.text_ids)
        missing = _lacking(table, place, schema, kind, words)
        yield Filter("missing", option_text("drop_missing", True), ~missing)
    if options.drop_ids:
        named, _ = named_ids(table, schema, options.drop_ids)
        yield Filter("ids", option_text("drop_ids", options.drop_ids), ~named)


def of_kind(column: pa.ChunkedArray, kinds: tuple[str, ...]) -> tuple[Bools, list[str]]:
    """Which rows [rows] are one of these kinds, as text or as the same whole number (4, 4.0); and
    the kinds that no row is of.

    Raises:
        LookupError: none is; the message lists kinds that there are.
    """
    encoded = _encoded(column)
    texts = pc.cast(encoded.dictionary, pa.string()).to_pylist()
    seen = [as_whole((text or "").strip()) for text in texts]
    wanted = {as_whole(kind.strip()): kind for kind in kinds}
    codes = [code for code, text in enumerate(seen) if text in wanted]
    if not codes:
        raise LookupError(", ".join(map(repr, texts[:5])))
    found: Bools = np.isin(_codes(encoded), codes)
    return found, [kind for written, kind in wanted.items() if written not in seen]


def as_whole(text: str | None) -> str:
    """``4`` of ``4.0``: a column of floats writes whole numbers so."""
    match = _WHOLE.fullmatch(text or "")
    return f"{match[1]}{match[2]}" if match else (text or "")


def as_wholes(texts: pa.Array) -> pa.Array:
    """:func:`as_whole` of many."""
    return pc.replace_substring_regex(texts, f"^(?:{_WHOLE.pattern})$", r"\1\2")


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
        if name is not None:  # no word is a time
            missing = missing | missing_ids(table.column(name), name, place)
    without_item = missing_ids(table.column(item), item, place, words)
    return missing | (without_item if kind is None else without_item & kind)


def named_ids(table: pa.Table, schema: Schema, ids: tuple[str, ...]) -> tuple[Bools, list[str]]:
    """Rows whose session or item is one of ``--drop-id``, and those ids that no row has."""
    wanted = {text.strip() for text in ids}
    absent = list(dict.fromkeys(text.strip() for text in ids))
    named = np.zeros(table.num_rows, bool)
    for name in (schema.session_key, schema.item_key):
        column = table.column(name)
        encoded = _encoded(as_text(column))
        seen = [(text or "").strip() for text in encoded.dictionary.to_pylist()]
        if pa.types.is_floating(column.type):
            seen = list(map(as_whole, seen))
        codes = [code for code, text in enumerate(seen) if text in wanted]
        named |= np.isin(_codes(encoded), codes)
        there = {seen[code] for code in codes}
        absent = [text for text in absent if text not in there]
    return named, absent


# -- conditions -----------------------------------------------------------------------------


def _holds(
    condition: Condition, table: pa.Table, place: Place, schema: Schema, settled: bool
) -> Bools:
    def fetch(name: str, value: Value | Pattern | Bound | None) -> tuple[pa.ChunkedArray, Any]:
        return _Compared(table.column(name), name, place, schema, settled).with_value(value)

    try:
        return np.asarray(pc.fill_null(condition.holds(fetch), False), bool)
    except pa.ArrowInvalid:  # whole numbers beside fractions that these cannot be made
        raise DataError(
            f"{place.layouts[0].path}: --where {condition.text!r} compares numbers that are too"
            " large to be compared exactly; write whole numbers without a fraction, up to"
            " 9223372036854775807"
        ) from None


class _Compared:
    """A column in a form that compares with a value: null where nothing is written."""

    def __init__(
        self, column: pa.ChunkedArray, name: str, place: Place, schema: Schema, settled: bool
    ) -> None:
        self.column = column
        self.name = name
        self.place = place
        self.schema = schema
        self.settled = settled
        self.there = ~_empty(column)

    def with_value(self, value: Value | Pattern | Bound | None) -> tuple[pa.ChunkedArray, Any]:
        kind = self.column.type
        if value is None:
            return self.spread(np.ones(int(self.there.sum()), bool), self.there), None
        if isinstance(value, Pattern):
            return self.texts(), value.text
        if isinstance(value, bool):
            return self.truths(value), value
        if isinstance(value, int | float):
            if not (is_text(kind) or is_number(kind)):
                raise self.place.refuse(
                    self.name, f"holds {kind}; --where compares it with {value}"
                )
            said = self.said()
            values, place = self.column.filter(pa.array(said)), self.place.of(said)
            return self.spread(to_numbers(values, self.name, place, _A_NUMBER), said), value
        text = value.text if isinstance(value, Bound) else value
        if pa.types.is_boolean(kind):
            return self.column, self.truth(text)
        moment = self.moment(text) if self.is_time() else None
        if moment is not None:
            return self.times(self.there), moment
        return self.ordered(text) if isinstance(value, Bound) else (self.texts(), text)

    def said(self) -> Bools:
        """Rows with a value, a word for "no value" being none [rows]."""
        if not is_text(self.column.type):
            return self.there
        words = names_no_value(pc.utf8_trim_whitespace(self.column))
        found: Bools = self.there & ~np.asarray(pc.fill_null(words, True), bool)
        return found

    def ordered(self, text: str) -> tuple[pa.ChunkedArray, Any]:
        """Texts that come before or after another letter by letter, unless that would order
        numbers or dates otherwise than they are: ``'10' < '5'``, ``'9/12/2023' > '2024-01-01'``.
        A condition that a model's log was read by (``settled``) is not refused.
        """
        texts, said = self.texts(), self.said()
        values, place = texts.filter(pa.array(said)), self.place.of(said)
        if all_numbers(values) and not self.settled:  # of article numbers, a few may be numbers
            raise self.place.refuse(self.name, _TEXT_WITH_NUMBERS)
        if re.match(_DAY_FIRST, text) and not self.settled:
            raise self.place.refuse(
                self.name,
                f"is compared letter by letter, and --where compares it with {text!r}, of which the"
                " day or month is first; write dates as 2017-10-16, in the file and in --where",
            )
        if not re.match(_ISO, text):
            return texts, text
        other = pc.invert(pc.match_substring_regex(values, _ISO_OR_YEAR))
        if pc.any(other).as_py():
            if self.settled:
                return texts, text
            row = pc.index(other, True).as_py()
            raise place.fail(
                row,
                self.name,
                f"{values[row].as_py()!r} is no date by ISO 8601, and --where compares it with the"
                f" date {text!r}; write the column's dates as 2017-10-16",
            )
        try:
            return self.times(said), parse_moment(text)
        except (DataError, ValueError):  # a month, or the year 9999: letters are in their order
            return pc.if_else(pa.array(said), texts, pa.scalar(None, pa.string())), text

    def truths(self, value: bool) -> pa.ChunkedArray:
        """True and false, as programs write them: True, TRUE, 1."""
        if pa.types.is_boolean(self.column.type):
            return self.column
        meant, there = truths_of(as_text(self.column)), self.said()
        neither = np.asarray(pc.is_null(meant), bool) & there
        if neither.any():
            row = int(np.argmax(neither))
            raise self.place.fail(
                row,
                self.name,
                f"{as_text(self.column)[row].as_py()!r} is neither true nor false, and --where"
                f" compares it with {str(value).lower()}",
            )
        return meant

    def truth(self, text: str) -> bool:
        meant = truths_of(pa.array([text]))[0].as_py()
        if meant is not None:
            return bool(meant)
        raise self.place.refuse(
            self.name, f"holds true and false, and --where compares it with {text!r}"
        )

    def moment(self, text: str) -> int | None:
        """Milliseconds of a time written as the log's are, or by ISO 8601; None for a word."""
        form = self.schema.time_format if self.name == self.schema.time_key else None
        if form and form != "iso" and form not in UNITS:
            written = pa.chunked_array([pa.array([text.strip()])])
            for own in (form, form.split()[0]):  # the day alone will do
                if not unreadable_times(written, self.name, self.place, own).any():
                    return int(to_milliseconds(written, self.name, self.place, own)[0])
        try:
            return parse_moment(text)
        except ValueError:
            if not any(map(str.isdigit, text)):
                return None
        raise self.place.refuse(
            self.name,
            f"holds times, and --where compares it with {text!r}; write '2017-10-16' or"
            " '2017-10-16T12:00Z', or as the log's --time-format has it; numbers unquoted",
        )

    def is_time(self) -> bool:
        return self.name == self.schema.time_key or is_moment(self.column.type)

    def times(self, those: Bools) -> pa.ChunkedArray:
        of_schema = self.schema.time_format if self.name == self.schema.time_key else None
        values, place = self.column.filter(pa.array(those)), self.place.of(those)
        return self.spread(to_milliseconds(values, self.name, place, of_schema), those)

    def texts(self) -> pa.ChunkedArray:
        if is_number(self.column.type):
            raise self.place.refuse(self.name, _TEXT_WITH_NUMBERS)
        trimmed = pc.utf8_trim_whitespace(as_text(self.column))
        return pc.if_else(pa.array(self.there), trimmed, pa.scalar(None, pa.string()))

    def spread(self, values: NDArray[Any], those: Bools) -> pa.ChunkedArray:
        """Values of some rows, at these rows; null elsewhere."""
        whole = np.zeros(len(those), values.dtype)
        whole[those] = values
        return pa.chunked_array([pa.array(whole, mask=~those)])
