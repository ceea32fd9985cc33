"""What the dashboard shows of a study besides Optuna's own: notes, plots, and files of trials.

They are made when somebody looks, and stored nowhere: they are never out of date, and the study
isn't burdened with kilobytes that every listing would read. Plots are Plotly's JSON, which the
browser draws; no plotting library is needed here.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL

from paropt.dashboard.artifacts import Artifact, artifacts
from paropt.dashboard.notes import study_facts, study_note, trial_note
from paropt.errors import ParoptError
from paropt.results.figures.description import Figure
from paropt.results.figures.of_study import figures
from paropt.results.figures.plotly import plotly
from paropt.results.searched import Searched
from paropt.search.history.history import Record, best_first
from paropt.search.study.study import Study
from paropt.search.study.summary import Importance
from paropt.training.evaluation.objective import Objective

FRESH = 5.0  # seconds that they are shown before they are made anew,
MOST_NOTES = 100  # of trials
RESPITE = 20  # and at least so many times as long as it took to make them


@dataclass(frozen=True)
class Overlay:
    """Of one study: system attributes for optuna-dashboard, what it shows as the user's attributes,
    files by their artifact's id, importances, and the id of the best trial by paropt's rule."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Artifact] = field(default_factory=dict)
    importances: Sequence[Importance] | None = None
    best: int | None = None


class Exhibits:
    """What a database's studies show, made at most every few seconds. Threads share it."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._studies: dict[int, Study | None] = {}
        self._made: dict[int, tuple[float, Overlay]] = {}
        self._making = threading.Lock()

    def of(self, study_id: int, name: str) -> Overlay:
        """An empty one for a study that paropt didn't make."""
        with self._making:
            good_until, found = self._made.get(study_id, (float("-inf"), Overlay()))
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

    def forget(self, study_id: int) -> None:
        """The study was deleted or renamed."""
        with self._making:
            self._made.pop(study_id, None)
            if study := self._studies.pop(study_id, None):
                study.close()

    def _make(self, study_id: int, name: str) -> Overlay:
        try:
            if study_id not in self._studies:
                ours = name in Study.names(self._url)
                self._studies[study_id] = Study.load(self._url, name) if ours else None
            study = self._studies[study_id]
            if study is None:
                return Overlay()
            searched = Searched.of(study)  # reads what is new
            files = artifacts(study)
            notes: dict[int | None, str] = {
                record.id: trial_note(record, study.definition.objective)
                for record in _noted(study.history.all(), study.definition.objective)
            }
            notes[None] = study_note(searched)
            best = best_first(study.history.lineages(), study.definition.objective)[:1]
            return Overlay(
                as_attributes(notes, figures(study, searched), files),
                study_facts(searched),
                {file.id: file for file in files},
                searched.importances,
                best[0].id if best else None,
            )
        except (ParoptError, KeyError, TypeError, ValueError) as error:
            # rows that another program wrote must not take the page away
            logging.getLogger(__name__).debug("nothing to show of %r: %s", name, error)
            return Overlay()

    def close(self) -> None:
        """Give the connections back."""
        for study in self._studies.values():
            if study is not None:
                study.close()


def as_attributes(
    notes: Mapping[int | None, str], made: Iterable[Figure], files: Iterable[Artifact]
) -> dict[str, Any]:
    """As optuna-dashboard reads them from a study's system attributes.

    Its notes and plots lie in numbered pieces; version 0 of a note is one that nobody has edited.
    ``notes`` are by the trial's id; None: the study's.
    """
    found: dict[str, Any] = {}
    for trial, text in notes.items():
        of = "dashboard" if trial is None else f"dashboard:{trial}"
        found |= {f"{of}:note_ver": 0, f"{of}:note_str:0": text}
    for figure in made:
        found[f"dashboard:plot_data:{figure.name}:0"] = json.dumps(plotly(figure), allow_nan=False)
    return found | dict(file.as_attribute() for file in files)


def _noted(records: Sequence[Record], objective: Objective) -> list[Record]:
    """The best trials and the latest: the dashboard compares every trial with every note."""
    best = best_first(records, objective)[: MOST_NOTES // 2]
    latest = records[-(MOST_NOTES - len(best)) :]
    return list({record.id: record for record in [*best, *latest]}.values())
