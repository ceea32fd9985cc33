"""What the dashboard shows of a study besides Optuna's own: a note, and plots.

Both are made when somebody looks, and stored nowhere: they are never out of date, and the study
isn't burdened with kilobytes that every listing would read. Plots are Plotly's JSON, which the
browser draws; no plotting library is needed here.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import URL

from paropt.errors import ParoptError
from paropt.search.definition import StudyDefinition
from paropt.search.study import Study

FRESH = 5.0  # seconds that a note and plots are shown before they are made anew,
RESPITE = 20  # and at least so many times as long as it took to make them
# curves beyond these cannot be told apart
MOST_CURVES = 100
BLUE, ORANGE, GREY = "#2563eb", "#ea580c", "#6b7280"
FLOORS = {"popularity": "dot", "cooccurrence": "dash"}

Json = dict[str, Any]


class Exhibits:
    """Note and plots of a database's studies, made at most every few seconds. Threads share it."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._studies: dict[int, Study | None] = {}
        self._made: dict[int, tuple[float, dict[str, Any]]] = {}
        self._making = threading.Lock()

    def of(self, study_id: int, name: str) -> dict[str, Any]:
        """System attributes for optuna-dashboard; none for a study that paropt didn't make."""
        with self._making:
            good_until, found = self._made.get(study_id, (float("-inf"), {}))
            begin = time.monotonic()
            if begin > good_until:
                found = self._make(study_id, name)
                took = time.monotonic() - begin
                self._made[study_id] = begin + max(FRESH, RESPITE * took), found
            return found

    def _make(self, study_id: int, name: str) -> dict[str, Any]:
        try:
            if study_id not in self._studies:
                ours = name in Study.names(self._url)
                self._studies[study_id] = Study.load(self._url, name) if ours else None
            study = self._studies[study_id]
            if study is None:
                return {}
            summary = study.summary()
            made = figures(study.definition.metric, study.trials(), summary["floor"])
            return as_attributes(note(study.definition, summary), made)
        except (ParoptError, KeyError, TypeError, ValueError) as error:
            # rows that another program wrote must not take the page away
            logging.getLogger(__name__).debug("nothing to show of %r: %s", name, error)
            return {}

    def close(self) -> None:
        """Give the connections back."""
        for study in self._studies.values():
            if study is not None:
                study.close()


def note(definition: StudyDefinition, summary: Mapping[str, Any]) -> str:
    """Markdown: what is searched on which data, the floor, the best, how to get it again."""
    counts = summary["counts"]
    metric = definition.metric
    lines = [
        f"## {_code(definition.name)}",
        "",
        f"{_code(summary['model'])} by {_code(metric)} on {_code(definition.data_path)}, "
        f"fingerprint {_code(definition.fingerprint[:12])}, view {_code(definition.view)}, "
        f"seed {definition.seed}.",
        "",
        "| | trial | epoch | " + metric + " |",
        "|---|---|---|---|",
    ]
    for name, values in summary["floor"].items():
        if metric in values:
            lines.append(f"| {_plain(name)} (no training) | | | {values[metric]:.4f} |")
    if best := summary["best"]:
        lines.append(f"| **best** | {best['trial']} | {best['epoch']} | **{best['value']:.4f}** |")
    lines += [
        "",
        ", ".join(f"{number} {state}" for state, number in counts.items())
        + (f"; budget {summary['budget']}" if summary["budget"] else ""),
        "",
    ]
    if best:
        searched = definition.space.get("search", {})
        shown = {name: value for name, value in best["params"].items() if name in searched}
        lines += [
            f"Best parameters: {', '.join(_code(f'{k}={v}') for k, v in shown.items())}",
            "",
            "Again, and on the test set:",
            "",
            f"    paropt export {definition.name} --out best",
            f"    paropt train --params best/*.json --data {definition.data_path} --split full",
            "",
        ]
    versions = ", ".join(f"{_plain(name)} {_plain(v)}" for name, v in definition.versions.items())
    return "\n".join([*lines, versions, ""])


def figures(
    metric: str, trials: Sequence[Mapping[str, Any]], floor: Mapping[str, Mapping[str, float]]
) -> dict[str, Json]:
    """Plotly figures by id: progress over device-time, learning curves, best per model."""
    made = {
        "Best-over-device-time": over_time(metric, trials, floor),
        "Learning-curves": learning_curves(metric, trials),
    }
    if len({trial["model"] for trial in trials}) > 1:
        made["Best-per-model"] = per_model(metric, trials)
    return made


def over_time(
    metric: str, trials: Sequence[Mapping[str, Any]], floor: Mapping[str, Mapping[str, float]]
) -> Json:
    """The best value so far against the device-hours spent on all trials till then."""
    hours, best = 0.0, float("-inf")
    xs: list[float] = []
    ys: list[float] = []
    for trial in trials:
        hours += trial["seconds"] / 3600
        if trial["value"] is not None and trial["value"] > best:
            best = trial["value"]
            xs.append(round(hours, 6))
            ys.append(best)
    if ys:
        xs.append(round(hours, 6))
        ys.append(best)
    traces = [_line(xs, ys, "best so far", BLUE, shape="hv")]
    for name, values in floor.items():
        if metric in values:
            ends = [0.0, round(hours, 6)]
            traces.append(_line(ends, [values[metric]] * 2, name, GREY, dash=FLOORS.get(name)))
    return _figure(traces, f"Best {metric} over device-time", "device-hours", metric)


def learning_curves(metric: str, trials: Sequence[Mapping[str, Any]]) -> Json:
    """Each trial's value per epoch; pruned ones faded, the best in front."""
    run = [trial for trial in trials if trial["curve"]]
    scored = [trial for trial in run if trial["value"] is not None]
    best = max(scored, key=lambda trial: trial["value"], default=None)
    traces = []
    for trial in run[-MOST_CURVES:]:
        if best is None or trial["trial"] != best["trial"]:
            faded = 0.2 if trial["state"] == "pruned" else 0.6
            traces.append(_curve(trial, GREY, faded, 1))
    if best is not None:
        traces.append(_curve(best, ORANGE, 1.0, 3))
    return _figure(traces, "Learning curves", "epoch", metric, legend=False)


def per_model(metric: str, trials: Sequence[Mapping[str, Any]]) -> Json:
    """The best value of each model."""
    best: dict[str, float] = {}
    for trial in trials:
        if trial["value"] is not None:
            best[trial["model"]] = max(trial["value"], best.get(trial["model"], float("-inf")))
    ranked = sorted(best.items(), key=lambda pair: -pair[1])
    bars = {
        "type": "bar",
        "x": [model for model, _ in ranked],
        "y": [value for _, value in ranked],
        "marker": {"color": BLUE},
    }
    return _figure([bars], f"Best {metric} per model", "", metric, legend=False)


def as_attributes(text: str, made: Mapping[str, Json]) -> dict[str, Any]:
    """As optuna-dashboard reads them from a study's system attributes.

    Its note and plots lie in numbered pieces; version 0 of a note is one that nobody has edited.
    """
    plots = {
        f"dashboard:plot_data:{name}:0": json.dumps(figure, allow_nan=False)
        for name, figure in made.items()
    }
    return {"dashboard:note_ver": 0, "dashboard:note_str:0": text, **plots}


def _curve(trial: Mapping[str, Any], color: str, opacity: float, width: int) -> Json:
    epochs = list(range(1, len(trial["curve"]) + 1))
    name = f"trial {trial['trial']} ({trial['state']})"
    return {**_line(epochs, trial["curve"], name, color, width=width), "opacity": opacity}


def _line(xs: Iterable[Any], ys: Iterable[Any], name: str, color: str, **line: Any) -> Json:
    style = {"color": color, **{key: value for key, value in line.items() if value}}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(xs),
        "y": list(ys),
        "name": name,
        "line": style,
    }


def _figure(traces: list[Json], title: str, x: str, y: str, *, legend: bool = True) -> Json:
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "showlegend": legend,
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _plain(text: Any) -> str:
    """Without what Markdown would read: names and paths come from whoever made the study."""
    return "".join(c for c in str(text) if c not in "`<>|[]()*_\\\n\r")


def _code(text: Any) -> str:
    return f"`{' '.join(str(text).replace('`', '').split())}`"
