"""What a page says of a final test: one number, what it stands beside, and how it came about."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
from paropt.results.figures.description import (
    BLUE,
    GREY,
    ORANGE,
    TOLD_APART,
    Lines,
    Mark,
    Marks,
    Series,
)
from paropt.results.pairwise import LEVEL
from paropt.results.searched import Json, Searched, read
from paropt.results.study_page import (
    made_with,
    search_blocks,
    shortened,
    stands_on,
    summary,
)
from paropt.results.words import between, bracketed, counted, listed, number, value_text
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.metrics import direction_of, is_measure, of_ranks, written

CHOSEN, CONTROL = "chosen", "control"


@dataclass(frozen=True)
class Measured:
    """A metric: its ``mean`` over the seeds, their ``spread`` and ``values``, and the ``interval``
    over sessions; what is not known is None."""

    mean: float
    interval: Sequence[float] | None = None
    spread: float | None = None
    values: Sequence[float] = ()

    @classmethod
    def of(cls, stored: Json) -> Measured:
        """As a report holds it."""
        return read(cls, stored)

    @property
    def text(self) -> str:
        """``0.1234 ± 0.0012 [0.1201, 0.1268]``."""
        bounds = f" [{between(self.interval)}]" if self.interval else ""
        return f"{self.spreading}{bounds}"

    @property
    def spreading(self) -> str:
        """``0.1234 ± 0.0012``."""
        return number(self.mean) + (f" ± {number(self.spread)}" if self.spread is not None else "")


Metrics = Mapping[str, Measured]


@dataclass(frozen=True)
class Contender:
    """Something that the chosen configuration is compared with: the control, or what needs no
    training. ``difference`` is chosen less contender, paired by session."""

    name: str
    metrics: Metrics
    difference: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A report with a test, read from its JSON."""

    searched: Searched
    stored: Json
    chosen: Json
    metrics: Metrics
    contenders: Sequence[Contender]

    @classmethod
    def of(cls, report: Json) -> Finished:
        """
        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        test, searched = report["test"], Searched.from_json(report)
        contenders = []
        if test["control"]:
            contenders = [_contender(CONTROL, test["control"], test["difference"], searched)]
        for name, found in test["baselines"].items():
            beside = found.get("difference")
            contenders.append(_contender(baseline(name), found, beside, searched))
        ours = _measured(test["chosen"]["metrics"], searched.objective)
        return cls(searched, report, test["chosen"], ours, contenders)

    @property
    def metric(self) -> str:
        return self.searched.metric

    @property
    def test(self) -> Json:
        found: Json = self.stored["test"]
        return found

    @property
    def roles(self) -> list[str]:
        """Who was trained for the test: the control only where it is another one."""
        return [role for role in (CHOSEN, CONTROL) if self.test[role]]

    @property
    def title(self) -> str:
        return f"Final test {self.stored['final']} of study {self.searched.name}"


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
    yield from _picture(found)
    yield from _grids(found)
    yield _how(found)
    yield from _pairs(found)
    yield from _costs(found)
    yield from _choice(found)
    yield from _configurations(found)
    yield Heading("Again")
    yield Commands(_commands(found))


# -- the number ---------------------------------------------------------------------------------


def _headline(found: Finished) -> Headline:
    ours = found.metrics[found.metric]
    seeds = counted(len(found.stored["seeds"]), "seed")
    between_them = f" (± {number(ours.spread)} between them)" if ours.spread is not None else ""
    of = _described(found.chosen)
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


# -- beside what --------------------------------------------------------------------------------


def _picture(found: Finished) -> Iterable[Block]:
    marks = []
    everyone = [(CHOSEN, found.metrics), *((one.name, one.metrics) for one in found.contenders)]
    for name, metrics in everyone:
        if found.metric in metrics:
            one = metrics[found.metric]
            colour = {CHOSEN: BLUE, CONTROL: ORANGE}.get(name, GREY)
            marks.append(Mark(name, one.mean, one.interval, one.values, colour))
    title = f"{found.metric} on test, beside what it is compared with"
    figure = Marks(
        "test", title, found.metric, "", marks, "mean, with the interval over sessions", "each seed"
    )
    yield Picture(figure)


def _grids(found: Finished) -> Iterable[Block]:
    yield Heading("By other metrics and cut-offs")
    chosen = f"The chosen one ({_described(found.chosen)}), and its interval"
    yield _grid(found, chosen, found.metrics, lambda name: bracketed(found.metrics[name].interval))
    for one in found.contenders:
        is_control = one.name == CONTROL
        about = f" ({_described(found.test['control'])})" if is_control else ""
        below = _above_control(one) if is_control else _above(one)
        name = "The control" if is_control else f"{one.name[:1].upper()}{one.name[1:]}"
        yield _grid(
            found, f"{name}{about}, and by how much the chosen one is above it", one.metrics, below
        )


def _above(one: Contender) -> Callable[[str], str]:
    def below(name: str) -> str:
        return number(one.difference[name].mean, "+") if name in one.difference else ""

    return below


def _above_control(one: Contender) -> Callable[[str], str]:
    """With the interval, as the two may be close."""

    def below(name: str) -> str:
        found = one.difference.get(name)
        bounds = f" [{between(found.interval, '+')}]" if found and found.interval else ""
        return f"{number(found.mean, '+')}{bounds}" if found else ""

    return below


def _grid(found: Finished, caption: str, metrics: Metrics, below: Callable[[str], str]) -> Table:
    """Metrics from the top, cut-offs from the left; ``below`` says what stands below a number."""

    def cell(name: str) -> Cell:
        if name not in metrics:
            return Cell()
        return Cell(metrics[name].spreading, below(name), strong=name == found.metric)

    rows, cuts = _measures(metrics)
    body = [
        [Cell(measure), *(cell(names.get(cut, "")) for cut in cuts)]
        for measure, names in rows.items()
    ]
    header = ["", *(f"@{cut}" if cut else "" for cut in cuts)]
    return Table(header, body, range(1, len(header)), caption)


def _measures(metrics: Metrics) -> tuple[dict[str, dict[int, str]], list[int]]:
    """``recall: {1: recall@1, …}`` and all cut-offs; 0 stands for a metric without one."""
    found: dict[str, dict[int, str]] = {}
    for name in metrics:
        measure, _, cut = name.partition("@")
        at = int(cut) if cut.isdecimal() else 0
        found.setdefault(measure if at or not cut else name, {})[at] = name
    return found, sorted({cut for names in found.values() for cut in names})


def _how(found: Finished) -> Paragraph:
    method, seeds = found.test["intervals"], len(found.stored["seeds"])
    groups = "groups of sessions" if method["hashed"] else "sessions"
    if not method["groups"]:
        told = f"Mean ± standard deviation over {counted(seeds, 'seed')}; no intervals, as the "
        return Paragraph([told + "model says no values that they could be drawn from."], "aside")
    return Paragraph(
        [
            f"Mean ± standard deviation over {counted(seeds, 'seed')}; in brackets the "
            f"{method['level']:.0%} bootstrap interval over {method['groups']:,} {groups} "
            f"({method['draws']:,} draws, {method['targets']:,} targets; percentiles, of the mean "
            "over the seeds). A difference is paired: the same sessions are drawn for both."
        ],
        "aside",
    )


def _pairs(found: Finished) -> Iterable[Block]:
    """Everything against everything, corrected for the number of pairs."""
    pairs = found.test.get("pairs") or []  # reports of earlier versions have none
    if len(pairs) < 2:
        return
    rows = [
        cells(
            f"{baseline(pair['one'])} − {baseline(pair['other'])}",
            f"{number(pair['difference'], '+')} [{between(pair['interval'], '+')}]",
            _p(pair["holm"]),
            "differ" if pair["holm"] < LEVEL else "not told apart",
        )
        for pair in pairs
    ]
    told = (
        f"Each pair's difference by {found.metric}, over the same sessions, with its p-value "
        f"corrected for the {len(pairs)} pairs (Holm): {LEVEL:.0%} is the chance that any of them "
        "is called different and isn't."
    )
    yield Heading("Two by two")
    yield Paragraph([told])
    yield Table(["", "difference", "p (Holm)", ""], rows, {1, 2})


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else "< 0.001"


def _costs(found: Finished) -> Iterable[Block]:
    """What the models cost, where the study measured it."""
    for role in found.roles:
        metrics = found.test[role]["metrics"]
        told = [f"{n} {written(n, m['mean'])}" for n, m in metrics.items() if is_measure(n)]
        if told:
            yield Paragraph([f"The {role} one costs {listed(told)}, the mean over the seeds."])


# -- how it was chosen --------------------------------------------------------------------------


def _choice(found: Finished) -> Iterable[Block]:
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
    row = [name, Cell(_described(entry)), Cell(searched)]
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


def _configurations(found: Finished) -> Iterable[Block]:
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
    yield Table(["", *(f"{role}: {_described(tested)}" for role, tested in roles.items())], rows)


def _stages(tested: Json) -> str:
    return ", ".join(f"{name} {epochs}" for name, epochs in tested.get("stages", {}).items())


def _described(entry: Json) -> str:
    """Where a configuration is from."""
    found = f"trial {entry['found']['trial']}" if entry["found"] else ""
    return ", ".join(filter(None, (entry["model"], found, entry["source"])))


def _commands(found: Finished) -> list[tuple[str, str]]:
    """How to get the numbers again."""
    report = found.stored
    seeds, data = " ".join(map(str, report["seeds"])), shlex.quote(str(report["data"]))
    again = [
        (
            f"for seed in {seeds}; do paropt train --params {role}.json --data {data} "
            f"--split {found.test.get('view', 'full')} --seed $seed; done",
            f"the {role} one's numbers" if role == CHOSEN else "the control's",
        )
        for role in found.roles
    ]
    again_here = command("report", found.searched.name)
    return [(again_here, "this page, from the database"), *again]


def _contender(name: str, found: Json, difference: Json | None, searched: Searched) -> Contender:
    beside = _measured(difference or {}, searched.objective)
    return Contender(name, _measured(found["metrics"], searched.objective), beside)


def _measured(metrics: Json, objective: Objective) -> dict[str, Measured]:
    """The metrics of a report, and what the study was searched for where that is a sum of them:
    its interval is not known, as that of a sum is not the sum of the intervals."""
    found = {name: Measured.of(value) for name, value in metrics.items() if not is_measure(name)}
    mean = objective.of({name: one.mean for name, one in found.items()})
    if mean is not None and objective.metric not in found:
        of_seeds = zip(*(found[name].values for name in objective.names), strict=True)
        values = [objective.of(dict(zip(objective.names, v, strict=True))) for v in of_seeds]
        found[objective.metric] = Measured(mean, values=[v for v in values if v is not None])
    return found
