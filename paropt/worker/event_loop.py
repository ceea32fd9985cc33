"""The one place where a slot waits: :meth:`EventLoop.turn`.

It waits for the trainer's messages, for answers from the database (which a thread of its own asks:
:mod:`paropt.worker.database_thread`), for signals, and for the time of the next heartbeat. So a
slot goes on listening to its trainer while the database is away, and goes on beating while its
trainer is busy.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from paropt.errors import StorageUnreachable
from paropt.worker.database_thread import Answer, DatabaseThread
from paropt.worker.orders import Orders

T = TypeVar("T")
Task = Callable[[float], float]


class EventLoop:
    """Waits, and calls whoever it is time for. Everything happens in the thread that waits.

    Attributes:
        tasks: called in every turn with the time; each does what is due and returns when it is
            due next (both in seconds of ``time.monotonic``).
    """

    def __init__(
        self, orders: Orders, outage: float, revive: Callable[[], None] = lambda: None
    ) -> None:
        self.orders = orders
        self.tasks: list[Task] = []
        self._readers: dict[int, Callable[[], None]] = {}
        self._wake_out, self._wake_in = os.pipe()
        for end in (self._wake_out, self._wake_in):
            os.set_blocking(end, False)
        self.database = DatabaseThread(outage, self._wake, revive)

    def catch_signals(self) -> None:
        """SIGTERM, SIGINT and SIGUSR1 are orders to leave from now on, SIGUSR2 in a hurry.

        SIGUSR1 adds nothing to another one: a scheduler may tell slots and their ``launch`` at
        once, which tells them, too, and nobody knows which is heard first.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._signalled)

    def listen(self, descriptor: int, reader: Callable[[], None]) -> None:
        """Call ``reader`` whenever there is something to read."""
        self._readers[descriptor] = reader

    def ignore(self, descriptor: int) -> None:
        """Listen to it no more."""
        self._readers.pop(descriptor, None)

    def ask(
        self, operation: Callable[[], T], then: Callable[[Answer[T]], None] = lambda _: None
    ) -> None:
        """Queue a call to the database; ``then`` gets its answer in a later turn."""

        def answered(answer: Answer[T]) -> None:
            if isinstance(answer.error, StorageUnreachable):
                self.orders.database_lost = answer.error
            then(answer)

        self.database.put(operation, answered)

    def call(self, operation: Callable[[], T]) -> T:
        """Make one call to the database and wait for its answer, listening to all else.

        Raises:
            StorageUnreachable: it was away for longer than the limit.
        """
        answers: list[Answer[T]] = []
        self.ask(operation, answers.append)
        while not answers:
            self.turn()
        return answers[0].get()

    def wait(self, seconds: float) -> None:
        """Let time pass, or until somebody sends us away."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.orders.must_leave:
            self.turn(left)

    def turn(self, seconds: float = 1.0) -> None:
        """Wait for something to happen, at most so long, and take note of it."""
        now = time.monotonic()
        due = min((task(now) for task in self.tasks), default=now + seconds)
        patience = max(0.01, min(seconds, due - now))
        readable, _, _ = select.select([self._wake_out, *self._readers], [], [], patience)
        if self._wake_out in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_out, 4096)
        for descriptor in readable:
            if reader := self._readers.get(descriptor):
                reader()
        self.database.deliver()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_in, b"x")

    def _signalled(self, number: int, frame: object) -> None:
        if number == signal.SIGUSR1:
            self.orders.told = True
        else:
            self.orders.signals += 2 if number == signal.SIGUSR2 else 1
        self._wake()
