"""Every family of models has its first look before any has a second, where time is short.

A space that chooses among models begins with a start point of each. Where a study has a time, one
of them may take all of it: then its trial gives way when it has had its share. It is handed back
with its checkpoint and the value that it has, and when all families have been looked at, the best
of those that gave way go on first.

The share follows from the time that is left. Half of it is for first looks, and the models that
are still to come, ``coming``, divide that with those that ``slots`` look at now: at the end of an
epoch a trial gives way if it has taken ``left / 2 · slots / (coming + slots)`` or more. Device
hours count as time that all slots take together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from paropt.search.history.history import History, Record
from paropt.training.evaluation.objective import Objective

GAVE_WAY = "gave way"  # why a trial waits that others came before


@dataclass(frozen=True)
class FirstLook:
    """What says whether a trial has had its first look.

    ``models`` are those that the space's start points begin with; ``seconds_left`` tells how long
    the study may go on with so many slots, None if there is no limit.
    """

    history: History
    objective: Objective
    models: Sequence[str]
    seconds_left: Callable[[Connection, int], float | None]

    def over(self, connection: Connection, trial: int) -> str | None:
        """Why the trial should give way at the end of this epoch, or None."""
        own = self.history.records.get(trial)
        if own is None or len(self.models) < 2:
            return None
        lineages = self.history.lineages()
        coming = unseen(self.models, lineages)
        if own.end.get("why") == GAVE_WAY or not _is_first(own, lineages):
            return None
        if not coming and not self._behind(own, lineages):
            return None  # it would be the next to go on
        slots = max(1, sum(record.state == "RUNNING" for record in lineages))
        left = self.seconds_left(connection, slots)
        if left is None or own.seconds < share(left, slots, len(coming)):
            return None
        return (
            f"its first look is over after {own.seconds:.0f} s; other models have theirs, "
            "then the best go on"
        )

    def _behind(self, own: Record, lineages: Iterable[Record]) -> bool:
        """Whether one that gave way is better."""
        reached = self.objective.steady(own.curve(self.objective))
        waiting = (record.worth(self.objective) for record in lineages if gave_way(record))
        return any(
            self.objective.better(other, reached)
            for other in waiting
            if other is not None and reached is not None
        )


def share(left: float, slots: int, coming: int) -> float:
    """Seconds of a first look, as the module says."""
    return left / 2 * slots / (coming + slots)


def unseen(models: Sequence[str], lineages: Iterable[Record]) -> list[str]:
    """The models that no trial has had."""
    seen = {record.meta["model"] for record in lineages}
    return [model for model in models if model not in seen]


def gave_way(record: Record) -> bool:
    """Whether it waits because others came first."""
    return record.state == "WAITING" and record.end.get("why") == GAVE_WAY


def _is_first(own: Record, lineages: Iterable[Record]) -> bool:
    model = own.meta["model"]
    return own.root == min(record.root for record in lineages if record.meta["model"] == model)
