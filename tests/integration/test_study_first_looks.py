"""Which trial a study gives out where its time is short: each family first, then the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.search.study.trial import Trial
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres

Open = Callable[..., Study]

FAMILIES: dict[str, Any] = {
    "fixed": {"n_epochs": 4},
    "search": {
        "model": {"type": "categorical", "choices": ["gru4rec", "sasrec", "markov"]},
        "batch_size": {"type": "int", "low": 32, "high": 512, "step": 32},
    },
    "start": [
        {"model": "gru4rec", "batch_size": 32},
        {"model": "gru4rec", "batch_size": 64},
        {"model": "sasrec", "batch_size": 32},
        {"model": "markov", "batch_size": 32},
    ],
}


@pytest.fixture
def study_of(database_url: str) -> Iterator[Open]:
    """``study_of(timeout=…, budget=…)``: a study of three families."""
    opened = []

    def create(**budgets: Any) -> Study:
        definition = StudyDefinition(
            "families", FAMILIES, "mrr@20", [20], "/data", "abc", pruner={"name": "none"}
        )
        opened.append(Study.create(database_url, definition, **budgets))
        return opened[-1]

    yield create
    for study in opened:
        study.close()


def take(study: Study) -> Trial:
    trial = study.next_trial({"host": "here", "slot": "here/0"})
    assert trial is not None
    return trial


def epoch(number: int, value: float, seconds: float) -> EpochReport:
    return EpochReport(number, {"mrr@20": value}, loss=1.0, seconds=seconds)


def test_every_family_has_a_first_look_before_any_has_a_second(study_of: Open) -> None:
    """An hour, one slot: sasrec and markov are to come, so gru4rec has a sixth of it, 600 s."""
    study = study_of(timeout=3600)
    first = take(study)
    assert (first.model, first.params["batch_size"]) == ("gru4rec", 32)
    assert not first.report(epoch(1, 0.2, 500.0))
    assert first.report(epoch(2, 0.3, 500.0))
    assert first.gives_way is not None
    assert first.prune_reason is first.still_reason is None
    first.hand_back(first.gives_way)

    second = take(study)
    assert second.model == "sasrec"
    assert second.report(epoch(1, 0.5, 1000.0))
    assert second.gives_way is not None
    second.hand_back(second.gives_way)

    third = take(study)
    assert third.model == "markov"
    third.report(epoch(1, 0.1, 2.0))
    third.complete()

    # the better one goes on first, and does not give way again
    best, other, new = take(study), take(study), take(study)
    assert (best.number, other.number) == (second.number, first.number)
    assert not best.report(epoch(2, 0.5, 3000.0))
    assert (new.model, new.params["batch_size"]) == ("gru4rec", 64)


def test_what_gave_way_goes_on_where_the_budget_has_no_trial_for_others(study_of: Open) -> None:
    study = study_of(timeout=3600, budget=1)
    first = take(study)
    assert first.report(epoch(1, 0.2, 1000.0))
    first.hand_back(first.gives_way or "")
    assert take(study).number == first.number
