"""What a page says of how a final test chose its configuration, on valid."""

from __future__ import annotations

from collections.abc import Iterable

from paropt.results.figures.description import (
    TOLD_APART,
    Lines,
    Series,
)
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
    cells,
)
from paropt.results.pages.final_numbers import Finished, Measured
from paropt.results.searched import Json
from paropt.results.words import counted, number, value_text


def how_chosen(found: Finished) -> Iterable[Block]:
    """Every configuration with fresh seeds, and how much the search flattered its best."""
    report = found.stored
    yield Heading("How it was chosen, on valid")
    yield Paragraph(
        [
            "The best trials and the control were trained again with fresh seeds; the best mean is "
            "chosen, and its epoch is where the mean over the seeds is best."
        ]
    )
    header = ["", "from", "in the search", "fresh seeds", "epoch", "flattered by"]
    rows = [_choice_row(entry, report["chosen"]) for entry in report["entries"]]
    yield Table(header, rows, {2, 3, 4, 5})
    yield _flattered(found)
    series = [
        Series(entry["name"], list(enumerate(entry["curve"], 1)), colour=TOLD_APART[place % 5])
        for place, entry in enumerate(report["entries"])
        if not entry["failures"]
    ]
    title = f"{found.metric} on valid, mean of {counted(len(report['seeds']), 'seed')}"
    yield Picture(Lines("choice", title, "epoch", found.metric, series, whole=True))


def _choice_row(entry: Json, chosen: str) -> list[Cell]:
    is_chosen = entry["name"] == chosen
    name = Cell(entry["name"] + (" (chosen)" if is_chosen else ""), strong=is_chosen)
    searched = number(entry["found"]["value"]) if entry["found"] else ""
    row = [name, Cell(described(entry)), Cell(searched)]
    if entry["failures"]:
        return [*row, shortened(f"failed: {entry['failures'][0]}", 60), Cell(), Cell()]
    flattered = entry["flattered"]
    return [
        *row,
        Cell(Measured(entry["mean"], spread=entry["spread"]).spreading),
        Cell(f"{entry['epoch']}/{entry['epochs']}"),
        Cell("" if flattered is None else number(flattered, "+")),
    ]


def _flattered(found: Finished) -> Paragraph:
    """How much better the search made its best look than it is."""
    told, metric = found.stored["flattery"], found.metric
    if told["fresh"] is None:
        return Paragraph([f"The search's best ({metric} {number(told['search'])}) failed."])
    if told["flattered"] is None:
        return Paragraph(["The search judged otherwise than this test: values cannot be compared."])
    by = told["flattered"]
    side = "above" if (by > 0) == found.searched.objective.larger else "below"
    apart = number(abs(by))
    where = f"{apart} {side}" if apart != number(0.0) else "the same as"
    text: list[Words] = [
        f"The search's best {metric}, {number(told['search'])}, is {where} the "
        f"mean of {counted(told['seeds'], 'fresh seed')} of the same configuration, "
        f"{number(told['fresh'])}: "
    ]
    if by > 0:
        return Paragraph([*text, "so much it ", Term("flattered"), "."])
    return Paragraph([*text, "it did not ", Term("flattered", "flatter"), "."])


def configurations(found: Finished) -> Iterable[Block]:
    """Parameters side by side; those that differ stand out."""
    yield Heading("Configurations")
    roles = {role: found.test[role] for role in found.roles}
    alike = len({tested["model"] for tested in roles.values()}) == 1
    names = sorted({name for tested in roles.values() for name in tested["params"]})
    rows = [
        cells("model", *(tested["model"] for tested in roles.values())),
        cells("epochs", *(str(tested["epochs"]) for tested in roles.values())),
    ]
    if any(tested.get("stages") for tested in roles.values()):
        rows.append(cells("stages", *(_stages(tested) for tested in roles.values())))
    for name in names:
        values = [tested["params"].get(name) for tested in roles.values()]
        differs = alike and len(values) > 1 and values[0] != values[1]
        shown = [alike * "default" if value is None else value_text(value) for value in values]
        short = [shortened(text, 40) for text in shown]
        rows.append([shortened(name, 40), *(Cell(c.text, "", differs, c.full) for c in short)])
    yield Table(["", *(f"{role}: {described(tested)}" for role, tested in roles.items())], rows)


def _stages(tested: Json) -> str:
    return ", ".join(f"{name} {epochs}" for name, epochs in tested.get("stages", {}).items())


def described(entry: Json) -> str:
    """Where a configuration is from."""
    found = f"trial {entry['found']['trial']}" if entry["found"] else ""
    return ", ".join(filter(None, (entry["model"], found, entry["source"])))
