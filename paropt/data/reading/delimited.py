"""Delimited text as columns of text, read by pyarrow; its rows are counted here, independently.

pyarrow's reader is fast and forgiving: a quote that is never closed makes one value of all the
rows up to the next quote. So a TSV is read without quotes, as it is written, and a CSV's quotes are
looked at before: each value that begins with one must end with one (RFC 4180).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from paropt.data.reading.layouts import BLANKS, DAMAGED, Layout, damaged, on_disk, one_line
from paropt.errors import DataError

_BLOCK_BYTES = 8 << 20
_QUOTE, _LF, _CR = b'"\n\r'
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
OnBad = Callable[[int, int, str], None]


@dataclass
class Scan:
    """What was counted: lines that hold rows (the header is one), and whether there are quotes."""

    rows: int = 0
    has_quotes: bool = False
    spans_lines: bool = False
    wrong_quotes: bool = False


@dataclass(frozen=True)
class Record:
    """A row as it is written, and the number of its first line.

    Where a quote is not closed it is a line; its ``quotes`` are wrong then.
    """

    line: int
    text: bytes
    wrong_quotes: bool = False


_WRONG_QUOTE = (
    'a value begins with a quote (") and does not end with one; in a CSV a value with quotes is'
    " quoted, and the quotes in it are doubled"
)
SKIP = "--skip-bad-rows leaves such rows out"


def read_text(layout: Layout, columns: Sequence[str], on_bad: OnBad | None) -> pa.Table:
    """The named columns as text.

    ``on_bad`` is called with row, line and reason of each row with a wrong number of fields or
    a quote that is not closed, and that row is left out; without it, the first such row is an
    error.

    Raises:
        DataError: the file is cut short, is no UTF-8 text, or holds quotes that are not closed.
    """
    scan, n_bad = _scan(layout, strict=on_bad is None), 0
    if scan.rows <= int(layout.has_header):
        raise DataError(f"{layout.path} has a header but no events")
    try:
        if scan.wrong_quotes:
            raise pa.ArrowInvalid
        with _opened(layout) as stream:
            table = _parse(layout, columns, scan, stream, int(layout.has_header))
    except pa.ArrowInvalid as error:
        if on_bad is None:
            raise _explain(layout, columns, error) from None
        table, n_bad = _parse_good(layout, columns, scan, on_bad)
    except (pa.ArrowException, OSError) as error:
        raise damaged(layout.path, error) from None
    n_read = table.num_rows + n_bad + int(layout.has_header)
    if n_read != scan.rows:
        raise DataError(
            f"{layout.path} has {scan.rows} lines with rows, of which {n_read} were understood;"
            " look for quotes and carriage returns inside values"
        )
    return _without_quotes(layout, table) if scan.has_quotes else table


def records(layout: Layout) -> Iterator[Record]:
    """The rows as they are written, without the header; slow, for what has to name a line.

    Raises:
        DataError: the file cannot be read.
    """
    data = _content(layout)
    found = _records(data, layout.delimiter) if layout.quotes else _plain_lines(data)
    for number, record in enumerate(found):
        if number >= int(layout.has_header):
            yield record


def fields_of(layout: Layout, text: bytes) -> list[bytes]:
    """A record's fields, in CSV with their quotes."""
    if layout.delimiter == BLANKS:
        return text.split()
    if not layout.quotes:
        return text.split(layout.delimiter.encode())
    field = _patterns(layout.delimiter)[1]
    fields, at = [], 0
    while match := field.match(text, at):
        fields.append(match[0])
        at = match.end() + 1
        if at > len(text):
            break
    return fields


# -- counting -------------------------------------------------------------------------------


def _scan(layout: Layout, strict: bool) -> Scan:
    """Count the rows by their line ends; in a CSV, look at the quotes as well.

    ``strict``: quotes that are not closed are an error.
    """
    scan, before = Scan(), _LF
    try:
        with _opened(layout) as stream:
            while block := stream.read(_BLOCK_BYTES):
                scan.rows += _begun_lines(block, before)
                scan.has_quotes = scan.has_quotes or b'"' in block
                before = block[-1]
    except (pa.ArrowException, OSError) as error:
        raise damaged(layout.path, error) from None
    if scan.has_quotes and layout.quotes:
        _check_quotes(layout, scan, strict)
    return scan


def _opened(layout: Layout) -> pa.NativeFile:
    compression = "gzip" if layout.gzipped else None
    return pa.input_stream(str(on_disk(layout.path)), compression=compression)


def _begun_lines(block: bytes, before: int) -> int:
    """How many lines that are not blank begin in a block that follows the byte ``before``."""
    if b"\r" not in block and b"\n\n" not in block:
        begun = np.count_nonzero(np.frombuffer(block, np.uint8) == _LF)
        # a line begins after each end but one at the very end, and at the beginning
        return int(begun) - (block[-1] == _LF) + (before == _LF) * (block[0] != _LF)
    codes = np.frombuffer(block, np.uint8)
    ends = (codes == _LF) | (codes == _CR)
    follows_end = np.r_[before in (_LF, _CR), ends[:-1]]
    return int(np.count_nonzero(follows_end & ~ends))


def _check_quotes(layout: Layout, scan: Scan, strict: bool) -> None:
    """Refuse what pyarrow would read otherwise than it is written.

    Whether quotes are in pairs, open where a field begins and close where it ends is seen at once;
    only where they are not, or a value spans lines, rows are looked at one by one.
    """
    data = _content(layout)
    if _plainly_quoted(data, layout.delimiter.encode()[0]):
        return
    scan.rows, shape = 0, None
    for record in _records(data, layout.delimiter):
        scan.rows += 1
        if record.wrong_quotes and strict:
            raise DataError(f"{layout.path}:{record.line}: {_WRONG_QUOTE}; {SKIP}")
        scan.wrong_quotes |= record.wrong_quotes
        if shape is None and scan.rows > int(layout.has_header):
            shape = [_is_digit(field) for field in fields_of(layout, record.text)]
        if _LINE_END.search(record.text):
            scan.spans_lines = True
            _refuse_swallowed(layout, record, shape or [])


def _plainly_quoted(data: bytes, delimiter: int) -> bool:
    """Every quoted value is well-formed and on one line."""
    codes = np.frombuffer(data, np.uint8)
    begins = len(_BOM) * data.startswith(_BOM)
    n_before = 0
    for start in range(begins, len(codes), _BLOCK_BYTES):
        block = codes[start : start + _BLOCK_BYTES]
        quotes = start + np.flatnonzero(block == _QUOTE)
        opens = (n_before + np.arange(len(quotes))) % 2 == 0
        before = np.where(quotes > begins, codes[quotes - 1], _LF)
        after = np.where(quotes + 1 < len(codes), codes[np.minimum(quotes + 1, len(codes) - 1)], 10)
        beside = np.where(opens, before, after)
        if not np.isin(beside, (delimiter, _LF, _CR, _QUOTE)).all():
            return False
        ends = start + np.flatnonzero((block == _LF) | (block == _CR))
        if ((n_before + np.searchsorted(quotes, ends)) % 2).any():
            return False
        n_before += len(quotes)
    return n_before % 2 == 0


def _refuse_swallowed(layout: Layout, record: Record, shape: list[bool]) -> None:
    """A value that spans lines must not have made one record of what looks like rows.

    It has if every line has as many fields as a row, and digits begin them where they do in the
    file's first row, whose ``shape`` is given.
    """
    lines = [line for line in _LINE_END.split(record.text) if line]
    if len(lines) > 1 and all(_is_alike(layout, line, shape) for line in lines):
        raise DataError(
            f"{layout.path}:{record.line}: a quote opens here that closes only lines later,"
            " with rows in between; take it out, or double it and quote the value"
        )


def _is_alike(layout: Layout, line: bytes, shape: list[bool]) -> bool:
    fields = line.split(layout.delimiter.encode())
    return len(fields) == len(shape) and all(
        _is_digit(field) for field, digit in zip(fields, shape, strict=True) if digit
    )


def _is_digit(field: bytes) -> bool:
    return field.lstrip(b' "')[:1].isdigit()


# -- parsing --------------------------------------------------------------------------------


def _parse(
    layout: Layout, columns: Sequence[str], scan: Scan, stream: Any, n_headers: int
) -> pa.Table:
    spare = _spare_names(layout) if layout.spare_is_empty else []
    wanted = [*columns, *spare]
    table = pa.csv.read_csv(
        _Squeezed(stream) if layout.delimiter == BLANKS else stream,
        read_options=pa.csv.ReadOptions(
            column_names=_all_names(layout),
            skip_rows=_lines_before(layout) if n_headers else 0,
            block_size=_BLOCK_BYTES,
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=layout.delimiter[0],
            quote_char='"' if layout.quotes and scan.has_quotes else False,
            newlines_in_values=scan.spans_lines,
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types={column: pa.string() for column in wanted},
            include_columns=wanted,
        ),
    )
    if spare:
        _check_spare(layout, table, spare)
    return table.select(list(columns))


def _parse_good(
    layout: Layout, columns: Sequence[str], scan: Scan, on_bad: OnBad
) -> tuple[pa.Table, int]:
    """The rows that can be read, and how many cannot."""
    good, n_bad = [], 0
    for row, record in enumerate(records(layout)):
        wrong = _wrong(layout, record, columns)
        if wrong:
            on_bad(row, record.line, wrong)
            n_bad += 1
        else:
            good.append(record.text)
    if not good:
        return pa.table({name: pa.array([], pa.string()) for name in columns}), n_bad
    return _parse(layout, columns, scan, pa.BufferReader(b"\n".join(good)), 0), n_bad


class _Squeezed:
    """A stream whose runs of blanks and tabs are one blank, as pyarrow wants it."""

    closed = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self.stream = stream
        self.rest = b""

    def read(self, size: int) -> bytes:
        while True:
            block = self.stream.read(max(1, size - len(self.rest)))
            whole, end, self.rest = (self.rest + block).rpartition(b"\n")
            if not block:
                whole, end, self.rest = self.rest, b"", b""
            squeezed = re.sub(rb"[ \t]+", b" ", whole + end)
            for wide, narrow in ((b" \n", b"\n"), (b" \r", b"\r"), (b"\n ", b"\n")):
                squeezed = squeezed.replace(wide, narrow)
            if squeezed or not block:
                return squeezed.lstrip(b" ").removesuffix(b" ")


def _all_names(layout: Layout) -> list[str]:
    """A name for each field of a row; those that nobody can ask for are numbered."""
    names = [name or f"\0{n}" for n, name in enumerate(layout.names)] + _spare_names(layout)
    if layout.delimiter == "::":  # MovieLens: to a reader of single ":" every other field is empty
        return [n for name in names for n in (name, f"{name}\0")][:-1]
    return names


def _spare_names(layout: Layout) -> list[str]:
    return [f"\0spare{n}" for n in range(layout.spare)]


def _lines_before(layout: Layout) -> int:
    """The number of the header's line, for blank ones may precede it."""
    with _opened(layout) as stream:
        head = stream.read(1 << 16).removeprefix(_BOM)
    return 1 + len(_LINE_END.findall(head[: len(head) - len(head.lstrip(b"\r\n"))]))


def _check_spare(layout: Layout, table: pa.Table, spare: Sequence[str]) -> None:
    for name in spare:
        filled = pc.not_equal(pc.utf8_trim_whitespace(table.column(name)), "")
        row = pc.index(filled, True).as_py()
        if row >= 0:
            value = table.column(name)[row].as_py()
            raise DataError(
                f"{layout.path}:{line_of(layout, row)}: {value!r} is in no column of the header"
            )


def _without_quotes(layout: Layout, table: pa.Table) -> pa.Table:
    """Values without quotes that are part of no value: a TSV's, and a CSV's after a blank."""
    is_quoted = _is_quoted_after_blank if layout.quotes else _is_quoted
    for n, name in enumerate(table.column_names):
        column = table.column(name)
        if is_quoted(column):
            inner = pc.replace_substring_regex(column, r'^ *"((?s:.*))" *$', r"\1")
            table = table.set_column(n, name, pc.replace_substring(inner, '""', '"'))
    return table


def _is_quoted_after_blank(column: pa.ChunkedArray) -> bool:
    """All values are written like ``1, "a"``: to CSV the quote is not at the field's beginning."""
    quoted = pc.match_substring_regex(column, r'^ +"[^"]*" *$')
    return bool(pc.any(quoted).as_py() and pc.all(pc.or_(quoted, _is_nothing(column))).as_py())


def _is_quoted(column: pa.ChunkedArray) -> bool:
    """All values are quoted (R), or just those with quotes in them, which are doubled (pandas).

    Then nothing else can have been meant; otherwise quotes are characters like others.
    """
    plain = pc.invert(pc.match_substring(column, '"'))
    if pc.all(plain).as_py():
        return False
    quoted = pc.match_substring_regex(column, r'^"(?:[^"]|"")*"$')
    if not pc.all(pc.or_(plain, quoted)).as_py() or not pc.any(quoted).as_py():
        return False
    doubled = pc.match_substring_regex(column, r'^"(?:[^"]|"")*""(?:[^"]|"")*"$')
    minimal = pc.all(pc.or_(plain, doubled)).as_py()
    return bool(minimal or pc.all(pc.or_(quoted, _is_nothing(column))).as_py())


def _is_nothing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What programs that quote every value write, unquoted, where there is none."""
    return pc.match_substring_regex(column, r"^ *(NA|NULL|\\N|NaN|nan)? *$")


# -- lines, slowly --------------------------------------------------------------------------


def line_of(layout: Layout, row: int) -> int:
    """The number of the line that a row of the file begins on."""
    return next((record.line for n, record in enumerate(records(layout)) if n == row), 0)


def _content(layout: Layout) -> bytes:
    path = on_disk(layout.path)
    try:
        with gzip.open(path) if layout.gzipped else path.open("rb") as file:
            content: bytes = file.read()
    except DAMAGED as error:
        raise damaged(layout.path, error) from None
    return content


def _plain_lines(data: bytes) -> Iterator[Record]:
    at, line = len(_BOM) * data.startswith(_BOM), 0
    while at < len(data):
        line += 1
        end = _LINE_END.search(data, at)
        until, after = end.span() if end else (len(data), len(data))
        if until > at:
            yield Record(line, data[at:until])
        at = after


def _patterns(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A record and a field of CSV."""
    d = re.escape(delimiter).encode()
    field = rb'(?:"(?:[^"]++|"")*+"(?=%b|[\r\n]|\Z)|[^"%b\r\n][^%b\r\n]*+|)' % (d, d, d)
    return re.compile(rb"%b(?:%b%b)*+(?=[\r\n]|\Z)" % (field, d, field)), re.compile(field)


def _records(data: bytes, delimiter: str) -> Iterator[Record]:
    """The records of a CSV; values may hold line ends. Of a wrong quote the line is a record."""
    record = _patterns(delimiter)[0]
    at, line = len(_BOM) * data.startswith(_BOM), 1
    while at < len(data):
        end = _LINE_END.search(data, at)
        until, wrong = end.start() if end else len(data), False
        if data.find(b'"', at, until) >= 0:
            match = record.match(data, at)
            until = match.end() if match else until
            wrong = match is None
        if until > at:
            yield Record(line, data[at:until], wrong)
            line += len(_LINE_END.findall(data, at, until))
        line += 1
        end = _LINE_END.match(data, until)
        at = end.end() if end else len(data)


def _wrong(layout: Layout, record: Record, columns: Sequence[str]) -> str:
    """What is wrong with a row, or nothing: quotes, number of fields, bytes that are no text."""
    if record.wrong_quotes:
        return _WRONG_QUOTE
    fields, expected = fields_of(layout, record.text), len(layout.names) + layout.spare
    if len(fields) != expected:
        if b"\r" in record.text:
            return "a carriage return inside a line"
        return f"{len(fields)} field{'s' * (len(fields) != 1)} where {expected} are expected"
    for name in columns:
        try:
            fields[layout.names.index(name)].decode()
        except UnicodeDecodeError:
            return f"not UTF-8 text (column {name!r}); save the file as UTF-8"
    return ""


def _explain(layout: Layout, columns: Sequence[str], error: pa.ArrowInvalid) -> DataError:
    """What pyarrow could not parse, with its line."""
    for record in records(layout):
        wrong = _wrong(layout, record, columns)
        if wrong:
            return DataError(f"{layout.path}:{record.line}: {wrong}; {SKIP}")
    return DataError(f"{layout.path} cannot be read: {one_line(error)}")
