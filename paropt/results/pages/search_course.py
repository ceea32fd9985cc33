"""What a page says of how a search went: over time, what mattered, what was saved or lost."""

from __future__ import annotations

from collections.abc import Iterable

from paropt.results.figures import of_study
from paropt.results.pages.best_trials import shortened
from paropt.results.pages.document import (
    Block,
    Cell,
    Heading,
    Paragraph,
    Picture,
    Table,
    Term,
    Words,
)
from paropt.results.searched import Searched
from paropt.results.words import (
    counted,
    duration,
    listed,
)


def course_of_search(searched: Searched) -> Iterable[Block]:
    """Every trial's value over the time spent, and the latest learning curves."""
    if not searched.points:
        return
    yield Heading("The course of the search")
    how = "A model has its colour and shape. " if len(searched.models) > 1 else ""
    yield Picture(
        of_study.over_time(searched),
        [f"{how}Filled marks are complete trials, hollow ones ", Term("pruned"), "."],
    )
    if any(trial.curve for trial in searched.curves):
        ended = sum(bool(point["value"] is not None) for point in searched.points)
        some = f" The latest {len(searched.curves)} trials." if ended > len(searched.curves) else ""
        yield Picture(
            of_study.learning_curves(searched),
            [*_early(searched), some],
        )


def _early(searched: Searched) -> list[Words]:
    if not any(trial.outcome == "pruned" for trial in searched.curves):
        return []
    return ["The dotted curves of trials, which end in hollow marks, were stopped early."]


def what_matters(searched: Searched) -> Iterable[Block]:
    """How much each parameter decides, where enough trials say so."""
    if not searched.points or not searched.space:
        return
    yield Heading("Which parameters matter")
    if not searched.importances:
        yield Paragraph(["Too few trials have a value to say so: ten of a model are needed."])
        return
    for one in searched.importances:
        text: list[Words] = ["The share of ", Term("importance"), " of each parameter."]
        if one.untold:
            text += [f" Only some trials have {listed(one.untold)}: these cannot be weighed."]
        yield Picture(of_study.importance(one), text)


def saved_by_pruning(searched: Searched) -> Iterable[Block]:
    """Epochs and time that pruned trials did not use."""
    pruned, saved = searched.counts.get("pruned", 0), searched.epochs.get("saved", 0)
    rested, unneeded = searched.epochs.get("rested", 0), searched.epochs.get("unneeded", 0)
    if not saved and not unneeded:
        return
    run = searched.epochs.get("run", 0) + saved + unneeded
    about = f", about {duration(searched.saved)} at their own speed" if searched.saved else ""
    yield Heading("What pruning saved")
    if saved:
        yield Paragraph(
            [
                f"{counted(pruned, 'trial')} of {sum(searched.counts.values())} were pruned, after "
                f"which {saved} of {run} epochs ({saved / run:.0%}) were not run{about}."
            ]
        )
    if unneeded:
        yield Paragraph(
            [
                f"{counted(rested, 'trial')} ended complete before the last epoch, with nothing "
                f"more to gain: {unneeded} epochs ({unneeded / run:.0%}) were not needed."
            ]
        )


def failures(searched: Searched) -> Iterable[Block]:
    """Trials without a value, and why."""
    if not searched.failed:
        return
    yield Heading("Failures")
    kinds = listed([f"{count} {kind}" for kind, count in searched.failed.items()])
    shown = "" if len(searched.failures) == sum(searched.failed.values()) else " The latest:"
    yield Paragraph([f"Without a value: {kinds}.{shown}"])
    rows = [
        [
            Cell(str(trial.trial)),
            Cell(trial.model),
            Cell(str(trial.epochs)),
            Cell(trial.why),
            shortened(" ".join(trial.message.split()), 90),
        ]
        for trial in searched.failures
    ]
    yield Table(["trial", "model", "epochs", "kind", "message"], rows, {0, 2})
