"""What a notebook shows below a cell while a study runs: the screen's table, painted over."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from paropt.terminal.live import LiveScreen, trial_line

WIDTH = 100  # characters
KEPT = 8  # sentences above the table
EVERY = 1.0  # seconds between two paintings: each goes through the browser
_PAGE = '<pre style="line-height: 1.25; white-space: pre">{code}</pre>'

Status = Mapping[str, Any]
Row = Mapping[str, Any]


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this; IPython is there then, and need not be otherwise."""
    if "ipykernel" not in sys.modules:
        return False
    shell = import_module("IPython").get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class LiveNotebook:
    """A table that is painted over in a cell's output, with the last sentences above it."""

    def __init__(self, metric: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = LiveScreen(_console(), metric)
        self._said: list[str] = []
        self._last: RenderableType = Text()
        self._handle: Any = None
        self._clock, self._painted = clock, 0.0

    def __enter__(self) -> LiveNotebook:
        self._handle = import_module("IPython.display").display(self._html(), display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._paint()

    def note(self, line: str) -> None:
        self._said = [*self._said, line][-KEPT:]
        self._paint()

    def ended(self, trial: Row, status: Status) -> None:
        self.note(trial_line(trial, self._screen.metric, status))

    def update(self, status: Status | None, rows: Sequence[Row], trouble: str) -> None:
        self._last = self._screen.render(status, rows, trouble)
        if self._clock() - self._painted >= EVERY:
            self._paint()

    def _paint(self) -> None:
        self._painted = self._clock()
        if self._handle is not None:
            self._handle.update(self._html())

    def _html(self) -> Any:
        console = _console()
        console.print(Group(*map(Text, self._said), self._last))
        page = console.export_html(inline_styles=True, code_format=_PAGE)
        return import_module("IPython.display").HTML(page)


def _console() -> Console:
    """One that draws in memory; in a notebook rich would show each line by itself."""
    return Console(
        file=io.StringIO(),
        width=WIDTH,
        height=60,
        record=True,
        force_terminal=True,
        force_jupyter=False,
    )
