"""What a comparison of studies says, on a page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.names import baseline
from paropt.results.figures.description import GREY, TOLD_APART, Lines, Mark, Marks, Series
from paropt.results.figures.of_study import LONG
from paropt.results.pages.document import (
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Heading,
    Paragraph,
    Picture,
    Table,
    Term,
    Text,
)
from paropt.results.pages.final_numbers import Measured
from paropt.results.words import bracketed, counted, duration, listed, number
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol

Row = Mapping[str, Any]


def compare_page(found: Mapping[str, Any]) -> Document:
    """``found`` is what :func:`paropt.results.compare.compare` gives."""
    objective = Objective(found["metric"], found["direction"])
    rows = sorted(found["studies"], key=lambda row: _worth(row, objective), reverse=True)
    blocks: list[Block] = [_of_what(found, rows), _table(found["metric"], rows)]
    blocks += [*_close(rows), *_coverage(rows), *_devices(rows), *_floors(rows, objective)]
    blocks += [Heading("Figures"), Picture(_marks(found, rows, objective))]
    blocks += [Picture(_over_time(found["metric"], rows))]
    return Document(f"{listed([row['study'] for row in found['studies']])} compared", blocks)


def _worth(row: Row, objective: Objective) -> tuple[bool, float]:
    at = row["at_spend"]
    return at is not None, objective.key(at["steady"]) if at else 0.0


def _of_what(found: Mapping[str, Any], rows: Sequence[Row]) -> Facts:
    protocol = EvaluationProtocol.from_json(found["evaluation"])
    seeds = ", ".join(f"{row['study']} {row['seed']}" for row in rows)
    number_of, unit = counted(round(found["spend"]), "device second").split(" ", 1)
    what: Text = ["when each had used ", f"{number_of} ", Term("device seconds", unit)]
    judged: Text = [Code(found["metric"]), f" on {found['split']}; {protocol.words()}"]
    return Facts(
        [
            ("judged by", judged),
            ("at equal spend", what),
            ("the best", ["by the mean of its three best epochs, as everywhere"]),
            ("data", [f"fingerprint {found['fingerprint']}"]),
            ("seeds", [seeds]),
        ]
    )


def _table(metric: str, rows: Sequence[Row]) -> Table:
    header = ["study", "models", f"{metric} at equal spend", "by", "with all", "trials", "spent"]
    body = [
        [
            Cell(row["study"], strong=place == 0),
            Cell(", ".join(row["models"])),
            *_at_spend(row["at_spend"]),
            Cell(number(row["best"]["value"])),
            Cell(f"{row['trials_at_spend']} of {row['trials']}"),
            Cell(duration(row["spent"])),
            *([Cell(_on_test(row["test"]))] if _tested(rows) else []),
        ]
        for place, row in enumerate(rows)
    ]
    if _tested(rows):
        header.append("on test")
    return Table(header, body, {2, 4, 5, 6})


def _at_spend(at: Row | None) -> list[Cell]:
    if at is None:
        return [Cell("-"), Cell("-")]
    who = f"trial {at['trial']}, {at['model']}"
    return [Cell(number(at["value"]), bracketed(at["interval"])), Cell(who)]


def _tested(rows: Sequence[Row]) -> bool:
    return any(row["test"] for row in rows)


def _on_test(test: Row | None) -> str:
    if test is None:
        return "-"
    again = f", look {test['looks']}" if test["looks"] > 1 else ""
    return f"{Measured.of(test).text}{again}"


def _close(rows: Sequence[Row]) -> Iterable[Block]:
    """Whom the first one cannot be told from."""
    first = rows[0]["at_spend"]
    if not first or not first["interval"]:
        return
    low, high = first["interval"]
    close = [
        row["study"]
        for row in rows[1:]
        if row["at_spend"] and low <= row["at_spend"]["value"] <= high
    ]
    if close:
        told = f"{listed(close)} {'is' if len(close) == 1 else 'are'} within the "
        first_is = f" of {rows[0]['study']}: which is better is open."
        yield Paragraph([told, Term("interval"), first_is])


def _coverage(rows: Sequence[Row]) -> Iterable[Block]:
    """On how many targets the values stand; they are of the same data, so mostly of the same."""
    told = {}
    for row in rows:
        at = row["at_spend"]
        if at and at["targets"] is not None:
            unknown = f" ({at['unknown']:,} left out)" if at["unknown"] else ""
            told[row["study"]] = f"{counted(at['targets'], 'target')}{unknown}"
    if len(set(told.values())) == 1:
        yield Paragraph([f"Judged on {next(iter(told.values()))}."])
    elif told:
        each = "; ".join(f"{study} on {text}" for study, text in told.items())
        yield Paragraph([f"Not judged on the same targets: {each}."], "warning")


def _devices(rows: Sequence[Row]) -> Iterable[Block]:
    devices = sorted({device for row in rows for device in row["devices"]})
    if len(devices) > 1:
        text = f"Seconds of different devices are not alike: {', '.join(devices)}."
        yield Paragraph([text], "warning")


def _floors(rows: Sequence[Row], objective: Objective) -> Iterable[Block]:
    """Which studies are no better than what needs no training."""
    below = [
        row["study"]
        for row in rows
        if row["at_spend"]
        and any(
            (value := objective.of(of)) is not None
            and not objective.better(row["at_spend"]["value"], value)
            for of in row["floor"].values()
        )
    ]
    if below:
        yield Paragraph(
            ["At equal spend no better than the ", Term("floor"), f": {listed(below)}."], "warning"
        )


def _colour(place: int) -> int:
    return TOLD_APART[place % len(TOLD_APART)]


def _marks(found: Mapping[str, Any], rows: Sequence[Row], objective: Objective) -> Marks:
    marks = [
        Mark(row["study"], at["value"], at["interval"], [row["best"]["value"]], _colour(place))
        for place, row in enumerate(rows)
        if (at := row["at_spend"])
    ]
    for name, of in next(row["floor"] for row in rows).items():
        if (value := objective.of(of)) is not None:
            marks.append(Mark(baseline(name), value, colour=GREY))
    metric = found["metric"]
    title = f"{metric} at equal spend, {counted(round(found['spend']), 'device second')} each"
    rings = "with all that was spent"
    return Marks("compared", title, f"{metric} on valid", "", marks, "at equal spend", rings)


def _over_time(metric: str, rows: Sequence[Row]) -> Lines:
    """The best so far of every study, by the mean of three epochs."""
    unit, size = ("hours", 3600) if max(row["spent"] for row in rows) >= LONG else ("minutes", 60)
    series = [
        Series(
            row["study"],
            [(p["spent"] / size, p["best"]) for p in row["points"] if p["best"] is not None],
            steps=True,
            colour=_colour(place),
        )
        for place, row in enumerate(rows)
    ]
    title = f"Best {metric} so far, mean of three epochs"
    return Lines("compared-over-time", title, f"device {unit}", metric, series)
