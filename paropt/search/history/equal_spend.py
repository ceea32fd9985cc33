"""Which model wins at equal spend: what each had reached when the one that spent least was done.

A study that searches the model gives more trials to those that look better, so that their best
values alone say less than they seem to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paropt.search.history.history import Record
from paropt.training.evaluation.objective import Curve, Objective

LEAST_SPEND = 1.0  # device seconds: below it, time says nothing of a model
# of the most that a model spent: counting models are through after a second, in which no network
# has seen an epoch
ENOUGH = 0.1


@dataclass(frozen=True)
class Reached:
    """The best trial of some: its number, its best value and what it is worth."""

    trial: int
    value: float
    steady: float


def by_model(
    lineages: Sequence[Record], models: Sequence[str], objective: Objective
) -> dict[str, Any]:
    """``spend`` in device seconds, and of each of ``models`` what its ``best`` trial had by then.

    Seconds are those of training and ranking, failed and pruned trials' included, in the order in
    which trials ended, those that wait to go on last; an epoch counts once its seconds are within
    the spend, and trials are compared by their ``steady`` values, as everywhere. ``best`` and
    ``trial`` are None for a model without a value so far. ``spend`` is what that model spent, of
    those with a value, that spent least, but at least a second and a tenth of the most: None where
    none has one. A model that spent less is there with all that it spent. ``overall`` is the best
    at any spend.
    """
    ended = [record for record in lineages if record.ended is not None or record.valued]
    ended.sort(key=lambda record: (str(record.ended), record.number))
    theirs = {model: [r for r in ended if r.meta["model"] == model] for model in models}
    spent = {model: sum(record.seconds for record in theirs[model]) for model in models}
    overall = {model: _best(theirs[model], objective, spent[model]) for model in models}
    had = [spent[model] for model in models if overall[model]]
    enough = [seconds for seconds in had if seconds >= ENOUGH * max(had)]
    spend = max(LEAST_SPEND, min(enough)) if enough else None
    rows = []
    for model in models:
        best, ever = _best(theirs[model], objective, spend or 0.0), overall[model]
        rows.append(
            {
                "model": model,
                "best": best.value if best else None,
                "steady": best.steady if best else None,
                "trial": best.trial if best else None,
                "trials": len(theirs[model]),
                "spent": spent[model],
                "overall": ever.value if ever else None,
            }
        )
    return {"spend": spend, "models": rows}


def _best(records: Sequence[Record], objective: Objective, spend: float) -> Reached | None:
    found = []
    for record, curve in _within(records, objective, spend):
        if not record.keeps(objective):
            continue
        best, steady = objective.best(curve), objective.steady(curve)
        if best is not None and steady is not None:
            found.append(Reached(record.number, best, steady))
    return max(found, key=lambda one: (objective.key(one.steady), -one.trial), default=None)


def _within(
    records: Sequence[Record], objective: Objective, spend: float
) -> Iterator[tuple[Record, Curve]]:
    """Each trial's curve as far as the spend reached, one trial after the other."""
    spent = 0.0
    for record in records:
        epochs = 0
        for took in record.curves.get("seconds", []):
            spent += took or 0.0
            epochs += spent <= spend * (1 + 1e-9)  # sums of the same seconds may round apart
        if record.valued:  # what failed later counts for its time only
            yield record, record.curve(objective)[:epochs]
