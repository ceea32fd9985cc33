"""Ranks and metrics against arithmetic by hand and against plain counting."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paropt.errors import Diverged, TrainingError
from paropt.training.batches import plans
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import TIES
from paropt.training.evaluation.ranking import judging, measures, ranks
from paropt.training.registry import Catalogue, Facts, Model, SequenceBatch

# one score row per target by one-hot vectors: table[i, t] is item i's score for target t
SCORES = torch.tensor([[5.0, 1.0], [3.0, 1.0], [3.0, 1.0], [1.0, 0.0]])  # [4 items, 2 targets]
TWO = torch.eye(2)


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        # item 1 for target 0: one above, itself and item 2 equal; item 2 for target 1: three equal
        ("standard", [2, 1]),
        ("conservative", [3, 3]),
        ("median", [2.5, 2]),
    ],
)
def test_ties(ties: Any, expected: list[float]) -> None:
    assert ranks.rank(TWO, torch.tensor([1, 2]), SCORES, ties=ties).tolist() == expected


def test_bias_is_added() -> None:
    bias = torch.tensor([0.0, 10.0, 0.0, 0.0])
    assert ranks.rank(TWO, torch.tensor([1, 0]), SCORES, bias).tolist() == [1, 2]


def test_excluded_items_are_no_candidates_and_the_target_always_is() -> None:
    rows, items = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 3])
    for chunk_bytes in (ranks.CHUNK_BYTES, 1):
        found = ranks.rank(
            TWO,
            torch.tensor([1, 2]),
            SCORES,
            ties="conservative",
            exclude=(rows, items),
            chunk_bytes=chunk_bytes,
        )
        assert found.tolist() == [2, 3]


def test_metrics_by_hand() -> None:
    ranks = np.array([1.0, 2.0, 5.0, 21.0])
    metrics = judging.metrics_of(ranks, (1, 5, 20))
    assert metrics == pytest.approx(
        {
            "recall@1": 1 / 4,
            "mrr@1": 1 / 4,
            "ndcg@1": 1 / 4,
            "recall@5": 3 / 4,
            "mrr@5": (1 + 1 / 2 + 1 / 5) / 4,
            "ndcg@5": (1 + 1 / math.log2(3) + 1 / math.log2(6)) / 4,
            "recall@20": 3 / 4,
            "mrr@20": (1 + 1 / 2 + 1 / 5) / 4,
            "ndcg@20": (1 + 1 / math.log2(3) + 1 / math.log2(6)) / 4,
        },
        abs=1e-15,
    )


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_chunks_change_nothing(ties: Any, rows: int) -> None:
    source = torch.Generator().manual_seed(1)
    # few distinct scores, so that ties are everywhere; exact in float32
    vectors = torch.randint(-2, 3, (50, 3), generator=source).float()
    table = torch.randint(-2, 3, (70, 3), generator=source).float()
    bias = torch.randint(-1, 2, (70,), generator=source).float()
    targets = torch.randint(0, 70, (50,), generator=source)
    found = ranks.rank(vectors, targets, table, bias, ties=ties, chunk_bytes=rows * 4 * 70)
    for vector, target, rank in zip(vectors, targets.tolist(), found.tolist(), strict=True):
        scores = [float(vector @ row + b) for row, b in zip(table, bias, strict=True)]
        above = sum(score > scores[target] for score in scores)
        at_least = sum(score >= scores[target] for score in scores)
        middle = 1 + above + 0.5 * (at_least - above - 1)
        assert rank == {"standard": 1 + above, "conservative": at_least, "median": middle}[ties]


def test_rounding_makes_no_rank() -> None:
    """Twins of the target tie with it exactly, whatever the order of the product's sums."""
    source = torch.Generator().manual_seed(2)
    vectors = torch.randn(64, 257, generator=source)
    one = torch.randn(1, 257, generator=source)
    table = one.repeat(300, 1)
    targets = torch.randint(0, 300, (64,), generator=source)
    assert ranks.rank(vectors, targets, table).tolist() == [1] * 64
    assert ranks.rank(vectors, targets, table, ties="conservative").tolist() == [300] * 64


def test_memory_is_bounded_whatever_the_catalogue() -> None:
    million, cpu = 1_000_000, torch.device("cpu")
    assert 4 * million * ranks.chunk_rows(million, cpu) <= ranks.CHUNK_BYTES
    assert ranks.chunk_rows(million, cpu) > 1
    assert ranks.chunk_rows(10**9, cpu) == 1
    assert ranks.chunk_rows(10, cpu) == ranks.CHUNK_ROWS["cpu"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e38])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    table = SCORES.clone()
    table[3, 0] = bad
    with pytest.raises(Diverged, match="a score is not finite"):
        ranks.rank(10 * TWO, torch.tensor([0, 0]), table)


def test_large_but_finite_scores_are_fine() -> None:
    assert ranks.rank(TWO, torch.tensor([1, 2]), SCORES * (1e38 / 2)).tolist() == [2, 1]


# -- a model's evaluation --------------------------------------------------------------------


class Repeats(Model):
    """Scores the last item highest, then the one after it."""

    def __init__(self, n_items: int, own: dict[str, float] | None = None) -> None:
        super().__init__({}, Catalogue(Facts(n_items, 1, 1, 1, True), torch.ones(n_items)), 0)
        self.table = torch.nn.Parameter(torch.eye(n_items))
        self.own = own

    def encode(self, batch: SequenceBatch) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        n_items = len(self.table)
        vectors = torch.eye(n_items)[batch.items]
        vectors = vectors + 0.5 * torch.eye(n_items)[(batch.items + 1) % n_items]
        return vectors[batch.targets >= 0]

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return self.table, None

    def evaluate(self, batches: Any) -> dict[str, float] | None:
        return self.own


class Windowed(Repeats):
    """The same, reading no more than ``longest`` events."""

    longest: int | None = None

    @property
    def max_length(self) -> int | None:
        return self.longest


def split_of(sessions: list[list[int]]) -> Any:
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(s) for s in sessions])))
    times = np.arange(len(items))
    return SimpleNamespace(
        items=items, times=times, offsets=offsets, targets=np.ones(len(items), bool)
    )


def test_evaluate_counts_targets_and_unknown() -> None:
    # targets: 1 after 0 (rank 2), 1 after 1 (rank 1); item 9 is unknown and drops out
    model = Repeats(5).train()
    found = judging.evaluate(model, split_of([[0, 9, 1, 1], [3]]), 5, at=(1, 2))
    assert sorted(found.ranks.tolist()) == [1, 2]
    assert (found.targets, found.unknown) == (2, 1)
    assert found.metrics["mrr@2"] == 0.75
    assert found.metrics["recall@1"] == 0.5
    assert model.training


def test_ranks_come_with_their_sessions_of_the_split() -> None:
    """Those that are empty without their unknown items count on; windows change nothing."""
    sessions = [[0, 1, 1], [9, 9], [3], [0, 3, 4, 9, 4], [8], [2, 2]]
    for longest in (None, 1):
        model = Windowed(5)
        model.longest = longest
        found = judging.evaluate(model, split_of(sessions), 5)
        by_session = {
            number: sorted(found.ranks[found.sessions == number].tolist())
            for number in set(found.sessions.tolist())
        }
        # 1 after 0: rank 2, 1 after 1: rank 1; 3 after 0: like 2 and 4; 4 after 3: 2; 4 after 4: 1
        assert by_session == {0: [1, 2], 3: [1, 2, 3], 5: [1]}


def test_evaluate_with_the_history_filtered() -> None:
    # 1 after 0: 0 is out of the way, rank 1; 0 after (0, 1): it is the target and stays, but its
    # score is 0 like those of 3 and 4, while 1 is filtered and 2 scores 0.5
    found = judging.evaluate(
        Repeats(5), split_of([[0, 1, 0]]), 5, at=(5,), filter_seen=True, ties="conservative"
    )
    assert sorted(found.ranks.tolist()) == [1, 4]


def test_a_models_own_metrics_are_taken_and_checked() -> None:
    found = judging.evaluate(Repeats(5, {"auc": 0.75}), split_of([[0, 1]]), 5)
    assert found.metrics == {"auc": 0.75}
    with pytest.raises(Diverged, match="the metric auc is nan"):
        judging.evaluate(Repeats(5, {"auc": math.nan}), split_of([[0, 1]]), 5)


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(TrainingError, match="nothing to predict"):
        judging.evaluate(Repeats(5), split_of([[0], [7, 8]]), 5)


# -- equal scores, sums, coverage ------------------------------------------------------------


class Told(Repeats):
    """Scores item i for the target after item j with ``scores[j, i]``."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__(scores.shape[1])
        self.scores = scores

    def encode(self, batch: SequenceBatch) -> Tensor:
        return self.scores[batch.items][batch.targets >= 0]


def many_pairs(n_items: int, sessions: int) -> Any:
    source = np.random.default_rng(3)
    return split_of([source.integers(0, n_items, 3).tolist() for _ in range(sessions)])


# a large catalogue is screened; of many targets only some are looked at first
@pytest.mark.parametrize(("n_items", "sessions"), [(50, 20), (50, 2200), (1300, 20)])
def test_a_constant_model_says_that_its_scores_are_equal(n_items: int, sessions: int) -> None:
    constant = Told(torch.ones(n_items, n_items))
    found = judging.evaluate(constant, many_pairs(n_items, sessions), n_items, at=(20,))
    assert found.metrics["mrr@20"] == 1.0
    assert found.tied == 1.0
    assert found.conservative["mrr@20"] == 0.0


@pytest.mark.parametrize(("n_items", "sessions"), [(50, 2200), (1300, 20)])
def test_a_model_that_tells_items_apart_has_no_equal_scores(n_items: int, sessions: int) -> None:
    source = torch.Generator().manual_seed(4)
    apart = Told(torch.randn(n_items, n_items, generator=source))
    found = judging.evaluate(apart, many_pairs(n_items, sessions), n_items, at=(20,))
    assert found.tied == 0.0
    assert found.conservative == {}


def test_equal_scores_count_where_a_metric_sees_them() -> None:
    """Item 1 after 0 ties with 2 at rank 1; 4 after 3 ties with 1 and 2 behind two others."""
    scores = torch.zeros(5, 5)
    scores[0] = torch.tensor([0.0, 9, 9, 1, 2])
    scores[3] = torch.tensor([9.0, 1, 1, 8, 1])
    split = split_of([[0, 1], [3, 4]])
    shallow = judging.evaluate(Told(scores), split, 5, at=(2,))
    assert (shallow.tied, shallow.metrics["recall@2"]) == (0.5, 0.5)
    assert shallow.conservative["mrr@2"] == (1 / 2 + 0) / 2
    deep = judging.evaluate(Told(scores), split, 5, at=(2,), also=("mrr", "avg_rank"))
    assert deep.tied == 1.0
    assert deep.metrics["mrr"] == (1 + 1 / 3) / 2
    assert deep.metrics["avg_rank"] == (1 + 3) / 2
    assert deep.conservative["avg_rank"] == (2 + 5) / 2


def test_a_sum_is_reported_with_its_standard_error() -> None:
    batches = plans.evaluation(many_pairs(30, 200), 30, None, 64)
    source = torch.Generator().manual_seed(5)
    model = Told(torch.randn(30, 30, generator=source))
    wanted = Objective.parse("0.31*hr@10+0.69*ndcg@3")
    found = judging.judge(
        model, batches, at=(20,), ties="standard", filter_seen=False, objective=wanted
    )
    gains = 0.31 * (found.ranks <= 10) + 0.69 * np.where(
        found.ranks <= 3, 1 / np.log2(found.ranks + 1), 0
    )
    assert found.metrics[wanted.metric] == pytest.approx(gains.mean(), abs=1e-15)
    by_session = [gains[found.sessions == s] - gains.mean() for s in range(200)]
    squares = sum(float(each.sum()) ** 2 for each in by_session)
    error = math.sqrt(200 / 199 * squares) / len(gains)
    assert found.stderr[wanted.metric] == pytest.approx(error, rel=1e-12)
    assert found.n_sessions == 200


def test_coverage_is_the_share_of_items_that_anybody_is_shown() -> None:
    scores = torch.tensor([[9.0, 8, 7, 1], [9, 8, 7, 1], [1, 2, 3, 4], [0, 0, 0, 0]])
    split = split_of([[0, 1], [1, 2], [2, 0]])
    also = ("coverage@1", "coverage@2")
    found = judging.evaluate(Told(scores), split, 4, at=(1,), also=also)
    assert found.metrics["coverage@1"] == 2 / 4  # 0, 0 and 3
    assert found.metrics["coverage@2"] == 4 / 4  # 0 1, 0 1 and 3 2
    assert "coverage@1" not in found.stderr
    fresh = judging.evaluate(Told(scores), split, 4, at=(1,), also=also, filter_seen=True)
    assert fresh.metrics["coverage@1"] == 3 / 4  # 1 after 0, 0 after 1, 3 after 2


def test_what_is_recommended_is_told_by_counts_and_popularity() -> None:
    """Shown at 2: 0 1, 0 1, 3 2, so c = 2 2 1 1; items have 8, 4, 2 and 2 of 16 events."""
    scores = torch.tensor([[9.0, 8, 7, 1], [9, 8, 7, 1], [1, 2, 3, 4], [0, 0, 0, 0]])
    model = Told(scores)
    support = torch.tensor([8, 4, 2, 2])
    model.catalogue = replace(model.catalogue, support=support)
    split = split_of([[0, 1], [1, 2], [2, 0]])
    also = ("gini@2", "novelty@2", "popularity_lift@2", "gini@9")
    found = judging.evaluate(model, split, 4, at=(1,), also=also).metrics
    assert found["gini@2"] == pytest.approx((-3 * 1 - 1 * 1 + 1 * 2 + 3 * 2) / (4 * 6))
    assert found["gini@9"] == 0  # everybody is shown all four
    assert found["novelty@2"] == pytest.approx((2 * 1 + 2 * 2 + 1 * 3 + 1 * 3) / 6)
    shown, histories = (2 * 8 + 2 * 4 + 2 + 2) / 6, (8 + 4 + 2) / 3
    assert found["popularity_lift@2"] == pytest.approx(shown / histories - 1)
    fresh = judging.evaluate(model, split, 4, at=(1,), also=also, filter_seen=True).metrics
    assert fresh["popularity_lift@2"] == pytest.approx((4 + 2 + 8 + 2 + 2 + 4) / 6 / histories - 1)
    # of three candidates each all are shown at 9: 1 2 3, 0 2 3 and 0 1 3
    assert fresh["gini@9"] == pytest.approx((-3 * 2 - 1 * 2 + 1 * 2 + 3 * 3) / (4 * 9))


def test_latency_is_of_one_session_of_a_fixed_length() -> None:
    class Asked(Told):
        def encode(self, batch: SequenceBatch) -> Tensor:
            asked.append((tuple(batch.items.shape), torch.get_num_threads()))
            return super().encode(batch)

    asked: list[tuple[tuple[int, ...], int]] = []
    model = Asked(torch.eye(30))
    batches = plans.evaluation(many_pairs(30, 5), 30, None, 64)  # fewer events than it takes
    took = measures.latency_ms(model, batches)
    assert set(asked) == {((1, measures.EVENTS), 1)}
    assert len(asked) == measures.WARM_UP + measures.TIMED
    assert took > 0
