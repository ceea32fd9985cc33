"""What ``launch`` was asked for, and on which data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.errors import DataError
from paropt.launch.data.data_source import (
    DEMO,
    Given,
    Note,
    demo_set,
    named_data,
    silent,
)
from paropt.search.history.budgets import Budgets
from paropt.training.evaluation.protocol import Ties

if TYPE_CHECKING:
    from paropt.search.space.space import Space


@dataclass(frozen=True)
class LaunchRequest:
    """What ``launch`` was asked for; None where nothing was said."""

    space: Path | None = None
    data: Given | None = None
    study: str | None = None
    trials: int | None = None
    timeout: float | None = None
    device_hours: float | None = None
    stop_after_stale: int | None = None
    metric: str | None = None
    also: tuple[str, ...] = ()
    constraint: tuple[str, ...] = ()
    filter_seen: bool | None = None
    ties: Ties | None = None
    fixed: tuple[str, ...] = ()
    warm_start: tuple[str, ...] = ()
    seed: int | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    heartbeat: float | None = None
    storage: str | None = None
    listen: str | None = None
    begin: Path | None = None  # a saved model that every trial begins with
    keep_optimiser: bool = False  # with what its optimiser had gathered

    @property
    def budgets(self) -> Budgets:
        seconds = None if self.device_hours is None else 3600 * self.device_hours
        return Budgets(self.trials, self.timeout, seconds, self.stop_after_stale)


def find_data(request: LaunchRequest, space: Space, note: Note = silent) -> Path:
    """``--data``, else the space's, else ``PAROPT_DATASET``; ``demo`` is made if it is not there.

    A space means the demo set by ``demo``, whatever lies in the current directory.

    Raises:
        DataError: nothing is named, or what is named cannot be used.
    """
    if request.data:
        return named_data(request.data, note)
    if space.data == DEMO:
        return demo_set()
    if space.data:
        assert request.space is not None
        beside = request.space.parent / space.data
        return named_data(beside if beside.exists() else space.data, note)
    if named := os.environ.get("PAROPT_DATASET"):
        return named_data(named, note)
    raise DataError(
        "no data: give --data DIR or event files, name a directory in the space, or set "
        "PAROPT_DATASET ('paropt prepare' makes such a directory)"
    )
