"""The slot as the database knows it: registered, beating for its trial, watching the others."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from paropt.errors import StorageUnreachable
from paropt.search.study.state import State, StudyEnded
from paropt.search.study.study import Study
from paropt.storage.leases import Beat, Leases, Observer, Rhythm, Slots
from paropt.worker.database_thread import Answer
from paropt.worker.event_loop import EventLoop
from paropt.worker.slot_status import SlotStatus

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from paropt.machine.devices import DeviceShare

log = logging.getLogger(__name__)


class Heartbeat:
    """Keeps the lease of the slot's trial, and takes trials from slots that beat no more.

    Attributes:
        identity: the slot's id in the registry; empty before :meth:`register`.
        trial: the id of the trial whose lease is kept.
        lost: that trial was given to another slot.
    """

    def __init__(
        self, study: Study, slots: Slots, leases: Leases, loop: EventLoop, status: SlotStatus
    ) -> None:
        self._study, self._slots, self._leases = study, slots, leases
        self._loop, self._status = loop, status
        self.rhythm = Rhythm(study.definition.heartbeat)
        self._observer = Observer(leases, study.name, self.rhythm)
        self.identity = ""
        self.trial: int | None = None
        self.lost = False
        self._beating = self._looking = False
        self._next_beat = self._next_look = 0.0
        loop.tasks.append(self._beat_and_look)

    def register(self, share: DeviceShare) -> None:
        """Enter the slot in the registry; heartbeats begin."""
        self.identity = self._loop.call(
            lambda: self._slots.register(
                self._study.name, device=share.device.label, slot=share.index
            )
        )

    def leave(self) -> None:
        """Strike the slot from the registry."""
        self._loop.call(lambda: self._slots.leave(self.identity))

    def claim(self, connection: Connection, trial: int) -> None:
        """Take a trial's lease, in the transaction that gives the trial out."""
        self._leases.take(connection, self._study.name, trial, self.identity)

    def keep(self, trial: int) -> None:
        """From now on heartbeats keep this trial's lease."""
        self.trial, self.lost = trial, False

    def let_go(self) -> None:
        """A heartbeat that comes after the lease's end proves nothing."""
        self.trial = None

    def drop(self, trial: int) -> bool:
        """End the lease; a call to the database. False if it was not ours."""
        return self._leases.drop(trial, self.identity)

    def _beat_and_look(self, now: float) -> float:
        """Queue a heartbeat and a look at the others' when it is time, never two at once."""
        if not self.identity:
            return math.inf
        if now >= self._next_beat:
            self._next_beat = now + self.rhythm.beat
            if not self._beating:
                self._beating = True
                self._beat(self.trial, dict(self._status.shown))
        if now >= self._next_look and not self._looking:
            self._next_look = now + self.rhythm.look
            self._looking = True
            self._loop.ask(self._take_over, self._looked)
        beat = math.inf if self._beating else self._next_beat
        return min(beat, math.inf if self._looking else self._next_look)

    def _beat(self, trial: int | None, shown: dict[str, Any]) -> None:
        def beat() -> tuple[Beat, State]:
            return self._slots.beat(self.identity, shown, trial), self._study.state()

        def answered(answer: Answer[tuple[Beat, State]]) -> None:
            self._beating = False
            orders = self._loop.orders
            if isinstance(answer.error, StudyEnded):
                orders.study = "stop"  # it was deleted; who asks for a trial is told so
                return
            if answer.value is None:
                _note(answer.error)
                return
            said = answer.value[0]
            orders.study = answer.value[1]
            orders.released = orders.released or said.command == "release"
            # a trial that has ended since the beat was queued is nobody's
            if trial is not None and trial == self.trial and not said.mine:
                self.lost = True

        self._loop.ask(beat, answered)

    def _take_over(self) -> list[tuple[int, str]]:
        """Take trials from owners that are dead; their next attempts wait for a slot."""
        running = {trial.id: trial for trial in self._study.running()}
        taken: list[tuple[int, str]] = []
        for stale in self._observer.observe(running):
            if stale.trial_id == self.trial or not self._leases.seize(stale):
                continue
            if (lost := running.get(stale.trial_id)) is None:
                continue
            if self._study.requeue(lost.id, f"its worker was lost ({stale.why})", lost.token):
                taken.append((lost.number, stale.why))
        return taken

    def _looked(self, answer: Answer[list[tuple[int, str]]]) -> None:
        self._looking = False
        _note(answer.error)
        for number, why in answer.value or []:
            self._status.record("took over", trial=number, why=why)
            log.warning("trial %d was taken from a lost worker: %s", number, why)


def _note(error: Exception | None) -> None:
    if error is not None and not isinstance(error, StorageUnreachable):
        log.error("%s: %s", type(error).__name__, error)
