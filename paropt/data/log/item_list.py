"""A list of item ids in a file: a table's column, or one id per line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa

from paropt.data.log.values.ids import encode_ids
from paropt.data.reading.read import look_at, read_columns
from paropt.errors import DataError

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".json", ".ndjson")


def read_item_list(path: Path, item_key: str, option: str) -> list[str]:
    """The ids in a file, each once, in its order.

    A table (by its ending: CSV, TSV, JSON lines, Parquet; also gzipped) has them in its column
    ``item_key``, or in its only column; anything else has one per line, and may begin with
    ``item_key`` as a heading. ``option`` is named in errors.

    Raises:
        DataError: the file cannot be read, has no such column, or no id.
    """
    bare = path.with_suffix("") if path.suffix == ".gz" else path
    found = _column(path, item_key, option) if bare.suffix in TABLES else _lines(path, item_key)
    if not found:
        raise DataError(f"{path} has no item ids; give one per line, or a table, to {option}")
    return found


def _column(path: Path, item_key: str, option: str) -> list[str]:
    names = look_at(path).names
    if item_key in names:
        layout = look_at(path)
    elif len(names) == 1:  # one id per line, the first of them not a heading
        item_key = "item" if path.suffix != ".parquet" else names[0]
        layout = look_at(path, () if path.suffix == ".parquet" else (item_key,))
    else:
        raise DataError(
            f"{path} has no column {item_key!r} of items for {option} (it has "
            f"{', '.join(names)}); say which with --item-key"
        )
    table, place = read_columns([layout], [item_key])
    codes, ids = encode_ids(table.column(item_key), item_key, place, as_text=True)
    return list(dict.fromkeys(ids.take(pa.array(codes)).to_pylist()))


def _lines(path: Path, item_key: str) -> list[str]:
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as lines:
            ids = [line.strip() for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path} cannot be read: {why}") from None
    if ids and ids[0] == item_key:
        ids = ids[1:]
    return list(dict.fromkeys(filter(None, ids)))
