"""One trial in a slot, from the message to the trainer to the trial's end in the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paropt.errors import StorageUnreachable
from paropt.machine.devices import DeviceShare
from paropt.search.history.history import BEYOND
from paropt.search.study.state import State
from paropt.search.study.study import Study
from paropt.search.study.trial import Trial, TrialLost
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.semantics import as_then
from paropt.training.tensorboard import of_trial
from paropt.worker.checkpoints import Checkpoints
from paropt.worker.database_thread import Answer
from paropt.worker.device_lock import DeviceLock
from paropt.worker.event_loop import EventLoop
from paropt.worker.heartbeat import Heartbeat
from paropt.worker.limits import Limits
from paropt.worker.orders import Leaving
from paropt.worker.protocol import Message
from paropt.worker.slot_status import SlotStatus
from paropt.worker.slot_trainer import SlotTrainer, TrainerUnusable

log = logging.getLogger(__name__)

EarlyEnd = Literal["enough", "give way", "hand back", "give up"]
Kind = Literal["done", "pruned", "handed back", "lost", "failed", "died"]
PROGRESS = ("epoch", "stage", "step", "steps", "events_per_second", "events", "busy")
STOP_SECONDS = 30.0  # from "stop" to the end of a fit; a range of steps takes a fraction of one


@dataclass(frozen=True)
class FitEnding:
    """How a fit ended."""

    kind: Kind
    message: str = ""
    failure: str = ""  # of a failed one: oom, diverged, constraint, params or error
    epoch: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)  # of a model beyond a limit


@dataclass(frozen=True, kw_only=True)
class SlotParts:
    """What a slot has for the trials that it runs; ``data`` is the dataset directory."""

    study: Study
    share: DeviceShare
    data: str
    checkpoints: Checkpoints
    tensorboard: Path | None
    limits: Limits
    loop: EventLoop
    status: SlotStatus
    heartbeat: Heartbeat
    trainer: SlotTrainer
    device_lock: DeviceLock


class Attempt:
    """A trial that this slot runs, and what is known of it while it runs."""

    def __init__(self, slot: SlotParts, trial: Trial) -> None:
        self.slot, self.trial = slot, trial
        self.loop, self.orders, self.status = slot.loop, slot.loop.orders, slot.status
        self.trainer, self.heartbeat = slot.trainer, slot.heartbeat
        self.early_end: EarlyEnd | None = None  # why the fit is to end before its end
        self.deadline = 0.0  # by when it has to
        self.lost = False  # a report came too late
        self.broken = ""  # a report that the study cannot take
        self.heard_at = time.monotonic()
        self.reached = 0  # the last epoch that was told

    def run(self) -> None:
        """Train it and settle it.

        Raises:
            Leaving, StorageUnreachable, TrainerUnusable: the slot cannot go on.
        """
        try:
            outcome = self._train()
        except (Leaving, TrainerUnusable) as error:
            self._settle(FitEnding("handed back", str(error)))
            raise
        self._settle(outcome)

    # -- training ---------------------------------------------------------------------------

    def _train(self) -> FitEnding:
        outcome = self._fit(alone=False)
        if outcome.failure == "oom":
            # whatever else was on the device may have been to blame, our own leftovers included
            log.warning("trial %d: %s; once more, alone", self.trial.number, outcome.message)
            self.status.record("out of memory", trial=self.trial.number)
            self.status.count("out_of_memory")
            self.trainer.drop()
            outcome = self._fit(alone=True)
            if outcome.failure == "oom":
                self.trainer.drop()
        return outcome

    def _fit(self, *, alone: bool) -> FitEnding:
        self.status.show(
            phase="training",
            trial=self.trial.number,
            epoch=0,
            epochs=self.trial.epochs,
            stage="",
            step=0,
            steps=0,
            events_per_second=None,
            events=0,
            busy=0.0,
            value=None,
            model=self.trial.model,
            params=self.trial.params,
            warning=None,
        )
        with self._device(alone=alone):
            if self.heartbeat.lost:
                return FitEnding("lost")
            if self.orders.must_leave:
                return FitEnding("handed back")
            self.trainer.start()
            self.trainer.send(**self._order())
            self.heard_at = time.monotonic()
            outcome = None
            while outcome is None:
                self.loop.turn()
                outcome = self._deal()
            self.trainer.idle_since = time.monotonic()
            return outcome

    @contextmanager
    def _device(self, *, alone: bool) -> Iterator[None]:
        """The right to train on the device, unless we have to go before it is free."""
        lock, waited = self.slot.device_lock, 0
        while not lock.try_enter(alone=alone):
            waited += 1
            if waited == 4:
                # somebody wants all of its memory
                self.trainer.drop()
                self.status.show(phase="waiting for the device")
            self.loop.turn(0.25)
            if self.orders.must_leave or self.heartbeat.lost:
                break
        try:
            yield
        finally:
            lock.leave()

    def _order(self) -> Message:
        slot, trial = self.slot, self.trial
        definition = slot.study.definition
        usable = slot.checkpoints.usable(trial.root, trial.attempt)
        second = trial.attempt > 1 or trial.best is not None or bool(usable)
        return {
            "do": "fit",
            "trial": trial.number,
            "model": trial.model,
            "params": as_then(trial.params, definition.versions.get("paropt")),
            "seed": trial.seed,
            "epochs": trial.epochs,
            "data": slot.data,
            "view": definition.view,
            "device": slot.share.device.kind,
            "threads": slot.share.threads,
            "at": list(definition.at),
            "also": definition.recorded,
            "constraints": list(definition.constraints),
            "metric": definition.metric,
            "direction": definition.direction,
            "evaluation": definition.protocol.to_json(),
            "once": trial.once,
            "stages": trial.stages or None,
            "checkpoint": str(slot.checkpoints.path(trial.root, trial.attempt)),
            "resume": [str(path) for path in usable] if second else None,
            "keep": str(slot.checkpoints.kept(trial.root, trial.attempt)) if trial.once else None,
            "store": slot.checkpoints.store,
            "tensorboard": self._events(),
            **({"begin": dict(definition.begin)} if definition.begin else {}),
        }

    def _events(self) -> str | None:
        """Where the trial's events for TensorBoard lie: one folder for all its attempts."""
        if self.slot.tensorboard is None:
            return None
        return str(of_trial(self.slot.tensorboard, self.slot.study.name, self.trial.root))

    def _deal(self) -> FitEnding | None:
        """Deal with what has happened since the last turn; how the fit ended, once it has."""
        for message in self._messages():
            if (outcome := self._hear(message)) is not None:
                return outcome
        if self.trainer.ended:
            status = self.trainer.drop()
            if self.early_end:
                return self._ended_early(f"the trainer {status}")
            return FitEnding("died", f"its trainer {status}")
        now, silence = time.monotonic(), self.slot.limits.silence
        self._decide()
        if self.early_end and now > self.deadline:
            self.trainer.drop()
            return self._ended_early("its trainer had to be killed")
        if not self.early_end and now - self.heard_at > silence:
            self.trainer.drop()
            return FitEnding("died", f"its trainer said nothing for {silence:g} s")
        return None

    def _messages(self) -> list[Message]:
        """The trainer's messages about this trial."""
        heard = self.trainer.heard()
        if heard:
            self.heard_at = time.monotonic()
        return [message for message in heard if message.get("trial") == self.trial.number]

    def _hear(self, message: Message) -> FitEnding | None:
        match message.get("event"):
            case "started":
                self._started(message)
            case "progress":
                self.status.show(**_only(message, *PROGRESS))
            case "epoch":
                self._epoch(message)
            case "warning":
                log.warning("trial %d: %s", self.trial.number, message.get("message"))
                self.status.show(warning=message.get("message"))
            case "failed":
                failure = str(message.get("kind", "error"))
                if self.early_end:
                    return self._ended_early("")
                why, epoch = str(message.get("message")), int(message.get("epoch") or 0)
                return FitEnding("failed", why, failure, epoch, message.get("measures") or {})
            case "done" if self.early_end not in ("give up", "enough"):
                return FitEnding("done")
            case "done" | "stopped" | "yielded":
                return self._ended_early("")
        return None

    def _started(self, message: Message) -> None:
        number, since = self.trial.number, self.trainer.idle_since
        resumed, why = message.get("resumed_epoch"), message.get("why_from_zero")
        # a model with stages knows only now how many they have
        self.trial.epochs = int(message.get("epochs") or self.trial.epochs)
        self.status.show(resumed=resumed, why_from_zero=why, epochs=self.trial.epochs)
        idle = None if since is None else round(time.monotonic() - since, 3)
        self.status.record(
            "started", trial=number, resumed_epoch=resumed, why_from_zero=why, idle=idle
        )
        self.loop.ask(self.slot.study.think_ahead)
        if resumed is not None:
            self.trial.resumed = f"epoch {resumed}"
            log.info("trial %d goes on after epoch %d", number, resumed)
            if not self.trial.goes_on(int(resumed)):
                self.reached = int(resumed)
                self._end_early("enough")
        elif why:
            self.trial.resumed = f"zero: {why}"
            log.info("trial %d starts from zero: %s", number, why)

    def _epoch(self, message: Message) -> None:
        """Report it; the answer may be that it is enough: pruned, or nothing more to gain."""
        try:
            report = EpochReport.from_json(message)
        except ValueError as error:
            self.broken = str(error)
            return
        epoch = self.reached = report.epoch
        value = self.slot.study.definition.objective.value(report)
        self.status.show(
            epoch=epoch,
            step=0,
            value=value,
            metrics=report.metrics,
            events_per_second=report.events_per_second,
            checkpoint_bytes=self.slot.checkpoints.size(),
        )

        def answered(answer: Answer[bool]) -> None:
            if isinstance(answer.error, TrialLost):
                self.lost = True
            elif answer.error is None:
                self.status.record("saved", trial=self.trial.number, epoch=epoch, value=value)
                self._look_at_the_clock()
                if answer.value and epoch < self.trial.epochs:
                    self._end_early("enough" if self._ended_by_study() else "give way")
            elif not isinstance(answer.error, StorageUnreachable):
                self.broken = str(answer.error)

        self.loop.ask(lambda: self.trial.report(report), answered)

    def _ended_by_study(self) -> bool:
        """Whether the trial has ended, where it has not only to give way."""
        return self.trial.prune_reason is not None or self.trial.still_reason is not None

    def _look_at_the_clock(self) -> None:
        """Device hours are counted by epochs, so that after one they may be used up."""

        def answered(answer: Answer[State]) -> None:
            if answer.value == "stop":
                self.orders.study = "stop"

        if self.slot.study.counts_seconds:
            self.loop.ask(self.slot.study.state, answered)

    # -- ending it early --------------------------------------------------------------------

    def _decide(self) -> None:
        orders = self.orders
        if self.lost or self.heartbeat.lost or self.broken:
            self._end_early("give up")
        elif orders.must_leave or orders.study == "pause":
            self.status.show(phase="leaving" if orders.must_leave else "pausing")
            self._end_early("hand back")
            if orders.in_a_hurry:
                self.deadline = 0.0

    def _end_early(self, why: EarlyEnd) -> None:
        """Ask the trainer for an end; a later reason counts if it is the graver one."""
        gravity: list[EarlyEnd | None] = [None, "give way", "enough", "hand back", "give up"]
        if gravity.index(why) <= gravity.index(self.early_end):
            return
        self.early_end = why
        seconds = self.slot.limits.grace / 2 if why == "hand back" else STOP_SECONDS
        self.deadline = time.monotonic() + seconds
        do = "yield" if why in ("hand back", "give way") else "stop"
        self.trainer.send(do=do, trial=self.trial.number)

    def _ended_early(self, message: str) -> FitEnding:
        if self.early_end == "enough":
            return FitEnding("done" if self.trial.still_reason else "pruned", message)
        if self.early_end in ("hand back", "give way"):
            if self._ended_by_study():
                return FitEnding("done" if self.trial.still_reason else "pruned", message)
            return FitEnding("handed back", message)
        if self.broken:
            return FitEnding("failed", self.broken, "error", self.reached)
        return FitEnding("lost", message)

    # -- settling it ------------------------------------------------------------------------

    def _settle(self, outcome: FitEnding) -> None:
        """Tell the study how it ended, and let go of the trial."""
        trial = self.trial
        if self.orders.must_leave:
            self.loop.database.hurry(self.slot.limits.grace / 2)
        self.heartbeat.let_go()
        try:
            for operation in self._operations(outcome):
                self.loop.call(operation)
        except TrialLost as error:
            outcome = FitEnding("lost", str(error))
        self.status.record(outcome.kind, trial=trial.number, id=trial.id, message=outcome.message)
        self.status.show(phase="asking", trial=None)
        self.status.count("trials")
        if outcome.kind == "lost":
            why = outcome.message or f"trial {trial.number} is not this slot's any more"
            log.warning("%s; discarded here", why)
        elif outcome.kind in ("done", "pruned", "failed"):
            self.slot.checkpoints.remove(trial.root, trial.attempt)
        if outcome.kind in ("failed", "died"):
            log.warning("trial %d: %s", trial.number, outcome.message)

    def _operations(self, outcome: FitEnding) -> list[Callable[[], object]]:
        """The calls that settle it, in their order."""
        trial, study = self.trial, self.slot.study

        def drop() -> bool:
            return self.heartbeat.drop(trial.id)

        match outcome.kind:
            case "done" if not self.reached:
                return [lambda: trial.fail("error", "its training ended without an epoch"), drop]
            case "done":
                return [trial.complete, drop]
            case "pruned":
                return [trial.prune, drop]
            case "failed":
                return [self._failure(outcome), drop]
            case "handed back":
                # the lease goes first: whoever takes the trial must find it free
                gave_way = self.early_end == "give way"
                reason = (trial.gives_way if gave_way else "") or self.orders.why_handed_back()
                return [drop, lambda: trial.hand_back(reason)]
            case "died":
                return [drop, lambda: study.requeue(trial.id, outcome.message)]
        return [drop]

    def _failure(self, outcome: FitEnding) -> Callable[[], None]:
        trial, message = self.trial, outcome.message
        if outcome.failure == "oom":
            return lambda: trial.out_of_memory(message)
        if outcome.failure == BEYOND:
            return lambda: trial.beyond(message, outcome.measures)
        if outcome.failure == "diverged":
            return lambda: trial.diverged(outcome.epoch, message)
        return lambda: trial.fail(outcome.failure, message)


def _only(message: Message, *keys: str) -> dict[str, Any]:
    return {key: message[key] for key in keys if key in message}
