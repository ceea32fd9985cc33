"""Files of a study's best trials for the dashboard: paramfile, curve, epochs as a table.

They are made when somebody looks, as notes and plots are (:mod:`paropt.dashboard.overlay`). Files
written at a study's end would lie on the machine that ended it, where a dashboard elsewhere doesn't
reach them; a study that goes on, or was killed, would have none; and all of it is in the database
anyway. So there is nothing to write, to clear up, or to be out of date.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from paropt.results.export import paramfile_of
from paropt.results.figures.of_study import one_curve
from paropt.results.figures.svg import document
from paropt.results.searched import TrialFacts
from paropt.search.history.history import Record, best_first
from paropt.search.space.paramfiles import formatted
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.search.study.summary import described
from paropt.training.evaluation import epochs

BEST = 10  # trials whose files are shown


@dataclass(frozen=True)
class Artifact:
    """A file of a trial; ``trial`` is Optuna's id, which isn't its number."""

    trial: int
    name: str
    mimetype: str
    content: bytes

    @property
    def id(self) -> str:
        """The same for the same file name of the same trial, whoever makes it."""
        return str(uuid5(NAMESPACE_URL, f"paropt:{self.trial}/{self.name}"))

    def as_attribute(self) -> tuple[str, str]:
        """As optuna-dashboard reads it from a study's system attributes."""
        shown = {
            "artifact_id": self.id,
            "filename": self.name,
            "mimetype": self.mimetype,
            "encoding": None,
        }
        return f"dashboard:artifacts:{self.trial}:{self.id}", json.dumps(shown)


def artifacts(study: Study) -> list[Artifact]:
    """The files of the best trials; the history is as it was read last."""
    best = best_first(study.history.lineages(), study.definition.objective)[:BEST]
    return [file for record in best for file in _files(study.definition, record)]


def _files(definition: StudyDefinition, record: Record) -> Iterator[Artifact]:
    trial = described(record, definition.objective)
    name = f"trial{record.number}"
    paramfile = formatted(paramfile_of(definition, trial))
    curve = document(one_curve(definition.metric, TrialFacts.of(record, definition.objective)))
    for ending, mimetype, text in (
        (".json", "application/json", paramfile),
        ("-curve.svg", "image/svg+xml", curve),
        ("-epochs.csv", "text/csv", epochs_table(record)),
    ):
        yield Artifact(record.id, name + ending, mimetype, text.encode())


def epochs_table(record: Record) -> str:
    """CSV, one row per epoch: metrics, loss, seconds, speed, memory."""
    curves = {name: of for name, of in record.curves.items() if name not in epochs.OBJECTS}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["epoch", *curves])
    for epoch in range(max(map(len, curves.values()), default=0)):
        row = (_cell(values, epoch) for values in curves.values())
        writer.writerow([epoch + 1, *row])
    return file.getvalue()


def _cell(values: list[Any], epoch: int) -> Any:
    return values[epoch] if epoch < len(values) and values[epoch] is not None else ""
