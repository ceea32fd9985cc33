"""The loop of a slot: ask for a trial, have it trained, report, decide, settle, ask again.

One thread, and one place to wait (:meth:`Supervisor.turn`): for the trainer's messages, for answers
from the database (which a thread of its own asks: :mod:`paropt.worker.database_thread`), for
signals, and for the time of the next heartbeat. So a slot goes on listening to its trainer while
the database is away, and goes on beating while its trainer is busy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paropt.errors import EXIT_FAILURE, EXIT_OK, EXIT_STORAGE, StorageUnreachable
from paropt.machine.devices import Place
from paropt.machine.slot_files import Seat
from paropt.search.study.study import Study, StudyEnded
from paropt.search.study.trial import Trial
from paropt.storage.leases import Beat, Leases, Observer, Rhythm, Slots
from paropt.worker.attempt import Attempt
from paropt.worker.checkpoints import Checkpoints
from paropt.worker.database_thread import Answer, Outbox
from paropt.worker.device_lock import Gate
from paropt.worker.leaving import Leaving, TrainerUnusable
from paropt.worker.protocol import Message
from paropt.worker.trainer_process import Trainer

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")
log = logging.getLogger(__name__)

START_TRIES = 3  # of a trainer that ends before it is ready
SHOW_SECONDS = 0.3  # between two looks of the live view


@dataclass(frozen=True)
class Limits:
    """Seconds: how long the database may be away, a trainer be silent, and leaving take."""

    outage: float = 600.0
    silence: float = 600.0
    grace: float = 20.0


class Supervisor:
    """One slot of one study. :meth:`run` returns the process's exit code."""

    def __init__(
        self,
        study: Study,
        slots: Slots,
        leases: Leases,
        *,
        place: Place,
        seat: Seat,
        data: str,
        checkpoints: Checkpoints,
        devices: Path,
        limits: Limits,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self.slots, self.leases = study, slots, leases
        self.place, self.seat, self.data = place, seat, data
        self.checkpoints, self.limits = checkpoints, limits
        self.gate = Gate(devices, place.device.label)
        self.rhythm = Rhythm(study.definition.heartbeat)
        self.observer = Observer(leases, study.name, self.rhythm)
        self.identity = ""  # in the registry of slots
        self.trainer: Trainer | None = None
        self.heard: list[Message] = []  # from the trainer, not dealt with yet
        self.leased: int | None = None  # the trial that our heartbeats keep
        self.lost = False  # it was given away
        self.free_since: float | None = None  # when the last fit ended
        self.wanted = "run"  # the study's state: run, pause or stop
        self.released = False  # somebody asked this slot to go
        self.signals = 0
        self.storage_lost: StorageUnreachable | None = None
        self.view: dict[str, Any] = {"phase": "starting", "device": place.device.label}
        self._wake_out, self._wake_in = os.pipe()
        for end in (self._wake_out, self._wake_in):
            os.set_blocking(end, False)
        self.outbox = Outbox(limits.outage, self._wake, revive)
        self._beating = self._looking = False
        self._next_beat = self._next_look = self._next_show = 0.0

    # -- the slot's life --------------------------------------------------------------------

    def run(self) -> int:
        """Run trials until the study ends, somebody sends us away, or the database is lost."""
        signal.signal(signal.SIGTERM, self._signalled)
        signal.signal(signal.SIGINT, self._signalled)
        code, reason, message = EXIT_FAILURE, "failed", ""
        try:
            self._register()
            self._sweep()
            self.start_trainer()
            while True:
                Attempt(self, self._next_trial()).run()
        except StudyEnded as end:
            code, reason, message = EXIT_OK, end.reason, str(end)
            self._clear(deleted=end.reason == "deleted")
        except Leaving as leave:
            code, reason, message = leave.exit_code, "left", str(leave)
        except StorageUnreachable as error:
            code, reason, message = EXIT_STORAGE, "storage", str(error)
        except TrainerUnusable as error:
            code, reason, message = EXIT_FAILURE, "trainer", str(error)
        finally:
            self._close()
            self.show(phase="ended", reason=reason, message=message, exit_code=code, trial=None)
            self.record("ended", reason=reason, message=message)
            log.info("this slot ends: %s", message or reason)
        return code

    def _register(self) -> None:
        self.identity = self.call(
            lambda: self.slots.register(
                self.study.name, device=self.place.device.label, slot=self.place.index
            )
        )
        self.show(phase="starting", slot=self.identity, threads=self.place.threads)

    def _sweep(self) -> None:
        """Remove the checkpoints of lineages that ended while nobody could."""

        def open_roots() -> set[int]:
            self.study.refresh()
            history = self.study.history
            return {r.root for state in ("RUNNING", "WAITING") for r in history.in_state(state)}

        self.checkpoints.sweep(self.call(open_roots))

    def _clear(self, *, deleted: bool) -> None:
        """Our trainer, then what it wrote for trials that were given to others meanwhile."""
        self._close_trainer()
        if deleted:
            self.checkpoints.sweep(())
            return
        with contextlib.suppress(StorageUnreachable):
            self._sweep()

    def _close_trainer(self) -> None:
        if self.trainer is not None:
            self.trainer.close()
            self.trainer = None

    def _close(self) -> None:
        self._close_trainer()
        self.gate.close()
        if self.identity and self.storage_lost is None:
            self.outbox.hurry(3.0)
            with contextlib.suppress(Exception):
                self.call(lambda: self.slots.leave(self.identity))

    def _next_trial(self) -> Trial:
        """Ask until there is a trial for us.

        Raises:
            StudyEnded, Leaving, StorageUnreachable: there won't be.
        """
        pause = 0.1
        while True:
            self.check_leaving()
            trial = self.call(lambda: self.study.next_trial(self._owner(), self._claim))
            if trial is not None:
                break
            self.show(phase="paused" if self.wanted == "pause" else "waiting", trial=None)
            self.wait(pause)
            pause = min(1.5 * pause, self.rhythm.look)
        # given out after the last look at the study's state, so that look is out of date; and
        # from now on heartbeats keep the lease
        self.leased, self.lost, self.wanted = trial.id, False, "run"
        self.record("asked", trial=trial.number, id=trial.id, root=trial.root)
        return trial

    def _claim(self, connection: Connection, trial: int) -> None:
        self.leases.take(connection, self.study.name, trial, self.identity)

    def _owner(self) -> dict[str, Any]:
        ready = (self.trainer.ready if self.trainer else None) or {}
        return {
            "slot": f"{socket.gethostname()}/{self.place.name}",
            "id": self.identity,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": ready.get("device") or self.place.device.name,
            "device_kind": self.place.device.kind,
            "threads": self.place.threads,
            "torch": ready.get("torch"),
        }

    # -- waiting ----------------------------------------------------------------------------

    def call(self, operation: Callable[[], T]) -> T:
        """Make one call to the database and wait for its answer, listening to all else.

        Raises:
            StorageUnreachable: it was away for longer than the limit.
        """
        answers: list[Answer[T]] = []
        self.outbox.put(operation, answers.append)
        while not answers:
            self.turn()
        if isinstance(answers[0].error, StorageUnreachable):
            self.storage_lost = answers[0].error
        return answers[0].get()

    def wait(self, seconds: float) -> None:
        """Let time pass, or until somebody sends us away."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.must_leave:
            self.turn(left)

    def turn(self, seconds: float = 1.0) -> None:
        """Wait for something to happen, at most so long, and take note of it."""
        now = time.monotonic()
        self._beat_and_look(now)
        self._show_often(now)
        sources: list[Any] = [self._wake_out]
        if self.trainer is not None and not self.trainer.ended:
            sources.append(self.trainer)
        readable, _, _ = select.select(sources, [], [], self._patience(seconds, now))
        if self._wake_out in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_out, 4096)
        if self.trainer is not None and self.trainer in readable:
            self.heard += self.trainer.receive()
        self.outbox.deliver()

    def _patience(self, seconds: float, now: float) -> float:
        """How long to wait for something before it is time for something else."""
        due = [self._next_show]
        if self.identity:
            due += [self._next_beat] if not self._beating else []
            due += [self._next_look] if not self._looking else []
        return max(0.01, min(seconds, min(due) - now))

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_in, b"x")

    def _signalled(self, number: int, frame: object) -> None:
        self.signals += 1
        self._wake()

    @property
    def must_leave(self) -> bool:
        return bool(self.signals or self.released or self.storage_lost or self.wanted == "stop")

    @property
    def in_a_hurry(self) -> bool:
        """Asked twice: don't wait for a checkpoint."""
        return self.signals > 1

    def check_leaving(self) -> None:
        """Raises :class:`Leaving` if the slot must go."""
        if self.storage_lost is not None:
            raise Leaving(EXIT_STORAGE, str(self.storage_lost))
        if self.signals:
            raise Leaving(EXIT_OK, "it was asked to leave")
        if self.released:
            raise Leaving(EXIT_OK, "it was released")

    # -- heartbeats -------------------------------------------------------------------------

    def _beat_and_look(self, now: float) -> None:
        """Queue a heartbeat and a look at the others' when it is time, never two at once."""
        if not self.identity:
            return
        if now >= self._next_beat:
            self._next_beat = now + self.rhythm.beat
            if not self._beating:
                self._beating = True
                self._beat(self.leased, dict(self.view))
        if now >= self._next_look and not self._looking:
            self._next_look = now + self.rhythm.look
            self._looking = True
            self.outbox.put(self._reap, self._looked)

    def _beat(self, trial: int | None, view: dict[str, Any]) -> None:
        def beat() -> tuple[Beat, str]:
            return self.slots.beat(self.identity, view, trial), self.study.state()

        def answered(answer: Answer[tuple[Beat, str]]) -> None:
            self._beating = False
            if answer.value is None:
                self._note_trouble(answer.error)
                return
            said, self.wanted = answer.value
            self.released = self.released or said.command == "release"
            # a trial that has ended since the beat was queued is nobody's
            if trial is not None and trial == self.leased and not said.mine:
                self.lost = True

        self.outbox.put(beat, answered)

    def _reap(self) -> list[tuple[int, str]]:
        """Take trials from owners that are dead; their next attempts wait for a slot."""
        running = {trial.id: trial for trial in self.study.running()}
        taken: list[tuple[int, str]] = []
        for stale in self.observer.observe(running):
            if stale.trial_id == self.leased or not self.leases.seize(stale):
                continue
            if (lost := running.get(stale.trial_id)) is None:
                continue
            if self.study.requeue(lost.id, f"its worker was lost ({stale.why})", lost.token):
                taken.append((lost.number, stale.why))
        return taken

    def _looked(self, answer: Answer[list[tuple[int, str]]]) -> None:
        self._looking = False
        self._note_trouble(answer.error)
        for number, why in answer.value or []:
            self.record("took over", trial=number, why=why)
            log.warning("trial %d was taken from a lost worker: %s", number, why)

    def _note_trouble(self, error: Exception | None) -> None:
        if isinstance(error, StorageUnreachable):
            self.storage_lost = error
        elif isinstance(error, StudyEnded):
            self.wanted = "stop"  # it was deleted; asking for a trial says so
        elif error is not None:
            log.error("%s: %s", type(error).__name__, error)

    # -- the trainer ------------------------------------------------------------------------

    def start_trainer(self) -> Trainer:
        """A trainer that is ready for work: the one that is there, or a new one.

        Raises:
            TrainerUnusable: it does not come up.
            Leaving: we are to go, and it is not up yet.
        """
        if self.trainer is not None and not self.trainer.ended:
            return self.trainer
        for tried in range(START_TRIES):
            self.drop_trainer()
            if tried:
                self.wait(2.0**tried)
            if self._trainer_comes_up():
                assert self.trainer is not None
                return self.trainer
        raise TrainerUnusable(self._why_unusable("it ended before it was ready"))

    def _trainer_comes_up(self) -> bool:
        self.trainer = Trainer({**os.environ, **self.place.environment})
        deadline = time.monotonic() + self.limits.silence
        while self.trainer.ready is None:
            self.turn()
            self.check_leaving()
            if self.trainer.ended or time.monotonic() > deadline:
                status = self.trainer.wait(1.0) or self.trainer.kill()
                if any(message.get("event") == "unusable" for message in self.heard):
                    raise TrainerUnusable(self._why_unusable(status))
                log.warning("a trainer %s before it was ready", status)
                return False
        self.heard.clear()
        self.show(device_name=self.trainer.ready.get("device"), trainer=self.trainer.pid)
        return True

    def _why_unusable(self, status: str) -> str:
        said = [m["message"] for m in self.heard if m.get("event") == "unusable"]
        reason = said[0] if said else status
        remedy = ""
        if self.place.device.kind == "cuda":
            remedy = "; free the GPU or mend its driver ('paropt check'), or use --devices cpu"
        return (
            f"the trainer on {self.place.device.label} cannot start: {reason} "
            f"(its log is {self.seat.file('log')}){remedy}"
        )

    def drop_trainer(self) -> str:
        """End the trainer now; how it ended."""
        if self.trainer is None:
            return "was not there"
        status = self.trainer.wait(0.2) if self.trainer.ended else None
        status = status or self.trainer.kill()
        self.trainer = None
        self.heard.clear()
        return status

    @contextmanager
    def device(self, *, alone: bool) -> Iterator[None]:
        """The right to train on the device.

        Raises:
            Leaving: we are to go, and the device is not free yet.
        """
        waited = 0
        while not self.gate.try_enter(alone=alone):
            waited += 1
            if waited == 4:
                # somebody wants all of its memory
                self.drop_trainer()
                self.show(phase="waiting for the device")
            self.turn(0.25)
            if self.must_leave or self.lost:
                break
        try:
            yield
        finally:
            self.gate.leave()

    # -- being seen -------------------------------------------------------------------------

    def show(self, **facts: Any) -> None:
        """Change what others see of this slot."""
        if any(self.view.get(key) != value for key, value in facts.items() if key != "phase"):
            self.view.update(facts)
        if facts.get("phase", self.view["phase"]) != self.view["phase"]:
            self.view["phase"] = facts["phase"]
            self._next_show = 0.0
        if facts.get("phase") == "ended":
            self.seat.show(self.view)

    def _show_often(self, now: float) -> None:
        if now < self._next_show:
            return
        self._next_show = now + SHOW_SECONDS
        away = self.outbox.away
        self.view["away"] = round(away, 1)
        self.view["trouble"] = self.outbox.trouble if away else ""
        self.seat.show(self.view)

    def record(self, event: str, **facts: Any) -> None:
        self.seat.record(event, **facts)
