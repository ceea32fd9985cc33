"""What a page says of a search, finished or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from paropt.files import file_stem
from paropt.names import baseline, command
from paropt.results.document import (
    Block,
    Cell,
    Code,
    Commands,
    Document,
    Facts,
    Heading,
    Headline,
    Paragraph,
    Picture,
    Table,
    Term,
    Text,
    Words,
    cells,
)
from paropt.results.figures import of_study
from paropt.results.searched import DatasetFacts, Searched, TrialFacts
from paropt.results.words import (
    between,
    bracketed,
    counted,
    duration,
    listed,
    number,
    value_text,
)
from paropt.training.evaluation import words
from paropt.training.evaluation.objective import Objective
from paropt.training.metrics import written

FRONT = 30  # trials of a front in a table
LONGEST = 28  # characters of a value in a table
# Recall@20 and MRR@20 on test that GRU4Rec's authors give for its official code, by the format of
# the log and so by its published cleaning and split
PUBLISHED = {
    "rsc15": (0.7283, 0.3205),
    "yoochoose": (0.6789, 0.3024),
    "rees46": (0.5293, 0.2008),
    "coveo": (0.3135, 0.1010),
    "retailrocket": (0.5186, 0.2175),
    "diginetica": (0.4995, 0.1542),
}
SPLITS = ("train_full", "test", "train", "valid")


def study_page(searched: Searched) -> Document:
    """The page of a study without a final test."""
    blocks = [*_lead(searched), *search_blocks(searched)]
    blocks += [Heading("How to go on"), Commands(commands(searched)), made_with(searched)]
    return Document(f"Study {searched.name}", blocks)


def search_blocks(searched: Searched) -> list[Block]:
    """All of a search but its headline: a final test's page has it, too."""
    return [
        *_ten_best(searched),
        *_front(searched),
        *_models(searched),
        *_course(searched),
        *_importances(searched),
        *_spend(searched),
        *_failures(searched),
        *_space(searched),
        *_data(searched),
    ]


# -- first of all -------------------------------------------------------------------------------


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


# -- what was found -----------------------------------------------------------------------------


def _ten_best(searched: Searched) -> Iterable[Block]:
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


def _front(searched: Searched) -> Iterable[Block]:
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


def _models(searched: Searched) -> Iterable[Block]:
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


def _course(searched: Searched) -> Iterable[Block]:
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


def _importances(searched: Searched) -> Iterable[Block]:
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


def _spend(searched: Searched) -> Iterable[Block]:
    pruned, saved = searched.counts.get("pruned", 0), searched.epochs.get("saved", 0)
    if not pruned or not saved:
        return
    run = searched.epochs.get("run", 0)
    about = f", about {duration(searched.saved)} at their own speed" if searched.saved else ""
    yield Heading("What pruning saved")
    yield Paragraph(
        [
            f"{counted(pruned, 'trial')} of {sum(searched.counts.values())} ended early, after "
            f"which {saved} of {run + saved} epochs ({saved / (run + saved):.0%}) were not "
            f"run{about}."
        ]
    )


def _failures(searched: Searched) -> Iterable[Block]:
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


# -- what was searched on what ------------------------------------------------------------------


def _space(searched: Searched) -> Iterable[Block]:
    space = searched.space
    if not space:
        return
    yield Heading("What was searched")
    rows = [
        cells(one["name"], shortened(one["range"], 60), shortened(_when(one["when"]), 60))
        for one in space["search"]
    ]
    if rows:
        yield Table(["parameter", "values", "searched where"], rows)
    fixed: list[Words] = []
    for name, value in space["fixed"].items():
        fixed += [", " if fixed else "", Code(f"{name}={value_text(value)}")]
    facts: list[tuple[str, Text]] = [("fixed", fixed)] if fixed else []
    facts += [("sampler", [choice(searched.sampler)]), ("pruner", [choice(searched.pruner)])]
    facts += [("seed", [str(searched.seed)])]
    if space["start"]:
        count = len(space["start"])
        facts.append(("tried first", [Term("start point", counted(count, "start point"))]))
    yield Facts(facts)


def _when(when: Mapping[str, Sequence[Any]]) -> str:
    told = (f"{name} = {' or '.join(map(value_text, values))}" for name, values in when.items())
    return " and ".join(told)


def choice(chosen: Mapping[str, Any]) -> str:
    """A sampler or pruner with its options."""
    options = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "name")
    return f"{chosen.get('name', '')}{f' ({options})' if options else ''}"


def _data(searched: Searched) -> Iterable[Block]:
    yield Heading("The data")
    found = searched.dataset
    facts: list[tuple[str, Text]] = [
        ("dataset", [Code(searched.data)]),
        ("fingerprint", [Code(searched.fingerprint)]),
    ]
    if not found:
        yield Facts(facts)
        return
    if found.sources:
        facts.append(("made of", [", ".join(found.sources)]))
    if found.protocol:
        facts.append(("split", [_split_words(found)]))
    yield Facts([*facts, *_published(found)])
    if found.funnel:
        yield _funnel(found.funnel)
    yield _splits(found)
    for warning in found.warnings:
        yield Paragraph([f"{warning[:1].upper()}{warning[1:]}."], "warning")


def _published(found: DatasetFacts) -> Iterable[tuple[str, Text]]:
    """The published result on this very kind of data."""
    if found.format_name in PUBLISHED:
        recall, mrr = PUBLISHED[found.format_name]
        text = f"for GRU4Rec, on test: recall@20 {recall:.4f}, mrr@20 {mrr:.4f}"
        yield "published", [text]


def _split_words(found: DatasetFacts) -> str:
    if found.protocol == "leave-one-out":
        return "the last event of each sequence is tested on, the one before it is for valid"
    return "the last sessions are tested on, those before them are for valid"


def _funnel(steps: Sequence[Mapping[str, Any]]) -> Table:
    """What each step of the preparation left."""
    rows = []
    before = None
    for step in steps:
        events = int(step["events"])
        kept = f"{events / before:.1%}" if before else ""
        row = [step["name"], f"{events:,}", kept, f"{step['sessions']:,}", f"{step['items']:,}"]
        rows.append(cells(*row, str(step.get("option", ""))))
        before = events
    header = ["step", "events", "kept", "sessions", "items", "decided by"]
    return Table(header, rows, range(1, 5), "What each step of the preparation left")


def _splits(found: DatasetFacts) -> Table:
    counts = {name: name for name in ("events", "sessions", "items", "targets")}
    if all("known_targets" in split for split in found.splits.values()):
        counts["known_targets"] = "of items in training"
    rows = [
        cells(name, *(f"{found.splits[name].get(what, 0):,}" for what in counts))
        for name in SPLITS
        if name in found.splits
    ]
    header = ["split", *counts.values()]
    return Table(header, rows, range(1, len(header)), "What it was split into")


# -- what comes next ----------------------------------------------------------------------------


def commands(searched: Searched) -> list[tuple[str, str]]:
    """What a user does with a search."""
    name, stem = searched.name, file_stem(searched.name)
    done = searched.counts.get("complete", 0) + searched.counts.get("pruned", 0)
    more = ["--trials", 2 * done] if searched.budget and done >= searched.budget else []
    lines = [(command("launch", "--study", name, *more), "goes on with it")]
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
