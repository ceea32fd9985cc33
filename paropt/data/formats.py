"""Public logs: how each is written, and how it is cleaned and split as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paropt.data.reading import Layout
from paropt.data.rules import DAY_MS, Rules

HOUR_MS = DAY_MS // 24


@dataclass(frozen=True)
class Schema:
    """How a log is written.

    Attributes:
        session_key, item_key, time_key, order_column, split_column: column names.
        time_format: see :func:`paropt.data.times.to_milliseconds`.
        time_offset: a column of milliseconds after the session's earliest ``time_key``.
        event_column, events: only rows whose ``event_column`` is one of ``events`` are events.
        filter_first: drop the other rows before sessions are cut at gaps, not after.
        names: the columns of files without a header.
        delimiter: what separates fields, where it cannot be told from the header.
    """

    session_key: str = "SessionId"
    item_key: str = "ItemId"
    time_key: str | None = "Time"
    order_column: str | None = None
    split_column: str | None = None
    time_format: str | None = None
    time_offset: str | None = None
    event_column: str | None = None
    events: tuple[str, ...] = ()
    filter_first: bool = False
    names: tuple[str, ...] = ()
    delimiter: str = ""


@dataclass(frozen=True)
class Format:
    """A public log.

    Attributes:
        signature: header names that only this log has together.
        first_line: for logs without a header, a pattern that their first line matches in full.
        source: where schema and rules are published.
        verified: whether the counts of the real file were compared with published ones.
    """

    name: str
    title: str
    schema: Schema
    rules: Rules
    source: str = ""
    signature: frozenset[str] = frozenset()
    first_line: str = ""
    verified: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)

    def schema_for(self, names: Sequence[str]) -> Schema:
        """The schema with the column names that this file uses."""
        return self.schema


GENERIC = Format(
    "generic", "any log with a session, an item and a time or order", Schema(), Rules()
)

FORMATS: dict[str, Format] = {format.name: format for format in [GENERIC]}


def guess_format(layout: Layout) -> Format | None:
    """The only format that a file can be, or None."""
    found = [
        format
        for format in FORMATS.values()
        if format.signature and format.signature <= set(layout.names)
    ]
    return found[0] if len(found) == 1 else None
