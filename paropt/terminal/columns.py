"""Tables that fit: where a terminal is narrow they have fewer columns, not narrower ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from paropt.names import shown

GAP = 2  # columns of a terminal between two of the table
FOLDED = 30  # columns that text which wraps wants at least
NOTHING = ("", "-", "0")


@dataclass(frozen=True)
class Column:
    """``leaves`` tells which goes first where there is no room: the highest; 0 stays.

    The one that ``gives`` is cut short where even those that stay have no room, or wraps if it is
    ``folded``.
    """

    name: str
    leaves: int = 0
    right: bool = False
    gives: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Fitted:
    """The columns that fit, with their widths, and their cells as they may be printed."""

    columns: Sequence[Column]
    widths: Sequence[int]
    rows: Sequence[Sequence[str]]


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Fitted:
    """Choose columns for a terminal of ``width``; those that say nothing go first."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [
        max([cells_of(column.name), *(cells_of(row[index]) for row in cells)])
        for index, column in enumerate(columns)
    ]
    kept = [
        index
        for index, column in enumerate(columns)
        if not column.leaves or any(row[index] not in NOTHING for row in cells)
    ]
    while _wanted(columns, widths, kept) > width:
        leaving = max(kept, key=lambda index: columns[index].leaves)
        if not columns[leaving].leaves:
            break
        kept.remove(leaving)
    over = _wanted(columns, widths, kept) - width
    for index in kept:
        if columns[index].gives and over > 0:
            widths[index] = max(cells_of(columns[index].name), widths[index] - over, 8)
    return Fitted(
        [columns[index] for index in kept],
        [widths[index] for index in kept],
        [[row[index] for index in kept] for row in cells],
    )


def _wanted(columns: Sequence[Column], widths: Sequence[int], kept: Sequence[int]) -> int:
    taken = [
        min(widths[index], FOLDED) if columns[index].folded else widths[index] for index in kept
    ]
    return sum(taken) + GAP * (len(kept) - 1)


def lines(fitted: Fitted) -> list[str]:
    """The table as text, its header first."""
    header = [column.name for column in fitted.columns]
    return [_line(row, fitted) for row in [header, *fitted.rows]]


def _line(row: Sequence[str], fitted: Fitted) -> str:
    parts = []
    for cell, width, column in zip(row, fitted.widths, fitted.columns, strict=True):
        room = width - cells_of(cell)
        if room < 0:
            cell, room = _cut(cell, width), 0
        parts.append(" " * room + cell if column.right else cell + " " * room)
    return (" " * GAP).join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    while cells_of(text) >= width:
        text = text[:-1]
    return f"{text}…"


def cells_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
