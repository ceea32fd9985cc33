"""Tables of :mod:`paropt.terminal.columns` for a live view, and with text that wraps."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from paropt.terminal.columns import GAP, Column, fit


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Table:
    """The table for a terminal of ``width``."""
    fitted = fit(columns, rows, width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column, its_width in zip(fitted.columns, fitted.widths, strict=True):
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not column.folded,
            overflow="fold" if column.folded else "ellipsis",
            width=None if column.folded else its_width,
        )
    for row in fitted.rows:
        table.add_row(*map(Text, row))
    return table
