"""What a page says of the best that was found: trials, the front, models beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from paropt.names import baseline
from paropt.results.figures import of_study
from paropt.results.pages.document import (
    Block,
    Cell,
    Code,
    Heading,
    Paragraph,
    Picture,
    Table,
    Term,
    Words,
    cells,
)
from paropt.results.searched import Searched, TrialFacts
from paropt.results.words import (
    bracketed,
    counted,
    duration,
    listed,
    number,
    value_text,
)
from paropt.training.metrics import written

FRONT = 30  # trials of a front in a table
LONGEST = 28  # characters of a value in a table


def ten_best(searched: Searched) -> Iterable[Block]:
    """The best trials with their parameters, a table for each model."""
    if not searched.best:
        return
    count = len(searched.best)
    yield Heading(f"The {count} best trials" if count > 1 else "The only trial with a value")
    if count > 1:
        yield Paragraph(["By the mean of their three best epochs: a single one may be lucky."])
    models = list(dict.fromkeys(trial.model for trial in searched.best))
    for model in models:
        ranked = [(r, t) for r, t in enumerate(searched.best, 1) if t.model == model]
        yield from _best_of(searched, model if len(models) > 1 else "", ranked)


def _best_of(
    searched: Searched, model: str, ranked: Sequence[tuple[int, TrialFacts]]
) -> Iterable[Block]:
    """A table of one model's; ``model`` is empty where there is no other."""
    trials = [trial for _, trial in ranked]
    varying, same = _split_params(searched, trials)
    staged = len({trial.stage for trial in trials}) > 1
    header = ["trial", searched.metric, "mean of 3 best epochs", "epoch", "device time", *varying]
    numbers = {0, 1, 2, 3, 4}
    numbers |= {5 + n for n, name in enumerate(varying) if _numeric(trials, name)}
    rows = [
        [
            Cell(str(trial.trial), f"no. {rank}" if model else ""),
            Cell(number(trial.value), bracketed(trial.interval), strong=rank == 1),
            Cell(number(trial.steady)),
            Cell(
                f"{trial.epoch} of {trial.planned or trial.epochs}", (staged and trial.stage) or ""
            ),
            Cell(duration(trial.seconds)),
            *(_value(trial.params.get(name)) for name in varying),
        ]
        for rank, trial in ranked
    ]
    yield Table(header, rows, numbers, model)
    if same:
        alike: list[Words] = []
        for name, value in same.items():
            alike += [", " if alike else "", Code(f"{name}={value_text(value)}")]
        what = "All of these have " if len(trials) > 1 else "With "
        yield Paragraph([what, *alike, "."], "aside")


def _split_params(
    searched: Searched, trials: Sequence[TrialFacts]
) -> tuple[list[str], dict[str, Any]]:
    """The searched parameters that differ between the trials, and what is the same in all."""
    told = [one["name"] for one in searched.space.get("search", ())]
    names = [name for name in dict.fromkeys(told) if name != "model"]
    names = names or sorted({name for trial in trials for name in trial.params})
    values = {name: [trial.params.get(name) for trial in trials] for name in names}
    values = {name: found for name, found in values.items() if any(v is not None for v in found)}
    if len(trials) == 1:
        return list(values), {}
    same = {name: found[0] for name, found in values.items() if all(v == found[0] for v in found)}
    return [name for name in values if name not in same], same


def _numeric(trials: Sequence[TrialFacts], name: str) -> bool:
    values = [trial.params[name] for trial in trials if name in trial.params]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _value(value: Any) -> Cell:
    return Cell() if value is None else shortened(value_text(value))


def shortened(text: str, longest: int = LONGEST) -> Cell:
    """A cell that says no more than fits, and all of it where one asks."""
    return Cell(text) if len(text) <= longest else Cell(f"{text[: longest - 1]}…", full=text)


def pareto_front(searched: Searched) -> Iterable[Block]:
    """What is best where more than the metric counts."""
    found = searched.pareto
    if not found or not found["trials"]:
        return
    yield Heading("The Pareto front")
    better = {"maximize": "more", "minimize": "less"}
    also = listed([f"{better[way]} {name}" for name, way in found["also"].items()])
    yield Paragraph(
        [
            f"Beside {searched.metric}, {also} is better. Of these trials each is better in "
            "something than any other; the search itself looked for the metric alone."
        ]
    )
    shown = found["trials"][:FRONT]
    rows = [
        cells(
            str(trial["trial"]),
            number(trial["value"]),
            number(trial["steady"]),
            *(written(name, trial["also"][name]) for name in found["also"]),
            trial["model"],
            trial["state"],
        )
        for trial in shown
    ]
    header = ["trial", searched.metric, "mean of 3 best epochs", *found["also"], "model", "state"]
    yield Table(header, rows, range(3 + len(found["also"])))
    if len(shown) < len(found["trials"]):
        yield Paragraph([f"The first {len(shown)} of {len(found['trials'])}."], "aside")
    for figure in of_study.fronts(searched):
        yield Picture(figure)


def models_compared(searched: Searched) -> Iterable[Block]:
    """The best of each model, after the same device time."""
    if not searched.by_model or searched.by_model["spend"] is None:
        return
    yield Heading("Models compared")
    spend = searched.by_model["spend"]
    yield Paragraph(
        [
            "The sampler gives more trials to a model that looks better, so they are compared at ",
            Term("equal spend"),
            f": when each had used {counted(round(spend), 'device second')}.",
        ]
    )
    header = ["model", "at equal spend", "by trial", "with all", "trials", "device time"]
    rows = [
        cells(
            Cell(row["model"], strong=place == 0),
            number(row["best"]),
            "-" if row["trial"] is None else str(row["trial"]),
            number(row["overall"]),
            str(row["trials"]),
            duration(row["spent"]),
        )
        for place, row in enumerate(searched.ranked(searched.by_model["models"]))
    ]
    rows += [
        cells(baseline(name), number(value), "", number(value), "", "none")
        for name, value in searched.floors.items()
    ]
    yield Table(header, rows, range(1, 6), f"{searched.metric} on valid")
    for figure in of_study.per_model(searched):
        yield Picture(figure)
