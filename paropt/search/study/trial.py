"""One trial in the hands of the slot that runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Any

from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.history import History, Record
from paropt.search.study.pruning import reason_to_prune
from paropt.storage import trial_rows

Transaction = Callable[[], AbstractContextManager[Connection]]
MIB = 1 << 20
# of the trainer's "epoch" event, beside its metrics
_PER_EPOCH = ("loss", "seconds", "train_seconds", "events_per_second", "peak_memory", "extra")


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
    """

    def __init__(
        self,
        definition: StudyDefinition,
        history: History,
        transaction: Transaction,
        record: Record,
        token: str,
    ) -> None:
        self._definition, self._history = definition, history
        self._transaction, self._token = transaction, token
        self._curves: dict[str, list[Any]] = {k: list(v) for k, v in record.curves.items()}
        self.id = record.id
        self.number = record.number
        self.root = record.root
        self.attempt = int(record.meta["attempt"])
        self.model = str(record.meta["model"])
        self.params: dict[str, Any] = dict(record.meta["params"])
        self.seed = int(record.meta["seed"])
        self.epochs = int(record.meta["epochs"])
        self.once = bool(record.meta.get("once"))
        self.prune_reason: str | None = None
        self.resumed = ""  # where this attempt began, if not at zero for the first time

    @property
    def best(self) -> tuple[int, float] | None:
        """The best epoch (from 1; of equals the first) and its value; None before any."""
        return _best(self._curves.get(self._definition.metric, []))

    def report(self, epoch: Mapping[str, Any]) -> bool:
        """Stores a trainer's "epoch" event; True if the trial should be pruned.

        Whatever was reported of later epochs is dropped: a second attempt that starts from zero
        reports them again.

        Raises:
            TrialLost: see the class.
            StorageUnreachable: call again.
            ValueError: the study's metric is missing or not finite.
        """
        metric = self._definition.metric
        value = epoch["metrics"].get(metric)
        if value is None or not math.isfinite(value):
            raise ValueError(f"epoch {epoch['epoch']} reports {metric} = {value}")
        self._curves = _extended(self._curves, epoch)
        with self._transaction() as connection:
            self._hold(connection)
            trial_rows.set_curve(connection, self.id, self._curves, metric)
            trial_rows.set_attrs(connection, "user", self.id, self._reached())
            self._history.refresh(connection)
        self.prune_reason = self._reason_to_prune(metric)
        return self.prune_reason is not None

    def _reason_to_prune(self, metric: str) -> str | None:
        others = [  # of the same model: an epoch of another one is another amount of learning
            record
            for record in self._history.lineages()
            if record.root != self.root and record.meta["model"] == self.model
        ]
        return reason_to_prune(
            self._definition.pruner,
            self._curves[metric],
            [record.curve(metric) for record in others if record.scored],
            [record.curve(metric) for record in others if record.open],
            self.epochs,
        )

    def complete(self, note: str | None = None) -> None:
        """All epochs are done; the value is the best epoch's.

        Raises:
            StudyError: no epoch was reported.
        """
        self._end("COMPLETE", "complete", note or "")

    def prune(self, reason: str | None = None) -> None:
        """Stopped early; the value is the best epoch's so far."""
        self._end("PRUNED", "pruned", reason or self.prune_reason or "")

    def out_of_memory(self, message: str) -> None:
        """The device is too small: recorded so that the sampler keeps away, without a value."""
        self._end("PRUNED", "oom", message)

    def diverged(self, epoch: int, message: str) -> None:
        """The loss or the scores stopped being finite in ``epoch``; as :meth:`out_of_memory`."""
        self._end("PRUNED", "diverged", f"epoch {epoch}: {message}")

    def fail(self, kind: str, message: str) -> None:
        """Anything else that ends a trial without a value ("params", "error", "crash", …)."""
        self._end("FAIL", kind, message)

    def hand_back(self, reason: str) -> None:
        """Lets another slot go on with this trial; the trainer here has ended already."""
        with self._transaction() as connection:
            held = trial_rows.hold(connection, self.id)
            if (
                held
                and held.state == "WAITING"
                and held.attrs.get(trial_rows.END, {}).get("by") == self._token
            ):
                return  # an earlier call did it, and only its answer was lost
            self._check(held)
            trial_rows.set_state(connection, self.id, "WAITING")
            end = {"why": "handed back", "message": reason, "by": self._token}
            trial_rows.set_attrs(
                connection, "system", self.id, {trial_rows.OWNER: {}, trial_rows.END: end}
            )

    # -- inside a transaction -------------------------------------------------------------------

    def _end(self, state: str, why: str, message: str) -> None:
        best = self.best if why in ("complete", "pruned") else None
        if best is None and why in ("complete", "pruned"):
            raise StudyError(f"trial {self.number} reported no epoch, so it has no value")
        end: dict[str, Any] = {"why": why, "message": message, "by": self._token}
        if best:
            end["epoch"] = best[0]
        with self._transaction() as connection:
            held = trial_rows.hold(connection, self.id)
            done = held.attrs.get(trial_rows.END, {}) if held else {}
            if held and held.state == state and done.get("by") == self._token:
                return  # an earlier call did it, and only its answer was lost
            self._check(held)
            system: dict[str, Any] = {trial_rows.END: end}
            if why in ("oom", "diverged"):
                system[f"constraints:{why}"] = 1.0
            if self._curves:  # reports may have found no database, and this call one again
                metric = self._definition.metric
                trial_rows.set_curve(connection, self.id, self._curves, metric)
            trial_rows.set_attrs(connection, "system", self.id, system)
            trial_rows.set_attrs(connection, "user", self.id, self._shown(end))
            trial_rows.set_state(connection, self.id, state, best[1] if best else None)

    def _shown(self, end: Mapping[str, Any]) -> dict[str, Any]:
        """What people see of an ended trial in the dashboard."""
        why = f"{end['why']}: {end['message']}" if end["message"] else end["why"]
        return {"why": why, **self._reached()}

    def _reached(self) -> dict[str, Any]:
        """What they see of it from its first epoch on."""
        resumed = {"resumed_from": self.resumed} if self.resumed else {}
        return {**resumed, **reached(self._curves, self._definition.metric)}

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


def reached(curves: Mapping[str, list[Any]], metric: str) -> dict[str, Any]:
    """A trial so far in the words of its attributes; metrics are those of the best epoch."""

    def told(kind: str) -> list[float]:
        return [value for value in curves.get(kind, []) if value is not None]

    found: dict[str, Any] = {"epochs": max(map(len, curves.values()), default=0)}
    if best := _best(curves.get(metric, [])):
        found |= {"epoch": best[0], **metrics_at(curves, best[0])}
    if seconds := told("seconds"):
        found["seconds"] = round(sum(seconds), 3)
        found["seconds_per_epoch"] = round(fmean(seconds), 3)
    if speeds := told("events_per_second"):
        found["events_per_second"] = round(fmean(speeds), 1)
    if peaks := told("peak_memory"):
        found["peak_memory_mib"] = round(max(peaks) / MIB, 1)
    return found


def _best(values: Sequence[float | None]) -> tuple[int, float] | None:
    seen = [(value, -epoch) for epoch, value in enumerate(values, 1) if value is not None]
    if not seen:
        return None
    value, minus_epoch = max(seen)
    return -minus_epoch, value


def metrics_at(curves: Mapping[str, list[Any]], epoch: int) -> dict[str, Any]:
    """The metrics of an epoch (from 1), by name."""
    return {
        name: values[epoch - 1]
        for name, values in curves.items()
        if name not in _PER_EPOCH and len(values) >= epoch and values[epoch - 1] is not None
    }


def _extended(curves: Mapping[str, list[Any]], epoch: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The curves with one epoch written at its place, and nothing after it."""
    at = int(epoch["epoch"]) - 1
    new = {
        **epoch["metrics"],
        **{key: epoch[key] for key in _PER_EPOCH if epoch.get(key) is not None},
    }
    extended = {}
    for name in {**curves, **new}:
        values = list(curves.get(name, []))[:at]
        values += [None] * (at - len(values))
        extended[name] = [*values, _storable(new.get(name))]
    return extended


def _storable(value: Any) -> Any:
    """JSON has no NaN and PostgreSQL takes none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    return value
