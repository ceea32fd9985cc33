"""What a study's device time bought: the best value so far against the seconds spent on trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paropt.search.study.history import Record
from paropt.search.study.study import Study


@dataclass(frozen=True)
class Point:
    """A trial that ended. ``spent`` is in device seconds, over all trials that had ended by then;
    ``best`` is the best value of them, ``value`` its own."""

    trial: int
    state: str
    model: str
    value: float | None
    spent: float
    best: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def points(study: Study) -> list[Point]:
    """The study's ended configurations in the order of their ends.

    Seconds are those of training and ranking, failed and pruned trials' included, and of a trial
    that had several attempts only those that led to its result.
    """
    study.refresh()
    ended = [r for r in study.history.lineages() if not r.open and r.ended is not None]
    found: list[Point] = []
    spent, best = 0.0, None
    for record in sorted(ended, key=lambda r: (str(r.ended), r.number)):
        spent += seconds(record)
        if record.scored and (best is None or (record.value or 0.0) > best):
            best = record.value
        value = record.value if record.scored else None
        model = str(record.meta["model"])
        found.append(Point(record.number, record.outcome, model, value, spent, best))
    return found


def seconds(record: Record) -> float:
    """The device seconds of a trial."""
    return float(sum(s for s in record.curves.get("seconds", []) if s is not None))


def best_within(found: Sequence[Point], spend: float) -> Point | None:
    """The trial that was best when so many device seconds were spent; None if none had ended."""
    within = [point for point in found if point.spent <= spend and point.value is not None]
    return max(within, key=lambda point: (point.value or 0.0, -point.trial), default=None)
