"""An ordered queue of calls to the database that outlives the database's absence.

Everything that a slot says to PostgreSQL goes through one thread, in order. While the server does
not answer, the first call in the queue is tried again and again and the rest waits behind it; the
slot's own loop goes on listening to its trainer and to signals meanwhile. When the server has been
away for longer than that thread's patience, all calls fail.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from paropt.errors import StorageUnreachable

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries


@dataclass
class Answer(Generic[T]):
    """What a call came to: a value or an error."""

    value: T | None = None
    error: Exception | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None is a value of T then


@dataclass
class _Call:
    operation: Callable[[], Any]
    then: Callable[[Answer[Any]], None]


class DatabaseThread:
    """Calls made in order by a thread; their answers are handed out by :meth:`deliver`.

    ``wake`` is called, from the thread, whenever there is an answer to deliver; ``revive`` before
    each new try, in case that this process can bring the server back.
    """

    def __init__(
        self, patience: float, wake: Callable[[], None], revive: Callable[[], None] = lambda: None
    ) -> None:
        self.patience = patience
        self._wake, self._revive = wake, revive
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[_Call, Answer[Any]]] = queue.SimpleQueue()
        self._away_since: float | None = None
        self._pending = 0
        self._hurry = threading.Event()
        self.trouble = ""  # what the database said last, while it is away
        threading.Thread(target=self._run, name="database", daemon=True).start()

    @property
    def pending(self) -> int:
        """Calls without an answer yet."""
        return self._pending

    @property
    def away(self) -> float:
        """For how many seconds the database has not answered; 0 if it does."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    def put(
        self, operation: Callable[[], T], then: Callable[[Answer[T]], None] = lambda _: None
    ) -> None:
        """Queue a call; ``then`` gets its answer in the thread that calls :meth:`deliver`."""
        self._pending += 1
        self._calls.put(_Call(operation, then))

    def deliver(self) -> None:
        """Hand out the answers that have come."""
        while True:
            try:
                call, answer = self._answers.get_nowait()
            except queue.Empty:
                return
            self._pending -= 1
            call.then(answer)

    def hurry(self, patience: float) -> None:
        """Wait no longer than this from now on: the slot is leaving."""
        self.patience = min(self.patience, self.away + patience)
        self._hurry.set()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            answer = self._try(call.operation)
            self._answers.put((call, answer))
            self._wake()

    def _try(self, operation: Callable[[], Any]) -> Answer[Any]:
        pause = FIRST_PAUSE
        while True:
            try:
                answer = Answer(operation())
            except StorageUnreachable as error:
                self.trouble = str(error)
                if self._away_since is None:
                    self._away_since = time.monotonic()
                if self.away >= self.patience:
                    return Answer(error=error)
                # not all at once when it comes back
                self._hurry.wait(pause * random.uniform(0.5, 1.5))
                pause = FIRST_PAUSE if self._hurry.is_set() else min(2 * pause, LONGEST_PAUSE)
                if self._hurry.is_set():
                    time.sleep(FIRST_PAUSE)
                self._revive()
                continue
            except Exception as error:
                answer = Answer(error=error)
            self._away_since = None
            return answer
