"""Sessions that next items are asked for: a file read as the log that a model was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from paropt.data.events import Bools, Events, in_order
from paropt.data.log.command import option_text
from paropt.data.log.filtering.conditions import parse_condition
from paropt.data.log.filtering.filters import as_whole, filters, of_kind
from paropt.data.log.formats import Schema
from paropt.data.log.guessing import guess_columns, guess_when
from paropt.data.log.options import Options, check_kind
from paropt.data.log.rules import DAY_MS
from paropt.data.log.values.ids import encode_ids
from paropt.data.log.values.times import check_time_format, odd_span, to_milliseconds, to_order
from paropt.data.reading.arrow import as_text
from paropt.data.reading.read import (
    Layout,
    Place,
    look_at,
    read_columns,
    refuse_header,
    require,
    skipped,
)
from paropt.errors import DataError

# columns of a table of items that are names to show
_NAME = re.compile(
    r"(item|product|movie|film|song|track|article|book|video|news|game|content)?(title|name|label)"
)
_COLUMNS = ("session_key", "item_key", "time_key", "order_column", "event_column")


@dataclass(frozen=True)
class Asked:
    """Events of sessions, in order.

    Attributes:
        path: the file.
        sessions: their ids, in the order in which they appear.
        items: the texts of the items' codes.
        events: session, item, time and row; rows are those of ``table``.
        table: what else was read, a row per event.
        session_key, item_key: where sessions and items were found.
        timed: times are times; else they are running numbers.
        notes: what was decided, and what the file lacks.
    """

    path: Path
    sessions: Sequence[str]
    items: pa.Array
    events: Events
    table: pa.Table
    session_key: str
    item_key: str
    timed: bool
    notes: Sequence[str] = ()

    def refuse_strangers(self, item_ids: Sequence[str]) -> None:
        """Refuse a file that has no item of a model.

        Raises:
            DataError: none is known; the message has an example of both spellings.
        """
        known = set(item_ids)
        if not known.isdisjoint(self.items.to_pylist()):
            return
        own, theirs = str(self.items[0]), str(item_ids[0])
        for text in self.items.to_pylist():
            if as_whole(text) in known:  # a number that was written as a float
                own, theirs = text, as_whole(text)
                break
        raise DataError(
            f"the model knows none of the {len(self.items):,} items in column {self.item_key!r} of"
            f" {self.path}: they are written as {own!r} there, and as {theirs!r} in the model;"
            " write them as in its log, or say --item-key"
        )


def read_asked(
    path: Path,
    options: Options | None = None,
    log: Mapping[str, Any] | None = None,
    further: Sequence[str] = (),
) -> Asked:
    """Read a file of sessions: TSV, CSV, JSON lines or Parquet.

    ``log`` tells how the model's own log was written, as ``meta.json`` and ``model.json`` have it;
    what ``options`` say goes before. The columns ``further`` are read where the file has them.
    Where it has no times, the order of its rows is the order.

    Raises:
        DataError: the file cannot be used.
    """
    options, log = options or Options(), log or {}
    check_time_format(options.time_format)  # one that is remembered is as the log was read
    notes: list[str] = []
    layout = _layout(path, options, log)
    told = _looking(layout, _remembering(layout, options, log, notes), notes)
    schema = _schema(layout, told, log)
    wanted = [
        schema.session_key,
        schema.item_key,
        schema.time_key,
        schema.time_offset,
        schema.order_column,
        told.event_column,
        *(name for text in told.where for name in parse_condition(text).columns),
        *(name for name in further if name in layout.names),
    ]
    names = list(dict.fromkeys(name for name in wanted if name))
    table, place = read_columns([layout], names, told.skip_bad_rows)
    if place.skipped:
        notes.append(skipped(place))
    table, place = _left(table, place, schema, told, _own_where(log), notes)
    events, sessions, items = _encoded(table, place, schema)
    gap = log.get("session_gap_ms")
    if gap and schema.time_key:
        events = _last_visits(events, gap, notes)
    timed = schema.time_key is not None
    if timed and (odd := odd_span(events.time)):
        notes.append(f"warning: {path}: {odd}")
    keys = (schema.session_key, schema.item_key)
    return Asked(path, sessions.to_pylist(), items, events, table, *keys, timed, notes)


def _layout(path: Path, options: Options, log: Mapping[str, Any]) -> Layout:
    """The file's layout; without a header line where the model's log had none either."""
    if options.names:
        refuse_header(path, options.names, "--header")
        return look_at(path, options.names)
    names = tuple(log.get("names") or ())
    if not names:
        return look_at(path)
    try:
        layout = look_at(path)
    except DataError:  # two fields of its first row are the same, which no header is
        return look_at(path, names, log.get("delimiter") or "")
    own = [name for name in names if name in layout.names]
    return layout if own else look_at(path, names, log.get("delimiter") or "")


def _remembering(
    layout: Layout, options: Options, log: Mapping[str, Any], notes: list[str]
) -> Options:
    """What was said, then what the model's log was like, where the file has such a column."""
    chosen: dict[str, Any] = {}
    for name in _COLUMNS:
        said = getattr(options, name)
        if said:
            require(layout, said)
        chosen[name] = said or (log[name] if log.get(name) in layout.names else None)
    if options.time_key or options.order_column:
        chosen |= {"time_key": options.time_key, "order_column": options.order_column}
    if options.time_format is None and chosen["time_key"] == log.get("time_key"):
        chosen["time_format"] = log.get("time_format")
    chosen["events"] = options.events or tuple(log.get("events") or ())
    if not (chosen["event_column"] or options.events):
        if chosen["events"]:
            notes.append(_without_kinds(layout, log))
        chosen["events"] = ()
    check_kind(chosen["event_column"], chosen["events"])
    return replace(options, **chosen, **_guards(layout, options, log, notes))


def _without_kinds(layout: Layout, log: Mapping[str, Any]) -> str:
    kinds = " or ".join(map(repr, log["events"]))
    return (
        f"{layout.path} has no column {log['event_column']!r}, of which the model learnt from"
        f" {kinds} alone: rows of any kind are taken; --event-column names it"
    )


def _guards(
    layout: Layout, options: Options, log: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Which rows were left out of the model's log, as far as the file has the columns, and which
    are to be left out besides."""
    there = []
    for text in _own_where(log):
        lacking = [name for name in parse_condition(text).columns if name not in layout.names]
        if lacking:
            notes.append(
                f"{option_text('where', (text,))} of the model's log cannot be applied:"
                f" {layout.path} has no column {' and no '.join(map(repr, lacking))}"
            )
        else:
            there.append(text)
    own_ids = tuple(log.get("drop_ids") or ())
    return {
        "text_ids": bool(log.get("text_ids")),
        "words_are_ids": bool(log.get("words_are_ids")),
        "drop_missing": options.drop_missing or bool(log.get("drop_missing")),
        "drop_ids": tuple(dict.fromkeys((*own_ids, *options.drop_ids))),
        "skip_bad_rows": options.skip_bad_rows or bool(log.get("skip_bad_rows")),
        "where": tuple(dict.fromkeys((*there, *options.where))),
    }


def _own_where(log: Mapping[str, Any]) -> tuple[str, ...]:
    """The conditions on the model's own log."""
    return tuple(map(str, log.get("where") or ()))


def _looking(layout: Layout, told: Options, notes: list[str]) -> Options:
    """What is still missing, by the names of columns and what they hold."""
    chosen: dict[str, Any] = {}
    if not (told.time_key or told.order_column or told.rows_in_order):
        time, order = guess_when(layout)
        chosen = {"time_key": time, "order_column": order, "rows_in_order": not (time or order)}
        if chosen["rows_in_order"]:
            notes.append(f"{layout.path} has no times: its rows are taken to be in order")
    told = replace(told, **chosen)
    guess = guess_columns(layout, told)
    if guess.said:
        notes.append(guess.said)
    return replace(told, **guess.columns)


def _schema(layout: Layout, told: Options, log: Mapping[str, Any]) -> Schema:
    usual, offset = Schema(), log.get("time_offset")
    same_time = told.time_key is not None and told.time_key == log.get("time_key")
    return Schema(
        session_key=told.session_key or usual.session_key,
        item_key=told.item_key or usual.item_key,
        time_key=told.time_key,
        order_column=told.order_column,
        time_format=told.time_format,
        time_offset=offset if same_time and offset in layout.names else None,
    )


def _left(
    table: pa.Table,
    place: Place,
    schema: Schema,
    told: Options,
    own: tuple[str, ...],
    notes: list[str],
) -> tuple[pa.Table, Place]:
    """The rows of the wanted kind that the filters leave; ``own`` conditions are the model's."""
    left = np.ones(table.num_rows, bool)
    if told.event_column:
        left = _kind(table, told, notes)
    of_model = {option_text("where", (text,)) for text in own}
    for step in filters(table, place, schema, told, left, own):
        if not (left & ~step.leaves).any():
            continue
        left = left & step.leaves
        said = f"{int(left.sum()):,} of {table.num_rows:,} rows are left by {step.option}"
        notes.append(f"{said}, as in the model's log" if step.option in of_model else said)
    if not left.any():
        raise DataError(f"{place.layouts[0].path} has no events that are asked about")
    return table.filter(pa.array(left)), place.of(left)


def _kind(table: pa.Table, told: Options, notes: list[str]) -> Bools:
    try:
        kept, _ = of_kind(table.column(told.event_column), told.events)
    except LookupError:
        kept = np.zeros(table.num_rows, bool)
    if not kept.all():
        kinds = " or ".join(map(repr, told.events))
        notes.append(
            f"{int(kept.sum()):,} of {len(kept):,} rows are {kinds} in column"
            f" {told.event_column!r}, as those that the model learnt from"
        )
    return kept


def _encoded(table: pa.Table, place: Place, schema: Schema) -> tuple[Events, pa.Array, pa.Array]:
    def ids(key: str) -> tuple[Any, pa.Array]:
        return encode_ids(table.column(key), key, place, as_text=True)

    session, sessions = ids(schema.session_key)
    item, items = ids(schema.item_key)
    rows = np.arange(table.num_rows)
    time, order = rows, None
    if schema.time_key:
        key = schema.time_key
        time = to_milliseconds(table.column(key), key, place, schema.time_format)
    order_column = schema.order_column or schema.time_offset
    if order_column:
        order = to_order(table.column(order_column), order_column, place)
    return in_order(Events(session, item, time, rows), order), sessions, items


def _last_visits(events: Events, gap_ms: int, notes: list[str]) -> Events:
    """Of each session what follows its last gap: the model learnt from sessions cut like that."""
    same = events.session[1:] == events.session[:-1]
    after = np.flatnonzero(same & (np.diff(events.time) > gap_ms)) + 1
    if not len(after):
        return events
    begins = events.starts()
    which = np.searchsorted(begins, after, side="right") - 1
    begins[which] = after  # the last of a session's gaps is written last
    lengths = events.lengths()
    kept = np.arange(len(events)) >= np.repeat(begins, lengths)
    many = len(np.unique(which))
    gap = f"{gap_ms / 60_000:g} minutes" if gap_ms < DAY_MS else f"{gap_ms / DAY_MS:g} days"
    notes.append(
        f"{many:,} session{'s' * (many != 1)} paused for more than {gap}, where the model's"
        " sessions were cut: only what follows the last pause is looked at"
    )
    return events.take(kept)


def read_names(path: Path, item_key: str, column: str | None) -> Mapping[str, str]:
    """The names of items by their ids, from a table's ``column``.

    Raises:
        DataError: the table cannot be used, or no column is named and none is clearly of names.
    """
    layout = look_at(path)
    for name in (item_key, *([column] if column else [])):
        require(layout, name)
    named = [column] if column else [name for name in layout.names if is_name(name)]
    if len(named) != 1:
        raise DataError(
            f"{path} has no column that is clearly the items' name (it has"
            f" {', '.join(layout.names)}); say which with --names"
        )
    table, place = read_columns([layout], list(dict.fromkeys([item_key, named[0]])))
    codes, ids = encode_ids(table.column(item_key), item_key, place, as_text=True)
    texts = as_text(table.column(named[0]))
    pairs = zip(ids.take(pa.array(codes)).to_pylist(), texts.to_pylist(), strict=True)
    return {item: name for item, name in pairs if name is not None}


def is_name(column: str) -> bool:
    """Whether a column of a table of items holds their names, by its own."""
    return _NAME.fullmatch("".join(filter(str.isalnum, column)).lower()) is not None
