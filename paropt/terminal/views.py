"""Which view of a running study suits where this process runs."""

from __future__ import annotations

from rich.console import Console

from paropt.terminal.frames import on_a_terminal
from paropt.terminal.live import LiveLines, LiveScreen, LiveView
from paropt.terminal.notebook import LiveNotebook, in_notebook


def make_live_view(metric: str) -> LiveView:
    """The view for this process's stderr, or for the notebook's cell that runs it."""
    if in_notebook():
        return LiveNotebook(metric)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if on_a_terminal(console):
        return LiveScreen(console, metric)
    return LiveLines(console, metric)
