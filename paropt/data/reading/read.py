"""Event files as columns: delimited text and JSON lines as text, Parquet with its own types.

Nothing is interpreted here: ids and times of text files stay text, so that ``007`` is not ``7``
and whoever parses a value can name its file, column and line.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paropt.data.events import Bools, Ints
from paropt.data.reading import json_lines
from paropt.data.reading.arrow import (
    INEXACT_FROM,
    UnknownTypeError,
    as_text,
    check_known,
    is_text,
    plain,
)
from paropt.data.reading.delimited import SKIP, OnBad, line_of, read_text
from paropt.data.reading.layouts import (
    DAMAGED,
    Layout,
    damaged,
    look_at,
    on_disk,
    one_line,
    open_parquet,
    peek,
    refuse_header,
)
from paropt.errors import DataError, did_you_mean

__all__ = [
    "BadRow",
    "Layout",
    "Place",
    "look_at",
    "on_disk",
    "peek",
    "read_columns",
    "refuse_header",
    "require",
    "skipped",
]


@dataclass(frozen=True)
class BadRow:
    """A row that is no event: the file's part, its row there, its line, and what is wrong."""

    layout: Layout
    row: int
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.layout.path}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Place:
    """Where each row of a table that was read from files came from.

    Attributes:
        layouts: the files, one after the other; a directory's files are here one by one.
        first_rows: where each begins, counting every row that is in the files.
        rows: the row of the files [rows of the table], where some were left out.
        given: for each layout which of the files asked for it is or belongs to.
        skipped: rows that are no events.
    """

    layouts: Sequence[Layout]
    first_rows: Sequence[int]
    rows: Ints | None = None
    given: Sequence[int] = ()
    skipped: Sequence[BadRow] = field(default_factory=list)

    def fail(self, row: int, column: str, what: str) -> DataError:
        """The error that something is wrong with a row: ``file:line: column …``."""
        path, line = self.line(row)
        return DataError(f"{path}:{line}: column {column!r}: {what}")

    def refuse(self, column: str, what: str) -> DataError:
        """The error that a whole column cannot be used."""
        path = f"{self.layouts[0].path}: " if self.layouts else ""
        return DataError(f"{path}column {column!r} {what}")

    def plain(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        """The column in one of the few types that :func:`paropt.data.reading.arrow.plain` gives.

        Raises:
            DataError: its type is none of these and cannot be made one.
        """
        if is_text(column.type):
            return column
        try:
            return plain(column)
        except UnknownTypeError as error:
            raise self.refuse(name, str(error)) from None

    def line(self, row: int) -> tuple[Path, int]:
        """File and line (of Parquet: row, from 1) of a row of the table."""
        row = int(row if self.rows is None else self.rows[row])
        which = max(i for i, first in enumerate(self.first_rows) if first <= row)
        layout, row = self.layouts[which], row - self.first_rows[which]
        return layout.path, _line_of(layout, row)

    def of(self, kept: Bools) -> Place:
        """The place of the table's rows that a mask keeps."""
        return replace(self, rows=np.flatnonzero(kept) if self.rows is None else self.rows[kept])

    def files(self, n_rows: int) -> Ints:
        """Which of the files asked for each of the table's rows is from [n_rows]."""
        rows = np.arange(n_rows) if self.rows is None else self.rows
        parts = np.searchsorted(np.asarray(self.first_rows), rows, side="right") - 1
        given: Ints = np.asarray(self.given or range(len(self.layouts)))[parts]
        return given


def read_columns(
    layouts: Sequence[Layout], columns: Sequence[str], skip_bad_rows: bool = False
) -> tuple[pa.Table, Place]:
    """The named columns of all files, one after the other, and where each row came from.

    Text files give text; Parquet what :func:`paropt.data.reading.arrow.plain` makes of its types;
    where files differ, text. ``skip_bad_rows`` leaves out rows with a wrong number of fields and
    headers that are there again; the place says which.

    Raises:
        DataError: a column is missing, a file is cut short, a row has too few fields, ….
    """
    parts = [(part, n) for n, layout in enumerate(layouts) for part in layout.parts or [layout]]
    tables, skipped, n_rows = [], [], []
    for layout, _ in parts:
        for column in columns:
            require(layout, column)
        bad: list[BadRow] = []
        table = _read(layout, columns, bad, skip_bad_rows)
        if not table.num_rows and not (layout.is_parquet and len(parts) > 1):
            what = "no events" if layout.is_parquet or bad else "a header but no events"
            raise DataError(f"{layout.path} has {what}")
        tables.append(table)
        skipped.append(bad)
        n_rows.append(table.num_rows + len(bad))
    first_rows = list(itertools.accumulate(n_rows, initial=0))[:-1]
    place = Place(
        [layout for layout, _ in parts],
        first_rows,
        _rows_left(first_rows, n_rows, skipped),
        [n for _, n in parts],
        [row for bad in skipped for row in bad],
    )
    stacked = _stack(tables, [layout for layout, _ in parts])
    if not stacked.num_rows:
        raise DataError(f"{layouts[0].path} has no events")
    return stacked, place


def skipped(place: Place) -> str:
    """How many rows were skipped, and which: the first three."""
    many, shown = len(place.skipped), "; ".join(map(str, place.skipped[:3]))
    more = "; …" if many > 3 else ""
    return f"{many:,} bad row{'s are' if many > 1 else ' is'} skipped: {shown}{more}"


def require(layout: Layout, column: str) -> None:
    """Raises a DataError unless the file has the column."""
    if column in layout.names:
        return
    hint = did_you_mean(column, layout.names, f"it has {', '.join(layout.names)}")
    raise DataError(f"{layout.path} has no column {column!r}; {hint}")


def _rows_left(
    first_rows: Sequence[int], n_rows: Sequence[int], skipped: Sequence[Sequence[BadRow]]
) -> Ints | None:
    if not any(skipped):
        return None
    gone = [
        first + bad.row for first, rows in zip(first_rows, skipped, strict=True) for bad in rows
    ]
    return np.delete(np.arange(sum(n_rows)), gone)


def _stack(tables: list[pa.Table], layouts: Sequence[Layout]) -> pa.Table:
    """One below the other; a column that is not of one type in all of them becomes text."""
    columns = {}
    for name in tables[0].column_names:
        own = [table.column(name) for table in tables]
        if all(pa.types.is_floating(column.type) for column in own):
            own = [column.cast(max((c.type for c in own), key=_width)) for column in own]
        elif any(column.type != own[0].type for column in own):
            of_files = zip(own, layouts, strict=True)
            own = [as_text(_whole(column, name, layout)) for column, layout in of_files]
        chunks = [chunk for column in own for chunk in column.chunks]
        columns[name] = pa.chunked_array(chunks, own[0].type)
    return pa.table(columns)


def _whole(column: pa.ChunkedArray, name: str, layout: Layout) -> pa.ChunkedArray:
    """Floats that are whole numbers as integers, which other files may hold them as.

    Raises:
        DataError: some are so large that they may stand for their neighbours.
    """
    if not pa.types.is_floating(column.type):
        return column
    exact = INEXACT_FROM[column.type.bit_width]
    values = column.cast(pa.float64()).drop_null()
    whole = pc.and_(pc.is_finite(values), pc.equal(values, pc.floor(values)))
    if not pc.all(whole).as_py():
        return column
    if pc.any(pc.greater_equal(pc.abs(values), float(exact))).as_py():
        raise DataError(
            f"{layout.path}: column {name!r} holds {column.type}, which is not exact from {exact}"
            " on, and another file holds it as another type; write it as integers or text in all"
        )
    return column.cast(pa.float64()).cast(pa.int64())


def _width(kind: pa.DataType) -> int:
    return int(kind.bit_width)


def _line_of(layout: Layout, row: int) -> int:
    if layout.is_json:
        return json_lines.line_of(on_disk(layout.path), layout.gzipped, row)
    return row + 1 if layout.is_parquet else line_of(layout, row)


def _read(
    layout: Layout, columns: Sequence[str], bad: list[BadRow], skip_bad_rows: bool
) -> pa.Table:
    def note(row: int, line: int, reason: str) -> None:
        bad.append(BadRow(layout, row, line, reason))

    def refuse(row: int, line: int, reason: str) -> None:
        raise DataError(f"{layout.path}:{line}: {reason}; {SKIP}")

    on_bad = note if skip_bad_rows else refuse
    if layout.is_parquet:
        return _read_parquet(layout, columns)
    if layout.is_json:
        return _read_json(layout, columns, on_bad)
    table = read_text(layout, columns, note if skip_bad_rows else None)
    return _without_headers(layout, table, bad, on_bad) if layout.has_header else table


def _read_json(layout: Layout, columns: Sequence[str], on_bad: OnBad) -> pa.Table:
    try:
        path = on_disk(layout.path)
        return json_lines.read_lines(path, layout.gzipped, columns, on_bad)
    except DAMAGED as error:
        raise damaged(layout.path, error) from None


def _without_headers(layout: Layout, table: pa.Table, bad: list[BadRow], on_bad: OnBad) -> pa.Table:
    """Files that were put together with ``cat`` have their header again in the middle."""
    again = np.flatnonzero(_is_header(layout, table))
    if not len(again):
        return table
    left = np.delete(np.arange(table.num_rows + len(bad)), [row.row for row in bad])
    for row in left[again].tolist():
        what = "the header is here again; take it out, or give the files one by one"
        on_bad(row, line_of(layout, row), what)
    bad.sort(key=lambda row: row.row)
    return table.take(np.delete(np.arange(table.num_rows), again))


def _is_header(layout: Layout, table: pa.Table) -> Bools:
    """Which rows have in each column the column's own name [rows]."""
    header = dict(zip(layout.names, layout.header or layout.names, strict=True))
    same = np.ones(table.num_rows, bool)
    for name in table.column_names:
        if same.any():  # cheaply, for there hardly is one
            same &= pc.match_substring(table.column(name), header[name]).to_numpy()
    for name in table.column_names:
        if same.any():
            text = pc.utf8_trim(table.column(name), ' \t\ufeff"')
            same &= pc.equal(text, header[name]).to_numpy()
    return same


def _read_parquet(layout: Layout, columns: Sequence[str]) -> pa.Table:
    stored = [name for name in columns if name not in layout.fixed]
    try:
        table = open_parquet(layout.path).read(columns=stored)
    except (pa.ArrowException, OSError, NotImplementedError) as error:
        raise DataError(f"{layout.path} cannot be read: {one_line(error)}") from None
    arrays = {}
    for name in columns:
        if name in layout.fixed:
            value = pa.scalar(layout.fixed[name], pa.string())
            arrays[name] = pa.chunked_array([pa.repeat(value, table.num_rows)])
            continue
        try:
            check_known(table.schema.field(name))
            arrays[name] = plain(table.column(name))
        except UnknownTypeError as error:
            raise DataError(f"{layout.path}: column {name!r} {error}") from None
    return pa.table(arrays)
