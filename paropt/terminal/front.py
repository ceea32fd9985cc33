"""The Pareto front of a study, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from paropt.terminal.columns import Column
from paropt.terminal.tables import fitting
from paropt.training.metrics import written

if TYPE_CHECKING:
    from paropt.search.study.study import Study

Status = Mapping[str, Any]


def front_table(
    status: Mapping[str, Any], study: Study, count: int, width: int
) -> list[RenderableType]:
    """The Pareto front, its best ``count`` by the metric."""
    also, trials = status["pareto"]["also"], status["pareto"]["trials"]
    columns = (
        Column("trial", right=True),
        Column(status["metric"], right=True),
        Column("mean of 3", right=True, leaves=2),
        *(Column(name, right=True) for name in also),
        Column("state", leaves=1),
        Column("parameters", gives=True, folded=True),
    )
    names = {parameter.name for parameter in study.space.searched}
    rows = []
    for trial in trials[:count]:
        searched = {k: v for k, v in trial["params"].items() if k in names}
        if len(study.space.models) > 1:
            searched = {"model": trial["model"], **searched}
        rows.append(
            [
                str(trial["trial"]),
                f"{trial['value']:.4f}",
                f"{trial['steady']:.4f}",
                *(written(name, trial["also"][name]) for name in also),
                trial["state"],
                " ".join(f"{name}={_short(value)}" for name, value in searched.items()),
            ]
        )
    return [Text(_words(status, len(rows))), fitting(columns, rows, width)]


def _words(status: Status, shown: int) -> str:
    """What the table of the Pareto front is, and how much of it is shown."""
    also, trials = status["pareto"]["also"], status["pareto"]["trials"]
    better = {"maximize": "more", "minimize": "less"}
    told = [f"{better[direction]} {name}" for name, direction in also.items()]
    some = f"the first {shown} of " if shown < len(trials) else ""
    count = f"{len(trials)} trial{'s' * (len(trials) != 1)}"
    return f"Pareto front of {status['metric']} and {', '.join(told)}: {some}{count}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
