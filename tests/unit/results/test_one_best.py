"""Whoever says which trial is the best says the same: a lucky epoch against a steady curve."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from paropt.results.figures.of_study import learning_curves, per_model
from paropt.results.searched import Searched, TrialFacts
from paropt.results.spend_curve import Point, best_within
from paropt.search.history.equal_spend import by_model
from paropt.search.history.history import Record, best_first
from paropt.search.study.summary import described
from paropt.training.evaluation.objective import Objective

MRR = Objective("mrr@20")
CURVES = {0: [0.10, 0.30, 0.12, 0.11], 1: [0.25, 0.26, 0.27, 0.28]}


def record(number: int, curve: list[float], objective: Objective = MRR, **more: Any) -> Record:
    best = objective.best_epoch(curve)
    assert best is not None
    meta = {
        "model": "sasrec", "root": number, "attempt": 1, "epochs": 4,
        "params": {}, "seed": 1, "searched": {},
    }  # fmt: skip
    curves = {objective.metric: curve, "seconds": [1.0] * len(curve), **more}
    ended = datetime(2026, 1, 1, 12, number)
    end = {"why": "complete", "epoch": best[0]}
    return Record(number, number, "COMPLETE", best[1], None, ended, meta, {}, curves, end)


RECORDS = [record(number, curve) for number, curve in CURVES.items()]


def test_the_order_of_trials() -> None:
    assert [one.number for one in best_first(RECORDS, MRR)] == [1, 0]
    found = described(RECORDS[1], MRR)
    assert (found["value"], found["epoch"]) == (0.28, 4)
    assert found["steady"] == pytest.approx(0.27)


def test_the_figures() -> None:
    trials = [TrialFacts.of(one, MRR) for one in RECORDS]
    best = [TrialFacts.of(one, MRR) for one in best_first(RECORDS, MRR)]
    of_model = by_model(RECORDS, ["sasrec"], MRR)
    space = {"models": ["sasrec"]}
    found = Searched(
        "shop", "mrr@20", "f" * 64, "data", space=space, best=best, curves=trials, by_model=of_model
    )
    curves = [one for one in learning_curves(found).series if one.points]
    assert [one.points[-1] for one in curves if one.legend == "trial 1, the best"] == [(4, 0.28)]
    (marks,) = per_model(found)
    assert [(mark.name, mark.value) for mark in marks.marks] == [("sasrec", 0.28)]


def test_at_equal_spend() -> None:
    (row,) = by_model(RECORDS, ["sasrec"], MRR)["models"]
    assert (row["best"], row["trial"], row["overall"]) == (0.28, 1, 0.28)
    assert row["steady"] == pytest.approx(0.27)


def test_against_the_time_spent() -> None:
    steady = [0.53 / 3, 0.27]
    points = [
        Point(n, "complete", "sasrec", max(CURVES[n]), steady[n], 4.0 * (n + 1), steady[n])
        for n in (0, 1)
    ]
    best = best_within(points, 8.0, MRR)
    early = best_within(points, 7.9, MRR)
    assert best is not None and best.trial == 1
    assert early is not None and early.trial == 0
    assert best_within(points, 1.0, MRR) is None


def test_where_less_is_more() -> None:
    rank = Objective("avg_rank", "minimize")
    records = [record(0, [90.0, 20.0, 80.0, 85.0], rank), record(1, [50.0, 45.0, 40.0], rank)]
    assert [one.number for one in best_first(records, rank)] == [1, 0]
    (row,) = by_model(records, ["sasrec"], rank)["models"]
    assert (row["trial"], row["best"]) == (1, 40.0)


def test_a_trial_of_equal_scores_is_no_best() -> None:
    """Its metric by the standard rule is perfect, and counts for what it is worth."""
    constant = record(
        2, [1.0, 1.0], tied=[1.0, 1.0], conservative=[{"mrr@20": 0.001}, {"mrr@20": 0.002}]
    )
    assert [one.number for one in best_first([constant, *RECORDS], MRR)] == [1, 0, 2]
    assert constant.curve(MRR) == [0.001, 0.002]
    assert constant.worth(MRR) == pytest.approx(0.0015)
