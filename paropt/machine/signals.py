"""SIGINT, SIGTERM and SIGUSR1 as news, so that who paints a screen ends a frame before it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """How often we were asked to stop; ``news`` is set each time."""

    def __init__(self) -> None:
        self.count = 0
        self.news = threading.Event()

    def take(self, number: int, frame: object) -> None:
        # says nothing new after another one: a scheduler may tell all processes, and its script us
        self.count += number != signal.SIGUSR1 or not self.count
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
