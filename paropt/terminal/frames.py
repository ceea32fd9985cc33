"""Frames of a live view that fit the terminal: a frame that is taller cannot be painted over."""

from __future__ import annotations

import os
import termios
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text


def on_a_terminal(console: Console) -> bool:
    """Whether frames can be painted over there.

    A log file is none, whatever FORCE_COLOR says; nor is a terminal that cannot move its cursor.
    """
    isatty = getattr(console.file, "isatty", lambda: False)
    return console.is_terminal and not console.is_dumb_terminal and bool(isatty())


@contextmanager
def quiet_keys(console: Console) -> Iterator[None]:
    """What is typed is not shown meanwhile: an Enter, or the ``^C``, would break into a frame."""
    try:
        terminal = console.file.fileno()
        before = termios.tcgetattr(terminal)
        # a process in the background that changes its terminal is stopped
        ours = os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, ValueError, termios.error):
        ours = False
    if not ours:
        yield
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        if os.tcgetpgrp(terminal) == os.getpgrp():
            termios.tcsetattr(terminal, termios.TCSANOW, before)


class Cropped:
    """The first lines of a renderable."""

    def __init__(self, whole: RenderableType, lines: int) -> None:
        self.whole, self.lines = whole, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in _lines(console, self.whole)[: self.lines]:
            yield from line
            yield Segment.line()


def cut_to_fit(
    console: Console,
    build: Callable[..., RenderableType],
    wanted: Sequence[int],
    least: Sequence[int],
) -> RenderableType:
    """What ``build(*counts)`` gives, with as many rows of each kind as the terminal has room for.

    Counts start from ``wanted`` and are lowered in their order, first to ``least`` and then to
    nothing. An empty line follows, where keys are shown if :func:`quiet_keys` cannot keep them
    away: after a full line they would begin another one, and the frame not be painted over.
    """
    room = max(1, console.height - 2)  # the empty line, and the one that the shell goes on in
    counts = list(wanted)
    for floor in (least, [0] * len(counts)):
        for index in range(len(counts)):
            over = len(_lines(console, build(*counts))) - room
            if over <= 0:
                return Group(build(*counts), Text())
            # one more, because what is left out is said in a line
            counts[index] = max(min(floor[index], counts[index]), counts[index] - over - 1)
    return Group(Cropped(build(*counts), room), Text())


def _lines(console: Console, whole: RenderableType) -> list[list[Segment]]:
    return console.render_lines(whole, console.options.update(height=None), pad=False)


def summary(states: Sequence[Mapping[str, Any]], more: bool) -> Text:
    """``… and 19 more slots: 17 training, 2 starting; together 120,000 events/s``."""
    count = len(states)
    slots = f"slot{'s' * (count != 1)}"
    phases = Counter(str(state.get("phase") or "silent") for state in states)
    listed = ", ".join(f"{number} {phase}" for phase, number in phases.most_common())
    line = f"… and {count} more {slots}: {listed}" if more else f"{count} {slots}: {listed}"
    at_work = [state for state in states if state.get("trial") is not None]
    speed = sum(float(state.get("events_per_second") or 0) for state in at_work)
    if speed:
        line += f"; together {speed:,.0f} events/s"
    return Text(line, style="dim", no_wrap=True, overflow="ellipsis")
