"""What a slot has been told to do, by whomever: the study, ``paropt release``, signals."""

from __future__ import annotations

from dataclasses import dataclass

from paropt.errors import EXIT_OK, EXIT_STORAGE, StorageUnreachable
from paropt.search.study.state import State


class Leaving(Exception):
    """The slot must go: somebody asked it to, or the database is lost."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Orders:
    """Written by whoever hears of an order, read by whoever has to follow it."""

    study: State = "run"  # what the study's trials should do
    released: bool = False  # somebody asked this slot to go
    signals: int = 0
    told: bool = False  # the same by a signal that may only repeat another one
    database_lost: StorageUnreachable | None = None  # it was away for longer than the limit

    @property
    def must_leave(self) -> bool:
        asked = self.signals or self.told or self.released
        return bool(asked or self.database_lost or self.study == "stop")

    @property
    def in_a_hurry(self) -> bool:
        """Asked twice: don't wait for a checkpoint."""
        return self.signals > 1

    def check_leaving(self) -> None:
        """Raises :class:`Leaving` if the slot must go, whatever its study does."""
        if self.database_lost is not None:
            raise Leaving(EXIT_STORAGE, str(self.database_lost))
        if self.signals or self.told:
            raise Leaving(EXIT_OK, "it was asked to leave")
        if self.released:
            raise Leaving(EXIT_OK, "it was released")

    def why_handed_back(self) -> str:
        """Why a trial was not finished here, in words."""
        if self.study == "pause":
            return "the study was paused"
        if self.study == "stop":
            return "the study was stopped or its time is over"
        return "its worker was released" if self.released else "its worker left"
