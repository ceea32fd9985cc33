"""What a page says of a final test: one number, what it stands beside, and how it came about."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from paropt.names import command
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
from paropt.results.pages.final_comparisons import (
    beside_others,
    by_other_metrics,
    costs,
    how_measured,
    seeds_together,
    two_by_two,
)
from paropt.results.pages.final_numbers import CHOSEN, CONTROL, MODELS, Finished, Metrics
from paropt.results.pages.how_chosen import configurations, described, how_chosen
from paropt.results.pages.study_page import made_with, search_blocks, stands_on, summary
from paropt.results.searched import Json
from paropt.results.words import between, counted, listed, number
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.metrics import direction_of, of_ranks


def final_page(report: Json) -> Document:
    """The whole page, with the search that led to it."""
    found = Finished.of(report)
    below = [
        replace(block, level=3) if isinstance(block, Heading) else block
        for block in search_blocks(found.searched)
    ]
    search = [Heading("The search"), summary(found.searched), *below]
    return Document(found.title, [*_test_blocks(found), *search, made_with(found.searched)])


def final_summary(report: Json) -> Document:
    """What ``paropt final`` prints: the test alone."""
    found = Finished.of(report)
    return Document(found.title, [*_test_blocks(found), made_with(found.searched)])


def _test_blocks(found: Finished) -> Iterable[Block]:
    yield _headline(found)
    yield from _beaten(found)
    yield from _ahead_elsewhere(found)
    yield from stands_on(found.chosen, found.searched.objective)
    yield from _cold(found)
    yield _looks(found)
    yield _of_what(found)
    yield from beside_others(found)
    yield from by_other_metrics(found)
    yield how_measured(found)
    yield from two_by_two(found)
    yield from seeds_together(found)
    yield from costs(found)
    yield from how_chosen(found)
    yield from configurations(found)
    yield Heading("Again")
    yield Commands(_commands(found))


def _headline(found: Finished) -> Headline:
    ours = found.metrics[found.metric]
    seeds = counted(len(found.stored["seeds"]), "seed")
    between_them = f" (± {number(ours.spread)} between them)" if ours.spread is not None else ""
    of = described(found.chosen)
    text: list[Words] = [f"The mean of {seeds}{between_them} of the chosen configuration, {of}"]
    if ours.interval:
        text += [
            ", with its ",
            Term("interval", f"{found.test['intervals']['level']:.0%} interval"),
        ]
    text += [". ", *_against_control(found)]
    return Headline(f"{found.metric} on test", number(ours.mean), between(ours.interval), text)


def _against_control(found: Finished) -> list[Words]:
    if found.test["control"] is None:
        return ["The search found nothing better than its ", Term("control"), "."]
    control, metric = found.contenders[0], found.metric
    text: list[Words] = ["The ", Term("control"), f" ({found.test['control']['source']}) has "]
    text += [control.metrics[metric].spreading]
    difference = control.difference.get(metric)
    if not difference:
        return [*text, "."]
    text += [f"; the difference is {number(difference.mean, '+')}"]
    if difference.interval:
        text += [f" [{between(difference.interval, '+')}]", _sure(difference.interval)]
    return [*text, "."]


def _sure(interval: Sequence[float]) -> str:
    low, high = interval
    return ", which other sessions might turn round" if low <= 0 <= high else ""


def _beaten(found: Finished) -> Iterable[Block]:
    """A warning if something that needs no training is at least as good."""
    ours = found.metrics[found.metric].mean
    better = [
        f"{name} reaches {number(metrics[found.metric].mean)}"
        for name, metrics in _untrained(found)
        if found.metric in metrics
        and not found.searched.objective.better(ours, metrics[found.metric].mean)
    ]
    if better:
        text = f"Without any training, {listed(better)}. The chosen one is no better than the "
        yield Paragraph([text, Term("floor"), "."], "warning")


def _untrained(found: Finished) -> list[tuple[str, Metrics]]:
    return [(one.name, one.metrics) for one in found.contenders if one.name != CONTROL]


def _ahead_elsewhere(found: Finished) -> Iterable[Block]:
    """Who is better by another metric or cut-off than the one that was searched for."""
    told = []
    for one in found.contenders:
        ahead = [
            name
            for name, ours in found.metrics.items()
            if name != found.metric
            and name in one.metrics
            and _better(name, one.metrics[name].mean, ours.mean)
        ]
        if ahead:
            who = "the control" if one.name == CONTROL else one.name
            told.append(f"{who} at {listed(ahead)}")
    if told:
        yield Paragraph([f"By other numbers others are ahead of it: {'; '.join(told)}."], "warning")


def _better(name: str, one: float, other: float) -> bool:
    """By a ranking metric; of a model's own one it is not known here whether more is better."""
    return of_ranks(name) and Objective(name, direction_of(name)).better(one, other)


def _judged(found: Finished) -> str:
    """How the test judges; reports of paropt 0.1 do not say it, and knew one way only."""
    protocol = EvaluationProtocol.from_json(found.test.get("evaluation", {}))
    return protocol.words()


def _cold(found: Finished) -> Iterable[Block]:
    """Targets that training never saw, apart from every other number."""
    for role in found.roles:
        cold = found.test[role].get("cold")
        if not cold:
            continue
        shown = listed([f"{name} {number(cold['metrics'][name])}" for name in _shown(found, cold)])
        worse = ""
        if cold["conservative"]:
            against = [number(cold["conservative"][name]) for name in _shown(found, cold)]
            worse = f" ({listed(against)} with ties against the target)"
        yield Paragraph(
            [
                f"Of {cold['targets']:,} more targets, of {cold['items']:,} items that training "
                f"never saw, each among all {cold['candidates']:,} items, the {role} one has "
                f"{shown}{worse}. They are in no other number here."
            ]
        )


def _shown(found: Finished, cold: Json) -> list[str]:
    """The study's metric if it is one of these, and recall as deep."""
    own = [found.metric] if found.metric in cold["metrics"] else []
    deepest = [name for name in cold["metrics"] if name.startswith("recall@")][-1:]
    return list(dict.fromkeys([*own, *deepest]))


def _looks(found: Finished) -> Paragraph:
    looks = found.stored["looks"]
    if len(looks) == 1:
        return Paragraph(["This was the first ", Term("look"), " at this test set."])
    earlier = ", ".join(f"{one['study']} ({one['at'][:10]})" for one in looks[:-1])
    text: list[Words] = ["This was ", Term("look", f"look {len(looks)}"), " at this test set "]
    text += [f"(before: {earlier}). A test set that was looked at before is a validation set: "]
    return Paragraph([*text, "read the numbers so."], "warning")


def _of_what(found: Finished) -> Facts:
    report, searched = found.stored, found.searched
    seeds = ", ".join(map(str, report["seeds"]))
    rows: list[tuple[str, Text]] = [
        ("data", [Code(str(report["data"])), f", fingerprint {searched.fingerprint}"]),
        ("split", [f"{found.test['split']}; {_judged(found)}"]),
        ("seeds", [seeds]),
        ("searched", [f"on {searched.split} with seed {searched.seed}"]),
    ]
    return Facts(rows)


def _commands(found: Finished) -> list[tuple[str, str]]:
    """How to get the numbers again."""
    report = found.stored
    seeds, data = " ".join(map(str, report["seeds"])), shlex.quote(str(report["data"]))
    begin = _begin(found)
    again = [
        (
            f"for seed in {seeds}; do paropt train --params {role}.json{begin} --data {data} "
            f"--split {found.test.get('view', 'full')} --seed $seed; done",
            f"the {role} one's numbers" if role == CHOSEN else "the control's",
        )
        for role in found.roles
    ]
    again_here = command("report", found.searched.name)
    return [(again_here, "this page, from the database"), *again, *_together(found, data)]


def _begin(found: Finished) -> str:
    """The options by which trainings begin with the model that the search's began with."""
    begin = found.searched.begin
    if not begin:
        return ""
    keep = " --keep-optimiser" if "optimiser" in begin else ""
    return f" --from {shlex.quote(str(begin['path']))}{keep}"


def _together(found: Finished, data: str) -> list[tuple[str, str]]:
    """How to have the chosen one's seeds as one model, where ``--out`` put them."""
    ensemble = found.chosen.get("ensemble")
    if not ensemble or ensemble["why"]:
        return []
    first, *others = (shlex.quote(f"{MODELS}/{seed}") for seed in ensemble["models"])
    words = f"{first} {' '.join(f'--with {other}' for other in others)}"
    asked = f"paropt evaluate {words} --data {data} --split {found.test.get('view', 'full')}"
    return [(asked, "its seeds as one model; recommend and serve take them so, too")]
