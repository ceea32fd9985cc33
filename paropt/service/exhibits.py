"""What the dashboard shows of a study besides Optuna's own: a note, plots, and files of trials.

They are made when somebody looks, and stored nowhere: they are never out of date, and the study
isn't burdened with kilobytes that every listing would read. Plots are Plotly's JSON, which the
browser draws; no plotting library is needed here.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL

from paropt.errors import ParoptError
from paropt.search.definition import StudyDefinition
from paropt.search.study import Study
from paropt.service.artifacts import Artifact, artifacts
from paropt.service.figures.description import Figure
from paropt.service.figures.of_study import figures
from paropt.service.figures.plotly import plotly

FRESH = 5.0  # seconds that they are shown before they are made anew,
RESPITE = 20  # and at least so many times as long as it took to make them


@dataclass(frozen=True)
class Exhibit:
    """Of one study: system attributes for optuna-dashboard, and files by their artifact's id."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Artifact] = field(default_factory=dict)


class Exhibits:
    """What a database's studies show, made at most every few seconds. Threads share it."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._studies: dict[int, Study | None] = {}
        self._made: dict[int, tuple[float, Exhibit]] = {}
        self._making = threading.Lock()

    def of(self, study_id: int, name: str) -> Exhibit:
        """An empty one for a study that paropt didn't make."""
        with self._making:
            good_until, found = self._made.get(study_id, (float("-inf"), Exhibit()))
            begin = time.monotonic()
            if begin > good_until:
                found = self._make(study_id, name)
                took = time.monotonic() - begin
                self._made[study_id] = begin + max(FRESH, RESPITE * took), found
            return found

    def file(self, artifact_id: str) -> Artifact | None:
        """A file of a study that was looked at."""
        with self._making:
            found = [made.files.get(artifact_id) for _, made in self._made.values()]
        return next((file for file in found if file is not None), None)

    def _make(self, study_id: int, name: str) -> Exhibit:
        try:
            if study_id not in self._studies:
                ours = name in Study.names(self._url)
                self._studies[study_id] = Study.load(self._url, name) if ours else None
            study = self._studies[study_id]
            if study is None:
                return Exhibit()
            made = figures(study)  # reads what is new
            files = artifacts(study)
            text = note(study.definition, study.summary())
            return Exhibit(as_attributes(text, made, files), {file.id: file for file in files})
        except (ParoptError, KeyError, TypeError, ValueError) as error:
            # rows that another program wrote must not take the page away
            logging.getLogger(__name__).debug("nothing to show of %r: %s", name, error)
            return Exhibit()

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


def as_attributes(text: str, made: Iterable[Figure], files: Iterable[Artifact]) -> dict[str, Any]:
    """As optuna-dashboard reads them from a study's system attributes.

    Its note and plots lie in numbered pieces; version 0 of a note is one that nobody has edited.
    """
    plots = {
        f"dashboard:plot_data:{figure.name}:0": json.dumps(plotly(figure), allow_nan=False)
        for figure in made
    }
    listed = dict(file.as_attribute() for file in files)
    return {"dashboard:note_ver": 0, "dashboard:note_str:0": text, **plots, **listed}


def _plain(text: Any) -> str:
    """Without what Markdown would read: names and paths come from whoever made the study."""
    return "".join(c for c in str(text) if c not in "`<>|[]()*_\\\n\r")


def _code(text: Any) -> str:
    return f"`{' '.join(str(text).replace('`', '').split())}`"
