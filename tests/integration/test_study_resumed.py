"""Trials that another attempt goes on with: what is judged, counted and kept of the first."""

from __future__ import annotations

import pytest
from told import LONGER, Open, Stored, take, told

from paropt.search.strategy.first_looks import GAVE_WAY
from paropt.search.study.trial import Trial

pytestmark = pytest.mark.postgres

ASHA = {"name": "asha", "min_epochs": 2, "factor": 2, "startup": 0}
LATE = [0.10, 0.11, 0.12, 0.13, 0.30, 0.35, 0.37]  # among the worst at first, the best by then


@pytest.mark.parametrize("way", ["handed back", "lost", "from zero"])
def test_what_was_judged_is_not_judged_again(study_of: Open, way: str) -> None:
    """A late bloomer passed its rungs while it was alone; others were better there meanwhile."""
    study = study_of(LONGER, pruner=ASHA, budget=9)
    late = take(study)
    assert not any(told(late, LATE))
    others = [take(study) for _ in range(2)]
    for other in others:
        told(other, [0.2, 0.25, 0.26, 0.26, 0.27, 0.27, 0.27, 0.28, 0.28])
    if way == "lost":
        assert study.requeue(late.id, "its machine went down")
    else:
        late.hand_back("its worker left")
    again = take(study)
    assert again.root == late.root
    if way == "from zero":
        assert not any(told(again, [value + 0.001 for value in LATE]))
    else:
        assert not any(told(again, LATE[:5])), "what a checkpoint holds is told again"
        assert again.best == (7, 0.37), "and takes nothing from what came after it"
    worse = take(study)
    assert told(worse, LATE[:2])[-1], "one that is no better at a rung is cut, as before"
    assert "after epoch 2 is not among the best" in str(worse.prune_reason)


def test_a_verdict_stays_whatever_is_reported_after_it(study_of: Open, stored: Stored) -> None:
    study = study_of(LONGER, pruner=ASHA, budget=9)
    told(take(study), [0.3, 0.3, 0.3])
    for end in (Trial.complete, lambda trial: trial.hand_back("its worker left")):
        trial = take(study)
        assert told(trial, [0.1, 0.1, 0.9, 0.9]) == [False, True, True, True]
        end(trial)
        found = stored(trial)
        assert (found.state.name, found.value) == ("PRUNED", 0.1)
        assert len(found.intermediate_values) == 2
        assert study.trials()[-1]["message"].startswith("0.1000 after epoch 2 is not among")


def test_a_verdict_that_was_lost_with_its_worker_is_given_again(study_of: Open) -> None:
    study = study_of(LONGER, pruner=ASHA, budget=9)
    told(take(study), [0.3, 0.3, 0.3])
    trial = take(study)
    assert told(trial, [0.1, 0.1]) == [False, True]
    assert study.requeue(trial.id, "killed before it could say so")
    again = take(study)
    assert again.root == trial.root
    assert told(again, [0.1, 0.1]) == [False, True]


def test_who_gave_way_and_begins_anew_has_given_way(study_of: Open, stored: Stored) -> None:
    study = study_of(LONGER, budget=2)
    trial = take(study)
    told(trial, [0.1, 0.2, 0.7])
    trial.gives_way = "others come first"
    trial.hand_back("others come first")
    again = take(study)
    told(again, [0.11])
    study.refresh()
    (record,) = study.history.records.values()
    assert (record.end["why"], record.end["epoch"]) == (GAVE_WAY, 1)


def test_what_is_trained_again_has_no_value_of_epochs_that_are_gone(
    study_of: Open, stored: Stored
) -> None:
    study = study_of(LONGER, budget=1)
    trial = take(study)
    told(trial, [0.1, 0.2, 0.7])
    trial.hand_back("its worker left")
    again = take(study)
    assert stored(again).value == 0.7
    told(again, [0.11])
    (best,) = study.best()
    assert (best["value"], best["epoch"], best["metrics"]["mrr@20"]) == (0.11, 1, 0.11)
    told(again, [0.2, 0.6, 0.5], first=2)
    again.complete()
    assert stored(again).value == 0.6
