"""Which model wins at equal spend: what each had reached when the one that spent least was done.

A study that searches the model gives more trials to those that look better, so that their best
values alone say less than they seem to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paropt.search.study.history import Record


def by_model(lineages: Sequence[Record], models: Sequence[str], metric: str) -> dict[str, Any]:
    """``spend`` in device seconds, and of each of ``models`` its ``best`` value by then.

    Seconds are those of training and ranking, failed and pruned trials' included, in the order in
    which trials ended; a value counts from the epoch that gave it. ``best`` and ``trial`` are None
    for a model without a value so far. ``spend`` is what that model spent, of those with a value,
    that spent least: None where none has one. ``overall`` is the best at any spend.
    """
    ended = [record for record in lineages if not record.open and record.ended is not None]
    ended.sort(key=lambda record: (str(record.ended), record.number))
    theirs = {model: [r for r in ended if r.meta["model"] == model] for model in models}
    steps = {model: list(_reached(records, metric)) for model, records in theirs.items()}
    spent = {model: found[-1][0] if found else 0.0 for model, found in steps.items()}
    able = [spent[m] for m in models if any(value is not None for _, value, _ in steps[m])]
    spend = min(able, default=None)
    rows = []
    for model in models:
        best = _best(steps[model], spend or 0.0)
        overall = _best(steps[model], spent[model])
        rows.append(
            {
                "model": model,
                "best": best[0] if best else None,
                "trial": best[1] if best else None,
                "trials": len(theirs[model]),
                "spent": spent[model],
                "overall": overall[0] if overall else None,
            }
        )
    return {"spend": spend, "models": rows}


def _reached(records: Sequence[Record], metric: str) -> Iterator[tuple[float, float | None, int]]:
    """After every epoch: the seconds spent so far, its value, its trial."""
    spent = 0.0
    for record in records:
        seconds = record.curves.get("seconds", [])
        curve = record.curve(metric)
        for epoch, took in enumerate(seconds):
            spent += took or 0.0
            known = record.scored and epoch < len(
                curve
            )  # what failed later counts for its time only
            yield spent, curve[epoch] if known else None, record.number


def _best(
    steps: Sequence[tuple[float, float | None, int]], spend: float
) -> tuple[float, int] | None:
    within = [(v, trial) for spent, v, trial in steps if spent <= spend and v is not None]
    return max(within, key=lambda found: (found[0], -found[1]), default=None)
