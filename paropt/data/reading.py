"""Event files as columns of text: TSV, CSV (plain or gzip) and Parquet, read by pyarrow.

Nothing is interpreted here: ids and times of delimited files stay text, so that ``007`` is not
``7`` and whoever parses a value can name its file, column and line.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from paropt.errors import DataError

_BLOCK_BYTES = 8 << 20
_TYPED_NAME = re.compile(r"(.+):(token|token_seq|float|float_seq)")
_DELIMITERS = "\t,;|"
# what a file begins with, and what to say of it
_MAGIC = {
    b"PK\x03\x04": "a zip archive or spreadsheet; unpack it, or save it as CSV",
    b"BZh": "compressed with bzip2; use gzip or no compression",
    b"\xfd7zXZ": "compressed with xz; use gzip or no compression",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; use gzip or no compression",
    b"\x89HDF": "an HDF5 file; save its table as Parquet",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
_DAMAGED = (OSError, EOFError, zlib.error)
_GZIP = b"\x1f\x8b"
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\x78[\x01\x5e\x9c\xda]|ZF")


@dataclass(frozen=True)
class Layout:
    """How a file is written: names by position (None if it has a header) and what separates."""

    path: Path
    names: tuple[str, ...]
    delimiter: str = ""  # empty: Parquet
    has_header: bool = True
    gzipped: bool = False

    @property
    def is_parquet(self) -> bool:
        return not self.delimiter


@dataclass(frozen=True)
class Place:
    """Where a row of several files read one after the other came from."""

    layouts: Sequence[Layout]
    first_rows: Sequence[int]

    def fail(self, row: int, column: str, what: str) -> DataError:
        """The error that something is wrong with a row: ``file:line: column …``."""
        which = max(i for i, first in enumerate(self.first_rows) if first <= row)
        layout = self.layouts[which]
        line = _line_of(layout, row - self.first_rows[which])
        return DataError(f"{layout.path}:{line}: column {column!r}: {what}")


# -- what kind of file is it ----------------------------------------------------------------


def look_at(path: Path, headless: Sequence[str] = (), delimiter: str = "") -> Layout:
    """A file's layout, from its first bytes; nothing else of it is read.

    ``headless`` names the columns of a format without a header line.

    Raises:
        DataError: the file cannot be read, is empty, is no table, or names a column twice.
    """
    line = peek(path)
    if line is None:
        return _checked(Layout(path, tuple(_parquet(path).schema_arrow.names)))
    gzipped = _magic(path).startswith(_GZIP)
    delimiter = delimiter or max(_DELIMITERS, key=lambda d: (line.count(d), d == ","))
    if headless:
        return Layout(path, tuple(headless), delimiter, False, gzipped)
    names = next(csv.reader([line], delimiter=delimiter))
    typed = [_TYPED_NAME.fullmatch(name) for name in names]
    if all(typed):
        names = [match[1] for match in typed if match]
    return _checked(Layout(path, tuple(name.strip() for name in names), delimiter, True, gzipped))


def peek(path: Path) -> str | None:
    """A delimited file's first line that isn't blank; None for Parquet.

    Raises:
        DataError: the file cannot be read, is empty, or is no table.
    """
    magic = _magic(path)
    if not magic:
        raise DataError(f"{path} is empty")
    _refuse_pickle(path, magic)
    if magic.startswith(b"PAR1"):
        return None
    for start, what in _MAGIC.items():
        if magic.startswith(start):
            raise DataError(f"{path} is {what}")
    return _first_line(path, _head(path, magic.startswith(_GZIP)))


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _refuse_pickle(path: Path, magic: bytes) -> None:
    by_name = path.suffix in (".pickle", ".pkl", ".joblib")
    if not (by_name or _PICKLE.match(magic)):
        return
    parquet = path.with_suffix(".parquet").name
    raise DataError(
        f"{path} is a pickle, which paropt never loads because loading runs code; if you trust it:"
        f" python -c \"import joblib; joblib.load('{path}').to_parquet('{parquet}')\""
    )


def _head(path: Path, gzipped: bool) -> bytes:
    try:
        with gzip.open(path) if gzipped else path.open("rb") as file:
            head: bytes = file.read(1 << 16)
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    if b"\0" in head:
        raise DataError(f"{path} is a binary file, not TSV, CSV or Parquet")
    if not head.strip():
        raise DataError(f"{path} is empty")
    if head.lstrip().startswith((b"{", b"[")):
        raise DataError(f"{path} is JSON; save it as CSV or Parquet, one event per row")
    return head


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} is cut short or damaged: {_one_line(error)}")


def _first_line(path: Path, head: bytes) -> str:
    try:
        return head.lstrip(b"\r\n").splitlines()[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}:1: the header is not UTF-8 text") from None


def _checked(layout: Layout) -> Layout:
    twice = sorted({name for name in layout.names if layout.names.count(name) > 1})
    if twice:
        raise DataError(f"{layout.path}:1: the header names column {twice[0]!r} twice")
    return layout


# -- reading --------------------------------------------------------------------------------


def read_columns(layouts: Sequence[Layout], columns: Sequence[str]) -> tuple[pa.Table, Place]:
    """The named columns of all files, one after the other, and where each row came from.

    Delimited files give text, Parquet its own types; where files differ, text.

    Raises:
        DataError: a column is missing, a file is cut short, a row has too few fields, ….
    """
    tables = []
    for layout in layouts:
        for column in columns:
            require(layout, column)
        table = _read_parquet(layout, columns) if layout.is_parquet else _read_text(layout, columns)
        if not table.num_rows:
            raise DataError(f"{layout.path} has a header but no events")
        tables.append(table)
    first_rows = list(itertools.accumulate((table.num_rows for table in tables), initial=0))
    return _stack(tables), Place(layouts, first_rows[:-1])


def require(layout: Layout, column: str) -> None:
    """Raises a DataError unless the file has the column."""
    if column in layout.names:
        return
    close = difflib.get_close_matches(column, layout.names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(layout.names)}"
    raise DataError(f"{layout.path} has no column {column!r}; {hint}")


def _stack(tables: list[pa.Table]) -> pa.Table:
    if any(table.schema != tables[0].schema for table in tables):
        text = [pa.field(name, pa.string()) for name in tables[0].column_names]
        tables = [table.cast(pa.schema(text)) for table in tables]
    return pa.concat_tables(tables)


def _parquet(path: Path) -> pa.parquet.ParquetFile:
    try:
        return pa.parquet.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is a Parquet file cut short or damaged: {_one_line(error)}"
        ) from None


def _read_parquet(layout: Layout, columns: Sequence[str]) -> pa.Table:
    try:
        table = _parquet(layout.path).read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{layout.path} cannot be read: {_one_line(error)}") from None
    for column in table.column_names:
        if pa.types.is_nested(table.schema.field(column).type):
            raise DataError(f"{layout.path}: column {column!r} holds lists, not single values")
    return table.select(list(columns))


def _read_text(layout: Layout, columns: Sequence[str]) -> pa.Table:
    if layout.delimiter == "::":  # MovieLens: to a reader of single ":" every other field is empty
        names = [n for name in layout.names for n in (name, f"{name}\0")][:-1]
    else:
        names = list(layout.names)
    try:
        with pa.input_stream(
            str(layout.path), compression="gzip" if layout.gzipped else None
        ) as stream:
            return pa.csv.read_csv(
                stream,
                read_options=pa.csv.ReadOptions(
                    column_names=names,
                    skip_rows=int(layout.has_header),
                    block_size=_BLOCK_BYTES,
                ),
                parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter[0]),
                convert_options=pa.csv.ConvertOptions(
                    column_types={column: pa.string() for column in columns},
                    include_columns=list(columns),
                ),
            )
    except pa.ArrowInvalid as error:
        raise _explain(layout, error) from None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(layout.path, error) from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


# -- finding the line of an error, slowly ---------------------------------------------------


def _lines(layout: Layout) -> Iterator[tuple[int, bytes]]:
    """The numbers and contents of the lines that hold rows, as pyarrow counts them."""
    try:
        with gzip.open(layout.path) if layout.gzipped else layout.path.open("rb") as file:
            filled = ((n, line.rstrip(b"\r\n")) for n, line in enumerate(file, 1))
            rows = ((n, line) for n, line in filled if line)
            yield from itertools.islice(rows, int(layout.has_header), None)
    except _DAMAGED as error:
        raise _damaged(layout.path, error) from None


def _line_of(layout: Layout, row: int) -> int:
    if layout.is_parquet:
        return row + 1
    return next(itertools.islice(_lines(layout), row, None), (0, b""))[0]


def _explain(layout: Layout, error: pa.ArrowInvalid) -> DataError:
    """What pyarrow could not parse, with its line."""
    separators, number = len(layout.names), 0
    for number, line in _lines(layout):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return DataError(f"{layout.path}:{number}: not UTF-8 text")
        try:
            fields = (
                text.split(layout.delimiter)
                if len(layout.delimiter) > 1
                else next(csv.reader([text], delimiter=layout.delimiter), [])
            )
        except csv.Error as wrong:
            what = "a carriage return inside a line" if "\r" in text else str(wrong)
            return DataError(f"{layout.path}:{number}: {what}")
        if len(fields) != separators:
            return DataError(
                f"{layout.path}:{number}: {len(fields)} fields where {separators} are expected"
            )
    if not number:
        return DataError(f"{layout.path} has a header but no events")
    return DataError(f"{layout.path} cannot be read: {_one_line(error)}")
