"""What a page says of what was searched, and on what data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.results.pages.best_trials import shortened
from paropt.results.pages.document import (
    Block,
    Code,
    Facts,
    Heading,
    Paragraph,
    Table,
    Term,
    Text,
    Words,
    cells,
)
from paropt.results.searched import DatasetFacts, Searched
from paropt.results.words import (
    counted,
    value_text,
)

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


def space_searched(searched: Searched) -> Iterable[Block]:
    """The space, the sampler and the pruner."""
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


def data_searched(searched: Searched) -> Iterable[Block]:
    """The dataset: its splits, and what its preparation left."""
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
