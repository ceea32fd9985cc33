"""``seq/``: Parquet files of ``user_id`` and ``seq``, a list of item, action and time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from paropt.data.reading.layouts import one_line
from paropt.data.tencent_gr.sequences import Raw, Sequences, Tally, settle
from paropt.errors import DataError

ROWS = 1 << 14  # users that are read at once
_FIELDS = ("item_id", "action_type", "timestamp")


def read_parquet(folder: Path, most_items: int | None, tally: Tally) -> Iterator[Sequences]:
    """The folder's users, some at a time, as :func:`~paropt.data.tencent_gr.sequences.settle` does.

    Raises:
        DataError: a file cannot be read, or lacks a column.
    """
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise DataError(f"{folder} has no Parquet files")
    for path in files:
        row = 1
        try:
            with pa.parquet.ParquetFile(path) as file:
                _check(path, file.schema_arrow)
                for batch in file.iter_batches(ROWS, columns=["user_id", "seq"]):
                    place = f"{path}, rows {row} to {row + len(batch) - 1}"
                    yield settle(_raw(place, batch), most_items, tally)
                    row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is cut short or damaged: {one_line(error)}") from None


def _check(path: Path, schema: pa.Schema) -> None:
    for name in ("user_id", "seq"):
        if name not in schema.names:
            raise DataError(f"{path} has no column {name!r} (it has {', '.join(schema.names)})")
    kind = schema.field("seq").type
    element = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
    has = [] if element is None or not pa.types.is_struct(element) else [f.name for f in element]
    lacking = [name for name in _FIELDS if name not in has]
    if lacking:
        raise DataError(f"{path}: column 'seq' holds {kind}, not a list of {', '.join(_FIELDS)}")


def _raw(place: str, batch: pa.RecordBatch) -> Raw:
    lists = batch.column("seq")
    events = lists.flatten()
    item, action, time = (pc.struct_field(events, name).cast(pa.int64()) for name in _FIELDS)
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    users = batch.column("user_id").cast(pa.string())
    nobody = np.zeros(len(events), bool)
    none: list[bytes | None] = [None] * len(batch)
    return Raw(place, counts.astype(np.int64), users, nobody, item, action, time, none)
