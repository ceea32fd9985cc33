"""Why a slot ends before its study does."""

from __future__ import annotations


class Leaving(Exception):
    """The slot must go: somebody asked it to, or the database is lost."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TrainerUnusable(Exception):
    """A trainer cannot be started here; the message says why."""
