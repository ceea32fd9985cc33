"""Names, formulas and sums of metrics, the record of an epoch, and the one rule for the best."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from paropt.errors import ParamError
from paropt.search.study.summary import judged
from paropt.training import metrics
from paropt.training.evaluation import epochs
from paropt.training.evaluation.bootstrap import standard_errors
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective, flattered
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.words import cautions, coverage, experts

MRR = Objective("mrr@20")
RANKS = np.array([1.0, 4.0, 30.0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recall@4", 2 / 3),
        ("mrr@4", (1 + 1 / 4) / 3),
        ("ndcg@4", (1 + 1 / math.log2(5)) / 3),
        ("mrr@3", 1 / 3),
        ("mrr", (1 + 1 / 4 + 1 / 30) / 3),
        ("avg_rank", 35 / 3),
    ],
)
def test_formulas(name: str, value: float) -> None:
    assert metrics.means(RANKS, [name]) == {name: pytest.approx(value, abs=1e-15)}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("hr@10", "recall@10"),
        ("HIT@5", "recall@5"),
        ("NDCG@100", "ndcg@100"),
        ("mrr", "mrr"),
        ("Avg_Rank", "avg_rank"),
        ("coverage@20", "coverage@20"),
        ("Popularity_Lift@5", "popularity_lift@5"),
        (" 0.31*hr@10 + 0.69*ndcg@10 ", "0.31*recall@10+0.69*ndcg@10"),
        ("hr@10+hit@10", "2*recall@10"),
        ("ndcg@10-1e-3*avg_rank", "ndcg@10-0.001*avg_rank"),
        ("ndcg@10 - mrr@5 + 2*mrr@5", "ndcg@10+mrr@5"),
    ],
)
def test_a_metric_has_one_spelling(typed: str, name: str) -> None:
    once = Objective.parse(typed)
    assert once.metric == name
    assert Objective.parse(once.metric) == once


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("recall", "did you mean recall@20"),
        ("ngcg@10", "did you mean ndcg@10"),
        ("precision@5", "recall@k"),
        ("avg_rank@5", "no cut-off"),
        ("popularity_lft@5", "did you mean popularity_lift@5"),
        ("latency_ms", "--constraint limits"),
        ("mrr@0", "not 'mrr@0'"),
        ("hr@10*0.3+mrr@5", "from '*0.3+mrr@5' on"),
        ("mrr@20+avg_rank", "opposite signs"),
        ("mrr@20-mrr@20", "weight 0"),
        ("", "not ''"),
        ("mrr@20+" * 30 + "mrr@20", "characters"),
    ],
)
def test_what_is_no_metric_is_refused_in_a_sentence(typed: str, told: str) -> None:
    with pytest.raises(ParamError) as refused:
        Objective.parse(typed)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_directions() -> None:
    assert Objective.parse("mrr@20").larger
    assert not Objective.parse("avg_rank").larger
    assert not Objective.parse("gini@10").larger
    assert Objective.parse("novelty@10-popularity_lift@10").larger
    assert Objective.parse("ndcg@10-0.001*avg_rank").larger
    assert not Objective.parse("avg_rank-2*ndcg@10").larger
    own = {"log-loss": "minimize", "auc": "maximize"}
    assert Objective.parse("log-loss", own) == Objective("log-loss", "minimize")
    assert Objective.parse("0.5*auc+mrr@5", own).names == ["auc", "mrr@5"]
    with pytest.raises(ParamError, match="reports log-loss, auc"):
        Objective.parse("accuracy", own)


def test_a_sum_is_worth_what_its_parts_are() -> None:
    both = Objective.parse("0.31*hr@10+0.69*ndcg@5")
    assert both.at == [5, 10]
    assert both.of({"recall@10": 0.5, "ndcg@5": 0.2}) == pytest.approx(0.31 * 0.5 + 0.69 * 0.2)
    assert both.of({"recall@10": 0.5}) is None
    assert both.of({both.metric: 0.7, "recall@10": 0.5}) == 0.7


def test_a_steady_trial_is_better_than_a_lucky_epoch() -> None:
    lucky, steady = [0.10, 0.30, 0.12, 0.11], [0.25, 0.26, 0.27, 0.28]
    assert MRR.steady(lucky) == pytest.approx((0.30 + 0.12 + 0.11) / 3)
    assert MRR.steady(steady) == pytest.approx((0.26 + 0.27 + 0.28) / 3)
    assert MRR.steady([None, 0.2]) == 0.2
    assert MRR.steady([None]) is None
    small = Objective("avg_rank", "minimize")
    assert small.steady([9, 5, 7, 6]) == 6
    assert small.best_epoch([9, None, 5, 7, 5]) == (3, 5)
    assert MRR.best_epoch([0.1, 0.3, 0.3]) == (2, 0.3)
    assert small.best([4, None, 2]) == 2
    assert small.better(2, 3) and not small.better(3, 3)


def report(tied: float, value: float = 1.0) -> EpochReport:
    return EpochReport(1, {"mrr@20": value}, tied=tied, conservative={"mrr@20": 0.01})


def test_many_equal_scores_count_against_their_trial() -> None:
    assert not flattered(report(0.01))
    assert MRR.value(report(0.01)) == 1.0
    assert flattered(report(0.02))
    assert MRR.value(report(0.02)) == 0.01
    # of paropt 0.1, or of a model that judges itself
    assert MRR.value(EpochReport(1, {"mrr@20": 0.4})) == 0.4


def test_left_out_targets_as_misses() -> None:
    assert MRR.with_misses(0.75, 1932, 9155) == pytest.approx(0.75 * 1932 / 11087)
    assert Objective("avg_rank", "minimize").with_misses(3.0, 5, 5) is None
    assert MRR.with_misses(0.0, 0, 0) is None


def test_what_a_model_is_told_of_its_targets_is_said() -> None:
    lucky = EpochReport(1, {"mrr@20": 0.4}, targets=5000, extra={"given": ["act"]})
    found = judged(0.4, lucky, MRR)
    assert found["given"] == ["act"]
    (line,) = cautions(found, MRR)
    assert "was told each target's own act, as a request would say" in line
    assert cautions({"targets": 5000, "extra": {"given": ["act"]}}, MRR) == [line]
    assert not cautions(judged(0.4, EpochReport(1, {"mrr@20": 0.4}, targets=5000), MRR), MRR)


def test_what_a_model_judged_itself_by_are_no_targets() -> None:
    own = judged(0.4, EpochReport(1, {"auc": 0.4}, targets=56_000, sessions=800), Objective("auc"))
    assert coverage(own) == "the model judged itself, over 800 sessions, users or items"
    assert cautions(own, Objective("auc")) == [
        "the model judged itself over 800 only: numbers are rough"
    ]
    ranked = EpochReport(1, {"mrr@20": 0.4}, targets=56_000, sessions=800, tied=0.0)
    assert coverage(judged(0.4, ranked, MRR)) == "56,000 targets ranked, of 800 sessions"


def test_an_epoch_survives_the_wire_and_the_database() -> None:
    first = EpochReport(
        1, {"mrr@20": 0.1, "recall@20": 0.2}, loss=2.5, seconds=3.0, stage="main", targets=10,
        unknown=2, sessions=5, tied=0.5, conservative={"mrr@20": 0.0}, stderr={"mrr@20": 0.01},
        extra={"experts": [1, 2]},
    )  # fmt: skip
    third = EpochReport(3, {"mrr@20": 0.3})
    sent = json.loads(json.dumps({"event": "epoch", "trial": 1, **first.to_json()}))
    assert EpochReport.from_json(sent) == first
    kept = json.loads(json.dumps(epochs.columns([first, third])))
    assert kept["mrr@20"] == [0.1, None, 0.3]
    assert kept["loss"] == [2.5, None, None]
    assert epochs.reports(kept) == [first, third]
    assert MRR.curve(epochs.reports(kept)) == [0.0, None, 0.3]
    # told again from an earlier epoch on, what came later is gone
    again = epochs.extended(kept, EpochReport(2, {"mrr@20": math.nan, "recall@20": 0.4}))
    assert again["mrr@20"] == [0.1, None]
    assert again["recall@20"] == [0.2, 0.4]


@pytest.mark.parametrize("message", [{}, {"epoch": 0, "metrics": {}}, {"epoch": 1, "metrics": 3}])
def test_what_is_no_epoch_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^(an epoch is|epoch 1 reports)"):
        EpochReport.from_json(message)


def test_what_paropt_0_1_did_not_say_of_its_evaluation() -> None:
    assert EvaluationProtocol.from_json({}) == EvaluationProtocol(False, "standard", "all")
    loo = EvaluationProtocol.of_data("leave-one-out")
    assert loo.filter_seen and not EvaluationProtocol.of_data("time").filter_seen
    assert loo.asked(None, "median") == EvaluationProtocol(True, "median")
    assert loo.asked(False, None).words() == "history not filtered, standard ties"
    assert EvaluationProtocol.from_json(loo.to_json()) == loo


# -- standard errors ----------------------------------------------------------------------------


def test_the_standard_error_of_a_proportion() -> None:
    """One target per session: √(p(1 - p) / (n - 1))."""
    hits = np.array([1.0] * 30 + [0.0] * 70)
    found = standard_errors({"recall@5": hits}, np.arange(100))
    assert found["recall@5"] == pytest.approx(math.sqrt(0.3 * 0.7 / 99), abs=1e-15)
    low, high = Objective("recall@5").interval(0.3, found["recall@5"])
    assert (low, high) == pytest.approx((0.3 - 1.96 * 0.046057, 0.3 + 1.96 * 0.046057), abs=1e-4)


def test_an_interval_stays_where_there_are_such_means() -> None:
    assert Objective("mrr@20").interval(0.84, 0.16) == (pytest.approx(0.84 - 1.96 * 0.16), 1.0)
    assert Objective("mrr").interval(0.1, 0.2) == (0.0, pytest.approx(0.1 + 1.96 * 0.2))
    assert Objective("avg_rank", "minimize").interval(9.0, 1.0)[1] > 1.0
    assert Objective("3*mrr@20").interval(2.9, 0.2)[1] > 1.0


def test_ten_equal_targets_of_a_session_say_no_more_than_one() -> None:
    hits = np.array([1.0] * 3 + [0.0] * 7)
    once = standard_errors({"m": hits}, np.arange(10))
    tens = standard_errors({"m": np.repeat(hits, 10)}, np.repeat(np.arange(10), 10))
    assert tens["m"] == pytest.approx(once["m"], abs=1e-15)


def test_of_a_single_session_no_error_is_known() -> None:
    assert standard_errors({"m": np.ones(5)}, np.zeros(5, dtype=np.int64)) == {}


def test_how_experts_work_is_said_in_a_line() -> None:
    loads = (
        {"load": [0.5, 0.3, 0.2, 0.0], "dead": 1},
        {"load": [0.31, 0.23, 0.23, 0.23], "dead": 0},
    )
    assert experts({"experts": list(loads)}) == "experts: busiest 31–50 %, 1 of 8 dead"
    assert experts({"experts": [loads[0]]}) == "experts: busiest 50 %, 1 of 4 dead"
    assert experts({"similarity": {}}) == ""
