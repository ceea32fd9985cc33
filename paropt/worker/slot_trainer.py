"""The slot's trainer: a process that is started when it is needed and replaced when it died."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paropt.machine.devices import DeviceShare
from paropt.worker.event_loop import EventLoop
from paropt.worker.protocol import Message
from paropt.worker.slot_status import SlotStatus
from paropt.worker.trainer_process import TrainerProcess

log = logging.getLogger(__name__)

START_TRIES = 3  # of a trainer that ends before it is ready


class TrainerUnusable(Exception):
    """A trainer cannot be started here; the message says why."""


class SlotTrainer:
    """One trainer at a time on the slot's device.

    Attributes:
        idle_since: when its last fit ended (``time.monotonic``); None before any.
    """

    def __init__(
        self,
        share: DeviceShare,
        log_file: Path,
        loop: EventLoop,
        status: SlotStatus,
        silence: float,
    ) -> None:
        self._share, self._log_file, self._silence = share, log_file, silence
        self._loop, self._status = loop, status
        self._process: TrainerProcess | None = None
        self._heard: list[Message] = []
        self.idle_since: float | None = None

    @property
    def ended(self) -> bool:
        """There is none, or it has died, or is about to."""
        return self._process is None or self._process.ended

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it said of itself when it was ready."""
        return (self._process.ready if self._process else None) or {}

    def start(self) -> None:
        """Have a trainer that is ready for work: the one that is there, or a new one.

        Raises:
            TrainerUnusable: it does not come up.
            Leaving: we are to go, and it is not up yet.
        """
        if not self.ended:
            return
        for tried in range(START_TRIES):
            self.drop()
            if tried:
                self._loop.wait(2.0**tried)
            if self._comes_up():
                return
        raise TrainerUnusable(self._why_unusable("it ended before it was ready"))

    def _comes_up(self) -> bool:
        process = TrainerProcess({**os.environ, **self._share.environment})
        self._process = process
        self._loop.listen(process.fileno(), self._hear)
        deadline = time.monotonic() + self._silence
        while process.ready is None:
            self._loop.turn()
            self._loop.orders.check_leaving()
            if process.ended or time.monotonic() > deadline:
                said = [m["message"] for m in self._heard if m.get("event") == "unusable"]
                status = self.drop(patience=1.0)
                if said:
                    raise TrainerUnusable(self._why_unusable(said[0]))
                log.warning("a trainer %s before it was ready", status)
                return False
        self._heard.clear()
        self._status.show(device_name=process.ready.get("device"), trainer=process.pid)
        return True

    def _why_unusable(self, reason: str) -> str:
        remedy = ""
        if self._share.device.kind == "cuda":
            remedy = "; free the GPU or mend its driver ('paropt check'), or use --devices cpu"
        return (
            f"the trainer on {self._share.device.label} cannot start: {reason} "
            f"(its log is {self._log_file}){remedy}"
        )

    def _hear(self) -> None:
        if self._process is not None:
            self._heard += self._process.receive()
            if self._process.ended:
                self._loop.ignore(self._process.fileno())

    def heard(self) -> list[Message]:
        """What it has said since the last time that somebody asked."""
        heard, self._heard = self._heard, []
        return heard

    def send(self, **message: Any) -> None:
        """Tell it something; if it is dead, :attr:`ended` will say so."""
        if self._process is not None:
            self._process.send(**message)

    def drop(self, patience: float = 0.2) -> str:
        """End the trainer now; how it ended. ``patience``: seconds for one that is ending."""
        process, self._process = self._process, None
        if process is None:
            return "was not there"
        self._loop.ignore(process.fileno())
        status = process.wait(patience) if process.ended else None
        self._heard.clear()
        return status or process.kill()

    def close(self) -> None:
        """Let it quit."""
        process, self._process = self._process, None
        if process is not None:
            self._loop.ignore(process.fileno())
            process.close()
