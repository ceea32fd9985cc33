"""A log as ``prepare`` reads it: its rows encoded, before they are cleaned and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Bools, Events, Ints, counted, counts_anew
from paropt.data.features.columns import Column, encode_column
from paropt.data.features.users import encode_users
from paropt.data.log.filtering.conditions import parse_condition
from paropt.data.log.filtering.funnel import Funnel
from paropt.data.log.filtering.rows import sifted
from paropt.data.log.options import Note, Recipe
from paropt.data.log.splitting.ends import Ends
from paropt.data.log.values.ids import encode_ids, twins
from paropt.data.log.values.times import odd_span, to_milliseconds, to_numbers, to_order
from paropt.data.reading.arrow import as_text
from paropt.data.reading.read import Place, read_columns, skipped

# the names that split columns use
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "train_full": "train_full",
}


@dataclass
class Log:
    """The rows of all files, encoded; ``part`` holds each row's split, or is None.

    The events are given away to be sorted, for a large log is not held twice; ``ends`` stay.
    """

    events: Events
    ends: Ends
    order: NDArray[Any] | None
    kept: Bools | None
    part: NDArray[Any] | None
    sessions: pa.Array
    items: pa.Array
    users: pa.Array
    columns: Mapping[str, Column]

    def forget_events(self) -> None:
        self.events = self.events.take(np.zeros(0, np.int64))


def read_log(recipe: Recipe, funnel: Funnel, note: Note) -> Log:
    """All rows of the recipe's files but those that its options leave out.

    Raises:
        DataError: something of them cannot be used.
    """
    schema, options = recipe.schema, recipe.options
    wanted = [
        schema.session_key,
        schema.item_key,
        schema.time_key,
        schema.time_offset,
        schema.order_column,
        schema.split_column,
        schema.event_column,
        options.user_key,
        *recipe.event_columns.values(),
        *recipe.item_columns.values(),
        *(name for text in options.where for name in parse_condition(text).columns),
    ]
    names = list(dict.fromkeys(name for name in wanted if name))
    table, place = read_columns(recipe.layouts, names, options.skip_bad_rows)
    if place.skipped:
        note(f"warning: {skipped(place)}")
    table, place, kept = sifted(recipe, table, place, funnel, note)
    guards = (options.text_ids, options.words_are_ids)
    session, sessions = encode_ids(
        table.column(schema.session_key), schema.session_key, place, *guards
    )
    item_column = table.column(schema.item_key)
    if kept is not None:  # rows that go may lack an item: a page view, say
        item_column = pc.if_else(pa.array(kept), item_column, item_column[int(np.argmax(kept))])
    item, items = encode_ids(item_column, schema.item_key, place, *guards)
    del item_column
    if alike := twins(items):
        note(
            f"warning: {len(alike):,} items look like others, as {alike[0]!r}: their letters are"
            " coded in two ways (NFC and NFD), and they count as two; write them in one"
        )
    table = _without_ids(recipe, table)  # as large as all that follows
    columns = {
        name: encode_column(
            table.column(key), name in (*options.categorical, *recipe.roles), key, place
        )
        for name, key in (recipe.item_columns | recipe.event_columns).items()
    }
    of_events = {name: columns[name].values for name in recipe.event_columns}
    user, users = None, pa.array([], pa.string())
    if options.user_key:
        user, users = encode_users(table.column(options.user_key), options.user_key, place, *guards)
    rows = counted(len(session))
    time = _times(recipe, table, place, session) if schema.time_key else rows.astype(np.int64)
    order = None
    if schema.order_column:
        order = to_order(table.column(schema.order_column), schema.order_column, place)
        if not schema.time_key and (times := counts_anew(session, order)) > 1:
            order = rows  # the same, but across the files too
            if not recipe.is_split:
                note(
                    f"warning: the order {schema.order_column!r} begins anew {times - 1:,} times,"
                    " as one that counts the rows of a file, a day or a user: rows are taken as"
                    " they stand"
                )
    elif schema.rows_in_order:
        order = rows
    if not funnel.steps:
        funnel.count_rows("read", "", session, item)
    pa.default_memory_pool().release_unused()
    return Log(
        Events(session, item, time, rows, of_events, user),
        Ends.of(time),
        order,
        kept,
        _parts(recipe, table, place, len(session)),
        sessions,
        items,
        users,
        columns,
    )


def _without_ids(recipe: Recipe, table: pa.Table) -> pa.Table:
    """The table without its ids, but for columns that are asked for as something else too."""
    schema, options = recipe.schema, recipe.options
    others = {schema.time_key, schema.time_offset, schema.order_column, schema.split_column}
    others |= {options.user_key, *recipe.event_columns.values(), *recipe.item_columns.values()}
    return table.drop_columns(list({schema.session_key, schema.item_key} - others))


def _times(recipe: Recipe, table: pa.Table, place: Place, session: Ints) -> Ints:
    schema = recipe.schema
    assert schema.time_key is not None
    time = to_milliseconds(
        table.column(schema.time_key), schema.time_key, place, schema.time_format
    )
    if schema.time_offset is None:
        return time
    earliest = np.full(int(session.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, session, time)
    offset = to_numbers(table.column(schema.time_offset), schema.time_offset, place, "offset")
    return earliest[session] + offset.astype(np.int64)


def _parts(recipe: Recipe, table: pa.Table, place: Place, n_rows: int) -> NDArray[Any] | None:
    """Each row's split [rows], from the file that it is in or from the split column."""
    if recipe.splits:
        return np.asarray(recipe.splits)[place.files(n_rows)]
    name = recipe.schema.split_column
    if name is None:
        return None
    encoded = pc.dictionary_encode(as_text(table.column(name))).combine_chunks()
    values = [_SPLIT_NAMES.get(str(value).lower()) for value in encoded.dictionary.to_pylist()]
    codes = pc.fill_null(encoded.indices, len(values)).to_numpy(zero_copy_only=False)
    values = [
        "train_full" if v == "train" and "valid" not in values else v for v in [*values, None]
    ]
    if None in values[:-1] or (codes == len(values) - 1).any():
        row = int(np.argmax(np.isin(codes, [i for i, v in enumerate(values) if v is None])))
        wrong = table.column(name)[row].as_py()
        raise place.fail(row, name, f"{wrong!r} names no split; use train, valid and test")
    return np.asarray(np.array([str(value) for value in values])[codes])


def of_kind(log: Log) -> Events:
    """The rows of the wanted kind."""
    return log.events if log.kept is None else log.events.take(log.kept)


def odd_times(recipe: Recipe, log: Log) -> list[str]:
    """What to say of times that no log has, before anything is refused because of them."""
    if not recipe.has_times:
        return []
    times = log.events.time if log.kept is None else log.events.time[log.kept]
    if recipe.rules.end_ms is not None:
        times = times[times < recipe.rules.end_ms]
    said = odd_span(times)
    return [said] if said else []
