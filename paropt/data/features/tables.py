"""Tables of items and of users: one row each, from Parquet, CSV, TSV, JSON lines or a JSON object.

A column is a number, a category, several categories, or a text. What it is follows from its
values, unless it is told; what a row lacks stays missing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from paropt.data.encoding import pack_ids
from paropt.data.features.columns import NEARLY_ALL, encode_column, no_numbers_in, numbers_in
from paropt.data.features.fields import FieldOf, Kind, array_path, vocabulary_path, written
from paropt.data.features.lists import lists_in
from paropt.data.log.values.ids import encode_ids, missing_ids
from paropt.data.reading.arrow import (
    UnknownTypeError,
    as_text,
    check_known,
    is_moment,
    is_number,
    is_text,
    plain,
)
from paropt.data.reading.layouts import DAMAGED, damaged, one_line
from paropt.data.reading.read import (
    Layout,
    Place,
    look_at,
    on_disk,
    peek,
    read_columns,
    refuse_header,
    skipped,
)
from paropt.errors import DataError

Note = Callable[[str], None]
MANY_VALUES = 1000  # of one row in a field of several categories
PACKED_BYTES = 256 << 20  # of a vocabulary, whose entries all take the room of the longest


@dataclass(frozen=True)
class Told:
    """What the user says of tables: kinds of columns, what separates values, what goes.

    ``only`` are the columns that are read; None: all of them.
    """

    kinds: Mapping[str, Kind] = field(default_factory=dict)
    separator: str = ""
    skip_bad_rows: bool = False
    drop_missing: bool = False
    only: Container[str] | None = None


@dataclass(frozen=True)
class TableField:
    """A field of items or users, encoded: arrays by part (:mod:`paropt.data.features.fields`).

    ``remark`` is what to say of how it was read.
    """

    kind: Kind
    arrays: Mapping[str, NDArray[Any]]
    vocabulary: NDArray[Any] | None = None
    remark: str = ""

    def named(self, of: FieldOf, name: str) -> dict[str, NDArray[Any]]:
        """The arrays by their path in a dataset, without ``.npy``."""
        found = {array_path(of, name, part): values for part, values in self.arrays.items()}
        if self.vocabulary is not None:
            found[vocabulary_path(of, name)] = self.vocabulary
        return found


Fields = dict[str, TableField]


def described(fields: Mapping[str, TableField]) -> dict[str, str]:
    """Kinds by name, as meta.json has them."""
    return {name: written(kept.kind) for name, kept in fields.items()}


def read_tables(
    paths: Sequence[Path],
    headers: Sequence[Sequence[str]],
    key: str,
    option: str,
    ids: pa.Array,
    told: Told,
    note: Note,
    look: Callable[[Path, Fields], None] = lambda path, fields: None,
) -> Fields:
    """The fields of all ``ids`` [n] by name, from tables with one row per item or user.

    ``headers`` name the columns of the first so many tables, empty for one that has a header;
    ``option`` is the one of ``prepare`` that the tables came by; ``look`` may change or refuse a
    table's fields.

    Raises:
        DataError: a table cannot be used, or two have a column of the same name.
    """
    found: Fields = {}
    for number, path in enumerate(paths):
        header = headers[number] if number < len(headers) else ()
        fields = _read_table(path, header, key, option, ids, told, note)
        look(path, fields)
        for name in fields:
            if name in found:
                raise DataError(f"{path}: column {name!r} is in another table too; rename it")
        found |= fields
    return found


def _read_table(
    path: Path,
    header: Sequence[str],
    key: str,
    option: str,
    ids: pa.Array,
    told: Told,
    note: Note,
) -> Fields:
    what = option.removeprefix("--").partition("-")[0]
    table, place, kinds = _load(path, header, key, option, told.skip_bad_rows, note)
    _require_key(table, path, key, option)
    if told.drop_missing:
        table, place = _with_ids(table, key, place, note)
    codes, vocabulary = encode_ids(table.column(key), key, place, as_text=True)
    if len(vocabulary) < len(codes):
        row = int(np.argmax(codes != np.arange(len(codes))))
        raise place.fail(row, key, f"{what} {vocabulary[int(codes[row])]} is here twice")
    rows = pc.index_in(ids, value_set=vocabulary)
    if rows.null_count == len(rows):
        raise DataError(f"{path} has none of the {what}s of the log in its column {key!r}")
    told = replace(told, kinds={**kinds, **told.kinds})
    fields = {
        name: encode_field(table.column(name), name, rows, told, place)
        for name in table.column_names
        if name != key and (told.only is None or name in told.only)
    }
    _say(path, what, len(table), rows, fields, note)
    return fields


def ids_of(path: Path, key: str, option: str) -> pa.Array:
    """The ids in a table's column ``key``, each once.

    Raises:
        DataError: it cannot be read, or has no such column.
    """
    table, place, _ = _load(path, (), key, option, False, lambda _: None)
    _require_key(table, path, key, option)
    return encode_ids(table.column(key), key, place, as_text=True)[1]


def _require_key(table: pa.Table, path: Path, key: str, option: str) -> None:
    if key not in table.column_names:
        raise DataError(
            f"{path} has no column {key!r} (it has {', '.join(table.column_names)});"
            f" name its ids with {option}-key"
        )


def _say(path: Path, what: str, n_rows: int, rows: pa.Array, fields: Fields, note: Note) -> None:
    lacking, others = rows.null_count, n_rows - (len(rows) - rows.null_count)
    told = [f"{lacking:,} of {len(rows):,} {what}s have no row"] if lacking else []
    if others:
        told.append(f"{others:,} rows are of {what}s that the log does not have")
    if told:
        note(f"{path}: {'; '.join(told)}")
    for name, kept in fields.items():
        size = 0 if kept.vocabulary is None else len(kept.vocabulary)
        if kept.remark:
            note(f"{path}: {name!r} {kept.remark}")
        elif kept.kind == "category" and size > 100 and 2 * size > len(rows):
            note(f"{path}: {name!r} has {size:,} values for {len(rows):,} {what}s: is it an id?")
        if kept.kind == "categories":
            longest = int(np.diff(kept.arrays["offsets"]).max(initial=0))
            if longest > MANY_VALUES:
                note(f"{path}: {name!r} has {longest:,} values for one of the {what}s")


# -- files ---------------------------------------------------------------------------------------


def _with_ids(table: pa.Table, key: str, place: Place, note: Note) -> tuple[pa.Table, Place]:
    """Without the rows that name no item or user."""
    kept = ~missing_ids(table.column(key), key, place, words=False)
    if kept.all():
        return table, place
    n_out = len(kept) - int(kept.sum())
    note(f"{place.layouts[0].path}: rows without {key} are left out: {n_out:,} of {len(kept):,}")
    return table.filter(pa.array(kept)), place.of(kept)


def _load(
    path: Path, header: Sequence[str], key: str, option: str, skip_bad_rows: bool, note: Note
) -> tuple[pa.Table, Place, dict[str, Kind]]:
    """A table, where its rows came from, and the kinds that its header tells."""
    if _is_json(path):
        table, kinds = _read_json(path, key)
        return table, Place([Layout(path, tuple(table.column_names))], [0]), kinds
    if header:
        refuse_header(path, header, f"{option}-header")
    if header and "::" in (peek(path) or ""):
        return _movielens(path, header), Place([Layout(path, tuple(header))], [0]), {}
    layout = look_at(path, header)
    if layout.is_parquet:
        try:
            table = pa.parquet.read_table(on_disk(path), memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {one_line(error)}") from None
        _check_known(table, path)
        return table, Place([layout], [0]), {}
    table, place = read_columns([layout], layout.names, skip_bad_rows)
    if place.skipped:
        note(skipped(place))
    return table, place, {} if header else _typed(path, table)


def _movielens(path: Path, header: Sequence[str]) -> pa.Table:
    """Fields between ``::``, in which a title may hold a single colon."""
    columns: list[list[str | None]] = [[] for _ in header]
    with opened(on_disk(path)) as file:
        for number, line in enumerate(file, 1):
            try:
                fields = line.decode().rstrip("\r\n").split("::")
            except UnicodeDecodeError:
                raise DataError(
                    f"{path}:{number}: not UTF-8 text; save the file as UTF-8 (iconv -f latin1"
                    f" -t utf8 {path.name} > utf8.dat)"
                ) from None
            if len(fields) != len(header):
                raise DataError(
                    f"{path}:{number}: {len(fields)} fields where {len(header)} are named"
                )
            for column, value in zip(columns, fields, strict=True):
                column.append(value or None)
    return pa.table({n: pa.array(c, pa.string()) for n, c in zip(header, columns, strict=True)})


def _check_known(table: pa.Table, path: Path) -> None:
    for column in table.schema:
        try:
            check_known(column)
        except UnknownTypeError as error:
            raise DataError(f"{path}: column {column.name!r} {error}") from None


def _typed(path: Path, table: pa.Table) -> dict[str, Kind]:
    """The kinds that RecBole's typed header tells; its sequences are separated by blanks."""
    kinds: dict[str, Kind] = {"token": "category", "token_seq": "categories", "float": "number"}
    line = peek(path) or ""
    typed = [name.rpartition(":")[2] for name in line.split("\t")]
    if len(typed) != table.num_columns or not all(kind in kinds for kind in typed):
        return {}
    return {
        name: kinds[kind]
        for name, kind in zip(table.column_names, typed, strict=True)
        if kind != "token_seq"
    }


def opened(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked where it is gzipped.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        return cast(IO[bytes], gzip.open(path) if gzipped else path.open("rb"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _is_json(path: Path) -> bool:
    path = on_disk(path)
    if path.is_dir():
        return False
    try:
        with opened(path) as file:
            return file.read(1 << 12).lstrip().startswith(b"{")
    except DAMAGED as error:
        raise damaged(path, error) from None


def _read_json(path: Path, key: str) -> tuple[pa.Table, dict[str, Kind]]:
    """JSON lines, or one object that maps ids to a text, a list or an object."""
    kinds: dict[str, Kind] = {}
    try:
        with opened(on_disk(path)) as file:
            first = file.readline()
        line = json.loads(first) if first.rstrip().endswith(b"}") else {}
        with opened(on_disk(path)) as file:
            if key in line:
                return pa.json.read_json(file), kinds
            values = json.load(file, object_pairs_hook=_once)
        name = path.name.partition(".")[0]
        rows = [
            {key: one, **value} if isinstance(value, dict) else {key: one, name: value}
            for one, value in values.items()
        ]
        if values and all(isinstance(value, str) for value in values.values()):
            kinds[name] = "text"
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: [row.get(name) for row in rows] for name in names}), kinds
    except DAMAGED as error:
        raise damaged(path, error) from None
    except (pa.ArrowException, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is neither JSON lines with {key!r} nor one object by id: {one_line(error)}"
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object as JSON means it: what is there twice is no matter of which comes last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is here twice")
    return found


# -- columns -------------------------------------------------------------------------------------


def encode_field(
    column: pa.ChunkedArray, name: str, rows: pa.Array, told: Told, place: Place
) -> TableField:
    """A column of a table, at its ``rows`` [n] (null: no row).

    Raises:
        DataError: its values are not of the kind that it is said to have.
    """
    path = place.layouts[0].path
    said, remark = told.kinds.get(name), ""
    if said in (None, "categories"):
        lists = _lists(column, name, path)
        if lists is not None:
            column, remark = lists, "is written as lists: each has several categories, the members"
    kind = said or _kind_of(column, name, told.separator, path)
    if kind in ("number", "category"):
        values = _values(column, name, path)
        encoded = encode_column(values, kind == "category", name, place)
        if kind == "number" and encoded.vocabulary is not None:
            raise _no_number(values, name, place)
        if said is None and kind == "category":
            remark = _nearly_numbers(values, name, place)
        _check_words(encoded.vocabulary, name, path)
        unknown = rows.is_null().to_numpy(zero_copy_only=False)
        at = encoded.values[rows.fill_null(0).to_numpy()]
        at[unknown] = np.nan if encoded.vocabulary is None else -1
        return TableField(kind, {"": at}, encoded.vocabulary, remark)
    taken = column.take(rows)
    if kind == "text":
        return encode_texts(_values(taken, name, path))
    if kind == "categories":
        return replace(_categories(taken, name, told.separator, path), remark=remark)
    raise DataError(f"{path}: column {name!r} cannot be a {kind} in a table; use --item-vectors")


def _no_number(values: pa.ChunkedArray, name: str, place: Place) -> DataError:
    """What to say of a column that is said to be numbers and holds other text."""
    row = int(np.argmax(no_numbers_in(values)))
    what = f"is said to be numbers, and {values[row].as_py()!r} is none; leave it empty"
    return place.fail(row, name, what)


def _nearly_numbers(values: pa.ChunkedArray, name: str, place: Place) -> str:
    """What to say of a category that is one because of a few values; empty for any other."""
    if not is_text(values.type):
        return ""
    others = no_numbers_in(values)
    n, there = int(others.sum()), len(values) - values.null_count
    if not 0 < n <= (1 - NEARLY_ALL) * there:
        return ""
    row = int(np.argmax(others))
    what = "is no number" if n == 1 else "are no numbers"
    return (
        f"is a category because {n:,} of {there:,} values {what}, first {values[row].as_py()!r} in"
        f" line {place.line(row)[1]}; leave such values empty, or say --kind {name}=category"
    )


def _kind_of(column: pa.ChunkedArray, name: str, separator: str, path: Path) -> Kind:
    kind = column.type
    if _is_list(kind):
        if pa.types.is_floating(kind.value_type):
            raise DataError(
                f"{path}: column {name!r} holds lists of numbers; give them as --item-vectors"
                f" {name}=FILE, and leave the column out"
            )
        return "categories"
    values = _values(column, name, path).drop_null()
    if is_number(values.type):
        return "number"
    if numbers_in(as_text(values)) is not None:
        return "number"
    if separator and pc.any(pc.match_substring(values, separator)).as_py():
        return "categories"
    blanks = pc.mean(pc.count_substring(values, " ")).as_py() or 0
    # a title is its item's own, and has several words
    differ = 2 * pc.count_distinct(values).as_py() > len(values)
    return "text" if blanks >= 1 and differ else "category"


def _lists(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray | None:
    """Lists of a column in which each is written as text; None of any other."""
    if _is_list(column.type):
        return None
    values = _values(column, name, path)
    return lists_in(values) if is_text(values.type) else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _values(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """As text, or numbers; days since 1970 for moments; null where empty."""
    try:
        column = plain(column)
    except UnknownTypeError as error:
        raise DataError(f"{path}: column {name!r} {error}") from None
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8())
    if is_moment(kind):
        moments = column.cast(pa.timestamp("ms")).cast(pa.int64()).cast(pa.float64())
        return pc.divide(moments, 86_400_000.0)
    if is_number(kind):
        return column
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(text, ""), None, text)


def encode_texts(column: pa.ChunkedArray) -> TableField:
    """Texts as UTF-8 one after the other, from numbers or text."""
    text = as_text(column).cast(pa.large_string()).combine_chunks()
    text = text.chunk(0) if isinstance(text, pa.ChunkedArray) else text
    missing = text.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.binary_length(text).fill_null(0).to_numpy()
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    stored = np.frombuffer("".join(text.drop_null().to_pylist()).encode(), np.uint8)
    arrays = {"bytes": stored, "offsets": offsets, "missing": missing}
    return TableField("text", arrays)


def _categories(column: pa.ChunkedArray, name: str, separator: str, path: Path) -> TableField:
    if not _is_list(column.type):
        column = pc.split_pattern(as_text(_values(column, name, path)), separator or " ")
    lists = column.combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    missing = lists.is_null().to_numpy(zero_copy_only=False)
    row = pc.list_parent_indices(lists).to_numpy()
    words = pc.utf8_trim_whitespace(pc.list_flatten(lists).cast(pa.string()))
    real = pc.fill_null(pc.not_equal(words, ""), False).to_numpy(zero_copy_only=False)
    words = words.filter(pa.array(real))
    found = pc.unique(words)
    found = found.take(pc.sort_indices(found))
    codes = pc.index_in(words, value_set=found).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(row[real], minlength=len(missing)))))
    vocabulary = pack_ids(found)
    _check_words(vocabulary, name, path)
    arrays = {
        "codes": codes.astype(np.int32),
        "offsets": offsets.astype(np.int64),
        "missing": missing,
    }
    return TableField("categories", arrays, vocabulary)


def _check_words(vocabulary: NDArray[Any] | None, name: str, path: Path) -> None:
    if vocabulary is not None and vocabulary.nbytes > PACKED_BYTES:
        raise DataError(
            f"{path}: column {name!r} has {len(vocabulary):,} values of up to"
            f" {vocabulary.dtype.itemsize:,} letters, too long for categories; say"
            f" --kind {name}=text"
        )


# -- from events ---------------------------------------------------------------------------------


def lifted(
    values: NDArray[Any], vocabulary: NDArray[Any] | None, parts: Sequence[tuple[Any, Any]], n: int
) -> tuple[TableField, int]:
    """A column of events as a field of their items [n], and for how many items it varies.

    ``parts`` are (item, row) of train, train_full and the rest: an item's most frequent value is
    that of the first part that it is in, so that nothing of later parts comes into earlier ones.
    """
    if vocabulary is None:
        numbers, codes = np.unique(values[~np.isnan(values)], return_inverse=True)
        codes_of_rows = np.full(len(values), -1, np.int64)
        codes_of_rows[~np.isnan(values)] = codes
    else:
        numbers, codes_of_rows = np.zeros(0), values.astype(np.int64)
    found, varying = np.full(n, -1, np.int64), np.zeros(n, bool)
    for items, rows in parts:
        codes = codes_of_rows[rows]
        known = codes >= 0
        # one number per pair, as unique rows are sorted byte by byte
        size = int(codes.max(initial=0)) + 1
        pairs, counts = np.unique(items[known] * np.int64(size) + codes[known], return_counts=True)
        item, code = np.divmod(pairs, size)
        order = np.lexsort((code, -counts, item))
        of_items, first, different = np.unique(item[order], return_index=True, return_counts=True)
        new = found[of_items] < 0
        found[of_items[new]] = code[order][first[new]]
        varying[of_items[different > 1]] = True
    if vocabulary is not None:
        codes32 = found.astype(np.int32)
        return TableField("category", {"": codes32}, vocabulary), int(varying.sum())
    numeric = np.append(numbers, np.nan)[found].astype(np.float32)
    return TableField("number", {"": numeric}), int(varying.sum())
