"""What others see of a slot: its state for the live view, and its record of what happened."""

from __future__ import annotations

from typing import Any

from paropt.machine.slot_files import SlotFiles
from paropt.worker.event_loop import EventLoop

SHOW_SECONDS = 0.3  # between two looks of the live view


class SlotStatus:
    """What the slot does now, written to its files a few times a second."""

    def __init__(self, files: SlotFiles, loop: EventLoop, device: str) -> None:
        self._files, self._database = files, loop.database
        self.shown: dict[str, Any] = {"phase": "starting", "device": device}
        self._next = 0.0
        loop.tasks.append(self._show_often)

    def show(self, **facts: Any) -> None:
        """Change what others see."""
        if facts.get("phase", self.shown["phase"]) != self.shown["phase"]:
            self._next = 0.0
        self.shown.update(facts)
        if facts.get("phase") == "ended":
            self._files.show(self.shown)

    def count(self, name: str) -> None:
        """One more of something, since the slot started."""
        self.show(**{name: int(self.shown.get(name, 0)) + 1})

    def record(self, event: str, **facts: Any) -> None:
        """Append to the slot's own record."""
        self._files.record(event, **facts)

    def _show_often(self, now: float) -> float:
        if now >= self._next:
            self._next = now + SHOW_SECONDS
            away = self._database.away
            self.shown["away"] = round(away, 1)
            self.shown["trouble"] = self._database.trouble if away else ""
            self._files.show(self.shown)
        return self._next
