"""What a study's device time bought: the best value so far against the seconds spent on trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paropt.search.study.study import Study
from paropt.training.evaluation.objective import Objective


@dataclass(frozen=True)
class Point:
    """A trial that ended. ``spent`` is in device seconds, over all trials that had ended by then.

    ``value`` is that of its best epoch and ``steady`` what trials are compared by, the mean of
    its three best; ``best`` is the best ``steady`` of all that had ended. One that is beyond a
    limit of the study's (not ``keeps``) is never the best."""

    trial: int
    state: str
    model: str
    value: float | None
    steady: float | None
    spent: float
    best: float | None
    keeps: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def points(study: Study) -> list[Point]:
    """The study's ended configurations in the order of their ends, then those that wait to go on.

    Seconds are those of training and ranking, failed and pruned trials' included, and of a trial
    that had several attempts only those that led to its result.
    """
    study.refresh()
    objective = study.definition.objective
    ended = [r for r in study.history.lineages() if r.ended is not None or r.valued]
    found: list[Point] = []
    spent, best = 0.0, None
    for record in sorted(ended, key=lambda r: (str(r.ended), r.number)):
        spent += record.seconds
        value, steady = (record.value, record.worth(objective)) if record.valued else (None, None)
        keeps = record.keeps(objective)
        best = objective.best([best, steady if keeps else None])
        told = record.number, record.outcome, str(record.meta["model"]), value, steady, spent
        found.append(Point(*told, best, keeps))
    return found


def best_within(found: Sequence[Point], spend: float, objective: Objective) -> Point | None:
    """The trial that was best when so many device seconds were spent; None if none had ended."""
    within = [point for point in found if point.spent <= spend and point.keeps]
    return max(
        (point for point in within if point.steady is not None),
        key=lambda point: (objective.key(point.steady or 0.0), -point.trial),
        default=None,
    )
