"""The figures that a study has; one without data for it is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.names import baseline
from paropt.results.figures import of_diagnostics
from paropt.results.figures.description import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SHAPES,
    Bars,
    Dash,
    Figure,
    Lines,
    Mark,
    Marks,
    Point,
    Series,
)
from paropt.results.figures.of_diagnostics import Epochs
from paropt.results.searched import Searched, TrialFacts
from paropt.results.words import counted
from paropt.search.history.history import Record, best_first
from paropt.search.study.study import Study
from paropt.search.study.summary import Importance, diagnostics

FADED, PLAIN = 0.45, 0.85
LONG = 7200  # seconds from which on time is counted in hours
MODEL = 13  # characters of a model's name in a legend
MOST_BARS = 15  # parameters whose importance is drawn
DASHED: dict[str, Dash] = {"popularity": "dot"}  # other floors have dashes
OF_MODELS = (ORANGE, GREEN, PURPLE, BROWN)  # blue is the best, grey needs no training


def figures(study: Study, searched: Searched | None = None) -> list[Figure]:
    """All figures of a study, brought up to date unless it was ``searched`` just now."""
    found = of_search(searched or Searched.of(study))
    ranked = best_first(study.history.lineages(), study.definition.objective)
    found += of_diagnostics.similarity(_said_by_best(ranked, "similarity"))
    found += of_diagnostics.experts(_said_by_best(ranked, "experts"))
    return _with_data(found)


def of_search(searched: Searched) -> list[Figure]:
    """Those of any search: over time, learning curves, models, importances."""
    found: list[Figure] = [over_time(searched), learning_curves(searched)]
    found += per_model(searched)
    found += fronts(searched)
    found += [importance(one) for one in searched.importances]
    return _with_data(found)


def _with_data(found: Iterable[Figure]) -> list[Figure]:
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


def over_time(searched: Searched) -> Lines:
    """Trials and the best so far, by the means of three epochs that they are compared by, against
    the device time spent on all trials till then; floors as lines. A model is told by colour and
    shape, a pruned trial is hollow."""
    metric, spent = searched.metric, searched.points
    longest = max((point["spent"] for point in spent), default=0.0)
    unit, size = ("hours", 3600) if longest >= LONG else ("minutes", 60)

    def at(point: Mapping[str, Any]) -> float:
        return round(float(point["spent"]) / size, 6)

    best = [(at(point), point["best"]) for point in spent if point["best"] is not None]
    series = [Series("best so far", best, steps=True, colour=BLUE)]
    for model, pruned, name in _groups(searched.models):
        dots = [
            (at(point), point.get("steady", point["value"]))  # paropt 0.1 told only values
            for point in spent
            if point["value"] is not None
            and (point.get("state") == "pruned") == pruned
            and point.get("model", model) == model
        ]
        colour, shape = _look(searched.models, model)
        series.append(Series(name, dots, dots=True, colour=colour, shape=shape, hollow=pruned))
    if spent:
        series += _floors(searched, round(longest / size, 6))
    title = f"{metric} on valid against time spent"
    x, y = f"device {unit}, of all trials together", f"{metric}, mean of 3 best epochs"
    return Lines("over-time", title, x, y, series)


def _groups(models: Sequence[str]) -> Iterable[tuple[str, bool, str]]:
    """Model, whether pruned, and what a legend calls them."""
    for model in models:
        for pruned in (False, True):
            kind = "pruned" if pruned else "complete"
            yield model, pruned, _group(models, model, kind)


def _group(models: Sequence[str], model: str, kind: str) -> str:
    """The legend has little room."""
    short = model if len(model) <= MODEL else f"{model[: MODEL - 1]}…"
    return kind if len(models) == 1 else f"{short}, {kind}"


def _look(models: Sequence[str], model: str) -> tuple[int, Any]:
    place = models.index(model) if model in models else 0
    return OF_MODELS[place % len(OF_MODELS)], SHAPES[place % len(SHAPES)]


def _floors(searched: Searched, end: float, begin: float = 0.0) -> list[Series]:
    """What needs no training, as lines across the figure."""
    return [
        Series(baseline(name), [(begin, value), (end, value)], dash=_dash(name), colour=GREY)
        for name, value in searched.floors.items()
    ]


def _dash(floor: str) -> Dash:
    return DASHED.get(floor, "dash")


def learning_curves(searched: Searched) -> Lines:
    """Each trial's value per epoch, in its model's colour; pruned ones dotted and faded, the best
    in front; floors as lines."""
    best = searched.best[0] if searched.best else None
    series: list[Series] = []
    explained: set[str] = set()
    for trial in searched.curves:
        if best is None or trial.trial != best.trial:
            series.append(_curve(searched, trial, explained))
    series.sort(key=lambda one: -one.opacity if one.dash else 1.0)  # those that were pruned behind
    if best is not None:
        name = f"trial {best.trial}, the best"
        series.append(Series(name, _epochs(best), colour=BLUE, width=3.0))
    last = max((len(trial.curve) for trial in searched.curves), default=0)
    if series:
        series += _floors(searched, max(2, last), 1)
    title = "Learning curves on valid"
    return Lines("learning-curves", title, "epoch", searched.metric, series, whole=True)


def _curve(searched: Searched, trial: TrialFacts, explained: set[str]) -> Series:
    pruned, models = trial.outcome == "pruned", searched.models
    kind = "pruned" if pruned else "others"
    group = _group(models, trial.model, kind)
    label = "" if group in explained else group
    explained.add(group)
    return Series(
        f"trial {trial.trial} ({trial.model}, {trial.outcome})",
        _epochs(trial),
        label=label,
        colour=_look(models, trial.model)[0],
        opacity=FADED if pruned else PLAIN,
        width=1.0 if pruned else 1.4,
        dash="dot" if pruned else "",
        hollow=pruned,
    )


def _epochs(trial: TrialFacts) -> list[Point]:
    return list(enumerate(trial.curve, 1))


def one_curve(metric: str, trial: TrialFacts) -> Lines:
    """A trial's own value per epoch."""
    series = [Series(metric, _epochs(trial), label="", colour=BLUE, width=3.0)]
    name, title = f"trial{trial.trial}-curve", f"Trial {trial.trial}: {metric} on valid"
    return Lines(name, title, "epoch", metric, series, whole=True)


def per_model(searched: Searched) -> list[Marks]:
    """What each model reached when it had spent as much as that which spent least, beside what
    needs no training."""
    if not searched.by_model or searched.by_model["spend"] is None:
        return []
    marks = []
    for row in searched.ranked(searched.by_model["models"]):
        if row["best"] is not None:
            colour, _ = _look(searched.models, row["model"])
            marks.append(Mark(row["model"], row["best"], None, [row["overall"]], colour))
    marks += [Mark(baseline(name), v, colour=GREY) for name, v in searched.floors.items()]
    metric, spend = searched.metric, searched.by_model["spend"]
    title = f"{metric} of each model at equal spend, {counted(round(spend), 'device second')}"
    dots, rings = "at equal spend", "with all that was spent on it"
    return [Marks("best-per-model", title, f"{metric} on valid", "", marks, dots, rings)]


def fronts(searched: Searched) -> list[Lines]:
    """The trials of the Pareto front against each value that is recorded beside the metric."""
    found = searched.pareto
    if not found or not found["trials"]:
        return []
    metric = searched.metric
    figures = []
    for name in found["also"]:
        series = []
        for model in dict.fromkeys(trial["model"] for trial in found["trials"]):
            dots = [
                (float(trial["also"][name]), trial["steady"])
                for trial in found["trials"]
                if trial["model"] == model
            ]
            colour, shape = _look(searched.models, model)
            series.append(Series(model, sorted(dots), dots=True, colour=colour, shape=shape))
        title = f"Pareto front: {metric} against {name}"
        y = f"{metric}, mean of 3 best epochs"
        figures.append(Lines(f"pareto-{name.replace('@', '-')}", title, name, y, series))
    return figures


def importance(found: Importance) -> Bars:
    """How much each parameter of a model matters."""
    shares = list(found.shares.items())[:MOST_BARS]
    title = f"What matters for {found.model}, by {found.trials} trials"
    return Bars(f"importance-{found.model}", title, "share of importance (PED-ANOVA)", "", shares)
