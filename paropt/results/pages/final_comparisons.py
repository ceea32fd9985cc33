"""What a page says of the chosen configuration beside the control and the floors."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from paropt.names import baseline
from paropt.results.figures.description import (
    BLUE,
    GREY,
    ORANGE,
    Mark,
    Marks,
)
from paropt.results.pages.document import (
    Block,
    Cell,
    Heading,
    Paragraph,
    Picture,
    Table,
    Term,
    cells,
)
from paropt.results.pages.final_numbers import (
    CHOSEN,
    CONTROL,
    Contender,
    Finished,
    Metrics,
    measured,
)
from paropt.results.pages.how_chosen import described
from paropt.results.pairwise import LEVEL
from paropt.results.searched import Json
from paropt.results.words import between, bracketed, counted, listed, number
from paropt.training.metrics import is_measure, written


def beside_others(found: Finished) -> Iterable[Block]:
    """The figure of the metric: the chosen one, the control and the floors."""
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


def by_other_metrics(found: Finished) -> Iterable[Block]:
    """A grid of metrics and cut-offs for each that was tested."""
    yield Heading("By other metrics and cut-offs")
    chosen = f"The chosen one ({described(found.chosen)}), and its interval"
    yield _grid(found, chosen, found.metrics, lambda name: bracketed(found.metrics[name].interval))
    for one in found.contenders:
        is_control = one.name == CONTROL
        about = f" ({described(found.test['control'])})" if is_control else ""
        below = _with_interval(one) if is_control else _above(one)
        name = "The control" if is_control else f"{one.name[:1].upper()}{one.name[1:]}"
        yield _grid(
            found, f"{name}{about}, and by how much the chosen one is above it", one.metrics, below
        )


def _above(one: Contender) -> Callable[[str], str]:
    def below(name: str) -> str:
        return number(one.difference[name].mean, "+") if name in one.difference else ""

    return below


def _with_interval(one: Contender) -> Callable[[str], str]:
    """By how much, with the interval, where two may be close."""

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


def seeds_together(found: Finished) -> Iterable[Block]:
    """The seeds as one model, beside the mean of them."""
    told = {role: found.test[role].get("ensemble") for role in found.roles}
    told = {role: ensemble for role, ensemble in told.items() if ensemble}
    if not told:  # of a single seed, or of an earlier version
        return
    yield Heading("Its seeds as one model")
    yield Paragraph(
        [
            "An ",
            Term("ensemble"),
            " of a configuration's seeds, on the same targets. The number that "
            "was tested stays the mean of single seeds; this is what all of them give together.",
        ]
    )
    for role, ensemble in told.items():
        if ensemble["why"]:
            yield Paragraph([f"There is none of the {role} one: {ensemble['why']}."])
        else:
            yield _seeds_grid(found, role, ensemble)


def _seeds_grid(found: Finished, role: str, ensemble: Json) -> Table:
    """The ensemble's metrics, and by how much they are above the seeds' mean."""
    objective = found.searched.objective
    metrics = measured(ensemble["metrics"], objective)
    above = measured(ensemble["difference"], objective)
    seeds = counted(len(ensemble["models"]), "seed")
    one = Contender(role, metrics, above)
    caption = f"The {role} one's {seeds} as one model, and by how much it is above their mean"
    return _grid(found, caption, metrics, _with_interval(one))


def how_measured(found: Finished) -> Paragraph:
    """What the numbers are means of, and what their intervals are."""
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


def two_by_two(found: Finished) -> Iterable[Block]:
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


def costs(found: Finished) -> Iterable[Block]:
    """What the models cost, where the study measured it."""
    for role in found.roles:
        metrics = found.test[role]["metrics"]
        told = [f"{n} {written(n, m['mean'])}" for n, m in metrics.items() if is_measure(n)]
        if told:
            yield Paragraph([f"The {role} one costs {listed(told)}, the mean over the seeds."])
