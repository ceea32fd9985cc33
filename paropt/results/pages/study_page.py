"""What a page says of a search, finished or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from paropt.files import file_stem
from paropt.names import baseline, begun, command
from paropt.results.pages.best_trials import models_compared, pareto_front, ten_best
from paropt.results.pages.document import (
    Block,
    Code,
    Commands,
    Document,
    Facts,
    Heading,
    Headline,
    Paragraph,
    Term,
    Text,
    Words,
)
from paropt.results.pages.search_course import (
    course_of_search,
    failures,
    saved_by_pruning,
    what_matters,
)
from paropt.results.pages.space_and_data import data_searched, space_searched
from paropt.results.searched import Searched, TrialFacts
from paropt.results.words import (
    between,
    counted,
    duration,
    listed,
    number,
)
from paropt.training.evaluation import words
from paropt.training.evaluation.objective import Objective


def study_page(searched: Searched) -> Document:
    """The page of a study without a final test."""
    blocks = [*_lead(searched), *search_blocks(searched)]
    blocks += [Heading("How to go on"), Commands(commands(searched)), made_with(searched)]
    return Document(f"Study {searched.name}", blocks)


def search_blocks(searched: Searched) -> list[Block]:
    """All of a search but its headline: a final test's page has it, too."""
    return [
        *ten_best(searched),
        *pareto_front(searched),
        *models_compared(searched),
        *course_of_search(searched),
        *what_matters(searched),
        *saved_by_pruning(searched),
        *failures(searched),
        *space_searched(searched),
        *data_searched(searched),
    ]


def _lead(searched: Searched) -> Iterable[Block]:
    if searched.part_of:
        whole = Code(command("report", searched.part_of))
        yield Paragraph(
            ["This is part of a final test and searches nothing; ", whole, " has it all."]
        )
    if searched.best:
        yield _headline(searched, searched.best[0])
        yield from below_floor(searched)
        yield from stands_on(asdict(searched.best[0]), searched.objective)
        yield from _runner_up(searched)
    else:
        within = " within the constraints" if searched.constraints else ""
        yield Paragraph([f"No trial has a value{within} yet. ", *_standing(searched)])
    if searched.state != "run":
        why = f": {searched.why}" if searched.why else ""
        resume = Code(command("resume", searched.name))
        told = f"The study is told to {searched.state}{why}; "
        yield Paragraph([told, resume, " lets it go on."], "warning")
    yield summary(searched)


def _headline(searched: Searched, best: TrialFacts) -> Headline:
    scored = sum(searched.counts.get(state, 0) for state in ("complete", "pruned"))
    told = f"Trial {best.trial} of {best.model}, after its epoch {best.epoch}: "
    text: list[Words] = [told, "the only one with a value"]
    if scored > 1:
        lucky = Term("flattered", "flattered by luck")
        text = [told, f"the best of {counted(scored, 'trial')}, so it is ", lucky]
    text += ["; the number to quote is that of ", Code(command("final", searched.name)), "."]
    what = f"best {searched.metric} on valid"
    return Headline(what, number(best.value), between(best.interval), text)


def below_floor(searched: Searched) -> Iterable[Block]:
    """Whether the best is better than what needs no training."""
    floors = [f"{baseline(name)} {number(value)}" for name, value in searched.floors.items()]
    if not floors:
        return
    if searched.below_floor:
        names = listed([baseline(name) for name in searched.below_floor])
        yield Paragraph(
            [
                "The best trial is no better than the ",
                Term("floor"),
                f": {names} needs no training and is at least as good ({', '.join(floors)}).",
            ],
            "warning",
        )
    else:
        text = f", what needs no training: {', '.join(floors)}."
        yield Paragraph(["It is better than the ", Term("floor"), text])


def stands_on(found: Mapping[str, Any], objective: Objective) -> Iterable[Block]:
    """On how many targets a value stands, and what else a reader must know of it."""
    if told := words.coverage(found):
        text: list[Words] = [told]
        if found.get("unknown"):
            text += ["; the others were ", Term("left out")]
            if (value := found.get("with_misses")) is not None:
                text += [f", and with these as misses it is {number(value)}"]
        yield Paragraph([*text, "."])
    for caution in words.cautions(found, objective):
        yield Paragraph([f"{caution[:1].upper()}{caution[1:]}."], "warning")


def _runner_up(searched: Searched) -> Iterable[Block]:
    """Whether the second best might as well be the best."""
    second = searched.runner_up
    if second and second["within_noise"]:
        told = f"Trial {second['trial']}, with {number(second['value'])}, is within its "
        yield Paragraph([told, Term("interval"), ": which of the two is better is not known."])


def summary(searched: Searched) -> Facts:
    """A search in a few lines."""
    less = "" if searched.objective.larger else ", where less is better,"
    rows: list[tuple[str, Text]] = [
        ("models", [listed(searched.models)]),
        (
            "searched for",
            [Code(searched.metric), f"{less} on {searched.split}", *_judged(searched)],
        ),
        ("data", [Code(searched.data), f", fingerprint {searched.fingerprint[:12]}"]),
        ("trials", _standing(searched)),
    ]
    if searched.begin:
        rows.append(("begins with", [Code(searched.begin["path"]), f", {begun(searched.begin)}"]))
    if searched.constraints:
        rows.append(("constraints", _constraints(searched.constraints)))
    if searched.unread:
        told = f"{counted(searched.unread, 'trial')} more, which cannot be read"
        rows.append(("left out", [told]))
    if searched.points:
        devices = f" on {', '.join(searched.devices)}" if searched.devices else ""
        spent: Text = [
            f"{duration(searched.spent)} of ",
            Term("device seconds", "device time"),
            devices,
        ]
        rows.append(("spent", spent))
    return Facts(rows)


def _constraints(found: Mapping[str, Any]) -> list[Words]:
    text: list[Words] = []
    for limit, count in found["limits"].items():
        text += [", " if text else "", Code(limit), f" ({count} beyond)" if count else ""]
    keeping = counted(found["keep"], "trial")
    return [*text, f"; {keeping} with a value within, of which the best is chosen"]


def _judged(searched: Searched) -> list[Words]:
    return [f"; {searched.evaluation or searched.ties + ' ties'}"]


def _standing(searched: Searched) -> list[Words]:
    counts = dict(searched.counts)
    done = counts.get("complete", 0) + counts.get("pruned", 0)
    of = f" of {searched.budget}" if searched.budget else ""
    text: list[Words] = [f"{done}{of} done: {counts.get('complete', 0)} complete, "]
    text += [f"{counts.get('pruned', 0)} ", Term("pruned")]
    others = [
        f"{counts[name]} {name}" for name in ("failed", "running", "waiting") if counts.get(name)
    ]
    if beyond := counts.get("beyond"):
        others.append(f"{beyond} ended beyond a constraint")
    return [*text, "".join(f", {other}" for other in others)]


def commands(searched: Searched) -> list[tuple[str, str]]:
    """What a user does with a search."""
    name, stem = searched.name, file_stem(searched.name)
    done = searched.counts.get("complete", 0) + searched.counts.get("pruned", 0)
    more = ["--trials", 2 * done] if searched.budget and done >= searched.budget else []
    lines = [(command("launch", "--study", name, *more), "goes on with it")]
    if searched.over == "space":  # nothing is left to try
        lines = []
    if searched.best:
        lines = [
            (command("final", name, "--out", f"reports/{stem}"), "the number to quote, on test"),
            (command("export", name, "--out", f"runs/{stem}"), "the best as a paramfile"),
            *lines,
        ]
    return lines


def made_with(searched: Searched) -> Paragraph:
    """What it was computed with."""
    listed_versions = ", ".join(f"{name} {version}" for name, version in searched.versions.items())
    return Paragraph([f"Training semantics {searched.semantics}; {listed_versions}."], "aside")
