"""One trial in a slot, from the message to the trainer to the trial's end in the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paropt.errors import StorageUnreachable
from paropt.search.study.trial import Trial, TrialLost
from paropt.training.epochs import EpochReport
from paropt.worker.database_thread import Answer
from paropt.worker.leaving import Leaving, TrainerUnusable
from paropt.worker.protocol import Message

if TYPE_CHECKING:
    from paropt.worker.supervisor import Supervisor
log = logging.getLogger(__name__)

Wish = Literal["prune", "hand back", "give up"]
Kind = Literal["done", "pruned", "handed back", "lost", "failed", "died"]
PROGRESS = ("epoch", "step", "steps", "events_per_second", "events", "busy")
STOP_SECONDS = 30.0  # from "stop" to the end of a fit; a range of steps takes a fraction of one


@dataclass(frozen=True)
class Outcome:
    """How a fit ended."""

    kind: Kind
    message: str = ""
    failure: str = ""  # of a failed one: oom, diverged, params or error
    epoch: int = 0


class Attempt:
    """A trial that this slot runs, and what is known of it while it runs."""

    def __init__(self, slot: Supervisor, trial: Trial) -> None:
        self.slot, self.trial = slot, trial
        self.wish: Wish | None = None  # why the fit is to end before its end
        self.deadline = 0.0  # by when it has to
        self.lost = False
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
            self._settle(Outcome("handed back", str(error)))
            raise
        self._settle(outcome)

    # -- training ---------------------------------------------------------------------------

    def _train(self) -> Outcome:
        outcome = self._fit(alone=False)
        if outcome.failure == "oom":
            # whatever else was on the device may have been to blame, our own leftovers included
            log.warning("trial %d: %s; once more, alone", self.trial.number, outcome.message)
            self.slot.record("out of memory", trial=self.trial.number)
            self.slot.show(out_of_memory=int(self.slot.view.get("out_of_memory", 0)) + 1)
            self.slot.drop_trainer()
            outcome = self._fit(alone=True)
            if outcome.failure == "oom":
                self.slot.drop_trainer()
        return outcome

    def _fit(self, *, alone: bool) -> Outcome:
        slot = self.slot
        slot.show(
            phase="training",
            trial=self.trial.number,
            epoch=0,
            epochs=self.trial.epochs,
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
        with slot.device(alone=alone):
            if slot.lost:
                return Outcome("lost")
            if slot.must_leave:
                return Outcome("handed back")
            trainer = slot.start_trainer()
            trainer.send(**self._order())
            self.heard_at = time.monotonic()
            outcome = None
            while outcome is None:
                slot.turn()
                outcome = self._deal()
            slot.free_since = time.monotonic()
            return outcome

    def _order(self) -> Message:
        slot, trial = self.slot, self.trial
        definition = slot.study.definition
        usable = slot.checkpoints.usable(trial.root, trial.attempt)
        second = trial.attempt > 1 or trial.best is not None or bool(usable)
        return {
            "do": "fit",
            "trial": trial.number,
            "model": trial.model,
            "params": trial.params,
            "seed": trial.seed,
            "epochs": trial.epochs,
            "data": slot.data,
            "view": definition.view,
            "device": slot.place.device.kind,
            "threads": slot.place.threads,
            "at": list(definition.at),
            "also": list(definition.also),
            "metric": definition.metric,
            "direction": definition.direction,
            "evaluation": definition.protocol.to_json(),
            "once": trial.once,
            "checkpoint": str(slot.checkpoints.path(trial.root, trial.attempt)),
            "resume": [str(path) for path in usable] if second else None,
        }

    def _deal(self) -> Outcome | None:
        """Deal with what has happened since the last turn; how the fit ended, once it has."""
        slot = self.slot
        for message in self._messages():
            if (outcome := self._hear(message)) is not None:
                return outcome
        trainer = slot.trainer
        if trainer is None or trainer.ended:
            status = slot.drop_trainer()
            if self.wish:
                return self._wished(f"the trainer {status}")
            return Outcome("died", f"its trainer {status}")
        now = time.monotonic()
        self._decide(now)
        if self.wish and now > self.deadline:
            slot.drop_trainer()
            return self._wished("its trainer had to be killed")
        if not self.wish and now - self.heard_at > slot.limits.silence:
            slot.drop_trainer()
            return Outcome("died", f"its trainer said nothing for {slot.limits.silence:g} s")
        return None

    def _messages(self) -> list[Message]:
        """The trainer's messages about this trial."""
        heard, self.slot.heard = self.slot.heard, []
        if heard:
            self.heard_at = time.monotonic()
        return [message for message in heard if message.get("trial") == self.trial.number]

    def _hear(self, message: Message) -> Outcome | None:
        match message.get("event"):
            case "started":
                self._started(message)
            case "progress":
                self.slot.show(**_only(message, *PROGRESS))
            case "epoch":
                self._epoch(message)
            case "warning":
                log.warning("trial %d: %s", self.trial.number, message.get("message"))
                self.slot.show(warning=message.get("message"))
            case "failed":
                failure = str(message.get("kind", "error"))
                if self.wish:
                    return self._wished("")
                return Outcome(
                    "failed", str(message.get("message")), failure, int(message.get("epoch") or 0)
                )
            case "done" if self.wish != "give up":
                return Outcome("done")
            case "done" | "stopped" | "yielded":
                return self._wished("")
        return None

    def _started(self, message: Message) -> None:
        slot, number = self.slot, self.trial.number
        resumed, why = message.get("resumed_epoch"), message.get("why_from_zero")
        slot.show(resumed=resumed, why_from_zero=why)
        idle = None if slot.free_since is None else round(time.monotonic() - slot.free_since, 3)
        slot.record("started", trial=number, resumed_epoch=resumed, why_from_zero=why, idle=idle)
        slot.outbox.put(slot.study.think_ahead)
        if resumed is not None:
            self.trial.resumed = f"epoch {resumed}"
            log.info("trial %d goes on after epoch %d", number, resumed)
        elif why:
            self.trial.resumed = f"zero: {why}"
            log.info("trial %d starts from zero: %s", number, why)

    def _epoch(self, message: Message) -> None:
        """Report it; the answer may be to prune."""
        try:
            report = EpochReport.from_json(message)
        except ValueError as error:
            self.broken = str(error)
            return
        epoch = self.reached = report.epoch
        value = self.slot.study.definition.objective.value(report)
        self.slot.show(
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
            elif isinstance(answer.error, StorageUnreachable):
                self.slot.storage_lost = answer.error
            elif answer.error is not None:
                self.broken = str(answer.error)
            else:
                self.slot.record("saved", trial=self.trial.number, epoch=epoch, value=value)
                if answer.value and epoch < self.trial.epochs:
                    self._wish("prune")

        self.slot.outbox.put(lambda: self.trial.report(report), answered)

    # -- ending it early --------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        slot = self.slot
        if self.lost or slot.lost or self.broken:
            self._wish("give up")
        elif slot.must_leave or slot.wanted == "pause":
            slot.show(phase="leaving" if slot.must_leave else "pausing")
            self._wish("hand back")
            if slot.in_a_hurry:
                self.deadline = 0.0

    def _wish(self, wish: Wish) -> None:
        """Ask the trainer for an end; a later wish counts if it is the graver one."""
        order: list[Wish | None] = [None, "prune", "hand back", "give up"]
        if order.index(wish) <= order.index(self.wish):
            return
        self.wish = wish
        seconds = self.slot.limits.grace / 2 if wish == "hand back" else STOP_SECONDS
        self.deadline = time.monotonic() + seconds
        if self.slot.trainer is not None:
            do = "yield" if wish == "hand back" else "stop"
            self.slot.trainer.send(do=do, trial=self.trial.number)

    def _wished(self, message: str) -> Outcome:
        if self.wish == "prune":
            return Outcome("pruned", message)
        if self.wish == "hand back":
            return Outcome("handed back", message)
        if self.broken:
            return Outcome("failed", self.broken, "error", self.reached)
        return Outcome("lost", message)

    # -- settling it ------------------------------------------------------------------------

    def _settle(self, outcome: Outcome) -> None:
        """Tell the study how it ended, and let go of the trial."""
        slot, trial = self.slot, self.trial
        if slot.must_leave:
            slot.outbox.hurry(slot.limits.grace / 2)
        slot.leased = None  # a heartbeat that comes after the lease's end proves nothing
        try:
            for operation in self._operations(outcome):
                slot.call(operation)
        except TrialLost as error:
            outcome = Outcome("lost", str(error))
        slot.record(outcome.kind, trial=trial.number, id=trial.id, message=outcome.message)
        slot.show(phase="asking", trial=None, trials=slot.view.get("trials", 0) + 1)
        if outcome.kind == "lost":
            why = outcome.message or f"trial {trial.number} was given to another worker"
            log.warning("%s; discarded here", why)
        elif outcome.kind in ("done", "pruned", "failed"):
            slot.checkpoints.remove(trial.root)
        if outcome.kind in ("failed", "died"):
            log.warning("trial %d: %s", trial.number, outcome.message)

    def _operations(self, outcome: Outcome) -> list[Callable[[], object]]:
        """The calls that settle it, in their order."""
        slot, trial = self.slot, self.trial

        def drop() -> bool:
            return slot.leases.drop(trial.id, slot.identity)

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
                reason = self._why_handed_back()
                return [drop, lambda: trial.hand_back(reason)]
            case "died":
                return [drop, lambda: slot.study.requeue(trial.id, outcome.message)]
        return [drop]

    def _failure(self, outcome: Outcome) -> Callable[[], None]:
        trial, message = self.trial, outcome.message
        if outcome.failure == "oom":
            return lambda: trial.out_of_memory(message)
        if outcome.failure == "diverged":
            return lambda: trial.diverged(outcome.epoch, message)
        return lambda: trial.fail(outcome.failure, message)

    def _why_handed_back(self) -> str:
        slot = self.slot
        if slot.wanted == "pause":
            return "the study was paused"
        if slot.wanted == "stop":
            return "the study was stopped or its time is over"
        return "its worker was released" if slot.released else "its worker left"


def _only(message: Message, *keys: str) -> dict[str, Any]:
    return {key: message[key] for key in keys if key in message}
