"""The Pareto front: trials that no other is better than in everything that is recorded.

The search looks for one metric, and prunes by it, which Optuna refuses to do with several. What
else is recorded (``--also``) is laid beside it afterwards, so that a front costs no trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.search.history.history import Record, best_first
from paropt.search.study.definition import StudyDefinition
from paropt.training.evaluation.objective import Objective


def front(lineages: Iterable[Record], definition: StudyDefinition) -> list[Record]:
    """Of the trials with all values and within the limits those that are on the front, best first
    by the objective; none where nothing is recorded beside it.

    A trial is worth the mean of its three best epochs, as everywhere; all else is of its best one.
    """
    objective, also = definition.objective, definition.beside
    if not also:
        return []
    kept: list[tuple[list[float], Record]] = []
    for record in best_first(lineages, objective):
        if not all(name in record.values for name in also):
            continue
        point = _point(record, objective, also)
        # those before are worth as much, or more
        if not any(_no_worse(other, point) and other != point for other, _ in kept):
            kept.append((point, record))
    points = [point for point, _ in kept]
    return [record for point, record in kept if not _beaten(point, points)]


def described_front(lineages: Sequence[Record], definition: StudyDefinition) -> dict[str, Any]:
    """The front as a JSON object: what it is of, and its trials."""
    objective, also = definition.objective, definition.beside
    found = [
        {
            "trial": record.number,
            "value": record.value,
            "steady": record.worth(objective),
            "also": {name: record.values[name] for name in also},
            "epoch": record.end.get("epoch"),
            "state": record.state.lower(),
            "model": record.meta["model"],
            "params": dict(record.meta["params"]),
        }
        for record in front(lineages, definition)
    ]
    return {"also": also, "trials": found}


def _point(record: Record, objective: Objective, also: Mapping[str, str]) -> list[float]:
    """More is better in each."""
    worth = objective.key(record.worth(objective) or 0.0)
    signs = [1 if direction == "maximize" else -1 for direction in also.values()]
    values = [record.values[name] for name in also]
    return [worth, *(sign * value for sign, value in zip(signs, values, strict=True))]


def _no_worse(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine >= theirs for mine, theirs in zip(one, other, strict=True))


def _beaten(point: Sequence[float], points: Iterable[Sequence[float]]) -> bool:
    return any(_no_worse(other, point) and other != point for other in points)
