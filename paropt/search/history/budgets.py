"""How much of a study's budgets is used: device time, and trials without anything better.

Both follow from what is recorded of the trials, whoever ran them and however often the study was
resumed, so every worker finds the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paropt.search.history.history import RETRAINED, Record, best_first
from paropt.training.evaluation.objective import Objective


@dataclass(frozen=True)
class Budgets:
    """What a launch allows; None where it says nothing, which leaves a study what it has.

    ``trials`` are distinct configurations that end complete or pruned, ``timeout`` is in seconds
    from now, ``device_seconds`` are of training and ranking on all slots together, and after
    ``stale`` trials in a row without anything better there is no other.
    """

    trials: int | None = None
    timeout: float | None = None
    device_seconds: float | None = None
    stale: int | None = None

    @property
    def said(self) -> bool:
        """Whether there is any."""
        return any(value is not None for value in vars(self).values())


def device_seconds(records: Iterable[Record]) -> float:
    """Seconds of training and ranking over all attempts, an epoch that a successor went on from
    once."""
    by_root: dict[int, list[Record]] = {}
    for record in records:
        by_root.setdefault(record.root, []).append(record)
    total = 0.0
    for attempts in by_root.values():
        attempts.sort(key=lambda record: record.number)
        total += attempts[-1].seconds
        for one, successor in itertools.pairwise(attempts):
            total += one.seconds - _shared(one, successor)
    return total


def _shared(one: Record, successor: Record) -> float:
    """The seconds of an attempt that its successor has too: of epochs told again, not run again,
    and of such that it forgot as it trained them again."""
    common = 0.0
    theirs = successor.curves.get("seconds", ())
    for mine, same in zip(one.curves.get("seconds", ()), theirs, strict=False):
        if mine != same:
            break
        common += mine or 0.0
    return common + min(one.seconds - common, float(successor.meta.get(RETRAINED, 0.0)))


def since_better(lineages: Sequence[Record], objective: Objective) -> int:
    """How many trials with a value ended after the best one did; all of them before any is."""
    scored = [record for record in lineages if record.scored]
    ranked = best_first(scored, objective)
    if not ranked:
        return len(scored)
    worth = ranked[0].worth(objective)
    # of equals the one that came first was better than all before, the others are nothing better
    first = min(_end(record) for record in ranked if record.worth(objective) == worth)
    return sum(_end(record) > first for record in scored)


def _end(record: Record) -> tuple[str, int]:
    return str(record.ended), record.number
