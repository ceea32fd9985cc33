"""SIGINT, SIGTERM and SIGUSR1 as news, so that who paints a screen ends a frame before it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """``count`` is how often we were asked to stop; ``news`` is set each time."""

    def __init__(self) -> None:
        self._count = 0
        self._told = False
        self.news = threading.Event()

    @property
    def count(self) -> int:
        """How often we were asked to stop."""
        return max(self._count, int(self._told))

    def take(self, number: int, frame: object) -> None:
        # SIGUSR1 only repeats another one: a scheduler may tell all processes, and its script us
        if number == signal.SIGUSR1:
            self._told = True
        else:
            self._count += 1
        self.news.set()


@contextmanager
def caught_signals(only: int | None = None) -> Iterator[Signals]:
    """SIGINT, SIGTERM and SIGUSR1 are counted instead of ending this process; after ``only`` they
    end it.

    Off the main thread, which alone gets signals, nothing is caught.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def take(number: int, frame: object) -> None:
        signals.take(number, frame)
        if signals.count == only:
            restore()

    for number in numbers:
        signal.signal(number, take)
    try:
        yield signals
    finally:
        restore()
