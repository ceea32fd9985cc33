"""Trials as runs of a real MLflow: each once, though the launch that told of them was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paropt.launch.mlflow_mirror import Mirror, client
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.training.evaluation.epochs import EpochReport

pytestmark = [pytest.mark.extras, pytest.mark.postgres, pytest.mark.filterwarnings("ignore")]

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "search": {"momentum": {"type": "float", "low": 0.0, "high": 1.0}},
}


class Opened:
    def __init__(self, study: Study) -> None:
        self.study = study


def test_trials_are_runs_once(database_url: str, tmp_path: Path) -> None:
    to = client(str(tmp_path / "runs"))
    from mlflow import environment_variables  # it must not print where --json's document is

    assert environment_variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()
    definition = StudyDefinition("shop", SPACE, "mrr@20", [20], "/data", "abc")
    study = Study.create(database_url, definition)
    opened: Any = Opened(study)
    first, second = study.next_trial({}), study.next_trial({})
    assert first is not None and second is not None
    first.report(EpochReport(1, {"mrr@20": 0.1}, loss=2.0, seconds=1.0))
    Mirror(opened, to, print).look()  # and this launch is killed
    first.report(EpochReport(2, {"mrr@20": 0.3}, loss=1.0, seconds=1.0))
    first.complete()
    second.fail("error", "boom")
    again = Mirror(opened, to, print)
    again.look()
    again.look()
    study.close()
    experiment = to.get_experiment_by_name("shop")
    runs = {run.info.run_name: run for run in to.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "trial 0": "FINISHED",
        "trial 1": "FAILED",
    }
    told = to.get_metric_history(runs["trial 0"].info.run_id, "mrr_at_20")
    assert [(point.step, point.value) for point in told] == [(1, 0.1), (2, 0.3)]
    assert runs["trial 0"].data.params["momentum"] == str(first.params["momentum"])
    assert runs["trial 1"].data.tags["paropt.why"] == "boom"
