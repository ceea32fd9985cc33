"""What ``launch`` says at the end: the best, what mattered, what was saved, what comes next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from paropt.files import file_stem
from paropt.names import baseline, command, epoch_of
from paropt.search.history.equal_spend import LEAST_SPEND
from paropt.search.study.study import Study
from paropt.search.study.summary import Importance
from paropt.terminal.front import front_table
from paropt.terminal.live import best_line, progress_line
from paropt.terminal.standing import (
    budget_lines,
    constraint_lines,
    objective_of,
    standing,
    tie_mark,
)

TOP = 5
LEAST = 0.01  # of importance to be named
BAR = 20  # characters of an importance of 1


def print_ending(
    console: Console,
    status: Mapping[str, Any],
    study: Study,
    storage: Sequence[str] = (),
    data: Sequence[str] = (),
) -> None:
    """The report, on ``console``; ``storage`` and ``data`` as in :func:`next_commands`."""

    def say(line: str = "") -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say()
    say(f"{status['study']}: {progress_line(status)}")
    for line in best_line(status).split("; "):
        say(line)
    for line in [*budget_lines(status), *constraint_lines(status)]:
        say(line)
    if status["best"] is None:
        return
    for line in standing(status):
        say(line)
    say()
    console.print(_best(study), highlight=False, soft_wrap=not console.is_terminal)
    if (status["pareto"] or {}).get("trials"):
        say()
        for part in front_table(status, study, TOP, console.width):
            console.print(part, highlight=False, soft_wrap=not console.is_terminal)
    if status["by_model"]:
        say()
        console.print(_models(status), highlight=False, soft_wrap=not console.is_terminal)
        say(_equal(status))
    for line in [*_importances(study), *_saved(status)]:
        say(line)
    say()
    for line in next_commands(status, storage, data):
        say(line)


def _best(study: Study) -> Table:
    metric = study.definition.metric
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("trial", metric, "mean of 3", "epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    names = {parameter.name for parameter in study.space.searched}
    for trial in study.best(TOP):
        searched = {k: v for k, v in trial["params"].items() if k in names}
        if len(study.space.models) > 1:
            searched = {"model": trial["model"], **searched}
        table.add_row(
            str(trial["trial"]),
            f"{trial['value']:.4f}{tie_mark(trial)}",
            f"{trial['steady']:.4f}",
            epoch_of(trial),
            " ".join(f"{name}={short(value)}" for name, value in searched.items()),
        )
    return table


def _models(status: Mapping[str, Any]) -> Table:
    """Which model wins, beside what needs no training."""
    metric = status["metric"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for column in (f"{metric} at equal spend", "trial", "of", "spent", "best at any spend"):
        table.add_column(column, justify="right", no_wrap=True)
    found = status["by_model"]["models"]
    key = objective_of(status).key
    worth = {row["model"]: row.get("steady", row["best"]) for row in found}
    for row in sorted(found, key=lambda r: (r["best"] is None, -key(worth[r["model"]] or 0.0))):
        at_spend = (_value(row["best"]), "-" if row["best"] is None else str(row["trial"]))
        spent = f"{row['spent']:,.0f} s"
        overall = _value(row["overall"])
        table.add_row(row["model"], *at_spend, str(row["trials"]), spent, overall)
    for name, values in status["floor"].items():
        if metric in values:
            floor = _value(values[metric])
            table.add_row(baseline(name), floor, "-", "-", "0 s", floor)
    return table


def _equal(status: Mapping[str, Any]) -> str:
    found = status["by_model"]
    spend = found["spend"]
    if spend <= LEAST_SPEND:
        return "equal spend: up to a second of device time each, the least that is compared"
    least = "as many as the model that spent least"
    if any(row["best"] is not None and row["spent"] < spend for row in found["models"]):
        least += ", but for those that spent under a tenth of the most"
    return f"equal spend: {spend:,.1f} device seconds each, {least}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _importances(study: Study) -> list[str]:
    """Of each model, as parameters of different models cannot be weighed against each other."""
    several = len(study.space.models) > 1
    return [line for one in study.importances() for line in _importance(one, several)]


def _importance(found: Importance, several: bool) -> list[str]:
    told = {name: value for name, value in found.shares.items() if value >= LEAST}
    width = max(map(len, told), default=0)
    lines = [
        f"  {name.ljust(width)} {value:5.0%} {'▇' * round(value * BAR)}"
        for name, value in told.items()
    ]
    if rest := len(found.shares) - len(told):
        lines.append(f"  {rest} other{'s' if rest > 1 else ''} less than {LEAST:.0%} each")
    of = f" of {found.model}" if several else ""
    return ["", f"how much each parameter{of} mattered, by {found.trials} trials:", *lines]


def _saved(status: Mapping[str, Any]) -> list[str]:
    spent = status["epochs"]
    pruned, saved = status["counts"]["pruned"], spent["saved"]
    rested, unneeded = spent["rested"], spent["unneeded"]
    whole = max(1, spent["run"] + saved + unneeded)
    lines = []
    if pruned and saved:
        trials, epochs = _counted(pruned, "trial"), _counted(saved, "epoch")
        lines.append(f"pruning {trials} saved {epochs} ({saved / whole:.0%} of all)")
    if rested:
        trials, epochs = _counted(rested, "trial"), _counted(unneeded, "epoch")
        lines.append(
            f"{trials} ended with nothing more to gain, {epochs} ({unneeded / whole:.0%}) early"
        )
    return ["", *lines] if lines else []


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def next_commands(
    status: Mapping[str, Any], storage: Sequence[str] = (), data: Sequence[str] = ()
) -> list[str]:
    """What a user does with a result; ``storage`` and ``data`` are the options that say where these
    are, if commands don't find them without."""
    study = status["study"]
    out = f"runs/{file_stem(study)}"
    final = command("final", study, "--out", f"{out}/final", *storage, *data)
    return [
        "next:",
        f"  {final}    (the number to quote)",
        f"  {command('export', study, '--out', out, *storage)}",
        f"  {going_on(status, *storage, *data)}",
        f"  {command('dashboard', *storage)}",
    ]


def going_on(status: Mapping[str, Any], *more: str) -> str:
    """How the search goes on: with the trials and the time that are left, and ``more`` words."""
    launch = command("launch", "--study", status["study"], *more)
    counts, budget, seconds = status["counts"], status["budget"], status["seconds_left"]
    left = max(0, budget - counts["complete"] - counts["pruned"]) if budget else None
    if status.get("over") == "spent":
        return f"{launch} --device-hours H    (goes on, up to H device hours in all)"
    if status.get("over") == "space":
        return "every configuration of its space was tried; a larger one is another's"
    if status.get("over") == "stale":
        return f"{launch} --stop-after-stale N    (goes on, until N trials are no better)"
    trials = f"{left} of its {budget} trials left" if left else ""
    if left == 0 or (left is None and seconds is None):
        return f"{launch} --trials N    (goes on, up to N trials)"
    if seconds is None:
        return f"{launch}    (goes on; {trials})"
    if seconds == 0:
        also = f"; {trials}" if trials else ""
        return f"{launch} --timeout TIME    (its time is up; goes on for so long{also})"
    also = f" and {trials}" if trials else ""
    return f"{launch} --timeout {_typed(seconds)}    (goes on with what is left of its time{also})"


def _typed(seconds: float) -> str:
    """A duration as --timeout takes it, rounded up."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes}m" if minutes > 2 else f"{math.ceil(seconds)}s"


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
