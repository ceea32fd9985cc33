"""Limits and budgets beyond a number of trials, in a real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import StudyError
from paropt.results.export import export
from paropt.results.pages.markdown import markdown
from paropt.results.pages.study_page import study_page
from paropt.results.searched import Searched
from paropt.results.spend_curve import best_within, points
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.overview import overview
from paropt.search.study.study import Study
from paropt.search.study.trial import Trial
from paropt.storage.engine import open_rdb
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "search": {"momentum": {"type": "float", "low": 0.0, "high": 1.0}},
}


@pytest.fixture
def create(module_database_url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = []

    def create(**options: Any) -> Study:
        kept = {key: options.pop(key) for key in ("budget",) if key in options}
        name = request.node.name
        definition = StudyDefinition(name, SPACE, "mrr@20", [20], "/data", "abc", **options)
        opened.append(Study.create(module_database_url, definition, **kept))
        return opened[-1]

    yield create
    for study in opened:
        study.close()


def given(study: Study) -> Trial:
    trial = study.next_trial({})
    assert trial is not None
    return trial


def finish(trial: Trial, value: float, **more: Any) -> None:
    trial.report(
        EpochReport(1, {"mrr@20": value, "parameters": more.pop("parameters", 5.0)}, **more)
    )
    trial.complete()


def test_what_is_beyond_a_limit_never_wins(create: Any, module_database_url: str) -> None:
    study = create(constraints=["parameters<=10"], budget=3)
    finish(given(study), 0.9, parameters=11)
    given(study).beyond("parameters 99 is above 10", {"parameters": 99})
    finish(given(study), 0.5, parameters=10)
    finish(given(study), 0.4)
    found = study.summary()
    assert found["counts"]["complete"] == 3 and found["counts"]["beyond"] == 1
    assert (found["best"]["trial"], found["best"]["value"]) == (2, 0.5)
    assert found["constraints"] == {"limits": {"parameters<=10": 2}, "keep": 2}
    assert [trial["beyond"] for trial in study.trials()] == [
        ["parameters 11 is above 10"], ["parameters 99 is above 10"], [], [],
    ]  # fmt: skip
    assert study.retry_failed() == 0
    with study.transaction() as connection:
        (listed,) = [one for one in overview(connection).studies if one["study"] == study.name]
    assert (listed["best"]["trial"], listed["counts"]) == (2, found["counts"])
    storage = open_rdb(module_database_url)
    try:
        stored = storage.get_all_trials(storage.get_study_id_from_name(study.name))
    finally:
        storage._backend.engine.dispose()
    assert [trial.constraints["parameters<=10"] for trial in stored] == [0.1, 8.9, 0.0, -0.5]
    assert [trial.value for trial in stored] == [0.9, None, 0.5, 0.4]
    assert stored[0].user_attrs["beyond"] == "parameters 11 is above 10"
    found = points(study)
    won = best_within(found, 1e9, study.definition.objective)
    assert won is not None and (won.trial, won.best) == (2, 0.5), "nor at a spend"


def test_what_waits_beyond_a_limit_is_not_listed_as_the_best(create: Any) -> None:
    study = create(constraints=["parameters<=10"], budget=3)
    finish(given(study), 0.5)
    waits = given(study)
    waits.report(EpochReport(1, {"mrr@20": 0.9, "parameters": 11.0}))
    waits.hand_back("its worker left")
    with study.transaction() as connection:
        (listed,) = [one for one in overview(connection).studies if one["study"] == study.name]
    assert listed["best"]["trial"] == study.summary()["best"]["trial"] == 0


def test_what_is_beyond_a_limit_sets_no_bar(create: Any) -> None:
    """By the median rule the third would be pruned, were it not for the limit."""
    pruner = {"name": "median", "startup": 1, "warmup": 1}
    study = create(constraints=["parameters<=10"], pruner=pruner)
    finish(given(study), 0.9, parameters=11)
    finish(given(study), 0.1)
    third, report = given(study), EpochReport(1, {"mrr@20": 0.2, "parameters": 1.0})
    assert third.report(report) is False


def test_limits_are_part_of_the_study(create: Any, module_database_url: str) -> None:
    study = create(constraints=["parameters<=10"])
    assert create().definition.constraints == ["parameters<=10"]
    with pytest.raises(StudyError, match="has parameters<=10, not parameters<=11"):
        create(constraints=["parameters<=11"])
    assert Study.load(module_database_url, study.name).definition.recorded == ["parameters"]
    assert study.definition.to_json()["format"] == 3
    assert replace(study.definition, constraints=[]).to_json()["format"] == 2


def test_a_front_is_what_nothing_beats_in_everything(create: Any, tmp_path: Path) -> None:
    study = create(also=["parameters", "recall@5"], constraints=["parameters<=90"])
    recalls = {"mrr@20": 0.0, "recall@5": 0.5}
    for value, parameters, more in [
        (0.5, 50.0, 0.5),
        (0.5, 50.0, 0.5),  # as good in all: both are on it
        (0.4, 60.0, 0.5),  # beaten by both
        (0.4, 40.0, 0.5),
        (0.3, 60.0, 0.6),  # the best recall
        (0.9, 95.0, 0.9),  # beyond the limit
        (0.5, 51.0, 0.5),  # worth as much as the first, and larger
    ]:
        trial = given(study)
        told = {**recalls, "mrr@20": value, "parameters": parameters, "recall@5": more}
        trial.report(EpochReport(1, told))
        trial.complete()
    found = study.summary()["pareto"]
    assert found["also"] == {"parameters": "minimize", "recall@5": "maximize"}
    assert [trial["trial"] for trial in found["trials"]] == [0, 1, 3, 4]
    assert found["trials"][2]["also"] == {"parameters": 40.0, "recall@5": 0.5}
    written = export(study, tmp_path, pareto=True)
    assert [file["trial"] for file in written] == [0, 1, 3, 4]
    assert written[3]["also"] == {"parameters": 60.0, "recall@5": 0.6}
    page = markdown(study_page(Searched.of(study)))
    assert "## The Pareto front" in page and "less parameters and more recall@5" in page


def test_without_anything_beside_there_is_no_front(create: Any, tmp_path: Path) -> None:
    study = create()
    finish(given(study), 0.5)
    assert study.summary()["pareto"] is None
    with pytest.raises(StudyError, match="records nothing beside mrr@20"):
        export(study, tmp_path, pareto=True)
