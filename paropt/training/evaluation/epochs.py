"""What an epoch ended in: the one record of it, from the trainer to the database and back.

A trainer sends it as one JSON object, and keeps it beside its checkpoint; the database has it by
column, one list per name with a value per epoch, because that is what people plot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean
from typing import Any

Curves = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class EpochReport:
    """An epoch, from 1. What a trainer does not say is None or empty.

    ``metrics`` are by name and by the study's tie rule. ``loss`` is the mean over the epoch's
    training targets. ``seconds`` has training and evaluation, ``events_per_second`` counts trained
    targets over ``train_seconds``; ``peak_memory`` is in bytes: of the device, or of the process on
    a CPU. ``stage`` names the part of the training, of whose ``stage_epochs`` at most this one is
    number ``stage_epoch``.

    Of the evaluation: ``targets`` of ``sessions`` were ranked and ``unknown`` more left out because
    training never saw their item. ``tied`` is the share of the ranked ones that have a rank within
    the deepest cut-off and the very score of another item; ``conservative`` then holds the metrics
    with such targets behind their equals. ``stderr`` is each metric's standard error over sessions.
    ``extra`` is what the model said of itself.
    """

    epoch: int
    metrics: Mapping[str, float]
    loss: float | None = None
    seconds: float | None = None
    train_seconds: float | None = None
    evaluation_seconds: float | None = None
    events_per_second: float | None = None
    peak_memory: int | None = None
    stage: str | None = None
    stage_epoch: int | None = None
    stage_epochs: int | None = None
    targets: int | None = None
    unknown: int | None = None
    sessions: int | None = None
    tied: float | None = None
    conservative: Mapping[str, float] = field(default_factory=dict)
    stderr: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> EpochReport:
        """Reads what :meth:`to_json` gave; other keys are nobody's business here.

        Raises:
            ValueError: no epoch, or metrics that are no numbers; one clause.
        """
        epoch, metrics = message.get("epoch"), message.get("metrics")
        if type(epoch) is not int or epoch < 1:
            raise ValueError(f"an epoch is a whole number from 1, not {epoch!r}")
        if not isinstance(metrics, Mapping):
            raise ValueError(f"epoch {epoch} reports the metrics {metrics!r}")
        said = {key: message[key] for key in NAMES if message.get(key) is not None}
        return cls(**{**said, "metrics": dict(metrics)})


NAMES = tuple(each.name for each in fields(EpochReport))
# beside the metrics, what the database has a column of
COLUMNS = tuple(name for name in NAMES if name not in ("epoch", "metrics"))
OBJECTS = ("conservative", "stderr", "extra")  # those whose values are objects
TEXTS = ("stage",)
MEGABYTE = 1e6


def costs(reports: Iterable[EpochReport]) -> dict[str, float]:
    """Measures of a training as far as its epochs tell: ``peak_memory`` in megabytes,
    ``seconds_per_epoch``."""
    told = list(reports)
    found = {}
    if peaks := [r.peak_memory for r in told if r.peak_memory is not None]:
        found["peak_memory"] = max(peaks) / MEGABYTE
    if seconds := [r.seconds for r in told if r.seconds is not None]:
        found["seconds_per_epoch"] = fmean(seconds)
    return found


def columns(reports: Iterable[EpochReport]) -> dict[str, list[Any]]:
    """The records by column; an epoch that is not among them leaves a gap."""
    found: dict[str, list[Any]] = {}
    for report in reports:
        found = extended(found, report)
    return found


def extended(curves: Curves, report: EpochReport) -> dict[str, list[Any]]:
    """The columns with one epoch written at its place, and nothing after it."""
    at = report.epoch - 1
    said = {name: getattr(report, name) for name in COLUMNS}
    told = {name: value for name, value in said.items() if value is not None and value != {}}
    new = {**report.metrics, **told}
    found = {}
    for name in {**curves, **new}:
        values = list(curves.get(name, []))[:at]
        values += [None] * (at - len(values))
        found[name] = [*values, storable(new.get(name))]
    return found


def holds(curves: Curves, report: EpochReport) -> bool:
    """Whether the columns have this very epoch, whatever comes after it."""
    at = report.epoch - 1
    own = extended(curves, report)
    told = max(map(len, curves.values()), default=0)
    return at < told and all(
        (*curves.get(name, ())[at : at + 1], None)[0] == values[at] for name, values in own.items()
    )


def reports(curves: Curves) -> list[EpochReport]:
    """The records of columns, one per epoch that reported a metric, in their order."""
    metrics = [name for name in curves if name not in COLUMNS]
    return [
        EpochReport(epoch + 1, values, **_said(curves, epoch))
        for epoch in range(max(map(len, curves.values()), default=0))
        if (values := _cells(curves, metrics, epoch))
    ]


def _said(curves: Curves, epoch: int) -> dict[str, Any]:
    return _cells(curves, [name for name in COLUMNS if name in curves], epoch)


def _cells(curves: Curves, names: Iterable[str], epoch: int) -> dict[str, Any]:
    return {
        name: value
        for name in names
        if len(curves[name]) > epoch and (value := curves[name][epoch]) is not None
    }


def of_stage(
    curve: Sequence[float | None], curves: Curves, stage: str | None
) -> Sequence[float | None]:
    """What a curve has of one stage; all of it where nothing else is known."""
    said = curves.get("stage", ())
    if all(name is None or name == stage for name in said):
        return curve
    return [value for value, name in zip(curve, said, strict=False) if name == stage]


def storable(value: Any) -> Any:
    """JSON has no NaN and PostgreSQL takes none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(item) for item in value]
    return value
