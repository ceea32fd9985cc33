"""What a request may be at most, and what is said where it can't be answered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that one request may have, and that may wait.

    Attributes:
        body: bytes of a request.
        sessions: of a request.
        events: of a session.
        top: items that are asked for.
        listed: ids in a list of candidates, or of items to leave out.
        batch: sessions that are answered together.
        waiting: sessions that wait to be answered; more are sent away.
    """

    body: int = 4 << 20
    sessions: int = 1000
    events: int = 10_000
    top: int = 1000
    listed: int = 100_000
    batch: int = 64
    waiting: int = 4096


class Refused(Exception):
    """A request that gets no answer: its HTTP status, and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
