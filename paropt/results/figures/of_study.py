"""The figures that a study has; one without data for it is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.names import baseline
from paropt.results.figures.description import (
    BLUE,
    GREY,
    ORANGE,
    Bars,
    Cells,
    Dash,
    Figure,
    Lines,
    Point,
    Series,
)
from paropt.results.spend_curve import points
from paropt.search.study.history import Record, best_first
from paropt.search.study.study import Study
from paropt.search.study.summary import described, diagnostics

MOST_CURVES = 100  # beyond these they cannot be told apart
FADED, PLAIN = 0.35, 0.8
LONG = 7200  # seconds from which on time is counted in hours
DASHED: dict[str, Dash] = {"popularity": "dot"}  # other floors have dashes
KINDS: dict[str, Dash] = {"positive": "", "negative": "dash"}
BALANCE = {
    "max_violation": ("Busiest expert: load / mean − 1", "max violation"),
    "entropy": ("Evenness of the experts' load", "entropy / log(experts)"),
    "dead": ("Dead experts: load under a tenth of the mean", "experts"),
}

Trial = Mapping[str, Any]
Epochs = Sequence[Any]  # what a model said after each epoch, of one kind


def figures(study: Study) -> list[Figure]:
    """All figures of a study, brought up to date."""
    metric, objective = study.definition.metric, study.definition.objective
    spent = [point.to_json() for point in points(study)]  # refreshes the history
    lineages = study.history.lineages()
    trials = [described(record, objective) for record in lineages]
    found: list[Figure] = [over_time(metric, spent, study.summary()["floor"])]
    ranked = best_first(lineages, objective)
    found += [learning_curves(metric, trials, ranked[0].number if ranked else None)]
    if len({trial["model"] for trial in trials}) > 1:
        found += [per_model(metric, [described(record, objective) for record in ranked])]
    found += similarity(_said_by_best(ranked, "similarity"))
    found += experts(_said_by_best(ranked, "experts"))
    return [figure for figure in found if not isinstance(figure, Lines) or figure.shown]


def _said_by_best(ranked: Iterable[Record], kind: str) -> dict[str, Epochs]:
    """What the best trial of each model said of ``kind``, by "model, trial N"."""
    found: dict[str, tuple[str, Epochs]] = {}
    for record in ranked:
        model = str(record.meta["model"])
        said = [epoch.get(kind) for epoch in diagnostics(record)]
        if any(said) and model not in found:
            found[model] = f"{model}, trial {record.number}", said
    return dict(found.values())


def over_time(
    metric: str, spent: Sequence[Mapping[str, Any]], floor: Mapping[str, Mapping[str, float]]
) -> Lines:
    """Trials and the best so far, by the means of three epochs that they are compared by, against
    the device time spent on all trials till then; floors as lines.

    ``spent`` is of :func:`paropt.results.spend_curve.points`, as JSON objects."""
    longest = max((point["spent"] for point in spent), default=0.0)
    unit, size = ("hours", 3600) if longest >= LONG else ("minutes", 60)

    def at(point: Mapping[str, Any]) -> float:
        return round(float(point["spent"]) / size, 6)

    best = [(at(point), point["best"]) for point in spent if point["best"] is not None]
    # a report of paropt 0.1 has no steady values
    dots = [(at(p), p.get("steady", p["value"])) for p in spent if p["value"] is not None]
    series = [
        Series("best so far", best, steps=True, colour=BLUE),
        Series("trials", dots, dots=True, colour=ORANGE),
    ]
    for name, values in floor.items():
        if metric in values and spent:
            ends = [(0.0, values[metric]), (round(longest / size, 6), values[metric])]
            dash = DASHED.get(name, "dash")
            series.append(Series(baseline(name), ends, dash=dash, colour=GREY))
    title = f"{metric} on valid against time spent"
    return Lines("over-time", title, f"device {unit}", metric, series)


def learning_curves(metric: str, trials: Sequence[Trial], first: int | None) -> Lines:
    """Each trial's value per epoch; pruned ones faded, the ``first`` of all, the best, in front."""
    run = [trial for trial in trials if trial["curve"]]
    best = next((trial for trial in run if trial["trial"] == first), None)
    series: list[Series] = []
    explained: set[str] = set()
    for trial in run[-MOST_CURVES:]:
        if best is None or trial["trial"] != best["trial"]:
            group, opacity = ("pruned", FADED) if trial["state"] == "pruned" else ("others", PLAIN)
            label = "" if group in explained else group
            series.append(_curve(trial, label, GREY, opacity, 1.0))
            explained.add(group)
    if best is not None:
        series.append(_curve(best, f"trial {best['trial']}, the best", ORANGE, 1.0, 3.0))
    return Lines("learning-curves", "Learning curves", "epoch", metric, series, whole=True)


def _curve(trial: Trial, label: str, colour: int, opacity: float, width: float) -> Series:
    name = f"trial {trial['trial']} ({trial['state']})"
    curve = list(enumerate(trial["curve"], 1))
    return Series(name, curve, label=label, colour=colour, opacity=opacity, width=width)


def one_curve(metric: str, trial: Trial) -> Lines:
    """A trial's own value per epoch."""
    points = list(enumerate(trial["curve"], 1))
    series = [Series(metric, points, label="", colour=ORANGE, width=3.0)]
    name, title = f"trial{trial['trial']}-curve", f"Trial {trial['trial']}: {metric}"
    return Lines(name, title, "epoch", metric, series, whole=True)


def per_model(metric: str, ranked: Sequence[Trial]) -> Bars:
    """The value of each model's best trial; ``ranked`` are all trials with a value, best first."""
    best: dict[str, float] = {}
    for trial in ranked:
        best.setdefault(trial["model"], trial["value"])
    return Bars("best-per-model", f"Best {metric} per model", "", metric, list(best.items()))


# -- what models say of themselves --------------------------------------------------------------
#
# A model of the user's may say something else under the same names; what isn't a number is a gap.


def similarity(said: Mapping[str, Epochs]) -> list[Lines]:
    """Cosines of a position with its next item and with others, epoch by epoch."""
    series = []
    for index, (name, epochs) in enumerate(said.items()):
        for kind, dash in KINDS.items():
            points = _points(_number(one, kind) for one in epochs)
            label = f"{name.partition(',')[0]}: {kind}s"
            series.append(Series(f"{name}: {kind}s", points, dash=dash, label=label, colour=index))
    title = "Similarity of positives and negatives"
    return [Lines("similarity", title, "epoch", "mean cosine", series, whole=True)]


def experts(said: Mapping[str, Epochs]) -> list[Figure]:
    """Of each model's best trial: the load of every expert, and how even it is."""
    found: list[Figure] = []
    for name, epochs in said.items():
        slug = f"experts-{name.partition(',')[0]}"
        found += [_loads(f"{slug}-load", f"Load of the experts ({name})", epochs)]
        for measure, (title, y) in BALANCE.items():
            series = [
                Series(f"layer {layer + 1}", _points(_number(e, layer, measure) for e in epochs))
                for layer in range(_layers(epochs))
            ]
            file = f"{slug}-{measure.replace('_', '-')}"
            full = f"{title} ({name})"
            found.append(Lines(file, full, "epoch", y, series, whole=True, zero=True))
    return found


def _loads(file: str, title: str, epochs: Epochs) -> Cells:
    """Rows are experts, layer by layer; 1 is an expert's even part."""
    rows = []
    for layer in range(_layers(epochs)):
        loads = [_at(epoch, layer, "load") for epoch in epochs]
        counts = [len(load) for load in loads if isinstance(load, list)]
        for expert in range(max(counts, default=0)):
            shares = [_number(load, expert) for load in loads]
            values = [None if share is None else share * max(counts) for share in shares]
            rows.append((f"{layer + 1}.{expert + 1}", values))
    return Cells(file, title, "epoch", "layer.expert", rows, "load / mean")


def _layers(epochs: Epochs) -> int:
    return max((len(epoch) for epoch in epochs if isinstance(epoch, list)), default=0)


def _points(values: Iterable[float | None]) -> list[Point]:
    return list(enumerate(values, 1))


def _number(said: Any, *path: str | int) -> float | None:
    found = _at(said, *path)
    return float(found) if isinstance(found, int | float) else None


def _at(said: Any, *path: str | int) -> Any:
    for key in path:
        try:
            said = said[key]
        except (KeyError, IndexError, TypeError):
            return None
    return said
