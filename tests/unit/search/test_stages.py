"""What a study makes of stages: pruning within one, epochs of each, the final test's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paropt.names import epoch_of
from paropt.results.final.final_choice import _judged
from paropt.search.history.history import Record
from paropt.search.strategy.pruning import reason_to_prune
from paropt.search.study.plan import Candidate, FinalPlan, Job
from paropt.training.evaluation import epochs
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective

MRR = Objective("mrr@20")


def reported(*stages: tuple[str, Sequence[float]]) -> list[EpochReport]:
    """Reports of stages, each with its values."""
    found: list[EpochReport] = []
    for name, values in stages:
        for at, value in enumerate(values, 1):
            report = EpochReport(
                len(found) + 1,
                {"mrr@20": value},
                stage=name,
                stage_epoch=at,
                stage_epochs=len(values),
            )
            found.append(report)
    return found


def curves_of(*stages: tuple[str, Sequence[float]]) -> dict[str, list[Any]]:
    return epochs.columns(reported(*stages))


def test_a_curve_is_cut_to_a_stage() -> None:
    curves = curves_of(("items", [0.1, 0.2]), ("all", [0.3, 0.4, 0.5]))
    assert epochs.of_stage(curves["mrr@20"], curves, "all") == [0.3, 0.4, 0.5]
    assert epochs.of_stage(curves["mrr@20"], curves, "items") == [0.1, 0.2]
    assert epochs.of_stage(curves["mrr@20"], curves, "other") == []
    plain = {"mrr@20": [0.1, 0.2]}  # of paropt 0.1, which had no column of stages
    assert epochs.of_stage(plain["mrr@20"], plain, "main") == [0.1, 0.2]


def test_trials_are_pruned_among_those_in_the_same_stage() -> None:
    """After its second epoch a trial in its second stage is its fourth epoch, and no worse for
    what others had in the first."""
    mine = curves_of(("items", [0.5, 0.6]), ("all", [0.3, 0.4]))
    others = [
        curves_of(("items", [0.7, 0.8, 0.9]), ("all", [0.1, 0.2])),
        curves_of(("items", [0.7, 0.8, 0.9, 0.9])),
    ]

    def cut(stage: str) -> list[Any]:
        found = [epochs.of_stage(curves["mrr@20"], curves, stage) for curves in others]
        return [curve for curve in found if curve]

    asha = {"name": "asha", "min_epochs": 2, "factor": 2, "startup": 0}
    own = epochs.of_stage(mine["mrr@20"], mine, "all")
    assert reason_to_prune(asha, own, cut("all"), epochs=2) is None
    own = epochs.of_stage(mine["mrr@20"], mine, "items")
    assert reason_to_prune(asha, own, cut("items"), epochs=2) == (
        "0.6000 after epoch 2 is not among the best 1 of 3 trials"
    )


def test_epochs_of_stages_are_those_that_led_to_the_best() -> None:
    reports = reported(("items", [0.1, 0.5, 0.2]), ("mix", [0.3, 0.6, 0.7]), ("all", [0.2]))
    assert MRR.stages(reports, reports[5]) == {"items": 2, "mix": 3}
    assert MRR.stages(reports, reports[4]) == {"items": 2, "mix": 2}
    assert MRR.stages(reports, reports[1]) == {"items": 2}
    assert MRR.stages([EpochReport(1, {"mrr@20": 0.1}, stage="main")], reports[0]) == {}


def test_people_see_the_stage_of_the_best_epoch() -> None:
    trial = {"epoch": 5, "epochs": 7, "stage": "mix", "stages": {"items": 2, "mix": 2}}
    assert epoch_of(trial) == "5/7 mix"
    assert epoch_of({"epoch": 5, "epochs": 7, "stage": "main", "stages": {}}) == "5/7"


def record(*stages: tuple[str, Sequence[float]]) -> Record:
    reports = reported(*stages)
    return Record(
        id=1,
        number=1,
        state="COMPLETE",
        value=max(report.metrics["mrr@20"] for report in reports),
        started=None,
        ended=None,
        meta={"root": 1, "seed": 1, "attempt": 1},
        owner={},
        curves=epochs.columns(reports),
        end={},
    )


def test_a_final_test_compares_seeds_at_the_same_epoch_of_the_same_stage() -> None:
    """One seed's patience ended the first stage a whole epoch earlier."""
    entry = Candidate("candidate 1", "model", {}, 9)
    seeds = [
        record(("items", [0.1, 0.3, 0.2]), ("all", [0.4, 0.8])),
        record(("items", [0.2, 0.4]), ("all", [0.6, 0.6, 0.9])),
    ]
    found = _judged(entry, seeds, MRR)
    assert found.stages == {"items": 2, "all": 2} and found.epoch == 4
    assert found.values == (0.8, 0.6) and [r.stage_epoch for r in found.reports] == [2, 2]
    # where the first stage is the best, no other is trained
    worse = [record(("items", [0.5, 0.6]), ("all", [0.1])) for _ in range(2)]
    assert _judged(entry, worse, MRR).stages == {"items": 2}


def test_a_plan_hands_the_epochs_of_stages_to_its_trainings() -> None:
    entry = Candidate("candidate 1", "model", {}, 4, stages={"items": 2, "all": 2})
    plan = FinalPlan("study", 1, (entry,), (7,), once=True)
    (job,) = FinalPlan.from_json(plan.to_json()).jobs()
    assert job == Job("candidate 1", "model", {}, 4, 7, True, {"items": 2, "all": 2})
    assert job.to_meta()["stages"] == {"items": 2, "all": 2}
    assert "stages" not in Job("a", "model", {}, 4, 7, True).to_meta()
