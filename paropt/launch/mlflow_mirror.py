"""A study's trials as runs of MLflow, as they go on.

A thread of the launch looks at the study every few seconds and tells MLflow what is new. A run is
known by the database's number of its trial, in a tag that it is created with, and looked for
under a lock before it is created: so a launch that is killed and begins again, or a second one,
makes no doubles. Points have the same time stamp whoever tells them. The search waits for nothing
of it.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from paropt.errors import ParoptError
from paropt.storage.engine import lock

if TYPE_CHECKING:
    from types import TracebackType

    from paropt.launch.opening.open_study import OpenedStudy
    from paropt.search.history.history import Record
    from paropt.training.evaluation.epochs import EpochReport

LOOK = 5.0  # seconds between two looks
LAST_LOOK = 60.0  # seconds that the end waits for what is still to be told
AT_ONCE = 500  # metrics of one request; MLflow takes 1000
LONGEST = 5000  # characters of a parameter
TRIAL = "paropt.trial_id"
STATUS = {
    "complete": "FINISHED", "pruned": "KILLED", "beyond": "KILLED", "failed": "FAILED",
    "running": "RUNNING", "waiting": "SCHEDULED",
}  # fmt: skip
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would tell its makers of every use
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the next look is a retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where --json's document is
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a directory is as good as any
    "GIT_PYTHON_REFRESH": "quiet",
}


def client(uri: str) -> Any:
    """MLflow's client for a tracking server, or a directory.

    Raises:
        ParoptError: MLflow isn't there, or takes no such URI.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        mlflow = importlib.import_module("mlflow.tracking")
    except ImportError:
        raise ParoptError(
            "--mlflow needs MLflow, which is not installed; pip install 'paropt[mlflow]'"
        ) from None
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    try:
        return mlflow.MlflowClient(uri)
    except Exception as error:  # of any kind: it depends on the URI's
        raise ParoptError(f"--mlflow {place(uri)} cannot be used: {type(error).__name__}") from None


def place(uri: str) -> str:
    """A tracking URI without what lets others in."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def metric_name(name: str) -> str:
    """As MLflow takes it: ``mrr_at_20``."""
    return re.sub(r"[^\w.\- /]", "_", name.replace("@", "_at_"))


class Mirror:
    """Mirrors a study while it is used with ``with``; nothing if ``to`` is None."""

    def __init__(
        self, opened: OpenedStudy, to: Any, note: Callable[[str], None], look: float = LOOK
    ) -> None:
        self._study, self._to, self._note, self._look = opened.study, to, note, look
        self._experiment: str | None = None
        self._runs: dict[int, str] = {}  # by the id of a lineage's first attempt
        self._told: dict[int, tuple[int, str]] = {}  # epochs and state
        self._complained = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def __enter__(self) -> Mirror:
        if self._to is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._to is not None:
            self._thread.join(LAST_LOOK)

    def _run(self) -> None:
        last = False
        while not last:
            last = self._over.wait(self._look)
            try:
                self.look()
            except Exception as error:  # whatever MLflow or the network raises, the search goes on
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            self._note(
                f"MLflow could not be told ({type(error).__name__}); the search goes on, and what "
                "is missing is told when it answers, or by a later launch with --mlflow"
            )

    def look(self) -> None:
        """Tell what is new."""
        self._study.refresh()
        first = {record.number: record for record in self._study.history.all()}
        for record in self._study.history.lineages():
            root = first.get(record.root, record)
            epochs, state = self._told.get(root.id, (0, ""))
            told = len(record.reports), self._state(record)
            if told != (epochs, state):
                self._tell(root, record)
                self._told[root.id] = told

    def _state(self, record: Record) -> str:
        return (
            f"{record.outcome}: {record.end.get('message', '')}" if record.end else record.outcome
        )

    def _tell(self, root: Record, record: Record) -> None:
        run = self._runs.get(root.id) or self._found(root, record)
        begin = _milliseconds(root.started)
        points = [
            self._metric(name, value, begin + report.epoch, report.epoch)
            for report in record.reports[self._points(root.id, run) :]
            for name, value in _values(report).items()
        ]
        for at in range(0, len(points), AT_ONCE):
            self._to.log_batch(run, metrics=points[at : at + AT_ONCE])
        tags = {
            "paropt.epochs": str(len(record.reports)),
            "paropt.state": record.outcome,
            "paropt.why": str(record.end.get("message", ""))[:LONGEST],
        }
        for key, value in tags.items():
            self._to.set_tag(run, key, value)
        ended = None if record.open else _milliseconds(record.ended)
        if ended is None:
            self._to.update_run(run, status=STATUS[record.outcome])
        else:
            self._to.set_terminated(run, STATUS[record.outcome], ended)

    def _metric(self, name: str, value: float, when: int, step: int) -> Any:
        entities = importlib.import_module("mlflow.entities")
        return entities.Metric(metric_name(name), value, when, step)

    def _points(self, root: int, run: str) -> int:
        """How many epochs of a run were told, by whomever."""
        if root in self._told:
            return self._told[root][0]
        tags = self._to.get_run(run).data.tags
        return int(tags.get("paropt.epochs", "0"))

    def _found(self, root: Record, record: Record) -> str:
        """The trial's run: the one that there is, or a new one."""
        experiment = self._in_experiment()
        with self._study.transaction() as connection:
            lock(connection, "mlflow", self._study.name)
            wanted = f"tags.`{TRIAL}` = '{root.id}'"
            there = self._to.search_runs([experiment], wanted, max_results=1)
            run = there[0].info.run_id if there else self._created(experiment, root, record)
        self._runs[root.id] = str(run)
        return self._runs[root.id]

    def _created(self, experiment: str, root: Record, record: Record) -> str:
        tags = {TRIAL: str(root.id), "paropt.study": self._study.name}
        name = f"trial {record.root}"
        run = self._to.create_run(experiment, _milliseconds(root.started), tags, name)
        params = {"model": record.meta["model"], "seed": record.meta["seed"]}
        params |= record.meta["params"]
        entities = importlib.import_module("mlflow.entities")
        said = [entities.Param(metric_name(k), str(v)[:LONGEST]) for k, v in params.items()]
        self._to.log_batch(run.info.run_id, params=said)
        return str(run.info.run_id)

    def _in_experiment(self) -> str:
        if self._experiment is None:
            name = self._study.name
            found = self._to.get_experiment_by_name(name)
            made = found.experiment_id if found else self._to.create_experiment(name)
            self._experiment = str(made)
        return self._experiment


def _values(report: EpochReport) -> dict[str, float]:
    told = {"loss": report.loss, "seconds": report.seconds, **report.metrics}
    return {name: float(value) for name, value in told.items() if value is not None}


def _milliseconds(when: datetime | None) -> int:
    return 0 if when is None else int(when.replace(tzinfo=UTC).timestamp() * 1000)
