"""One trial in the hands of the slot that runs it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.names import memory_words
from paropt.search.history.history import (
    BEYOND,
    LOST,
    RETRAINED,
    History,
    Record,
    constraint_attributes,
)
from paropt.search.strategy.first_looks import GAVE_WAY, FirstLook
from paropt.search.strategy.pruning import reason_to_prune, stands_still
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.state import Transaction
from paropt.storage import trial_rows
from paropt.training.evaluation import epochs
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.limits import broken
from paropt.training.evaluation.objective import Curve, Objective, flattered, honest
from paropt.training.evaluation.words import experts

MIB = 1 << 20


class TrialLost(StudyError):
    """The trial was given away or ended by somebody else; nothing was written."""


class Trial:
    """A trial that runs here.

    Every method is one transaction that first checks that the trial is still ours, so it may be
    called again after :class:`StorageUnreachable`. Calls that come too late raise
    :class:`TrialLost` and write nothing.

    ``root`` is the number of the first attempt at this configuration and names its checkpoint;
    ``seed`` follows from the configuration's place in the study, so every attempt has the same.
    ``once``: it is to be judged after its last epoch only, with what a confidence interval needs.
    ``stages`` are the epochs of each stage, where a plan says them.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        history: History,
        transaction: Transaction,
        record: Record,
        token: str,
        first_look: FirstLook | None = None,
    ) -> None:
        self._definition, self._history = definition, history
        self._transaction, self._token = transaction, token
        self._curves: dict[str, list[Any]] = {k: list(v) for k, v in record.curves.items()}
        self._judged = judged(history, record)
        self._latest: EpochReport | None = None
        self._retrained: dict[str, float] = {}
        self._waited = dict(record.end) if record.value is not None else {}
        self.id = record.id
        self.number = record.number
        self.root = record.root
        self.attempt = int(record.meta["attempt"])
        self.model = str(record.meta["model"])
        self.params: dict[str, Any] = dict(record.meta["params"])
        self.seed = int(record.meta["seed"])
        self._meta = dict(record.meta)
        self.epochs = int(record.meta["epochs"])  # a model with stages may say better
        self.once = bool(record.meta.get("once"))
        self.stages: dict[str, int] = dict(record.meta.get("stages") or {})
        self.prune_reason: str | None = None
        self.still_reason: str | None = None  # why it has nothing more to gain
        self.gives_way: str | None = None  # why others come first now
        self._first_look = first_look
        self.resumed = ""  # where this attempt began, if not at zero for the first time

    @property
    def best(self) -> tuple[int, float] | None:
        """The best epoch (from 1; of equals the first) and its value; None before any."""
        return self._objective.best_epoch(self._curve)

    @property
    def _objective(self) -> Objective:
        return self._definition.objective

    @property
    def _curve(self) -> Curve:
        return self._objective.curve(epochs.reports(self._curves))

    def report(self, epoch: EpochReport) -> bool:
        """Stores what an epoch ended in; True if the trial should end, or give way to others.

        Whatever was reported of later epochs is dropped: a second attempt that starts from zero
        reports them again. What one that goes on tells again is there already. Neither is judged
        by the pruner once more, whose bar has risen meanwhile. Nothing is stored of an epoch after
        one that the trial is pruned by, or stands still with: how soon its training hears of that
        would else be seen in its curve.

        Raises:
            TrialLost: see the class.
            StorageUnreachable: call again.
            ValueError: the study's metric is missing or not finite.
        """
        epoch = _with_value(epoch, self._objective)
        if self._has_ended:
            return True
        if epoch != self._latest:
            told = epochs.holds(self._curves, epoch)
            if told and epoch.epoch <= self._judged:
                return False
            if not told:
                self._forget_from(epoch.epoch)
            self._latest = epoch
        self._curves = epochs.extended(self._curves, epoch)
        meta = {**self._meta, "epochs": self.epochs, **self._retrained}
        with self._transaction() as connection:
            self._hold(connection)
            trial_rows.set_curve(connection, self.id, self._curves, self._curve)
            trial_rows.set_attrs(connection, "user", self.id, self._reached())
            if meta != self._meta:
                trial_rows.set_attrs(connection, "system", self.id, {trial_rows.META: meta})
            if self._retrained and self._waited and (best := self.best):
                # it waited with the value of an epoch that there may be no more
                trial_rows.set_state(connection, self.id, "RUNNING", best[1])
                end = {**self._waited, "epoch": best[0]}
                trial_rows.set_attrs(connection, "system", self.id, {trial_rows.END: end})
            self._history.refresh(connection)
            if self._first_look is not None:
                self.gives_way = self._first_look.over(connection, self.id)
        self._meta = meta
        if self._judged < epoch.epoch < self.epochs:
            self.prune_reason = self._reason_to_prune()
        if self.prune_reason is None:
            self.still_reason = self._reason_to_rest(epoch.epoch)
        return self._has_ended or self.gives_way is not None

    @property
    def _has_ended(self) -> bool:
        """Whether the study has no use for another epoch of it."""
        return self.prune_reason is not None or self.still_reason is not None

    def _forget_from(self, epoch: int) -> None:
        """What was reported from there on is trained again; its time was spent all the same."""
        took = self._curves.get("seconds", [])[epoch - 1 :]
        if spent := sum(seconds for seconds in took if seconds is not None):
            before = self._retrained.get(RETRAINED, self._meta.get(RETRAINED, 0.0))
            self._retrained = {RETRAINED: before + spent}

    def goes_on(self, epoch: int) -> bool:
        """Whether an attempt that resumes after ``epoch`` has anything to do: one before it may
        have ended between an epoch with which the trial stood still and saying so."""
        self.still_reason = self._reason_to_rest(epoch)
        return self.still_reason is None

    def _reason_to_rest(self, epoch: int) -> str | None:
        """Of a model with stages, each has a patience of its own and the next may bring more."""
        if epoch >= self.epochs or any(report.stage for report in epochs.reports(self._curves)):
            return None
        pruner, curve = self._definition.pruner, self._curve[:epoch]
        return stands_still(pruner, curve, self.epochs, self._objective)

    def _reason_to_prune(self) -> str | None:
        objective = self._objective
        others = [  # of the same model: an epoch of another one is another amount of learning
            record
            for record in self._history.lineages()
            if record.root != self.root
            and record.meta["model"] == self.model
            # what is beyond a limit sets no bar for those within
            and not (objective.limits and broken(objective.limits, record.values))
        ]
        last = epochs.reports(self._curves)[-1]

        def staged(records: Iterable[Record]) -> list[Curve]:
            curves = [epochs.of_stage(r.curve(objective), r.curves, last.stage) for r in records]
            return [curve for curve in curves if curve]

        own = epochs.of_stage(self._curve, self._curves, last.stage)
        return reason_to_prune(
            self._definition.pruner,
            own,
            staged(record for record in others if record.scored),  # not those that wait
            staged(record for record in others if record.open),
            last.stage_epochs or self.epochs - (last.epoch - len(own)),
            objective,
        )

    def complete(self, note: str | None = None) -> None:
        """All epochs are done, or more would bring nothing; the value is the best epoch's. One
        that the study had pruned, of which its training heard too late, is pruned.

        Raises:
            StudyError: no epoch was reported.
        """
        if self.prune_reason is not None:
            self.prune()
        else:
            self._end("COMPLETE", "complete", note or self.still_reason or "")

    def prune(self, reason: str | None = None) -> None:
        """Stopped early; the value is the best epoch's so far."""
        self._end("PRUNED", "pruned", reason or self.prune_reason or "")

    def out_of_memory(self, message: str) -> None:
        """The device is too small: recorded so that the sampler keeps away, without a value."""
        self._end("PRUNED", "oom", message)

    def diverged(self, epoch: int, message: str) -> None:
        """The loss or the scores stopped being finite in ``epoch``; as :meth:`out_of_memory`."""
        self._end("PRUNED", "diverged", f"epoch {epoch}: {message}")

    def beyond(self, message: str, measures: Mapping[str, float]) -> None:
        """Its model is beyond a limit: recorded with what it was measured to be, so that the
        sampler keeps away, and without a value, since it says nothing of the model's quality."""
        self._end("PRUNED", BEYOND, message, measures)

    def fail(self, kind: str, message: str) -> None:
        """Anything else that ends a trial without a value ("params", "error", "crash", …)."""
        self._end("FAIL", kind, message)

    def hand_back(self, reason: str) -> None:
        """Lets another slot go on with this trial; the trainer here has ended already.

        Until somebody does, it has the value of its best epoch so far. One that has ended by what
        it reported last has ended.
        """
        if self._has_ended:
            self.complete()
            return
        with self._transaction() as connection:
            held = trial_rows.hold(connection, self.id)
            if (
                held
                and held.state == "WAITING"
                and held.attrs.get(trial_rows.END, {}).get("by") == self._token
            ):
                return  # an earlier call did it, and only its answer was lost
            self._check(held)
            best = None if self.once else self.best
            trial_rows.set_state(connection, self.id, "WAITING", best[1] if best else None)
            why = GAVE_WAY if reason == self.gives_way else "handed back"
            end: dict[str, Any] = {"why": why, "message": reason, "by": self._token}
            if best:
                end["epoch"] = best[0]
            if self._curves:  # as where it ends
                trial_rows.set_curve(connection, self.id, self._curves, self._curve)
            system: dict[str, Any] = {trial_rows.OWNER: {}, trial_rows.END: end}
            if best:
                system |= constraint_attributes(self._objective, self._values(end), end)
            trial_rows.set_attrs(connection, "system", self.id, system)

    # -- inside a transaction -------------------------------------------------------------------

    def _end(
        self, state: str, why: str, message: str, measures: Mapping[str, float] | None = None
    ) -> None:
        best = self.best if why in ("complete", "pruned") else None
        if best is None and why in ("complete", "pruned"):
            raise StudyError(f"trial {self.number} reported no epoch, so it has no value")
        end: dict[str, Any] = {"why": why, "message": message, "by": self._token}
        if best:
            end["epoch"] = best[0]
        if measures:
            end["measures"] = dict(measures)
        with self._transaction() as connection:
            held = trial_rows.hold(connection, self.id)
            done = held.attrs.get(trial_rows.END, {}) if held else {}
            if held and held.state == state and done.get("by") == self._token:
                return  # an earlier call did it, and only its answer was lost
            self._check(held)
            system: dict[str, Any] = {trial_rows.END: end}
            if why in ("oom", "diverged"):
                system[f"constraints:{why}"] = 1.0
            else:
                system |= constraint_attributes(self._objective, self._values(end), end)
            if self._curves:  # reports may have found no database, and this call one again
                trial_rows.set_curve(connection, self.id, self._curves, self._curve)
            trial_rows.set_attrs(connection, "system", self.id, system)
            trial_rows.set_attrs(connection, "user", self.id, self._shown(end))
            trial_rows.set_state(connection, self.id, state, best[1] if best else None)

    def _shown(self, end: Mapping[str, Any]) -> dict[str, Any]:
        """What people see of an ended trial in the dashboard."""
        why = f"{end['why']}: {end['message']}" if end["message"] else end["why"]
        found = {"why": why, **self._reached(), **end.get("measures", {})}
        if beyond := broken(self._objective.limits, self._values(end)):
            found["beyond"] = ", ".join(beyond)
        return found

    def _values(self, end: Mapping[str, Any]) -> dict[str, float]:
        """What was recorded of it at its end, by metric and measure."""
        reports = epochs.reports(self._curves)
        best = (honest(report) for report in reports if report.epoch == end.get("epoch"))
        return {**next(best, {}), **epochs.costs(reports), **end.get("measures", {})}

    def _reached(self) -> dict[str, Any]:
        """What they see of it from its first epoch on."""
        resumed = {"resumed_from": self.resumed} if self.resumed else {}
        return {**resumed, **reached(epochs.reports(self._curves), self._objective)}

    def _hold(self, connection: Connection) -> None:
        self._check(trial_rows.hold(connection, self.id))

    def _check(self, held: trial_rows.Held | None) -> None:
        if held is None:
            raise TrialLost(f"trial {self.number} is no longer in the database")
        if held.state == "RUNNING" and held.token == self._token:
            return
        why = held.attrs.get(trial_rows.END, {}).get("message", "")
        raise TrialLost(
            f"trial {self.number} is no longer this worker's: it is {held.state.lower()}"
            + (f" ({why})" if why else "")
        )


def judged(history: History, record: Record) -> int:
    """The last epoch that the pruner has judged, by what attempts before have reported.

    They were judged then, beside those that there were; but what was said of the last epoch of one
    that was lost may have been lost with it.
    """
    before = [one for one in history.records.values() if one.root == record.root and one.ended]
    lost = max((len(one.reports) for one in before if one.end.get("why") == LOST), default=0)
    told = max(len(one.reports) for one in [*before, record])
    return told - 1 if told == lost else told


def reached(reports: Sequence[EpochReport], objective: Objective) -> dict[str, Any]:
    """A trial so far in the words of its attributes; metrics are those of the best epoch."""
    found: dict[str, Any] = {"epochs": max((report.epoch for report in reports), default=0)}
    if best := objective.best_epoch(objective.curve(reports)):
        report = next(report for report in reports if report.epoch == best[0])
        found |= {"epoch": best[0], **report.metrics}
        told = {"targets": report.targets, "left_out": report.unknown, "stage": report.stage}
        found |= {key: value for key, value in told.items() if value is not None}
        if said := experts(report.extra):
            found["experts"] = said.removeprefix("experts: ")
        if memory := report.extra.get("memory"):
            found["memory"] = memory_words(memory)
        if flattered(report):
            found["tied"] = f"{report.tied:.1%} of the targets have the score of another item"
    if seconds := [r.seconds for r in reports if r.seconds is not None]:
        found["seconds"] = round(sum(seconds), 3)
        found["seconds_per_epoch"] = round(fmean(seconds), 3)
    if speeds := [r.events_per_second for r in reports if r.events_per_second is not None]:
        found["events_per_second"] = round(fmean(speeds), 1)
    if peaks := [r.peak_memory for r in reports if r.peak_memory is not None]:
        found["peak_memory_mib"] = round(max(peaks) / MIB, 1)
    return found


def _with_value(report: EpochReport, objective: Objective) -> EpochReport:
    """With the study's metric among the others, where that is a sum of them.

    Raises:
        ValueError: it is missing or not finite.
    """
    value = objective.of(report.metrics)
    if value is None or not math.isfinite(value):
        raise ValueError(f"epoch {report.epoch} reports {objective.metric} = {value}")
    worst = objective.of(report.conservative)
    conservative = (
        report.conservative if worst is None else {**report.conservative, objective.metric: worst}
    )
    metrics = {**report.metrics, objective.metric: value}
    return replace(report, metrics=metrics, conservative=conservative)
