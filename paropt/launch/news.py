"""Messages about a running study, to wherever apprise sends them.

A thread of the launch looks at the study now and then. Whatever goes wrong with a message stays
here: the search never waits for one, and an address is told by its kind alone, since the rest of it
is what lets others write there.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paropt.errors import ParoptError, StorageUnreachable, StudyError

if TYPE_CHECKING:
    from types import TracebackType

    from paropt.launch.opening.open_study import OpenedStudy

ENVIRONMENT = "PAROPT_NOTIFY"
LOOK = 10.0  # seconds between two looks
STUCK = 900.0  # seconds without anything moving
BEST_EVERY = 1800.0  # seconds between two messages about a better trial
LAST_WORDS = 20.0  # seconds that the end waits for the last message

Status = Mapping[str, Any]
Clock = Callable[[], float]


class Sender(Protocol):
    """Sends a message to every address."""

    def notify(self, *, title: str, body: str) -> object:
        """Something false if one of them did not take it."""


# -- addresses ------------------------------------------------------------------------------------


def addresses(urls: Sequence[str], file: Path | None) -> list[str]:
    """All that was given, on the command line, in the environment or in a file, a line each.

    The environment of this process does not pass them on.

    Raises:
        ParoptError: the file cannot be read.
    """
    os.environ.pop(ENVIRONMENT, None)
    found = list(urls)
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ParoptError(f"--notify-file {file} cannot be read: {_why(error)}") from None
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return list(dict.fromkeys(found))


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "it is no text"


def sender(urls: Sequence[str]) -> Sender:
    """Who sends to these addresses.

    Raises:
        ParoptError: apprise isn't there, or doesn't know one of them.
    """
    try:
        apprise = importlib.import_module("apprise")
    except ImportError:
        raise ParoptError(
            "--notify needs apprise, which is not installed; pip install 'paropt[notify]'"
        ) from None
    for name in ("apprise", "urllib3", "requests"):  # they tell addresses when something fails
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    found = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not found.add(url):
            raise ParoptError(
                f"notification address {number} of {len(urls)} ({kind(url)}) is none that apprise "
                "knows; it has them like tgram://TOKEN/CHAT, mailto://USER:PASSWORD@HOST"
            )
    made: Sender = found
    return made


def kind(url: str) -> str:
    """What may be told of an address."""
    scheme, there, _ = url.partition("://")
    return f"{scheme}://…" if there and scheme.isalnum() and len(scheme) < 20 else "without a kind"


# -- what is said ---------------------------------------------------------------------------------


class Headlines:
    """Which message a look at the study is worth, if any; it remembers what was said."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._moved_at = self._best_at = clock()
        self._moved: Any = None
        self._best: int | None = None
        self._first = True
        self._said: set[str] = set()

    def of(self, status: Status) -> list[str]:
        """The messages of one look."""
        found = [*self._paused(status), *self._stuck(status), *self._better(status)]
        self._first = False
        return found

    def _paused(self, status: Status) -> list[str]:
        why = str(status.get("why") or "")
        if status["state"] != "pause" or not why or why in self._said:
            return []
        self._said.add(why)
        return [why]

    def _stuck(self, status: Status) -> list[str]:
        alive = [slot for slot in status["workers"] if not slot["gone"]]
        where = [(s["id"], s["state"].get("trial"), s["state"].get("epoch"), s["state"].get("step"))
                 for s in alive]  # fmt: skip
        moved = status["counts"], sorted(map(str, where))
        if moved != self._moved or status["state"] != "run":
            self._moved, self._moved_at = moved, self._clock()
            self._said.discard("stuck")
            return []
        quiet = self._clock() - self._moved_at
        if quiet < STUCK or "stuck" in self._said:
            return []
        self._said.add("stuck")
        slots = f"{len(alive)} slot{'s' * (len(alive) != 1)} alive" if alive else "no slot is alive"
        return [f"nothing has moved for {quiet / 60:.0f} minutes; {slots}"]

    def _better(self, status: Status) -> list[str]:
        best = status["best"]
        if best is None or best["trial"] == self._best:
            return []
        if self._first:  # found before we looked
            self._best = best["trial"]
        if self._first or self._clock() - self._best_at < BEST_EVERY:
            return []
        self._best, self._best_at = best["trial"], self._clock()
        return [f"a better trial: {best_words(status)}"]


def best_words(status: Status) -> str:
    """The best trial in a few words."""
    best, counts = status["best"], status["counts"]
    done = counts["complete"] + counts["pruned"]
    of = f" of {status['budget']}" if status["budget"] else ""
    if best is None:
        return f"{done}{of} trials done, none has a value"
    return f"{status['metric']} {best['value']:.4f}, trial {best['trial']}; {done}{of} trials done"


# -- the thread -----------------------------------------------------------------------------------


class News:
    """Tells of a study while it is used with ``with``; nothing without addresses."""

    def __init__(
        self,
        opened: OpenedStudy,
        send: Sender | None,
        note: Callable[[str], None],
        look: float = LOOK,
    ) -> None:
        self._opened, self._send, self._note, self._look = opened, send, note, look
        self._messages: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=run, name="news", daemon=True)
            for run in (self._watch, self._deliver)
        ]

    def __enter__(self) -> News:
        if self._send is not None:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ParoptError):
            self._messages.put(f"it stopped: {error}")
        self._over.set()
        self._messages.put(None)
        if self._send is not None:
            self._threads[1].join(LAST_WORDS)

    def ended(self, status: Status) -> None:
        """Say how it ended; not if somebody who is there ended it."""
        if not status["interrupted"]:
            word = str(status["activity"])
            word = word if word in ("done", "stopped", "time is up") else "the launch has ended"
            self._messages.put(f"{word}: {best_words(status)}")

    def _watch(self) -> None:
        from paropt.terminal.status import study_status

        headlines = Headlines()
        while not self._over.wait(self._look):
            with contextlib.suppress(StorageUnreachable, StudyError):
                status = study_status(self._opened.storage, self._opened.study)
                for message in headlines.of(status):
                    self._messages.put(message)

    def _deliver(self) -> None:
        complained = False
        told: set[str] = set()
        while (message := self._messages.get()) is not None:
            if message.removeprefix("it stopped: ") in told:
                continue
            told.add(message)
            if not self._sent(message) and not complained:
                complained = True
                self._note("a notification could not be sent; the search goes on")

    def _sent(self, message: str) -> bool:
        assert self._send is not None
        name = self._opened.study.name
        try:
            return bool(self._send.notify(title=f"paropt: {name}", body=message))
        except Exception:  # whatever it is, it may hold the address, and the search goes on
            return False
